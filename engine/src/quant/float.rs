//! Plain floating-point dtypes, little-endian as every supported format stores them.

use half::{bf16, f16};

use super::{too_short, unsupported};
use crate::dtype::Dtype;
use crate::error::Result;

/// Widens (F64: rounds) `bytes` to f32.
pub(super) fn dequantize(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if bytes.len() / dtype.block_bytes() < out.len() {
        return Err(too_short(dtype, out.len(), bytes.len()));
    }
    match dtype {
        Dtype::F32 => each(bytes, out, f32::from_le_bytes),
        Dtype::F16 => each(bytes, out, |raw| f16::from_le_bytes(raw).to_f32()),
        Dtype::BF16 => each(bytes, out, |raw| bf16::from_le_bytes(raw).to_f32()),
        Dtype::F64 => each(bytes, out, |raw| f64::from_le_bytes(raw) as f32),
        _ => return Err(unsupported(dtype)),
    }
    Ok(())
}

/// Appends `values` rounded to nearest, ties to even; what is too large for the dtype becomes infinite.
pub(super) fn quantize(dtype: Dtype, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
    match dtype {
        Dtype::F32 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Dtype::F16 => {
            out.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
        }
        Dtype::BF16 => {
            out.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()));
        }
        Dtype::F64 => out.extend(values.iter().flat_map(|&value| f64::from(value).to_le_bytes())),
        _ => return Err(unsupported(dtype)),
    }
    Ok(())
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    let (words, _) = bytes.as_chunks::<N>();
    for (value, &raw) in out.iter_mut().zip(words) {
        *value = convert(raw);
    }
}
