//! Products of rows of 32-value blocks.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::activations::{Q8, Q8Row};
use super::super::avx2::block_panel::{BlockPanel, MANY, ROWS};
use super::super::avx2::blocks::{Four, block_product, nibbles};
use super::super::avx2::vector::{load_i8, prefetch, prefetch_at, sum_four};
use super::block_panel::multiply;
use crate::quant::{self, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Sums of four adjacent products of unsigned and signed bytes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn fours(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed)
}

block_product!(
    "avx512bw,avx512vl,avx512vnni", q4_0_product, q4_0_row, Q4_0, q4_0_quants, fours,
    |_: &Q4_0| U16::ZERO, multiply::<3, false>, <3, false>
);
block_product!(
    "avx512bw,avx512vl,avx512vnni", q4_1_product, q4_1_row, Q4_1, q4_1_quants, fours,
    |block: &Q4_1| block.m, multiply::<0, true>, <0, true>
);
block_product!(
    "avx512bw,avx512vl,avx512vnni", q5_0_product, q5_0_row, Q5_0, q5_0_quants, fours,
    |_: &Q5_0| U16::ZERO, multiply::<4, false>, <4, false>
);
block_product!(
    "avx512bw,avx512vl,avx512vnni", q5_1_product, q5_1_row, Q5_1, q5_1_quants, fours,
    |block: &Q5_1| block.m, multiply::<0, true>, <0, true>
);
block_product!(
    "avx512bw,avx512vl,avx512vnni", q8_0_product, q8_0_row, Q8_0, q8_0_quants, fours,
    |_: &Q8_0| U16::ZERO, multiply::<7, false>, <7, false>
);

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn q4_0_quants(block: &Q4_0) -> __m256i {
    nibbles(&block.qs)
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn q4_1_quants(block: &Q4_1) -> __m256i {
    nibbles(&block.qs)
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn q5_0_quants(block: &Q5_0) -> __m256i {
    five_bits(&block.qs, block.qh.get())
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn q5_1_quants(block: &Q5_1) -> __m256i {
    five_bits(&block.qs, block.qh.get())
}

/// Nibbles, and 16 more where a bit is set.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn five_bits(low: &[u8; 16], fifths: u32) -> __m256i {
    let low = nibbles(low);
    _mm256_mask_add_epi8(low, fifths, low, _mm256_set1_epi8(16))
}

/// The signed quants with 128 more.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn q8_0_quants(block: &Q8_0) -> __m256i {
    _mm256_xor_si256(load_i8(&block.qs), _mm256_set1_epi8(i8::MIN))
}
