//! APR-Q8: one f32 scale for the whole tensor, then one signed byte per value.

use super::{farthest, too_short};
use crate::dtype::Dtype;
use crate::error::Result;

/// Bytes of the scale, which stands in front of the values.
pub(crate) const STEP_BYTES: usize = size_of::<f32>();

/// Splits the bytes of a tensor into its scale and its quants; `None` when the scale is cut off.
pub(crate) fn split(bytes: &[u8]) -> Option<(f32, &[u8])> {
    let (scale, quants) = bytes.split_first_chunk()?;
    Some((f32::from_le_bytes(*scale), quants))
}

/// Writes values `start..start + out.len()` of the flattened tensor.
pub(super) fn dequantize(bytes: &[u8], start: usize, out: &mut [f32]) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let wanted = split(bytes).and_then(|(scale, quants)| {
        Some((scale, quants.get(start..start.checked_add(out.len())?)?))
    });
    let Some((scale, quants)) = wanted else {
        return Err(too_short(Dtype::AprQ8, start.saturating_add(out.len()), bytes.len()));
    };
    for (value, &quant) in out.iter_mut().zip(quants) {
        *value = f32::from(quant as i8) * scale;
    }
    Ok(())
}

/// Appends the whole tensor; an empty one takes no bytes. Rounds half away from zero.
pub(super) fn quantize(values: &[f32], out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let max = farthest(values).abs();
    let scale = if max == 0.0 { 1.0 } else { max / 127.0 };
    out.extend_from_slice(&scale.to_le_bytes());
    out.extend(values.iter().map(|value| (value / scale).round().clamp(-127.0, 127.0) as i8 as u8));
}
