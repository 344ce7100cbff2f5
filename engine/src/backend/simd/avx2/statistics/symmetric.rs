//! Statistics of super-blocks with scales alone.
//!
//! With scales s of the groups, the step d of the block and quants q around zero, the squares of a block sum to
//! d² Σ s² Σ q² and the values to d Σ s Σ q: one integer and one product each.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::hint::black_box;

use super::super::supers::{q3_k_quants, q6_k_quants, two_words};
use super::super::vector::{lanes_u64, load_half, prefetch, sum};
use super::values::{BLOCKS, Range, Steps, with_values, zeros_among};
use crate::quant::statistics::Statistics;
use crate::quant::{self, Block as _, Q3K, Q6K, SUPER};

/// Sums over quants of blocks with sixteen groups.
///
/// Nothing here is ever borrowed, so that all of it stays in registers.
#[derive(Clone, Copy)]
struct Sums {
    squares: __m256,
    values: __m256,
    zeros: __m256i,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn zero() -> Self {
        let (squares, values) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        Self { squares, values, zeros: _mm256_setzero_si256() }
    }

    /// Takes a block in, of quants from 0 to `2 * MIDDLE - 1`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add<const MIDDLE: i8>(
        self,
        quants: [__m256i; 8],
        scales: &[i8; 16],
        step: f32,
        squared: f32,
    ) -> Self {
        let nothing = _mm256_setzero_si256();
        let scales = load_half(scales);
        let words = _mm256_cvtepi8_epi16(scales);
        let weights = by_chunk(_mm256_mullo_epi16(words, words));
        let (mut squares, mut zeros) = (nothing, nothing);
        let mut eights = [nothing; 8];
        for k in 0..8 {
            eights[k] = _mm256_sad_epu8(quants[k], nothing);
            let centred = _mm256_sub_epi8(quants[k], _mm256_set1_epi8(MIDDLE));
            zeros = _mm256_sub_epi8(zeros, _mm256_cmpeq_epi8(centred, nothing));
            let magnitudes = _mm256_abs_epi8(centred);
            let pairs = _mm256_maddubs_epi16(magnitudes, magnitudes);
            squares = _mm256_add_epi32(squares, _mm256_madd_epi16(pairs, weights[k]));
        }
        // Sums of eight quants, two of each group: of even groups in the lower half, of odd ones in the upper.
        let packed = |k: usize| {
            let first = _mm256_packus_epi32(eights[k], eights[k + 1]);
            _mm256_packus_epi32(first, _mm256_packus_epi32(eights[k + 2], eights[k + 3]))
        };
        let twice = _mm_setr_epi8(0, 0, 2, 2, 4, 4, 6, 6, 1, 1, 3, 3, 5, 5, 7, 7);
        let low = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, twice));
        let twice = _mm_add_epi8(twice, _mm_set1_epi8(8));
        let high = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, twice));
        let first = _mm256_madd_epi16(packed(0), low);
        let weighed = _mm256_add_epi32(first, _mm256_madd_epi16(packed(4), high));
        // What was not taken off the quants: the middle, for each of eight.
        let middle = _mm256_set1_epi16(8 * i16::from(MIDDLE));
        let middle = _mm256_madd_epi16(_mm256_add_epi16(low, high), middle);
        let sums = _mm256_cvtepi32_ps(_mm256_sub_epi32(weighed, middle));
        let squares = _mm256_cvtepi32_ps(squares);
        Self {
            squares: _mm256_fmadd_ps(squares, _mm256_set1_ps(squared), self.squares),
            values: _mm256_fmadd_ps(sums, _mm256_set1_ps(step), self.values),
            zeros: _mm256_add_epi64(self.zeros, _mm256_sad_epu8(zeros, nothing)),
        }
    }

    /// Empties the lanes into `total`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn write(self, total: &mut Statistics) {
        total.squares += f64::from(sum(self.squares));
        total.sum += f64::from(sum(self.values));
        total.zeros += lanes_u64(self.zeros).iter().sum::<u64>();
    }
}

/// Sixteen words by chunk of 32 values: word 2 k in the lower half, 2 k + 1 in the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn by_chunk(words: __m256i) -> [__m256i; 8] {
    let first = _mm256_permute2x128_si256::<0x00>(words, words);
    let second = _mm256_permute2x128_si256::<0x11>(words, words);
    [
        two_words::<0>(first),
        two_words::<1>(first),
        two_words::<2>(first),
        two_words::<3>(first),
        two_words::<0>(second),
        two_words::<1>(second),
        two_words::<2>(second),
        two_words::<3>(second),
    ]
}

/// What the scales of blocks tell.
#[derive(Clone, Copy)]
struct Scales {
    /// Largest magnitudes, in bytes.
    largest: __m128i,
    /// Not zero where a scale is zero.
    zero: __m128i,
}

impl Scales {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn none() -> Self {
        Self { largest: _mm_setzero_si128(), zero: _mm_setzero_si128() }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn with(self, scales: &[i8; 16]) -> Self {
        let magnitudes = _mm_abs_epi8(load_half(scales));
        let zero = _mm_cmpeq_epi8(magnitudes, _mm_setzero_si128());
        Self {
            largest: _mm_max_epu8(self.largest, magnitudes),
            zero: _mm_or_si128(self.zero, zero),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn largest(self) -> f32 {
        let pairs = _mm_max_epu8(self.largest, _mm_srli_epi16::<8>(self.largest));
        // The smallest word of the complement belongs to the largest.
        let complement = _mm_andnot_si128(pairs, _mm_set1_epi16(0xFF));
        let smallest = _mm_cvtsi128_si32(_mm_minpos_epu16(complement)) & 0xFF;
        (0xFF - smallest) as f32
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn any_zero(self) -> bool {
        _mm_movemask_epi8(self.zero) != 0
    }
}

/// One function over blocks of sixteen groups.
macro_rules! symmetric_statistics {
    ($name:ident, $block:ty, $middle:literal, $quants:path, $scales:path, $widened:ident) => {
        // Apart because hardly any chunk of blocks asks for it.
        #[cold]
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $widened(range: Range, blocks: &[$block], steps: &Steps) -> Range {
            blocks.iter().zip(&steps.steps).fold(range, |range, (block, step)| {
                let reach = step.abs() * Scales::none().with(&$scales(block)).largest();
                let beyond = reach * f32::from($middle as i8) > range.reach;
                let write = |values: &mut [f32; SUPER]| block.dequantize(values);
                if beyond { with_values(range, write) } else { range }
            })
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name(bytes: &[u8]) -> Option<Statistics> {
            let blocks: &[$block] = quant::blocks(bytes);
            let values = blocks.len() as u64 * SUPER as u64;
            let mut total = Statistics { values, ..Statistics::default() };
            let mut range = Range::EMPTY;
            for blocks in blocks.chunks(BLOCKS) {
                let (mut words, mut scales) = ([0; BLOCKS], Scales::none());
                for (block, word) in blocks.iter().zip(&mut words) {
                    prefetch(block);
                    *word = block.d.get() as i16;
                    scales = scales.with(&$scales(block));
                }
                let (steps, told) = Steps::read(black_box(&words));
                if told.largest == f32::INFINITY {
                    return None;
                }
                let mut sums = Sums::zero();
                let scaled = steps.steps.iter().zip(&steps.squares);
                for (block, (&step, &squared)) in blocks.iter().zip(scaled) {
                    let quants = $quants(block);
                    sums = sums.add::<$middle>(quants, &$scales(block), step, squared);
                }
                // The steps behind the last block are zero too.
                if scales.any_zero() || told.zeros != BLOCKS - blocks.len() {
                    sums.zeros = _mm256_setzero_si256();
                    total.zeros += zeros_among(blocks);
                }
                sums.write(&mut total);
                if told.largest * scales.largest() * f32::from($middle as i8) > range.reach {
                    range = $widened(range, blocks, &steps);
                }
            }
            (total.min, total.max) = (range.low, range.high);
            Some(total)
        }
    };
}

symmetric_statistics!(q6_k_statistics, Q6K, 32, q6_k_quants, q6_k_scales, q6_k_widened);
symmetric_statistics!(q3_k_statistics, Q3K, 4, q3_k_quants, q3_k_scales, q3_k_widened);

#[inline]
fn q6_k_scales(block: &Q6K) -> [i8; 16] {
    block.scales
}

#[inline]
fn q3_k_scales(block: &Q3K) -> [i8; 16] {
    quant::q3_k::unpack_scales(&block.scales)
}
