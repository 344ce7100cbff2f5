//! Products of rows of K-quant super-blocks.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::activations::{Q8Super, Q8SuperRow};
use super::super::avx2::block_panel::{MANY, ROWS};
use super::super::avx2::sums::Sums;
use super::super::avx2::super_panel::SuperPanel;
use super::super::avx2::supers::{
    eight_minimums, q2_k_step, q2_k_unpack, q3_k_step, q3_k_unpack, q4_k_unpack, q5_k_unpack,
    q6_k_unpack, super_product,
};
use super::super::avx2::vector::{load_half, load_i16, load_u8, prefetch, prefetch_at};
use super::super_panel::{multiply, put};
use super::vector::load_bytes;
use crate::quant::{self, Q2K, Q3K, Q4K, Q5K, Q6K, SUPER, k_scales};

super_product!(
    "avx512bw,avx512vl,avx512vnni",
    q2_k_product,
    q2_k_row,
    Q2K,
    q2_k_step,
    q2_k_unpack,
    put,
    multiply::<4, true>,
    true
);
super_product!(
    "avx512bw,avx512vl,avx512vnni",
    q3_k_product,
    q3_k_row,
    Q3K,
    q3_k_step,
    q3_k_unpack,
    put,
    multiply::<4, false>,
    false
);
super_product!(
    "avx512bw,avx512vl,avx512vnni",
    q4_k_product,
    q4_k_row,
    Q4K,
    q4_k_step,
    q4_k_unpack,
    put,
    multiply::<8, true>,
    true
);
super_product!(
    "avx512bw,avx512vl,avx512vnni",
    q5_k_product,
    q5_k_row,
    Q5K,
    q5_k_step,
    q5_k_unpack,
    put,
    multiply::<8, true>,
    true
);
super_product!(
    "avx512bw,avx512vl,avx512vnni",
    q6_k_product,
    q6_k_row,
    Q6K,
    q6_k_step,
    q6_k_unpack,
    put,
    multiply::<4, false>,
    false
);

/// Adds products of unsigned and signed bytes by the `scales` of their pairs.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn add(sums: __m512i, unsigned: __m512i, signed: __m512i, scales: __m512i) -> __m512i {
    _mm512_dpwssd_epi32(sums, _mm512_maddubs_epi16(unsigned, signed), scales)
}

/// Lanes i and i + 8 together.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn fold(lanes: __m512i) -> __m256i {
    _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes))
}

/// Words `a` and `b` of `words`, sixteen times each.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn two(words: __m512i, a: i16, b: i16) -> __m512i {
    let order = _mm512_inserti64x4::<1>(_mm512_set1_epi16(a), _mm256_set1_epi16(b));
    _mm512_permutexvar_epi16(order, words)
}

/// Words `4 part` and the three behind it, eight times each.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn four(words: __m512i, part: i16) -> __m512i {
    let word = |i| _mm_set1_epi16(4 * part + i);
    let (low, high) = (_mm256_set_m128i(word(1), word(0)), _mm256_set_m128i(word(3), word(2)));
    _mm512_permutexvar_epi16(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high), words)
}

/// Low nibbles of `low`, the bits of `rest` above them, up to `MOST` in all.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn joined<const MOST: i8>(low: __m512i, rest: __m512i) -> __m512i {
    // The third where it is set picks the first, otherwise the second.
    let bytes = _mm512_ternarylogic_epi64::<0xE4>(low, rest, _mm512_set1_epi8(0x0F));
    _mm512_and_si512(bytes, _mm512_set1_epi8(MOST))
}

/// Shifts for the lower and for the upper half.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn by(lower: i64, upper: i64) -> __m512i {
    _mm512_setr_epi64(lower, lower, lower, lower, upper, upper, upper, upper)
}

/// Sums of four chunks of 32 values: `even` are the first and the third, `odd` the others. The first of their scales is
/// word `first`.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn four_chunks(
    sums: __m512i,
    [even, odd]: [__m512i; 2],
    x: [&[i8; 64]; 2],
    words: __m512i,
    first: i16,
) -> __m512i {
    let x = x.map(|x| load_bytes(x));
    let lower = _mm512_shuffle_i64x2::<0x44>(x[0], x[1]);
    let upper = _mm512_shuffle_i64x2::<0xEE>(x[0], x[1]);
    let sums = add(sums, even, lower, two(words, first, first + 2));
    add(sums, odd, upper, two(words, first + 1, first + 3))
}

/// Eight bytes as words.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn words(bytes: u64) -> __m512i {
    _mm512_castsi128_si512(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(bytes as i64)))
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn q4_k_step(total: &mut Sums, block: &Q4K, x: &[i8; SUPER], scale: f32, x_sums: __m256i) {
    let (scales, minimums) = k_scales::unpack_words(&block.scales);
    let scales = words(scales);
    let ([x0, x1, x2, x3], _) = x.as_chunks::<64>() else { return };
    let mut sums = _mm512_setzero_si512();
    for (half, bytes) in block.qs.as_chunks().0.iter().enumerate() {
        let bytes = load_bytes(bytes);
        let nibble = _mm512_set1_epi8(0x0F);
        let even = _mm512_and_si512(bytes, nibble);
        let odd = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
        let x = if half == 0 { [x0, x1] } else { [x2, x3] };
        sums = four_chunks(sums, [even, odd], x, scales, 4 * half as i16);
    }
    let minimums = eight_minimums(minimums, x_sums);
    total.add_both(fold(sums), minimums, [block.d, block.dmin], scale);
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn q5_k_step(total: &mut Sums, block: &Q5K, x: &[i8; SUPER], scale: f32, x_sums: __m256i) {
    let (scales, minimums) = k_scales::unpack_words(&block.scales);
    let scales = words(scales);
    let ([x0, x1, x2, x3], _) = x.as_chunks::<64>() else { return };
    let ([low, high], _) = block.qs.as_chunks::<64>() else { return };
    let (low, high) = (load_bytes(low), load_bytes(high));
    let fifths = _mm512_broadcast_i64x4(load_u8(&block.qh));
    // Bit c of each byte, moved to bit 4.
    let pairs = [
        joined::<0x1F>(low, _mm512_sllv_epi64(fifths, by(4, 2))),
        joined::<0x1F>(_mm512_srli_epi16::<4>(low), _mm512_sllv_epi64(fifths, by(3, 1))),
    ];
    let sums = four_chunks(_mm512_setzero_si512(), pairs, [x0, x1], scales, 0);
    let pairs = [
        joined::<0x1F>(high, _mm512_srlv_epi64(fifths, by(0, 2))),
        joined::<0x1F>(_mm512_srli_epi16::<4>(high), _mm512_srlv_epi64(fifths, by(1, 3))),
    ];
    let sums = four_chunks(sums, pairs, [x2, x3], scales, 4);
    let minimums = eight_minimums(minimums, x_sums);
    total.add_both(fold(sums), minimums, [block.d, block.dmin], scale);
}

/// The offset of -32 leaves the sum as 32 times scales by sums of activations, still in integers.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn q6_k_step(total: &mut Sums, block: &Q6K, x: &[i8; SUPER], scale: f32, x_sums: __m256i) {
    let scales = _mm256_cvtepi8_epi16(load_half(&block.scales));
    let offsets = _mm256_slli_epi32::<5>(_mm256_madd_epi16(scales, x_sums));
    let scales = _mm512_castsi256_si512(scales);
    let (lows, highs) = (block.ql.as_chunks::<64>().0, block.qh.as_chunks::<32>().0);
    let mut sums = _mm512_setzero_si512();
    for (half, x) in x.as_chunks::<64>().0.as_chunks::<2>().0.iter().enumerate() {
        let low = load_bytes(&lows[half]);
        let high = _mm512_broadcast_i64x4(load_u8(&highs[half]));
        let first = joined::<0x3F>(low, _mm512_sllv_epi64(high, by(4, 2)));
        let low = _mm512_srli_epi16::<4>(low);
        let second = joined::<0x3F>(low, _mm512_srlv_epi64(high, by(0, 2)));
        let part = 2 * half as i16;
        sums = add(sums, first, load_bytes(&x[0]), four(scales, part));
        sums = add(sums, second, load_bytes(&x[1]), four(scales, part + 1));
    }
    total.add(_mm256_sub_epi32(fold(sums), offsets), block.d, scale);
}
