//! Products of rows of 32-value blocks.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::IntoBytes as _;
use zerocopy::little_endian::U16;

use super::super::activations::{Q8, Q8Row};
use super::super::avx2::block_panel::{BlockPanel, MANY, ROWS};
use super::super::avx2::block_rows::{Both, block_rows, twice_by_half, with_fifths};
use super::super::avx2::blocks::{block_product, nibbles};
use super::super::avx2::vector::{
    apart, heads, load_i8, pair, prefetch, prefetch_at, sum_four, two_nibbles,
};
use super::block_panel::multiply;
use crate::quant::{self, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Sums of four adjacent products of the quants of two blocks with `x`; `$halves` are their quants.
macro_rules! dots {
    ($name:ident, $block:ty, |$a:ident, $b:ident| $halves:expr) => {
        #[inline]
        #[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
        fn $name($a: &$block, $b: &$block, x: &[i8; 32]) -> __m256i {
            let ((low, high), (first, second)) = ($halves, twice_by_half(x));
            let low = _mm256_dpbusd_epi32(_mm256_setzero_si256(), low, first);
            _mm256_dpbusd_epi32(low, high, second)
        }
    };
}

dots!(q4_0_dots, Q4_0, |a, b| two_nibbles(&a.qs, &b.qs));
dots!(q4_1_dots, Q4_1, |a, b| two_nibbles(&a.qs, &b.qs));
dots!(q5_0_dots, Q5_0, |a, b| with_fifths::<2>(two_nibbles(&a.qs, &b.qs), heads(a, b)));
dots!(q5_1_dots, Q5_1, |a, b| with_fifths::<4>(two_nibbles(&a.qs, &b.qs), heads(a, b)));
dots!(q8_0_dots, Q8_0, |a, b| eights(a, b));

block_rows!(
    "avx512bw,avx512vl,avx512vnni", q4_0_few, q4_0_rows, Q4_0, q4_0_dots, |_: &Q4_0| U16::ZERO,
    <3, false>
);
block_rows!(
    "avx512bw,avx512vl,avx512vnni", q4_1_few, q4_1_rows, Q4_1, q4_1_dots, |block: &Q4_1| block.m,
    <0, true>
);
block_rows!(
    "avx512bw,avx512vl,avx512vnni", q5_0_few, q5_0_rows, Q5_0, q5_0_dots, |_: &Q5_0| U16::ZERO,
    <4, false>
);
block_rows!(
    "avx512bw,avx512vl,avx512vnni", q5_1_few, q5_1_rows, Q5_1, q5_1_dots, |block: &Q5_1| block.m,
    <0, true>
);
block_rows!(
    "avx512bw,avx512vl,avx512vnni", q8_0_few, q8_0_rows, Q8_0, q8_0_dots, |_: &Q8_0| U16::ZERO,
    <7, false>
);

block_product!(
    "avx512bw,avx512vl,avx512vnni",
    q4_0_product,
    q4_0_few,
    Q4_0,
    q4_0_quants,
    |_: &Q4_0| U16::ZERO,
    multiply::<3, false>,
    false
);
block_product!(
    "avx512bw,avx512vl,avx512vnni",
    q4_1_product,
    q4_1_few,
    Q4_1,
    q4_1_quants,
    |block: &Q4_1| block.m,
    multiply::<0, true>,
    true
);
block_product!(
    "avx512bw,avx512vl,avx512vnni",
    q5_0_product,
    q5_0_few,
    Q5_0,
    q5_0_quants,
    |_: &Q5_0| U16::ZERO,
    multiply::<4, false>,
    false
);
block_product!(
    "avx512bw,avx512vl,avx512vnni",
    q5_1_product,
    q5_1_few,
    Q5_1,
    q5_1_quants,
    |block: &Q5_1| block.m,
    multiply::<0, true>,
    true
);
block_product!(
    "avx512bw,avx512vl,avx512vnni",
    q8_0_product,
    q8_0_few,
    Q8_0,
    q8_0_quants,
    |_: &Q8_0| U16::ZERO,
    multiply::<7, false>,
    false
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

/// The same of two blocks: their first halves, and their second ones.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn eights(a: &Q8_0, b: &Q8_0) -> (__m256i, __m256i) {
    let ((a, _), (b, _)) = (a.qs.as_bytes().as_chunks(), b.qs.as_bytes().as_chunks());
    let moved = |half: usize| _mm256_xor_si256(pair(&a[half], &b[half]), _mm256_set1_epi8(i8::MIN));
    (moved(0), moved(1))
}
