//! Statistics value by value: every quant widened to f32, as dequantisation would.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::vector::{
    lanes_f32, lanes_u64, load_f32, load_half_i16, load_i16, store_f32, sum,
};
use crate::quant::statistics::Statistics;
use crate::quant::{Block, SUPER};

/// Whether a stored f16 is neither infinite nor NaN.
#[inline]
pub(super) fn is_finite(raw: U16) -> bool {
    raw.get() & 0x7C00 != 0x7C00
}

/// Blocks that are worked on at a time, by their steps first and by their quants then; few enough for the rounding of
/// sums in f32 not to show.
pub(super) const BLOCKS: usize = 32;

/// Steps of blocks and their squares: broadcast from memory they cost nothing.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Steps {
    pub(super) steps: [f32; BLOCKS],
    pub(super) squares: [f32; BLOCKS],
}

/// What steps tell without their quants.
pub(super) struct Told {
    /// The largest magnitude; infinite when one of them is not finite.
    pub(super) largest: f32,
    /// How many are zero.
    pub(super) zeros: usize,
}

impl Steps {
    /// Widens stored steps.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn read(words: &[i16; BLOCKS]) -> (Self, Told) {
        let mut read = Self { steps: [0.0; BLOCKS], squares: [0.0; BLOCKS] };
        let (mut largest, mut zeros) = (_mm256_setzero_si256(), 0);
        for words in words.as_chunks::<16>().0 {
            let magnitudes = _mm256_and_si256(load_i16(words), _mm256_set1_epi16(i16::MAX));
            largest = _mm256_max_epi16(largest, magnitudes);
            let zero = _mm256_cmpeq_epi16(magnitudes, _mm256_setzero_si256());
            zeros += _mm256_movemask_epi8(zero).count_ones() as usize / 2;
        }
        let half = _mm256_extracti128_si256::<1>(largest);
        let half = _mm_max_epi16(_mm256_castsi256_si128(largest), half);
        // The smallest word of the complement belongs to the largest; magnitudes order like numbers.
        let least = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi16(-1)));
        let largest = !(_mm_cvtsi128_si32(least) as u16);
        let halves = read.steps.as_chunks_mut::<8>().0.iter_mut();
        let squares = read.squares.as_chunks_mut::<8>().0;
        for ((words, steps), squares) in words.as_chunks::<8>().0.iter().zip(halves).zip(squares) {
            let wide = _mm256_cvtph_ps(load_half_i16(words));
            store_f32(wide, steps);
            store_f32(_mm256_mul_ps(wide, wide), squares);
        }
        let finite = largest < INFINITY;
        let largest = if finite { widen_bits(largest) } else { f32::INFINITY };
        (read, Told { largest, zeros })
    }
}

/// The bits of the f16 that is infinite.
const INFINITY: u16 = 0x7C00;

/// The value of the bits of an f16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_bits(bits: u16) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}

/// The extremes so far.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) low: f32,
    pub(super) high: f32,
    /// Values of smaller magnitude are no new extreme.
    pub(super) reach: f32,
}

impl Range {
    pub(super) const EMPTY: Self =
        Self { low: f32::INFINITY, high: f32::NEG_INFINITY, reach: f32::NEG_INFINITY };

    /// Wide enough for `low` and `high` too.
    #[inline]
    pub(super) fn with(self, low: f32, high: f32) -> Self {
        let (low, high) = (self.low.min(low), self.high.max(high));
        Self { low, high, reach: high.min(-low) }
    }
}

/// The smallest and the largest of signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn extremes(quants: __m256i) -> (i8, i8) {
    let flipped = _mm256_xor_si256(quants, _mm256_set1_epi8(i8::MIN));
    let low = smallest(flipped);
    let high = !smallest(_mm256_xor_si256(flipped, _mm256_set1_epi8(-1)));
    ((low ^ 0x80) as i8, (high ^ 0x80) as i8)
}

/// The smallest of unsigned bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn smallest(bytes: __m256i) -> u8 {
    let half = _mm_min_epu8(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
    let pairs = _mm_min_epu8(half, _mm_srli_epi16::<8>(half));
    _mm_cvtsi128_si32(_mm_minpos_epu16(_mm_and_si128(pairs, _mm_set1_epi16(0xFF)))) as u8
}

/// Running statistics of values in lanes.
#[derive(Clone, Copy)]
pub(super) struct Values {
    count: u64,
    sum: f64,
    squares: f64,
    zeros: __m256i,
    low: __m256,
    high: __m256,
}

impl Values {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn new() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            squares: 0.0,
            zeros: _mm256_setzero_si256(),
            low: _mm256_set1_ps(f32::INFINITY),
            high: _mm256_set1_ps(f32::NEG_INFINITY),
        }
    }

    /// Takes in `N` times 32 quants; `grid(i)` gives step and offset, in every lane, of the i-th sixteen.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn add<const N: usize>(
        mut self,
        quants: [__m256i; N],
        grid: impl Fn(usize) -> (__m256, __m256),
    ) -> Self {
        let (mut sums, mut squares) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        let mut zeros = _mm256_setzero_si256();
        for (chunk, quants) in quants.into_iter().enumerate() {
            let low = _mm256_castsi256_si128(quants);
            let high = _mm256_extracti128_si256::<1>(quants);
            for (half, sixteen) in [low, high].into_iter().enumerate() {
                let (step, offset) = grid(2 * chunk + half);
                for eight in [sixteen, _mm_srli_si128::<8>(sixteen)] {
                    let quants = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
                    // Two roundings, as in dequantisation, whose numbers these are.
                    let values = _mm256_add_ps(_mm256_mul_ps(quants, step), offset);
                    sums = _mm256_add_ps(sums, values);
                    squares = _mm256_fmadd_ps(values, values, squares);
                    self.low = _mm256_min_ps(self.low, values);
                    self.high = _mm256_max_ps(self.high, values);
                    let zero = _mm256_cmp_ps::<_CMP_EQ_OQ>(values, _mm256_setzero_ps());
                    zeros = _mm256_sub_epi32(zeros, _mm256_castps_si256(zero));
                }
            }
        }
        self.count += 32 * N as u64;
        self.sum += f64::from(sum(sums));
        self.squares += f64::from(sum(squares));
        // Counts stay below 128, so their bytes are counts too.
        let zeros = _mm256_sad_epu8(zeros, _mm256_setzero_si256());
        self.zeros = _mm256_add_epi64(self.zeros, zeros);
        self
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn statistics(self) -> Statistics {
        let low = lanes_f32(self.low).into_iter().fold(f32::INFINITY, f32::min);
        let high = lanes_f32(self.high).into_iter().fold(f32::NEG_INFINITY, f32::max);
        let zeros = lanes_u64(self.zeros).iter().sum();
        let Self { count: values, sum, squares, .. } = self;
        Statistics { values, zeros, sum, squares, min: low, max: high, ..Statistics::default() }
    }
}

/// `range` with the values that `write` writes out.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn with_values(range: Range, write: impl Fn(&mut [f32; SUPER])) -> Range {
    let mut values = [0.0; SUPER];
    write(&mut values);
    let mut low = _mm256_set1_ps(f32::INFINITY);
    let mut high = _mm256_set1_ps(f32::NEG_INFINITY);
    for values in values.as_chunks::<8>().0 {
        let values = load_f32(values);
        low = _mm256_min_ps(low, values);
        high = _mm256_max_ps(high, values);
    }
    let low = lanes_f32(low).into_iter().fold(f32::INFINITY, f32::min);
    range.with(low, lanes_f32(high).into_iter().fold(f32::NEG_INFINITY, f32::max))
}

/// How many values of `blocks` are zero, one looked at after the other.
#[cold]
#[inline(never)]
pub(super) fn zeros_among<const N: usize, B: Block<N>>(blocks: &[B]) -> u64 {
    let mut values = [0.0; N];
    let zeros = blocks.iter().map(|block| {
        block.dequantize(&mut values);
        values.iter().filter(|value| **value == 0.0).count() as u64
    });
    zeros.sum()
}
