//! Super-blocks: a group of 32 values, or of sixteen, to a lane.
//!
//! Of two blocks with groups of 32, half a group of each makes a vector, one to a half; so do their groups 0 to 3, and
//! 4 to 7, in the lanes. Of a block with groups of sixteen, both halves of a vector are groups: even ones in
//! the lower half, odd ones in the upper, and that is the order of the lanes.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::supers::{bit_pairs, q3_k_quants, q6_k_half};
use super::super::vector::{head, load_half, pair, splat, two_nibbles};
use super::lanes::{
    Affine, AffineLanes, Symmetric, SymmetricLanes, eights, four_totals, fours_of_squares,
    partial_sums, sums_by_half, two_totals, wide_sums_by_half,
};
use super::small::table;
use crate::quant::{Q2K, Q3K, Q4K, Q5K, Q6K};

/// Steps and offsets of groups 0 to 3 of two blocks, and of groups 4 to 7, of their first sixteen bytes: `d`, `dmin`, and
/// twelve bytes of scales and minimums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn grids(a: &[u8; 16], b: &[u8; 16]) -> [(__m256, __m256); 2] {
    let (a, b) = (load_half(a), load_half(b));
    let stored = _mm256_set_m128i(b, a);
    // Words 1 and 2: six bits for groups 0 to 3, the two high bits for groups 4 to 7; word 3 their low bits.
    let first = _mm256_and_si256(stored, _mm256_set1_epi8(0x3F));
    let high = _mm256_and_si256(_mm256_srli_epi16::<2>(stored), _mm256_set1_epi8(0x30));
    let nibble = _mm256_set1_epi8(0x0F);
    // Scales end up in word 1 and minimums in word 2, like the high bits.
    let scales = _mm256_srli_si256::<8>(_mm256_and_si256(stored, nibble));
    let minimums = _mm256_and_si256(_mm256_srli_epi16::<4>(stored), nibble);
    let minimums = _mm256_srli_si256::<4>(minimums);
    let second = _mm256_or_si256(high, _mm256_blend_epi32::<0b0100_0100>(scales, minimums));
    // The four bytes of word N, each a number.
    let wide = |bytes, order| _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, order));
    let (word1, word2) = (bytes_of_word(1), bytes_of_word(2));
    let steps = _mm256_cvtph_ps(_mm_unpacklo_epi64(a, b));
    let (d, dmin) = (_mm256_permute_ps::<0x00>(steps), _mm256_permute_ps::<0x55>(steps));
    let grids =
        |bytes| (_mm256_mul_ps(d, wide(bytes, word1)), _mm256_mul_ps(dmin, wide(bytes, word2)));
    [grids(first), grids(second)]
}

/// The order that makes numbers of 32 bits of the bytes of a word of each half.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bytes_of_word(word: i32) -> __m256i {
    let first = 0x8080_8000_u32 as i32 | (4 * word);
    let order = _mm_setr_epi32(first, first + 1, first + 2, first + 3);
    _mm256_broadcastsi128_si256(order)
}

/// Sums and sums of squares of groups 0 to 3 of two blocks, and of groups 4 to 7.
type Totals = [(__m256, __m256); 2];

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q4_k_add(blocks: &[Q4K; 2], lanes: AffineLanes<32>) -> AffineLanes<32> {
    // (quant - 8)²: the sum of two fits into a byte.
    let table = table([64, 49, 36, 25, 16, 9, 4, 1, 0, 1, 4, 9, 16, 25, 36, 49]);
    let halves = (blocks[0].qs.as_chunks().0, blocks[1].qs.as_chunks().0);
    // Of two groups, packed early, because there are few registers.
    let two = |j: usize| {
        let (low, high) = two_nibbles(&halves.0[2 * j], &halves.1[2 * j]);
        let (more_low, more_high) = two_nibbles(&halves.0[2 * j + 1], &halves.1[2 * j + 1]);
        let squares = |a, b| _mm256_add_epi8(looked_up(table, a), looked_up(table, b));
        let packed = |low, high| _mm256_packus_epi32(eights(low), eights(high));
        let sums = packed(_mm256_add_epi8(low, more_low), _mm256_add_epi8(high, more_high));
        (sums, packed(squares(low, more_low), squares(high, more_high)))
    };
    let four = |a: (__m256i, __m256i), b: (__m256i, __m256i)| {
        let all = |a, b| _mm256_madd_epi16(_mm256_packus_epi32(a, b), _mm256_set1_epi16(1));
        let (sums, squares) =
            (_mm256_cvtepi32_ps(all(a.0, b.0)), _mm256_cvtepi32_ps(all(a.1, b.1)));
        // Σ q² = Σ (q - 8)² + 16 Σ q - 32 * 8², all of them exact.
        let squares = _mm256_fmadd_ps(_mm256_set1_ps(16.0), sums, squares);
        (sums, _mm256_sub_ps(squares, _mm256_set1_ps(32.0 * 8.0 * 8.0)))
    };
    add_totals(
        [four(two(0), two(1)), four(two(2), two(3))],
        (head(&blocks[0]), head(&blocks[1])),
        lanes,
    )
}

/// Both of `$bits`, shifted.
macro_rules! moved {
    ($bits:ident, $shift:path) => {
        ($shift($bits.0), $shift($bits.1))
    };
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q5_k_add(blocks: &[Q5K; 2], lanes: AffineLanes<32>) -> AffineLanes<32> {
    let halves = (blocks[0].qs.as_chunks().0, blocks[1].qs.as_chunks().0);
    let bits = (blocks[0].qh.as_chunks().0, blocks[1].qh.as_chunks().0);
    let bits = (pair(&bits.0[0], &bits.1[0]), pair(&bits.0[1], &bits.1[1]));
    // Of two groups, whose fifth bits are at their places in `low_bits` and `high_bits`.
    let two = |j: usize, low_bits: (__m256i, __m256i), high_bits: (__m256i, __m256i)| {
        let fifth =
            |quants, bits| _mm256_or_si256(quants, _mm256_and_si256(bits, _mm256_set1_epi8(0x10)));
        let (low, high) = two_nibbles(&halves.0[2 * j], &halves.1[2 * j]);
        let (low, high) = (fifth(low, low_bits.0), fifth(high, high_bits.0));
        let (more_low, more_high) = two_nibbles(&halves.0[2 * j + 1], &halves.1[2 * j + 1]);
        let (more_low, more_high) = (fifth(more_low, low_bits.1), fifth(more_high, high_bits.1));
        two_totals((low, more_low), (high, more_high))
    };
    let first = four_totals(
        two(0, moved!(bits, _mm256_slli_epi16::<4>), moved!(bits, _mm256_slli_epi16::<3>)),
        two(1, moved!(bits, _mm256_slli_epi16::<2>), moved!(bits, _mm256_slli_epi16::<1>)),
    );
    let second = four_totals(
        two(2, bits, moved!(bits, _mm256_srli_epi16::<1>)),
        two(3, moved!(bits, _mm256_srli_epi16::<2>), moved!(bits, _mm256_srli_epi16::<3>)),
    );
    add_totals([first, second], (head(&blocks[0]), head(&blocks[1])), lanes)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_totals(
    totals: Totals,
    (a, b): (&[u8; 16], &[u8; 16]),
    lanes: AffineLanes<32>,
) -> AffineLanes<32> {
    let [first, second] = totals;
    let [first_grid, second_grid] = grids(a, b);
    let groups = |(sums, squares): (__m256, __m256), (steps, offsets): (__m256, __m256)| Affine {
        steps,
        offsets,
        sums,
        squares,
    };
    lanes.add(groups(first, first_grid)).add(groups(second, second_grid))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q6_k_add([block]: &[Q6K; 1], mut lanes: SymmetricLanes) -> SymmetricLanes {
    // By halves, because there are few registers.
    for (half, scales) in by_lane(load_half(&block.scales)).into_iter().enumerate() {
        let quants = q6_k_half(block, half);
        for quants in quants {
            lanes = lanes.add_zeros(_mm256_cmpeq_epi8(quants, _mm256_set1_epi8(32)));
        }
        let sums = _mm256_cvtepi32_ps(sums_by_half(quants));
        let squares = wide_sums_by_half(squared(quants));
        // Σ (q - 32)² = Σ q² - 64 Σ q + 16 * 32², all of them exact.
        let squares = _mm256_cvtepi32_ps(squares);
        let squares = _mm256_fnmadd_ps(_mm256_set1_ps(64.0), sums, squares);
        lanes = lanes.add(Symmetric {
            steps: _mm256_mul_ps(splat(block.d), scales),
            sums: _mm256_sub_ps(sums, _mm256_set1_ps(16.0 * 32.0)),
            squares: _mm256_add_ps(squares, _mm256_set1_ps(16.0 * 32.0 * 32.0)),
        });
    }
    lanes
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q3_k_add([block]: &[Q3K; 1], mut lanes: SymmetricLanes) -> SymmetricLanes {
    // (quant - 4)².
    let squares = table([16, 9, 4, 1, 0, 1, 4, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    let quants = q3_k_quants(block);
    let scales = by_lane(q3_k_scales(block));
    for (quants, scales) in quants.as_chunks::<4>().0.iter().zip(scales) {
        for quants in quants {
            lanes = lanes.add_zeros(_mm256_cmpeq_epi8(*quants, _mm256_set1_epi8(4)));
        }
        let sums = _mm256_cvtepi32_ps(sums_by_half(*quants));
        let squares = all_looked_up(squares, *quants);
        lanes = lanes.add(Symmetric {
            steps: _mm256_mul_ps(splat(block.d), scales),
            sums: _mm256_sub_ps(sums, _mm256_set1_ps(16.0 * 4.0)),
            squares: _mm256_cvtepi32_ps(sums_by_half(squares)),
        });
    }
    lanes
}

/// The sum of eight quants is at most 24, that of their squares at most 72: one sum of bytes holds both.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q2_k_add([block]: &[Q2K; 1], mut lanes: AffineLanes<16>) -> AffineLanes<16> {
    const BASE: u8 = 80;
    // BASE times the quant, and its square.
    let both = table([0, 81, 164, 249, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Exact up to the largest sum, 24 * 80 + 72.
    let inverse = _mm256_set1_epi16((0x10000 / i32::from(BASE) + 1) as i16);
    let ones = _mm256_set1_epi16(1);
    let packed = load_half(&block.scales);
    let nibble = _mm_set1_epi8(0x0F);
    let steps = by_lane(_mm_and_si128(packed, nibble));
    let minimums = by_lane(_mm_and_si128(_mm_srli_epi16::<4>(packed), nibble));
    let quants = bit_pairs(&block.qs);
    for ((quants, steps), minimums) in quants.as_chunks::<4>().0.iter().zip(steps).zip(minimums) {
        let parts = partial_sums(all_looked_up(both, *quants));
        let all = _mm256_cvtepi32_ps(_mm256_madd_epi16(parts, ones));
        let sums = _mm256_madd_epi16(_mm256_mulhi_epu16(parts, inverse), ones);
        let sums = _mm256_cvtepi32_ps(sums);
        let groups = Affine {
            steps: _mm256_mul_ps(splat(block.d), steps),
            offsets: _mm256_mul_ps(splat(block.dmin), minimums),
            sums,
            squares: _mm256_fnmadd_ps(_mm256_set1_ps(f32::from(BASE)), sums, all),
        };
        lanes = lanes.add(groups);
    }
    lanes
}

/// Squares of quants, four to a lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn squared([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    [fours_of_squares(a), fours_of_squares(b), fours_of_squares(c), fours_of_squares(d)]
}

/// What `table` has for quants.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn all_looked_up(table: __m256i, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    [looked_up(table, a), looked_up(table, b), looked_up(table, c), looked_up(table, d)]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn looked_up(table: __m256i, quants: __m256i) -> __m256i {
    _mm256_shuffle_epi8(table, quants)
}

/// Sixteen signed bytes as numbers, in the order of the lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn by_lane(bytes: __m128i) -> [__m256; 2] {
    let order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    let bytes = _mm_shuffle_epi8(bytes, order);
    let wide = |bytes| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    [wide(bytes), wide(_mm_srli_si128::<8>(bytes))]
}

/// The sixteen scales of six bits, around zero.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q3_k_scales(block: &Q3K) -> __m128i {
    let [first, second, high] = *block.scales.as_chunks::<4>().0 else {
        return _mm_setzero_si128();
    };
    let word = i32::from_le_bytes;
    // Low nibbles of the first eight bytes, then their high nibbles.
    let low = _mm_setr_epi32(word(first), word(second), word(first) >> 4, word(second) >> 4);
    let low = _mm_and_si128(low, _mm_set1_epi8(0x0F));
    let high = _mm_srlv_epi32(_mm_set1_epi32(word(high)), _mm_setr_epi32(0, 2, 4, 6));
    let high = _mm_slli_epi16::<4>(_mm_and_si128(high, _mm_set1_epi8(0x03)));
    _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32))
}
