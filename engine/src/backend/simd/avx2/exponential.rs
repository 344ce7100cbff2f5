//! The exponential function, eight values at once, and what is made of it.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::vector::{load_f32, store_f32};

/// Beyond these the result is zero, or stays at the largest power that is finite.
const SMALLEST: f32 = -87.33;
const LARGEST: f32 = 88.37;
/// ln 2 in two parts, the first of which has few bits: whole multiples of it are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Of the polynomial for (exp(r) - 1 - r) / r^2 where |r| <= ln 2 / 2, highest power first (Cephes).
const COEFFICIENTS: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];

/// exp(x), by at most two units in the last place; NaN stays NaN.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn exp(x: __m256) -> __m256 {
    let smallest = _mm256_set1_ps(SMALLEST);
    // Of a number and NaN, the second operand is taken.
    let inside = _mm256_min_ps(_mm256_set1_ps(LARGEST), _mm256_max_ps(smallest, x));
    let scaled = _mm256_mul_ps(inside, _mm256_set1_ps(std::f32::consts::LOG2_E));
    let power = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled);
    let r = _mm256_fnmadd_ps(power, _mm256_set1_ps(LN_2[0]), inside);
    let r = _mm256_fnmadd_ps(power, _mm256_set1_ps(LN_2[1]), r);
    let mut sum = _mm256_setzero_ps();
    for coefficient in COEFFICIENTS {
        sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(coefficient));
    }
    let sum = _mm256_fmadd_ps(_mm256_mul_ps(sum, r), r, r);
    let sum = _mm256_add_ps(sum, _mm256_set1_ps(1.0));
    let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(power));
    let y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), exponent));
    // NaN is not below anything, and the power of it is not a number to add to an exponent.
    let y = _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
    _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, smallest), y)
}

/// `x = exp(x - shift)`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn exp_from(x: &mut [f32], shift: f32) {
    let shift = _mm256_set1_ps(shift);
    let (eights, rest) = x.as_chunks_mut::<8>();
    for x in eights {
        store_f32(exp(_mm256_sub_ps(load_f32(x), shift)), x);
    }
    let mut last = [0.0; 8];
    last[..rest.len()].copy_from_slice(rest);
    store_f32(exp(_mm256_sub_ps(load_f32(&last), shift)), &mut last);
    rest.copy_from_slice(&last[..rest.len()]);
}

/// `gate = gate / (1 + exp(-gate)) * up`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let ((gates, gates_rest), (ups, ups_rest)) = (gate.as_chunks_mut::<8>(), up.as_chunks::<8>());
    for (gate, up) in gates.iter_mut().zip(ups) {
        store_f32(silu_mul_eight(load_f32(gate), load_f32(up)), gate);
    }
    let (mut gate, mut up) = ([0.0; 8], [0.0; 8]);
    gate[..gates_rest.len()].copy_from_slice(gates_rest);
    up[..ups_rest.len()].copy_from_slice(ups_rest);
    store_f32(silu_mul_eight(load_f32(&gate), load_f32(&up)), &mut gate);
    gates_rest.copy_from_slice(&gate[..gates_rest.len()]);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn silu_mul_eight(gate: __m256, up: __m256) -> __m256 {
    let power = exp(_mm256_xor_ps(gate, _mm256_set1_ps(-0.0)));
    let sum = _mm256_add_ps(_mm256_set1_ps(1.0), power);
    _mm256_mul_ps(_mm256_div_ps(gate, sum), up)
}
