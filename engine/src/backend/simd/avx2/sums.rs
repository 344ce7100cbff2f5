//! What the blocks of a row of K-quants add up to.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::vector::four_halves;

/// Running sums of a row of super-blocks: scales by quants in lane 0, minimums in lane 1.
#[derive(Clone, Copy)]
pub(in super::super) struct Sums(__m128);

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn zero() -> Self {
        Self(_mm_setzero_ps())
    }

    /// Adds `d` by `x_scale` by the sum of the integers `dots`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn add(&mut self, dots: __m256i, d: U16, x_scale: f32) {
        self.add_both(dots, _mm_setzero_si128(), [d, U16::ZERO], x_scale);
    }

    /// Adds the steps `d` and `dmin` by `x_scale` by the sums of the integers `dots` and `minimums`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn add_both(
        &mut self,
        dots: __m256i,
        minimums: __m128i,
        [d, dmin]: [U16; 2],
        x_scale: f32,
    ) {
        let dots = fold(dots);
        let pairs = _mm_hadd_epi32(dots, minimums);
        let sums = _mm_cvtepi32_ps(_mm_hadd_epi32(pairs, pairs));
        let steps = four_halves([d, dmin, U16::ZERO, U16::ZERO]);
        self.0 = _mm_fmadd_ps(sums, _mm_mul_ps(steps, _mm_set1_ps(x_scale)), self.0);
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn finish<const MINIMUMS: bool>(self) -> f32 {
        let dots = _mm_cvtss_f32(self.0);
        if MINIMUMS { dots - _mm_cvtss_f32(_mm_movehdup_ps(self.0)) } else { dots }
    }
}

/// Lanes i and i + 4 together.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn fold(lanes: __m256i) -> __m128i {
    _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes))
}
