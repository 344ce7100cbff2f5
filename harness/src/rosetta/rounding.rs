//! How far storing a weight in a dtype may take it from what it was.

use apr_engine::{Dtype, Result};

use super::canonical::Canonical;

/// Half a step, and 127 times the half bit, 2^-11, of a step in half precision.
const EIGHT_BIT_STEPS: f64 = 0.5 + 127.0 / 2048.0;
/// Values that share a step in `Q8_0`.
const EIGHT_BIT_BLOCK: usize = 32;
/// The smallest normal number in half precision: smaller steps are all stored with the same rounding.
const SMALLEST_STEP: f64 = 1.0 / 16_384.0;

/// The largest root mean squared error of `weight` in `dtype`, relative to its root mean square.
///
/// For floats half a unit in the last place, and for 2 to 6 bits what the published grids cost normally distributed
/// values. The grid of eight bits costs what the largest value of each block makes its step, which no figure for all weights
/// bounds: it is computed.
///
/// # Errors
/// Those of dequantisation.
pub(super) fn limit(dtype: Dtype, weight: &Canonical<'_>) -> Result<f64> {
    Ok(match dtype {
        Dtype::F32 | Dtype::F64 => 2f64.powi(-24),
        Dtype::F16 => 2f64.powi(-11),
        Dtype::BF16 => 2f64.powi(-8),
        Dtype::Q8_0 => eight_bits(&weight.view()?.dequantize()?),
        Dtype::Q8K => 0.007,
        Dtype::AprQ8 => 0.012,
        Dtype::Q6K => 0.02,
        Dtype::Q5_1 | Dtype::Q5K => 0.04,
        Dtype::Q5_0 => 0.045,
        Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q4K => 0.09,
        Dtype::AprQ4 => 0.12,
        Dtype::Q3K => 0.18,
        Dtype::Q2K => 0.35,
        // Nothing is rounded to integers.
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8 => 0.0,
    })
}

/// What no value of `Q8_0` may exceed, as a root mean square over the weight.
fn eight_bits(values: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let total: f64 = values.iter().copied().map(square).sum();
    let allowed = |block: &[f32]| {
        let largest = block.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let error = EIGHT_BIT_STEPS * (f64::from(largest) / 127.0).max(SMALLEST_STEP);
        block.len() as f64 * error * error
    };
    let error: f64 = values.chunks(EIGHT_BIT_BLOCK).map(allowed).sum();
    if total > 0.0 { (error / total).sqrt() } else { 0.0 }
}
