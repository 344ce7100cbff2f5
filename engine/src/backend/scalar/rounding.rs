//! Rounding activations as another backend declares that it does.
//!
//! Written from the declaration, apart from the kernels it describes: a test holds the two together.

use crate::backend::arithmetic::Rounding;

/// Largest magnitude of a run that is rounded to zeros.
const VANISHED: f32 = 1e-36;
/// Steps from zero to the largest magnitude of a run.
const STEPS: f32 = 127.0;

/// What `row` becomes, exactly.
pub(in crate::backend) fn rounded(row: &[f32], rounding: Rounding) -> Vec<f64> {
    match rounding {
        Rounding::None => row.iter().map(|value| f64::from(*value)).collect(),
        Rounding::Bytes { block } => row.chunks(block.max(1)).flat_map(bytes).collect(),
    }
}

/// The values of one run that shares a scale.
fn bytes(run: &[f32]) -> Vec<f64> {
    if run.iter().any(|value| !value.is_finite()) {
        return vec![f64::NAN; run.len()];
    }
    let largest = run.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    if largest < VANISHED {
        return vec![0.0; run.len()];
    }
    let (steps, scale) = (STEPS / largest, largest / STEPS);
    run.iter()
        .map(|value| f64::from((value * steps).round_ties_even()) * f64::from(scale))
        .collect()
}
