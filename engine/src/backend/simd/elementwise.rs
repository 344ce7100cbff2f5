//! Everything but matrix products, one row or head at a time, in f32.
//!
use super::kernels::Kernels;
use crate::backend::Rope;
use crate::backend::host::activate;
use crate::model::config::Activation;
use crate::model::rope::RopeStyle;

/// `dst += x`.
pub(super) fn add(dst: &mut [f32], x: &[f32]) {
    for (dst, x) in dst.iter_mut().zip(x) {
        *dst += x;
    }
}

/// One row of a root-mean-square norm.
pub(super) fn rms_norm(kernels: &Kernels, dst: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let mean = kernels.dot(x, x) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for ((dst, x), gain) in dst.iter_mut().zip(x).zip(gain) {
        *dst = x * scale * gain;
    }
}

/// Rotates the heads of row `row`.
pub(super) fn rope(x: &mut [f32], row: usize, rope: &Rope<'_>) {
    let position = (rope.position + row) as f64;
    let half = rope.inverse_frequencies.len();
    // Computed once for all heads of the row.
    let turns: Vec<(f32, f32)> = rope
        .inverse_frequencies
        .iter()
        .map(|frequency| {
            let (sin, cos) = (position * f64::from(*frequency)).sin_cos();
            (sin as f32 * rope.stretch, cos as f32 * rope.stretch)
        })
        .collect();
    for head in x.chunks_exact_mut(rope.head_dim) {
        let rotated = &mut head[..2 * half];
        match rope.style {
            RopeStyle::Neox => {
                let (first, second) = rotated.split_at_mut(half);
                for ((a, b), turn) in first.iter_mut().zip(second).zip(&turns) {
                    rotate(a, b, *turn);
                }
            }
            RopeStyle::Adjacent => {
                for (pair, turn) in rotated.chunks_exact_mut(2).zip(&turns) {
                    let (a, b) = pair.split_at_mut(1);
                    rotate(&mut a[0], &mut b[0], *turn);
                }
            }
        }
    }
}

fn rotate(a: &mut f32, b: &mut f32, (sin, cos): (f32, f32)) {
    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
}

/// Probabilities of the scores in place; the sum runs in f64.
pub(super) fn softmax(kernels: &Kernels, scores: &mut [f32]) {
    (kernels.exp_from)(scores, largest(scores));
    let inverse = (1.0 / wide_sum(scores)) as f32;
    for score in scores {
        *score *= inverse;
    }
}

/// Values taken side by side, so that none waits for the one before it.
const LANES: usize = 8;

/// The largest of `values`, of which NaN is none.
fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, &value) in lanes.iter_mut().zip(values) {
            *lane = larger(*lane, value);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

fn wide_sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, &value) in lanes.iter_mut().zip(values) {
            *lane += f64::from(value);
        }
    }
    lanes.into_iter().chain(rest.iter().map(|&value| f64::from(value))).sum()
}

/// `gate = activation(gate) * up`.
pub(super) fn act_mul(kernels: &Kernels, gate: &mut [f32], up: &[f32], activation: Activation) {
    match activation {
        Activation::Silu => (kernels.silu_mul)(gate, up),
        Activation::GeluTanh => {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = (activate(activation, f64::from(*gate)) * f64::from(*up)) as f32;
            }
        }
    }
}

/// `x = cap * tanh(x / cap)`.
pub(super) fn soft_cap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * (*x / cap).tanh();
    }
}

/// Index of the first NaN or infinity. The usual answer, none, takes one pass without branches.
pub(super) fn first_non_finite(x: &[f32]) -> Option<usize> {
    // Zero times anything finite is zero; NaN and infinity give NaN, which stays.
    let mut traces = [0.0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for values in whole {
        for (trace, value) in traces.iter_mut().zip(values) {
            *trace += value * 0.0;
        }
    }
    let finite = traces.into_iter().all(|trace| trace == 0.0);
    if finite && rest.iter().all(|value| value.is_finite()) {
        return None;
    }
    x.iter().position(|value| !value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_finite_is_found_wherever_it_is() {
        for len in 0..40 {
            let finite: Vec<f32> = (0..len).map(|i| f32::MAX / 40.0 * i as f32).collect();
            assert_eq!(first_non_finite(&finite), None);
            for at in 0..len {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = finite.clone();
                    values[at] = bad;
                    values[len - 1] = f32::NAN;
                    assert_eq!(first_non_finite(&values), Some(at));
                }
            }
        }
    }
}
