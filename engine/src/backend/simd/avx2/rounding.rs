//! Rounding activations to signed bytes.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::activations::per_step;
use super::vector::{load_f32, store_i8};
use crate::quant::SUPER;

/// The largest magnitude, NaN above all: as integers, magnitudes order like that.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest(values: &[[f32; 8]]) -> f32 {
    let magnitude = _mm256_set1_epi32(0x7FFF_FFFF);
    let mut max = _mm256_setzero_si256();
    for values in values {
        let bits = _mm256_and_si256(_mm256_castps_si256(load_f32(values)), magnitude);
        max = _mm256_max_epu32(max, bits);
    }
    let four = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256::<1>(max));
    let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
    f32::from_bits(_mm_cvtsi128_si32(one) as u32)
}

/// Rounds 32 values to nearest, ties to even.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn round(values: &[f32; 32], inverse: __m256, quants: &mut [i8; 32]) {
    let words = |i: usize| {
        let values = load_f32(&values.as_chunks::<8>().0[i]);
        _mm256_cvtps_epi32(_mm256_mul_ps(values, inverse))
    };
    // Packing works within halves: the bytes come out in groups of four, 0 2 4 6 1 3 5 7.
    let low = _mm256_packs_epi32(words(0), words(1));
    let high = _mm256_packs_epi32(words(2), words(3));
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    store_i8(_mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order), quants);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn round_block(values: &[f32; 32], quants: &mut [i8; 32]) -> (f32, i32) {
    let max = largest(values.as_chunks::<8>().0);
    round(values, _mm256_set1_ps(per_step(max)), quants);
    (max / 127.0, quants.iter().map(|&quant| i32::from(quant)).sum())
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn round_super(
    values: &[f32; SUPER],
    quants: &mut [i8; SUPER],
    sums: &mut [i16; SUPER / 16],
) -> f32 {
    let max = largest(values.as_chunks::<8>().0);
    let inverse = _mm256_set1_ps(per_step(max));
    for (values, quants) in values.as_chunks().0.iter().zip(quants.as_chunks_mut().0) {
        round(values, inverse, quants);
    }
    for (sum, quants) in sums.iter_mut().zip(quants.as_chunks::<16>().0) {
        *sum = quants.iter().map(|&quant| i16::from(quant)).sum();
    }
    max / 127.0
}
