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
    let sixteen = _mm256_set1_epi8(16);
    let (mut sum_parts, mut square_parts) = ([nothing; 4], [nothing; 4]);
    for i in 0..4 {
        let (a, b) = (&blocks[i], &blocks[i + 4]);
        let (low, high) = two_nibbles(&a.qs, &b.qs);
        let (low_clear, high_clear) = clear_bits(a.qh.get(), b.qh.get());
        // 16 is taken off all quants; a bit that is set would have put it there.
        let centred = |quants, clear| _mm256_sub_epi8(quants, _mm256_and_si256(clear, sixteen));
        let (low, high) = (centred(low, low_clear), centred(high, high_clear));
        let zero = |quants| _mm256_cmpeq_epi8(quants, nothing);
        lanes = lanes.add_zeros(_mm256_add_epi8(zero(low), zero(high)));
        sum_parts[i] = _mm256_add_epi8(_mm256_add_epi8(low, high), _mm256_set1_epi8(32));
        let squared = |quants| {
            let magnitudes = _mm256_abs_epi8(quants);
            _mm256_maddubs_epi16(magnitudes, magnitudes)
        };
        let squares = _mm256_add_epi16(squared(low), squared(high));
        square_parts[i] = _mm256_madd_epi16(squares, _mm256_set1_epi16(1));
    }
    let sums = _mm256_cvtepi32_ps(sums_by_half(sum_parts));
    lanes.add(Symmetric {
        steps: widened(blocks, |block| block.d),
        sums: _mm256_sub_ps(sums, _mm256_set1_ps(16.0 * 32.0)),
        squares: _mm256_cvtepi32_ps(wide_sums_by_half(square_parts)),
    })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q5_1_add(blocks: &[Q5_1; 8], lanes: AffineLanes<32>) -> AffineLanes<32> {
    let heads = all_heads(blocks);
    // Fifth bits are behind a step and a minimum: four bytes.
    let quants = |i: usize| fives(&blocks[i].qs, &blocks[i + 4].qs, heads[i], 4);
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

/// All bits of the bytes whose bit is clear in `a`, in the lower halves, and in `b`: bits 0 to 15, bits 16 to 31.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn clear_bits(a: u32, b: u32) -> (__m256i, __m256i) {
    let words =
        _mm256_blend_epi32::<0xF0>(_mm256_set1_epi32(a as i32), _mm256_set1_epi32(b as i32));
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let low = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0, 0x0101_0101_0101_0101);
    let high = _mm256_add_epi8(low, _mm256_set1_epi8(2));
    let clear = |bytes| {
        let spread = _mm256_shuffle_epi8(words, bytes);
        _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), _mm256_setzero_si256())
    };
    (clear(low), clear(high))
}

/// Quants of five bits of a block in the lower halves and of another one in the upper. Their fifth bits are in `heads`,
/// behind `offset` bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fives(a: &[u8; 16], b: &[u8; 16], heads: __m256i, offset: i8) -> (__m256i, __m256i) {
    let (low, high) = two_nibbles(a, b);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let first = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0, 0x0101_0101_0101_0101);
    let whole = |quants, byte| {
        let bytes = _mm256_add_epi8(first, _mm256_set1_epi8(byte));
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(heads, bytes), bit), bit);
        _mm256_or_si256(quants, _mm256_and_si256(set, _mm256_set1_epi8(16)))
    };
    (whole(low, offset), whole(high, offset + 2))
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
