//! Products of rows of 32-value blocks.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::activations::{Q8, Q8Row};
use super::vector::{load_half, load_i8, prefetch, splat, sum};
use crate::quant::{self, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Sums of four adjacent products of unsigned (at most 128) and signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fours(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1))
}

/// Low nibbles in the lower half, high nibbles in the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn nibbles(bytes: &[u8; 16]) -> __m256i {
    let bytes = load_half(bytes);
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
    _mm256_and_si256(both, _mm256_set1_epi8(0x0F))
}

/// 16 in byte i where bit i is set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn fifth_bits(bits: u32) -> __m256i {
    let bytes =
        _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), bytes);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Running sums of a row: quants times scales by lane, offsets apart.
#[derive(Clone, Copy)]
struct Sums {
    lanes: __m256,
    offsets: f32,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn zero() -> Self {
        Self { lanes: _mm256_setzero_ps(), offsets: 0.0 }
    }

    /// Adds a block: `scale` by `x_scale` by the integers `dots`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add(&mut self, dots: __m256i, scale: U16, x_scale: f32) {
        let factor = _mm256_mul_ps(splat(scale), _mm256_set1_ps(x_scale));
        self.lanes = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), factor, self.lanes);
    }

    /// Adds `offset` by the scaled sum of the activations.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add_offset(&mut self, offset: U16, x_sum: f32) {
        self.offsets = _mm256_cvtss_f32(splat(offset)).mul_add(x_sum, self.offsets);
    }
}

/// One function over rows of 32-value blocks. `$step` adds one block; `$offset` weighs the offsets.
macro_rules! block_product {
    ($name:ident, $block:ty, $offset:literal, $step:expr) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name(bytes: &[u8], acts: &Q8, out: &mut [f32]) {
            let stride = acts.blocks * size_of::<$block>();
            for (row, out) in bytes.chunks_exact(stride).zip(out.chunks_exact_mut(acts.rows())) {
                let blocks: &[$block] = quant::blocks(row);
                for (t, out) in out.iter_mut().enumerate() {
                    let Q8Row { quants, scales, sums } = acts.row(t);
                    let mut total = Sums::zero();
                    for (((block, x), &scale), &x_sum) in
                        blocks.iter().zip(quants).zip(scales).zip(sums)
                    {
                        prefetch(block);
                        $step(&mut total, block, load_i8(x), scale, x_sum);
                    }
                    *out = $offset * total.offsets + sum(total.lanes);
                }
            }
        }
    };
}

block_product!(q4_0_product, Q4_0, -8.0, q4_0_step);
block_product!(q4_1_product, Q4_1, 1.0, q4_1_step);
block_product!(q5_0_product, Q5_0, -16.0, q5_0_step);
block_product!(q5_1_product, Q5_1, 1.0, q5_1_step);
block_product!(q8_0_product, Q8_0, 0.0, q8_0_step);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0_step(total: &mut Sums, block: &Q4_0, x: __m256i, scale: f32, x_sum: f32) {
    total.add(fours(nibbles(&block.qs), x), block.d, scale);
    total.add_offset(block.d, x_sum);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_1_step(total: &mut Sums, block: &Q4_1, x: __m256i, scale: f32, x_sum: f32) {
    total.add(fours(nibbles(&block.qs), x), block.d, scale);
    total.add_offset(block.m, x_sum);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_0_step(total: &mut Sums, block: &Q5_0, x: __m256i, scale: f32, x_sum: f32) {
    let quants = _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh.get()));
    total.add(fours(quants, x), block.d, scale);
    total.add_offset(block.d, x_sum);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_1_step(total: &mut Sums, block: &Q5_1, x: __m256i, scale: f32, x_sum: f32) {
    let quants = _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh.get()));
    total.add(fours(quants, x), block.d, scale);
    total.add_offset(block.m, x_sum);
}

/// Moves the sign of each weight over to its activation: -128 becomes an unsigned 128, and
/// 2 * 128 * 127 still fits into sixteen bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0_step(total: &mut Sums, block: &Q8_0, x: __m256i, scale: f32, _x_sum: f32) {
    let quants = load_i8(&block.qs);
    let dots = fours(_mm256_abs_epi8(quants), _mm256_sign_epi8(x, quants));
    total.add(dots, block.d, scale);
}
