//! Products of rows of 32-value blocks.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::activations::{Q8, Q8Row};
use super::block_panel::{BlockPanel, MANY, ROWS};
use super::vector::{
    four_halves, load_four, load_half, load_i8, load_i32, prefetch, prefetch_at, sum_four,
    sums_of_four,
};
use crate::quant::{self, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Sums of four adjacent products of unsigned (at most 128) and signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fours(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1))
}

/// Sums of four adjacent products of signed bytes, those of `x` from -127. The sign of each weight moves
/// over to its activation: -128 becomes an unsigned 128, and 2 * 128 * 127 still fits into sixteen bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_fours(quants: __m256i, x: __m256i) -> __m256i {
    fours(_mm256_abs_epi8(quants), _mm256_sign_epi8(x, quants))
}

/// Low nibbles in the lower half, high nibbles in the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn nibbles(bytes: &[u8; 16]) -> __m256i {
    // Shifts lane by lane, so that the load does both halves at once.
    let both = _mm256_broadcastsi128_si256(load_half(bytes));
    let shifted = _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4));
    _mm256_and_si256(shifted, _mm256_set1_epi8(0x0F))
}

/// 16 in byte i where bit i is set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn fifth_bits(bits: u32) -> __m256i {
    let bytes =
        _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), bytes);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Four blocks of a row against four of the activations, as integers that are still apart.
pub(in super::super) struct Four<'a> {
    /// Partial sums of products, by block.
    pub(in super::super) dots: [__m256i; 4],
    pub(in super::super) d: [U16; 4],
    /// Offsets of the blocks, in types that store them.
    pub(in super::super) m: [U16; 4],
    pub(in super::super) x_scales: &'a [f32; 4],
    pub(in super::super) x_sums: &'a [i32; 4],
}

impl Four<'_> {
    /// Adds each block to the chain of its own. `2^SHIFT` is taken away from each quant, unless it is 1.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn add<const SHIFT: i32, const OFFSETS: bool>(
        self,
        chains: __m128,
    ) -> __m128 {
        let mut dots = sums_of_four(self.dots);
        let (x_scales, x_sums) = (load_four(self.x_scales), load_i32(self.x_sums));
        if SHIFT > 0 {
            dots = _mm_sub_epi32(dots, _mm_slli_epi32::<SHIFT>(x_sums));
        }
        let factors = _mm_mul_ps(four_halves(self.d), x_scales);
        let chains = _mm_fmadd_ps(_mm_cvtepi32_ps(dots), factors, chains);
        if !OFFSETS {
            return chains;
        }
        let x_sums = _mm_mul_ps(x_scales, _mm_cvtepi32_ps(x_sums));
        _mm_fmadd_ps(four_halves(self.m), x_sums, chains)
    }
}

/// The functions over rows of one type of block, with `$features`. `$quants` are its bytes, each with `2^$shift` too
/// much, and `$dots` multiplies them; `$m` is the offset, where `$offsets` says that there is one; `$multiply` takes a panel
/// of them.
macro_rules! block_product {
    (
        $features:literal, $product:ident, $row:ident, $block:ty, $quants:path, $dots:path, $m:expr,
        $multiply:expr, <$shift:literal, $offsets:literal>
    ) => {
        /// One weight row by one activation row.
        #[inline]
        #[target_feature(enable = $features)]
        fn $row(blocks: &[$block], x: Q8Row<'_>) -> f32 {
            let (fours, rest) = blocks.as_chunks::<4>();
            let (quants, quants_rest) = x.quants.as_chunks::<4>();
            let (scales, scales_rest) = x.scales.as_chunks::<4>();
            let (sums, sums_rest) = x.sums.as_chunks::<4>();
            let mut chains = _mm_setzero_ps();
            for (((blocks, quants), x_scales), x_sums) in
                fours.iter().zip(quants).zip(scales).zip(sums)
            {
                let mut dots = [_mm256_setzero_si256(); 4];
                for i in 0..4 {
                    prefetch(&blocks[i]);
                    dots[i] = $dots($quants(&blocks[i]), load_i8(&quants[i]));
                }
                let [a, b, c, e] = blocks;
                let (d, m) = ([a.d, b.d, c.d, e.d], [$m(a), $m(b), $m(c), $m(e)]);
                chains = Four { dots, d, m, x_scales, x_sums }.add::<$shift, $offsets>(chains);
            }
            if rest.is_empty() {
                return sum_four(chains);
            }
            // Blocks that are missing count as zeros.
            let mut dots = [_mm256_setzero_si256(); 4];
            let (mut d, mut m) = ([U16::ZERO; 4], [U16::ZERO; 4]);
            let (mut x_scales, mut x_sums) = ([0.0; 4], [0; 4]);
            for (i, (block, quants)) in rest.iter().zip(quants_rest).enumerate() {
                dots[i] = $dots($quants(block), load_i8(quants));
                (d[i], m[i]) = (block.d, $m(block));
            }
            x_scales[..rest.len()].copy_from_slice(scales_rest);
            x_sums[..rest.len()].copy_from_slice(sums_rest);
            let last = Four { dots, d, m, x_scales: &x_scales, x_sums: &x_sums };
            sum_four(last.add::<$shift, $offsets>(chains))
        }

        #[target_feature(enable = $features)]
        pub(in super::super) fn $product(bytes: &[u8], acts: &Q8, out: &mut [f32]) {
            let stride = acts.blocks * size_of::<$block>();
            let width = bytes.len() / stride;
            if acts.rows() < MANY {
                for (w, row) in bytes.chunks_exact(stride).enumerate() {
                    for (t, out) in out.chunks_exact_mut(width).enumerate() {
                        out[w] = $row(quant::blocks(row), acts.row(t));
                    }
                }
                return;
            }
            let mut panel = BlockPanel::new(acts.blocks);
            for (index, rows) in bytes.chunks(ROWS * stride).enumerate() {
                // Block by block, so that a tile is complete before it leaves the first-level cache.
                let blocks: &[$block] = quant::blocks(rows);
                for (b, tile) in panel.tiles.iter_mut().enumerate() {
                    for half in 0..2 {
                        // Rows that are missing are zeros.
                        let mut quants = [_mm256_setzero_si256(); 8];
                        let (mut d, mut m) = ([U16::ZERO; 8], [U16::ZERO; 8]);
                        for lane in 0..8 {
                            let Some(block) = blocks.get((8 * half + lane) * acts.blocks + b)
                            else {
                                break;
                            };
                            prefetch_at(block, ROWS * stride);
                            quants[lane] = $quants(block);
                            (d[lane], m[lane]) = (block.d, $m(block));
                        }
                        tile.set(half, quants, d, $offsets.then_some(m));
                    }
                }
                $multiply(&panel, acts, out, width, index);
            }
        }
    };
}

pub(in super::super) use block_product;

block_product!(
    "avx2,fma,f16c", q4_0_product, q4_0_row, Q4_0, q4_0_quants, fours, |_: &Q4_0| U16::ZERO,
    BlockPanel::multiply::<false, 8, 3, false, 4>, <3, false>
);
block_product!(
    "avx2,fma,f16c", q4_1_product, q4_1_row, Q4_1, q4_1_quants, fours, |block: &Q4_1| block.m,
    BlockPanel::multiply::<false, 8, 0, true, 4>, <0, true>
);
block_product!(
    "avx2,fma,f16c", q5_0_product, q5_0_row, Q5_0, q5_0_quants, fours, |_: &Q5_0| U16::ZERO,
    BlockPanel::multiply::<false, 4, 4, false, 3>, <4, false>
);
block_product!(
    "avx2,fma,f16c", q5_1_product, q5_1_row, Q5_1, q5_1_quants, fours, |block: &Q5_1| block.m,
    BlockPanel::multiply::<false, 4, 0, true, 3>, <0, true>
);
block_product!(
    "avx2,fma,f16c", q8_0_product, q8_0_row, Q8_0, q8_0_quants, signed_fours, |_: &Q8_0| U16::ZERO,
    BlockPanel::multiply::<true, 1, 0, false, 4>, <0, false>
);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0_quants(block: &Q4_0) -> __m256i {
    nibbles(&block.qs)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_1_quants(block: &Q4_1) -> __m256i {
    nibbles(&block.qs)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_0_quants(block: &Q5_0) -> __m256i {
    _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh.get()))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_1_quants(block: &Q5_1) -> __m256i {
    _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh.get()))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0_quants(block: &Q8_0) -> __m256i {
    load_i8(&block.qs)
}
