//! Statistics of 32-value blocks.
//!
//! Blocks without an offset are counted as quants: sums and squares as integers, each block's times its step into
//! lanes of f32 that are emptied every few blocks. What the steps alone tell is asked of many at once, first.
//! Blocks with an offset are looked at value by value.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::hint::black_box;

use super::super::blocks::{fifth_bits, nibbles};
use super::super::vector::{lanes_u64, load_i8, prefetch, splat, sum};
use super::values::{BLOCKS, Range, Steps, Values, extremes, is_finite, zeros_among};
use crate::quant::statistics::Statistics;
use crate::quant::{self, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Sums over quants of blocks.
///
/// Nothing here is ever borrowed, so that all of it stays in registers.
#[derive(Clone, Copy)]
struct Sums {
    squares: __m256,
    values: __m256,
    /// Counts in bytes.
    zeros: __m256i,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn zero() -> Self {
        let (squares, values) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        Self { squares, values, zeros: _mm256_setzero_si256() }
    }

    /// Takes a block in: its quants, the sums of their squares in lanes, and their sums.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add(
        self,
        (quants, squares, sums): (__m256i, __m256i, __m256i),
        step: f32,
        squared: f32,
    ) -> Self {
        let squares = _mm256_cvtepi32_ps(squares);
        let zero = _mm256_cmpeq_epi8(quants, _mm256_setzero_si256());
        Self {
            squares: _mm256_fmadd_ps(squares, _mm256_set1_ps(squared), self.squares),
            values: _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(step), self.values),
            zeros: _mm256_sub_epi8(self.zeros, zero),
        }
    }

    /// Empties the lanes into `total`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn write(self, total: &mut Statistics) {
        total.squares += f64::from(sum(self.squares));
        total.sum += f64::from(sum(self.values));
        let zeros = _mm256_sad_epu8(self.zeros, _mm256_setzero_si256());
        total.zeros += lanes_u64(zeros).iter().sum::<u64>();
    }
}

/// `range` with the values of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn with_quants(range: Range, quants: __m256i, step: f32) -> Range {
    let (low, high) = extremes(quants);
    let (one, other) = (step * f32::from(low), step * f32::from(high));
    range.with(one.min(other), one.max(other))
}

/// One function over blocks whose values are step times quant. `$read` gives quants, squares and sums.
macro_rules! symmetric_statistics {
    ($name:ident, $block:ty, $top:literal, $read:path, $widened:ident) => {
        // Apart because hardly any chunk of blocks asks for it.
        #[cold]
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $widened(range: Range, blocks: &[$block], steps: &Steps) -> Range {
            blocks.iter().zip(&steps.steps).fold(range, |range, (block, step)| {
                let beyond = step.abs() * $top > range.reach;
                if beyond { with_quants(range, $read(block).0, *step) } else { range }
            })
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name(bytes: &[u8]) -> Option<Statistics> {
            let blocks: &[$block] = quant::blocks(bytes);
            let values = blocks.len() as u64 * 32;
            let mut total = Statistics { values, ..Statistics::default() };
            let mut range = Range::EMPTY;
            for blocks in blocks.chunks(BLOCKS) {
                let mut words = [0; BLOCKS];
                for (block, word) in blocks.iter().zip(&mut words) {
                    prefetch(block);
                    *word = block.d.get() as i16;
                }
                let (steps, told) = Steps::read(black_box(&words));
                if told.largest == f32::INFINITY {
                    return None;
                }
                let mut sums = Sums::zero();
                let scaled = steps.steps.iter().zip(&steps.squares);
                for (block, (&step, &squared)) in blocks.iter().zip(scaled) {
                    sums = sums.add($read(block), step, squared);
                }
                // The steps behind the last block are zero too.
                if told.zeros != BLOCKS - blocks.len() {
                    sums.zeros = _mm256_setzero_si256();
                    total.zeros += zeros_among(blocks);
                }
                sums.write(&mut total);
                if told.largest * $top > range.reach {
                    range = $widened(range, blocks, &steps);
                }
            }
            (total.min, total.max) = (range.low, range.high);
            Some(total)
        }
    };
}

symmetric_statistics!(q4_0_statistics, Q4_0, 8.0, q4_0_read, q4_0_widened);
symmetric_statistics!(q5_0_statistics, Q5_0, 16.0, q5_0_read, q5_0_widened);
symmetric_statistics!(q8_0_statistics, Q8_0, 128.0, q8_0_read, q8_0_widened);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0_read(block: &Q4_0) -> (__m256i, __m256i, __m256i) {
    narrow(_mm256_sub_epi8(nibbles(&block.qs), _mm256_set1_epi8(8)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_0_read(block: &Q5_0) -> (__m256i, __m256i, __m256i) {
    let quants = _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh.get()));
    narrow(_mm256_sub_epi8(quants, _mm256_set1_epi8(16)))
}

/// Quants whose squares fit into signed bytes by pairs of words.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn narrow(quants: __m256i) -> (__m256i, __m256i, __m256i) {
    let magnitudes = _mm256_abs_epi8(quants);
    let ones = _mm256_set1_epi16(1);
    let squares = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, magnitudes), ones);
    let sums = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), quants), ones);
    (quants, squares, sums)
}

/// The square of -128 needs words of its own.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0_read(block: &Q8_0) -> (__m256i, __m256i, __m256i) {
    let quants = load_i8(&block.qs);
    let first = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(quants));
    let second = _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(quants));
    let squares =
        _mm256_add_epi32(_mm256_madd_epi16(first, first), _mm256_madd_epi16(second, second));
    let sums = _mm256_madd_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(1));
    (quants, squares, sums)
}

/// One function over blocks whose values have an offset. `$read` gives the quants.
macro_rules! offset_statistics {
    ($name:ident, $block:ty, $read:path) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name(bytes: &[u8]) -> Option<Statistics> {
            let blocks: &[$block] = quant::blocks(bytes);
            let mut values = Values::new();
            for block in blocks {
                prefetch(block);
                if !(is_finite(block.d) && is_finite(block.m)) {
                    return None;
                }
                let (step, offset) = (splat(block.d), splat(block.m));
                values = values.add([$read(block)], |_| (step, offset));
            }
            Some(values.statistics())
        }
    };
}

offset_statistics!(q4_1_statistics, Q4_1, q4_1_read);
offset_statistics!(q5_1_statistics, Q5_1, q5_1_read);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_1_read(block: &Q4_1) -> __m256i {
    nibbles(&block.qs)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_1_read(block: &Q5_1) -> __m256i {
    _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh.get()))
}
