//! Quantised blocks: one file per block type, one trait over all of them.
//!
//! A block packs a fixed number of values with their scales. Reading a whole row dispatches once on the
//! dtype and then runs over blocks; lengths are part of the types, so a wrong block length does not compile.
//! The layouts are those of the GGUF specification (ggml block formats) and of APR v2. This module knows
//! nothing of tensors, files or instruction sets; the fast products live in the backends.

use half::f16;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};

pub mod apr_q4;
pub mod apr_q8;
mod float;
pub(crate) mod k_scales;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod q8_k;
mod search;
pub mod statistics;
#[cfg(test)]
mod tests;

pub use apr_q4::AprQ4;
pub use q2_k::Q2K;
pub use q3_k::Q3K;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4K;
pub use q5_0::Q5_0;
pub use q5_1::Q5_1;
pub use q5_k::Q5K;
pub use q6_k::Q6K;
pub use q8_0::Q8_0;
pub use q8_k::Q8K;
pub use statistics::Statistics;

/// Values in a super-block of the K-quants.
pub const SUPER: usize = 256;

/// `LEN` values packed with their scales, exactly as files store them.
///
/// Every field is little-endian and needs no alignment, so any byte range of the right length is a block.
pub trait Block<const LEN: usize>: FromBytes + IntoBytes + Immutable + Unaligned + Copy {
    /// The dtype whose blocks these are.
    const DTYPE: Dtype;

    /// Writes the values. Scales follow IEEE 754: subnormal, negative and NaN scales mean what they say.
    fn dequantize(&self, out: &mut [f32; LEN]);

    /// Packs finite values. Values that are not finite give an unspecified block; [`quantize_row`] refuses them.
    fn quantize(values: &[f32; LEN]) -> Self;
}

/// Writes the values of one row of `dtype` blocks into `out`.
///
/// `bytes` may hold more values than `out` (a row padded to whole blocks); the surplus is dropped.
///
/// # Errors
/// [`Code::TensorBytes`] when `bytes` holds fewer values than `out`, [`Code::DtypeUnsupported`] for
/// integer and flat dtypes.
pub fn dequantize_row(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64 => float::dequantize(dtype, bytes, out),
        Dtype::Q4_0 => unpack::<32, Q4_0>(bytes, out),
        Dtype::Q4_1 => unpack::<32, Q4_1>(bytes, out),
        Dtype::Q5_0 => unpack::<32, Q5_0>(bytes, out),
        Dtype::Q5_1 => unpack::<32, Q5_1>(bytes, out),
        Dtype::Q8_0 => unpack::<32, Q8_0>(bytes, out),
        Dtype::Q2K => unpack::<SUPER, Q2K>(bytes, out),
        Dtype::Q3K => unpack::<SUPER, Q3K>(bytes, out),
        Dtype::Q4K => unpack::<SUPER, Q4K>(bytes, out),
        Dtype::Q5K => unpack::<SUPER, Q5K>(bytes, out),
        Dtype::Q6K => unpack::<SUPER, Q6K>(bytes, out),
        Dtype::Q8K => unpack::<SUPER, Q8K>(bytes, out),
        Dtype::I8
        | Dtype::I16
        | Dtype::I32
        | Dtype::I64
        | Dtype::U8
        | Dtype::AprQ4
        | Dtype::AprQ8 => Err(unsupported(dtype)),
    }
}

/// Writes `out.len()` values, beginning with value `start` of the flattened tensor, of a flat dtype.
///
/// # Errors
/// [`Code::TensorBytes`] when the bytes end early, [`Code::DtypeUnsupported`] for other dtypes.
pub fn dequantize_flat(dtype: Dtype, bytes: &[u8], start: usize, out: &mut [f32]) -> Result<()> {
    match dtype {
        Dtype::AprQ4 => apr_q4::dequantize(bytes, start, out),
        Dtype::AprQ8 => apr_q8::dequantize(bytes, start, out),
        _ => Err(unsupported(dtype)),
    }
}

/// Appends one row of `values`, packed as `dtype`, to `out`.
///
/// A row of [`Dtype::AprQ4`] or [`Dtype::AprQ8`] is a whole flattened tensor: the first pads its last
/// block with zeros, the second writes its one scale in front.
///
/// # Errors
/// [`Code::TensorRagged`] when the row is not a whole number of blocks, [`Code::NonFinite`] when a value
/// to be packed into blocks is NaN or infinite, [`Code::DtypeUnsupported`] for integer dtypes.
/// `out` is unchanged after an error.
pub fn quantize_row(dtype: Dtype, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
    if dtype.is_quantized()
        && let Some(index) = values.iter().position(|value| !value.is_finite())
    {
        return Err(Error::new(Code::NonFinite)
            .expected("finite values to quantise")
            .found(format_args!("{} as value {index} of the row", values[index])));
    }
    if !dtype.is_flat() {
        dtype.row_bytes(values.len() as u64)?;
    }
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64 => {
            return float::quantize(dtype, values, out);
        }
        Dtype::Q4_0 => pack::<32, Q4_0>(values, out),
        Dtype::Q4_1 => pack::<32, Q4_1>(values, out),
        Dtype::Q5_0 => pack::<32, Q5_0>(values, out),
        Dtype::Q5_1 => pack::<32, Q5_1>(values, out),
        Dtype::Q8_0 => pack::<32, Q8_0>(values, out),
        Dtype::Q2K => pack::<SUPER, Q2K>(values, out),
        Dtype::Q3K => pack::<SUPER, Q3K>(values, out),
        Dtype::Q4K => pack::<SUPER, Q4K>(values, out),
        Dtype::Q5K => pack::<SUPER, Q5K>(values, out),
        Dtype::Q6K => pack::<SUPER, Q6K>(values, out),
        Dtype::Q8K => pack::<SUPER, Q8K>(values, out),
        Dtype::AprQ4 => apr_q4::quantize(values, out),
        Dtype::AprQ8 => apr_q8::quantize(values, out),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8 => {
            return Err(unsupported(dtype));
        }
    }
    Ok(())
}

/// Packs a row-major matrix of `cols` columns; the rows are those that `values` holds.
///
/// # Errors
/// As [`quantize_row`]; [`Code::TensorShape`] when `values` is not a whole number of rows.
pub fn quantize(dtype: Dtype, cols: usize, values: &[f32]) -> Result<Vec<u8>> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    if cols == 0 || !values.len().is_multiple_of(cols) {
        return Err(Error::new(Code::TensorShape)
            .expected(format_args!("a whole number of rows of {cols} values"))
            .found(format_args!("{} values", values.len())));
    }
    let mut out = Vec::new();
    if dtype.is_flat() {
        quantize_row(dtype, values, &mut out)?;
        return Ok(out);
    }
    out.reserve_exact(dtype.row_bytes(cols as u64)? as usize * (values.len() / cols));
    for row in values.chunks_exact(cols) {
        quantize_row(dtype, row, &mut out)?;
    }
    Ok(out)
}

fn unsupported(dtype: Dtype) -> Error {
    Error::new(Code::DtypeUnsupported).found(dtype)
}

fn too_short(dtype: Dtype, values: usize, bytes: usize) -> Error {
    Error::new(Code::TensorBytes)
        .expected(format_args!("{values} values of {dtype}"))
        .found(format_args!("{bytes} bytes"))
}

/// The blocks of `bytes`; a partial block at the end is left out.
pub(crate) fn blocks<const LEN: usize, B: Block<LEN>>(bytes: &[u8]) -> &[B] {
    let whole = bytes.len() - bytes.len() % size_of::<B>();
    // Blocks have no alignment and any bits are valid, so only the length could be wrong, and it is not.
    <[B]>::ref_from_bytes(&bytes[..whole]).unwrap_or_default()
}

fn unpack<const LEN: usize, B: Block<LEN>>(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let blocks = blocks::<LEN, B>(bytes);
    if blocks.len() < out.len().div_ceil(LEN) {
        return Err(too_short(B::DTYPE, out.len(), bytes.len()));
    }
    let (whole, rest) = out.as_chunks_mut::<LEN>();
    for (block, values) in blocks.iter().zip(&mut *whole) {
        block.dequantize(values);
    }
    if let Some(block) = blocks.get(whole.len()).filter(|_| !rest.is_empty()) {
        let mut values = [0.0; LEN];
        block.dequantize(&mut values);
        rest.copy_from_slice(&values[..rest.len()]);
    }
    Ok(())
}

fn pack<const LEN: usize, B: Block<LEN>>(values: &[f32], out: &mut Vec<u8>) {
    for values in values.as_chunks::<LEN>().0 {
        out.extend_from_slice(B::quantize(values).as_bytes());
    }
}

/// Writes the value of each quant. A loop, because mapping long arrays ends in a call per element.
#[inline]
fn fill<Q: Copy, V, const N: usize>(values: &mut [V; N], quants: &[Q; N], value: impl Fn(Q) -> V) {
    for (to, &quant) in values.iter_mut().zip(quants) {
        *to = value(quant);
    }
}

/// The value of a stored f16.
#[inline]
pub(crate) fn widen(raw: U16) -> f32 {
    f16::from_bits(raw.get()).to_f32()
}

/// The nearest f16, ties to even, as stored.
fn narrow(value: f32) -> U16 {
    U16::new(f16::from_f32(value).to_bits())
}

/// The value that lies farthest from zero; the first of several, so a row of -0.0 gives -0.0.
fn farthest(values: &[f32]) -> f32 {
    let first = values.first().copied().unwrap_or(0.0);
    values.iter().fold(first, |best, &value| if value.abs() > best.abs() { value } else { best })
}

/// `1 / step`, and 0 for a step of 0, as the ggml formats define their quantisers.
fn inverse(step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}
