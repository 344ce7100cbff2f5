//! Blocks of 32 values, eight at a time: a block to a lane.
//!
//! Two blocks share a vector, one to a half, so that what is done to quants is done to both.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;
use zerocopy::{Immutable, IntoBytes};

use super::super::block_rows::with_fifths;
use super::super::vector::{heads, lanes_f32, load_half, load_i8, two_nibbles};
use super::lanes::{
    Affine, AffineLanes, Symmetric, SymmetricLanes, four_totals, merged, sums_by_half, two_totals,
    wide_sums_by_half,
};
use crate::quant::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q4_0_add(blocks: &[Q4_0; 8], mut lanes: SymmetricLanes) -> SymmetricLanes {
    // (quant - 8)².
    let squares = table([64, 49, 36, 25, 16, 9, 4, 1, 0, 1, 4, 9, 16, 25, 36, 49]);
    let middle = _mm256_set1_epi8(8);
    let nothing = _mm256_setzero_si256();
    let (mut sum_parts, mut square_parts) = ([nothing; 4], [nothing; 4]);
    for i in 0..4 {
        let (low, high) = two_nibbles(&blocks[i].qs, &blocks[i + 4].qs);
        let zero = |quants| _mm256_cmpeq_epi8(quants, middle);
        lanes = lanes.add_zeros(_mm256_add_epi8(zero(low), zero(high)));
        sum_parts[i] = _mm256_add_epi8(low, high);
        let squared = |quants| _mm256_shuffle_epi8(squares, quants);
        square_parts[i] = _mm256_add_epi8(squared(low), squared(high));
    }
    let sums = _mm256_cvtepi32_ps(sums_by_half(sum_parts));
    lanes.add(Symmetric {
        steps: widened(blocks, |block| block.d),
        sums: _mm256_sub_ps(sums, _mm256_set1_ps(8.0 * 32.0)),
        squares: _mm256_cvtepi32_ps(sums_by_half(square_parts)),
    })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q4_1_add(blocks: &[Q4_1; 8], lanes: AffineLanes<32>) -> AffineLanes<32> {
    let quants = |i: usize| two_nibbles(&blocks[i].qs, &blocks[i + 4].qs);
    let totals = four_totals(two_totals(quants(0), quants(1)), two_totals(quants(2), quants(3)));
    lanes.add(affine(grids(all_heads(blocks)), totals))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q5_0_add(blocks: &[Q5_0; 8], mut lanes: SymmetricLanes) -> SymmetricLanes {
    let nothing = _mm256_setzero_si256();
    let middle = _mm256_set1_epi8(16);
    let (mut sum_parts, mut square_parts) = ([nothing; 4], [nothing; 4]);
    for i in 0..4 {
        let (a, b) = (&blocks[i], &blocks[i + 4]);
        let (low, high) = with_fifths::<2>(two_nibbles(&a.qs, &b.qs), heads(a, b));
        let zero = |quants| _mm256_cmpeq_epi8(quants, middle);
        lanes = lanes.add_zeros(_mm256_add_epi8(zero(low), zero(high)));
        sum_parts[i] = _mm256_add_epi8(low, high);
        let squared = |quants| _mm256_maddubs_epi16(quants, quants);
        let squares = _mm256_add_epi16(squared(low), squared(high));
        square_parts[i] = _mm256_madd_epi16(squares, _mm256_set1_epi16(1));
    }
    let sums = _mm256_cvtepi32_ps(sums_by_half(sum_parts));
    // Σ (q - 16)² = Σ q² - 32 Σ q + 32 * 16², all of them exact.
    let squares = _mm256_cvtepi32_ps(wide_sums_by_half(square_parts));
    let squares = _mm256_fnmadd_ps(_mm256_set1_ps(32.0), sums, squares);
    lanes.add(Symmetric {
        steps: widened(blocks, |block| block.d),
        sums: _mm256_sub_ps(sums, _mm256_set1_ps(16.0 * 32.0)),
        squares: _mm256_add_ps(squares, _mm256_set1_ps(32.0 * 16.0 * 16.0)),
    })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q5_1_add(blocks: &[Q5_1; 8], lanes: AffineLanes<32>) -> AffineLanes<32> {
    let heads = all_heads(blocks);
    // Fifth bits are behind a step and a minimum: four bytes.
    let nibbles = |i: usize| two_nibbles(&blocks[i].qs, &blocks[i + 4].qs);
    let quants = |i: usize| with_fifths::<4>(nibbles(i), heads[i]);
    let totals = four_totals(two_totals(quants(0), quants(1)), two_totals(quants(2), quants(3)));
    lanes.add(affine(grids(heads), totals))
}

/// A block fills a vector here. The square of -128 needs words of its own.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q8_0_add(blocks: &[Q8_0; 8], mut lanes: SymmetricLanes) -> SymmetricLanes {
    let nothing = _mm256_setzero_si256();
    let mut sum_parts = [nothing; 8];
    let steps = widened(blocks, |block| block.d);
    for ((block, step), part) in blocks.iter().zip(lanes_f32(steps)).zip(&mut sum_parts) {
        let quants = load_i8(&block.qs);
        lanes = lanes.add_zeros(_mm256_cmpeq_epi8(quants, nothing));
        // Up by 128, into bytes without a sign.
        *part = _mm256_xor_si256(quants, _mm256_set1_epi8(i8::MIN));
        let first = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(quants));
        let second = _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(quants));
        let squares = (_mm256_madd_epi16(first, first), _mm256_madd_epi16(second, second));
        lanes = lanes.add_squares(_mm256_add_epi32(squares.0, squares.1), step);
    }
    let [a, b, c, d, e, f, g, h] = sum_parts;
    let sums = merged(sums_by_half([a, b, c, d]), sums_by_half([e, f, g, h]));
    lanes.add(Symmetric {
        steps,
        sums: _mm256_sub_ps(sums, _mm256_set1_ps(128.0 * 32.0)),
        squares: _mm256_setzero_ps(),
    })
}

/// The first sixteen bytes of eight blocks: of one of the first four and of one of the last.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn all_heads<B: IntoBytes + Immutable>([a, b, c, d, e, f, g, h]: &[B; 8]) -> [__m256i; 4] {
    [heads(a, e), heads(b, f), heads(c, g), heads(d, h)]
}

/// Blocks of steps and minimums, and of the sums of their quants and of the squares of these.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn affine((steps, minimums): (__m256, __m256), (sums, squares): (__m256, __m256)) -> Affine {
    // A minimum is added to its values.
    Affine { steps, offsets: _mm256_xor_ps(minimums, _mm256_set1_ps(-0.0)), sums, squares }
}

/// One f16 of each of eight blocks.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widened<B>([a, b, c, d, e, f, g, h]: &[B; 8], stored: fn(&B) -> U16) -> __m256 {
    let word = |block| stored(block).get() as i16;
    _mm256_cvtph_ps(_mm_setr_epi16(
        word(a),
        word(b),
        word(c),
        word(d),
        word(e),
        word(f),
        word(g),
        word(h),
    ))
}

/// Steps and minimums of eight blocks that begin with them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn grids([a, b, c, d]: [__m256i; 4]) -> (__m256, __m256) {
    let (first, second) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    // Steps and minimums take turns.
    let turns = _mm256_unpacklo_epi64(first, second);
    let steps = _mm256_and_si256(turns, _mm256_set1_epi32(0xFFFF));
    let words = _mm256_packus_epi32(steps, _mm256_srli_epi32::<16>(turns));
    let widened = |words| _mm256_cvtph_ps(low_quarters(words));
    (widened(words), widened(_mm256_unpackhi_epi64(words, words)))
}

/// The lower eight bytes of each half.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn low_quarters(halves: __m256i) -> __m128i {
    _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b10_00>(halves))
}

/// Bytes to be looked up by nibble.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn table(bytes: [u8; 16]) -> __m256i {
    _mm256_broadcastsi128_si256(load_half(&bytes))
}
