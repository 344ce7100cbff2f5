//! Statistics of f32, f16 and bf16 values.
//!
//! Two-byte values are ordered and compared with zero as integers, sixteen at a time; their sums and squares are added
//! in f32, where each square is exact, and a few vectors later in f64.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::vector::{lanes_f32, lanes_f64, lanes_i16, load_raw_f32, load_words, prefetch};
use crate::quant::statistics::Statistics;

/// Vectors between two looks at the counters of sixteen bits.
const VECTORS: usize = 4096;
/// Vectors whose sums are added in f32: few enough for their rounding not to show.
const NARROW: usize = 8;
/// Magnitudes whose squares neither overflow in f32 nor lose more than the smallest of values.
const SQUARABLE: std::ops::RangeInclusive<f32> = 8.9e-16..=1.1e18;

/// Sums in four lanes of f64.
struct Sums {
    sums: __m256d,
    squares: __m256d,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn zero() -> Self {
        Self { sums: _mm256_setzero_pd(), squares: _mm256_setzero_pd() }
    }

    /// Takes in sums of a few values and of their squares.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add(&mut self, narrow: [__m256; 2], squares: [__m256; 2]) {
        let added =
            |[one, other]: [__m256; 2]| _mm256_add_pd(halves_added(one), halves_added(other));
        self.sums = _mm256_add_pd(self.sums, added(narrow));
        self.squares = _mm256_add_pd(self.squares, added(squares));
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn write(&self, total: &mut Statistics) {
        total.sum += lanes_f64(self.sums).iter().sum::<f64>();
        total.squares += lanes_f64(self.squares).iter().sum::<f64>();
    }
}

/// Lane l plus lane l + 4, in f64.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves_added(lanes: __m256) -> __m256d {
    let low = _mm256_cvtps_pd(_mm256_castps256_ps128(lanes));
    _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(lanes)))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn f32_statistics(bytes: &[u8]) -> Option<Statistics> {
    let (vectors, rest) = bytes.as_chunks::<4>().0.as_chunks::<8>();
    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFF_FFFF));
    let mut zeros = _mm256_setzero_si256();
    let mut largest = _mm256_setzero_si256();
    let mut low = _mm256_set1_ps(f32::INFINITY);
    let mut high = _mm256_set1_ps(f32::NEG_INFINITY);
    let mut sums = _mm256_setzero_pd();
    let mut squares = [_mm256_setzero_pd(); 2];
    for raw in vectors {
        prefetch(raw);
        let values = load_raw_f32(raw);
        let magnitudes = _mm256_castps_si256(_mm256_and_ps(values, magnitude));
        let zero = _mm256_cmpeq_epi32(magnitudes, _mm256_setzero_si256());
        zeros = _mm256_sub_epi32(zeros, zero);
        largest = _mm256_max_epi32(largest, magnitudes);
        low = _mm256_min_ps(low, values);
        high = _mm256_max_ps(high, values);
        let first = _mm256_cvtps_pd(_mm256_castps256_ps128(values));
        let second = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(values));
        sums = _mm256_add_pd(sums, _mm256_add_pd(first, second));
        squares[0] = _mm256_fmadd_pd(first, first, squares[0]);
        squares[1] = _mm256_fmadd_pd(second, second, squares[1]);
    }
    // As integers, magnitudes order like numbers, with infinity and NaN above all.
    let largest = lanes_f32(_mm256_castsi256_ps(largest));
    if !largest.iter().all(|magnitude| magnitude.is_finite()) {
        return None;
    }
    let mut total = Statistics { values: vectors.len() as u64 * 8, ..Statistics::default() };
    let zeros = lanes_f32(_mm256_castsi256_ps(zeros));
    total.zeros = zeros.iter().map(|lane| u64::from(lane.to_bits())).sum();
    Sums { sums, squares: _mm256_add_pd(squares[0], squares[1]) }.write(&mut total);
    total.min = lanes_f32(low).into_iter().fold(f32::INFINITY, f32::min);
    total.max = lanes_f32(high).into_iter().fold(f32::NEG_INFINITY, f32::max);
    for &raw in rest {
        total.add(&[f32::from_le_bytes(raw)]);
    }
    Some(total)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn f16_statistics(bytes: &[u8]) -> Option<Statistics> {
    let widen = |words: __m256i| {
        let first = _mm256_cvtph_ps(_mm256_castsi256_si128(words));
        (first, _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(words)))
    };
    half_statistics::<0x7C00>(bytes, widen, |word| half::f16::from_bits(word).to_f32())
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bf16_statistics(bytes: &[u8]) -> Option<Statistics> {
    let upper = _mm256_set1_epi32(0xFFFF_0000_u32 as i32);
    // Values 0, 2, 4, … and values 1, 3, 5, …: their order changes nothing.
    let widen = |words: __m256i| {
        let first = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words));
        (first, _mm256_castsi256_ps(_mm256_and_si256(words, upper)))
    };
    let total =
        half_statistics::<0x7F80>(bytes, widen, |word| half::bf16::from_bits(word).to_f32())?;
    let magnitude = total.max.max(-total.min);
    (magnitude == 0.0 || SQUARABLE.contains(&magnitude)).then_some(total)
}

/// Values of two bytes; `INFINITY` is the bits of their infinity. `None` when one of them is not finite.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half_statistics<const INFINITY: i16>(
    bytes: &[u8],
    widen: impl Fn(__m256i) -> (__m256, __m256),
    widen_one: impl Fn(u16) -> f32,
) -> Option<Statistics> {
    let (vectors, rest) = bytes.as_chunks::<2>().0.as_chunks::<16>();
    let mut total = Statistics { values: vectors.len() as u64 * 16, ..Statistics::default() };
    let mut low = _mm256_set1_epi16(i16::MAX);
    let mut high = _mm256_set1_epi16(i16::MIN);
    let mut sums = Sums::zero();
    for vectors in vectors.chunks(VECTORS) {
        let mut zeros = _mm256_setzero_si256();
        for vectors in vectors.chunks(NARROW) {
            let mut narrow = [_mm256_setzero_ps(); 2];
            let mut squares = [_mm256_setzero_ps(); 2];
            for raw in vectors {
                prefetch(raw);
                let words = load_words(raw);
                // Without its sign bit a zero of either sign is zero.
                let doubled = _mm256_add_epi16(words, words);
                let zero = _mm256_cmpeq_epi16(doubled, _mm256_setzero_si256());
                zeros = _mm256_sub_epi16(zeros, zero);
                let ordered = order(words);
                low = _mm256_min_epi16(low, ordered);
                high = _mm256_max_epi16(high, ordered);
                let (first, second) = widen(words);
                narrow[0] = _mm256_add_ps(narrow[0], first);
                narrow[1] = _mm256_add_ps(narrow[1], second);
                squares[0] = _mm256_fmadd_ps(first, first, squares[0]);
                squares[1] = _mm256_fmadd_ps(second, second, squares[1]);
            }
            sums.add(narrow, squares);
        }
        total.zeros += lanes_i16(zeros).iter().map(|&lane| u64::from(lane as u16)).sum::<u64>();
    }
    let low = lanes_i16(low).into_iter().fold(i16::MAX, i16::min);
    let high = lanes_i16(high).into_iter().fold(i16::MIN, i16::max);
    if !vectors.is_empty() {
        if high >= INFINITY || low <= !INFINITY {
            return None;
        }
        // The order is its own inverse.
        let word = |ordered: i16| (ordered ^ ((ordered >> 15) & i16::MAX)) as u16;
        (total.min, total.max) = (widen_one(word(low)), widen_one(word(high)));
    }
    sums.write(&mut total);
    for &raw in rest {
        total.add(&[widen_one(u16::from_le_bytes(raw))]);
    }
    Some(total)
}

/// Sign and magnitude turned into integers of the same order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn order(words: __m256i) -> __m256i {
    let negative = _mm256_srai_epi16::<15>(words);
    _mm256_xor_si256(words, _mm256_srli_epi16::<1>(negative))
}
