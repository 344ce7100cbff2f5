//! Running sums of eight groups of quants at a time, a group to a lane.
//!
//! The values of a group are `step * quant - offset`. With S the sum of its quants and Q that of their squares, its
//! values sum to `T = step S - n offset` and their squares to `step² Q - offset (step S + T)`: S and Q are
//! exact, and the rest is done for eight groups at once. No value is made of any quant, except where a group could hold
//! a new extreme, a zero that is not told by its quant, or a value that is not finite: such groups are in doubt.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::vector::{lanes_u64, sum};
use super::look::Range;
use crate::quant::statistics::Statistics;

/// Eight groups of quants around zero.
#[derive(Clone, Copy)]
pub(super) struct Symmetric {
    pub(super) steps: __m256,
    pub(super) sums: __m256,
    pub(super) squares: __m256,
}

/// Eight groups of quants from zero up, from whose values an offset is taken.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub(super) steps: __m256,
    pub(super) offsets: __m256,
    pub(super) sums: __m256,
    pub(super) squares: __m256,
}

/// Sums in lanes over groups around zero.
///
/// Nothing here is ever borrowed, so that all of it stays in registers.
#[derive(Clone, Copy)]
pub(super) struct SymmetricLanes {
    squares: __m256,
    sums: __m256,
    /// Zeros, counted in bytes.
    zeros: __m256i,
    /// The sign of a word is set when a group of its lane is in doubt.
    doubt: __m256i,
    /// Ordered bits of the largest step that is beyond doubt.
    limit: __m256i,
}

impl SymmetricLanes {
    /// Nothing yet, behind values of `range`; quants are at most `top`, a power of two, away from zero.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn new(range: Range, top: f32) -> Self {
        // Values of at most this magnitude are no new extreme.
        let reach = range.high.min(-range.low);
        // The smallest step there is: with a smaller one nothing would be in doubt.
        let step = (reach / top).max(f32::from_bits(1));
        let (none, nothing) = (_mm256_setzero_ps(), _mm256_setzero_si256());
        let limit = ordered(_mm256_set1_ps(step));
        Self { squares: none, sums: none, zeros: nothing, doubt: nothing, limit }
    }

    /// Takes groups in, but not their zeros.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn add(self, groups: Symmetric) -> Self {
        let Symmetric { steps, sums, squares } = groups;
        let beyond = _mm256_cmpgt_epi32(ordered(steps), self.limit);
        Self {
            sums: _mm256_fmadd_ps(steps, sums, self.sums),
            squares: _mm256_fmadd_ps(_mm256_mul_ps(steps, steps), squares, self.squares),
            doubt: _mm256_or_si256(self.doubt, beyond),
            ..self
        }
    }

    /// Takes in the zeros among quants around zero, of which `zero` has all bits set.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn add_zeros(self, zero: __m256i) -> Self {
        Self { zeros: _mm256_sub_epi8(self.zeros, zero), ..self }
    }

    /// Takes in the squares of the quants of one group, in eight parts.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn add_squares(self, parts: __m256i, step: f32) -> Self {
        let parts = _mm256_cvtepi32_ps(parts);
        Self { squares: _mm256_fmadd_ps(parts, _mm256_set1_ps(step * step), self.squares), ..self }
    }

    /// The lanes of a unit to look at when those of `doubt` are in doubt: zeros are not counted lane by lane.
    pub(super) fn uncertain(_doubt: u8) -> u8 {
        u8::MAX
    }

    /// A bit for each lane with a group that is in doubt, since this was asked last.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn settle(self) -> (Self, u8) {
        let doubt = _mm256_movemask_ps(_mm256_castsi256_ps(self.doubt)) as u8;
        (Self { doubt: _mm256_setzero_si256(), ..self }, doubt)
    }

    /// Empties the lanes into `total`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn write(self, total: &mut Statistics) {
        total.squares += f64::from(sum(self.squares));
        total.sum += f64::from(sum(self.sums));
        let zeros = _mm256_sad_epu8(self.zeros, _mm256_setzero_si256());
        total.zeros += lanes_u64(zeros).iter().sum::<u64>();
    }
}

/// Sums in lanes over groups of `LEN` values with an offset; their zeros are always in doubt.
///
/// Nothing here is ever borrowed, so that all of it stays in registers.
#[derive(Clone, Copy)]
pub(super) struct AffineLanes<const LEN: u8> {
    squares: __m256,
    sums: __m256,
    /// The sign of a lane is set when a group of it is in doubt.
    doubt: __m256,
    /// The largest quant.
    top: __m256,
    /// The smallest value so far with the opposite sign, and the largest.
    low: __m256,
    high: __m256,
}

impl<const LEN: u8> AffineLanes<LEN> {
    /// Nothing yet, behind values of `range`; quants are at most `top`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn new(range: Range, top: f32) -> Self {
        let none = _mm256_setzero_ps();
        Self {
            squares: none,
            sums: none,
            doubt: none,
            top: _mm256_set1_ps(top),
            low: _mm256_set1_ps(-range.low),
            high: _mm256_set1_ps(range.high),
        }
    }

    /// Takes groups in.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn add(self, groups: Affine) -> Self {
        let Affine { steps, offsets, sums, squares } = groups;
        let len = _mm256_set1_ps(f32::from(LEN));
        // Σ step q, and Σ (step q - offset) of each group.
        let scaled = _mm256_mul_ps(steps, sums);
        let whole = _mm256_fnmadd_ps(offsets, len, scaled);
        let squares = _mm256_fmadd_ps(_mm256_mul_ps(steps, steps), squares, self.squares);
        // A comparison with NaN holds here, and a negative step has its sign set.
        let high = _mm256_fmsub_ps(steps, self.top, offsets);
        let beyond = _mm256_or_ps(
            _mm256_cmp_ps::<_CMP_NLE_UQ>(high, self.high),
            _mm256_cmp_ps::<_CMP_NLE_UQ>(offsets, self.low),
        );
        let doubt = _mm256_or_ps(_mm256_or_ps(beyond, steps), can_be_zero(steps, offsets));
        Self {
            sums: _mm256_add_ps(self.sums, whole),
            squares: _mm256_fnmadd_ps(offsets, _mm256_add_ps(scaled, whole), squares),
            doubt: _mm256_or_ps(self.doubt, doubt),
            ..self
        }
    }

    /// The lanes of a unit to look at when those of `doubt` are in doubt.
    pub(super) fn uncertain(doubt: u8) -> u8 {
        doubt
    }

    /// A bit for each lane with a group that is in doubt, since this was asked last.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn settle(self) -> (Self, u8) {
        let doubt = _mm256_movemask_ps(self.doubt) as u8;
        (Self { doubt: _mm256_setzero_ps(), ..self }, doubt)
    }

    /// Empties the lanes into `total`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn write(self, total: &mut Statistics) {
        total.squares += f64::from(sum(self.squares));
        total.sum += f64::from(sum(self.sums));
    }
}

/// Bits of magnitudes that compare like them, but for zero, which is above all others, as is what is not finite.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn ordered(steps: __m256) -> __m256i {
    let bits = _mm256_and_si256(_mm256_castps_si256(steps), _mm256_set1_epi32(i32::MAX));
    _mm256_add_epi32(bits, _mm256_set1_epi32(i32::MAX))
}

/// Where a quant is worth as much as is taken off. Steps, offsets and their products are exact, so such values
/// are zero and no other.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn can_be_zero(steps: __m256, offsets: __m256) -> __m256 {
    // Twelve bits of the quotient are enough to find the one quant that can be right.
    let quants = _mm256_cvtps_epi32(_mm256_mul_ps(offsets, _mm256_rcp_ps(steps)));
    let back = _mm256_mul_ps(_mm256_cvtepi32_ps(quants), steps);
    _mm256_cmp_ps::<_CMP_EQ_OQ>(back, offsets)
}

/// The sums of bytes of the lower and of the upper half of four vectors: `[v0, v1, v2, v3 | v0, v1, v2, v3]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sums_by_half(bytes: [__m256i; 4]) -> __m256i {
    _mm256_madd_epi16(partial_sums(bytes), _mm256_set1_epi16(1))
}

/// Sums of eight bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn eights(bytes: __m256i) -> __m256i {
    _mm256_sad_epu8(bytes, _mm256_setzero_si256())
}

/// Words of which two adjacent ones belong to the same half of the same of four vectors.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn partial_sums(bytes: [__m256i; 4]) -> __m256i {
    let [a, b, c, d] = bytes;
    let (first, second) =
        (_mm256_packus_epi32(eights(a), eights(b)), _mm256_packus_epi32(eights(c), eights(d)));
    _mm256_packus_epi32(first, second)
}

/// The sums of the lower and of the upper four words of 32 bits of four vectors, as in [`sums_by_half`]. Sums of
/// two have sixteen bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn wide_sums_by_half(words: [__m256i; 4]) -> __m256i {
    let [a, b, c, d] = words;
    let ones = _mm256_set1_epi16(1);
    let pairs = |a, b| _mm256_madd_epi16(_mm256_packs_epi32(a, b), ones);
    _mm256_madd_epi16(_mm256_packs_epi32(pairs(a, b), pairs(c, d)), ones)
}

/// Parts of the sums of quants from zero to 31, and of their squares, of two groups a half: of `a` and of `b`. Packed early,
/// because there are few registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn two_totals(a: (__m256i, __m256i), b: (__m256i, __m256i)) -> (__m256i, __m256i) {
    let ones = _mm256_set1_epi16(1);
    let sums = |(a, b)| eights(_mm256_add_epi8(a, b));
    let squares = |(a, b)| {
        let words = _mm256_add_epi16(_mm256_maddubs_epi16(a, a), _mm256_maddubs_epi16(b, b));
        _mm256_madd_epi16(words, ones)
    };
    let all = _mm256_madd_epi16(_mm256_packs_epi32(squares(a), squares(b)), ones);
    (_mm256_packus_epi32(sums(a), sums(b)), all)
}

/// Sums and sums of squares of four groups a half, of what [`two_totals`] gave for two each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn four_totals(a: (__m256i, __m256i), b: (__m256i, __m256i)) -> (__m256, __m256) {
    let ones = _mm256_set1_epi16(1);
    let sums = _mm256_madd_epi16(_mm256_packus_epi32(a.0, b.0), ones);
    let squares = _mm256_madd_epi16(_mm256_packs_epi32(a.1, b.1), ones);
    (_mm256_cvtepi32_ps(sums), _mm256_cvtepi32_ps(squares))
}

/// Halves that belong together added up, as numbers: `[a.low + a.high | b.low + b.high]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn merged(a: __m256i, b: __m256i) -> __m256 {
    let low = _mm256_permute2x128_si256::<0x20>(a, b);
    let high = _mm256_permute2x128_si256::<0x31>(a, b);
    _mm256_cvtepi32_ps(_mm256_add_epi32(low, high))
}

/// Squares of quants, four to a lane. The squares of two have sixteen bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn fours_of_squares(quants: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(quants, quants), _mm256_set1_epi16(1))
}
