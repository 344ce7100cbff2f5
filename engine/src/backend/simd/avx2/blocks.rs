//! Products of rows of 32-value blocks.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::activations::Q8;
use super::block_panel::{BlockPanel, MANY, ROWS};
use super::block_rows::{q4_0_few, q4_1_few, q5_0_few, q5_1_few};
use super::four_rows::q8_0_few;
use super::vector::{load_half, load_i8, prefetch_at};
use crate::quant::{self, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

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

/// The products of rows of one type of block, with `$features`. `$few` takes few activation rows, and `$multiply` a panel for
/// many of them, of `$quants` and, where `$offsets` says so, of `$m`.
macro_rules! block_product {
    (
        $features:literal, $product:ident, $few:path, $block:ty, $quants:path, $m:expr,
        $multiply:expr, $offsets:literal
    ) => {
        #[target_feature(enable = $features)]
        pub(in super::super) fn $product(bytes: &[u8], acts: &Q8, out: &mut [f32]) {
            if acts.rows() < MANY {
                return $few(bytes, acts, out);
            }
            let stride = acts.blocks * size_of::<$block>();
            let width = bytes.len() / stride;
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
    "avx2,fma,f16c",
    q4_0_product,
    q4_0_few,
    Q4_0,
    q4_0_quants,
    |_: &Q4_0| U16::ZERO,
    BlockPanel::multiply::<false, 8, 3, false, 4>,
    false
);
block_product!(
    "avx2,fma,f16c",
    q4_1_product,
    q4_1_few,
    Q4_1,
    q4_1_quants,
    |block: &Q4_1| block.m,
    BlockPanel::multiply::<false, 8, 0, true, 4>,
    true
);
block_product!(
    "avx2,fma,f16c",
    q5_0_product,
    q5_0_few,
    Q5_0,
    q5_0_quants,
    |_: &Q5_0| U16::ZERO,
    BlockPanel::multiply::<false, 4, 4, false, 3>,
    false
);
block_product!(
    "avx2,fma,f16c",
    q5_1_product,
    q5_1_few,
    Q5_1,
    q5_1_quants,
    |block: &Q5_1| block.m,
    BlockPanel::multiply::<false, 4, 0, true, 3>,
    true
);
block_product!(
    "avx2,fma,f16c",
    q8_0_product,
    q8_0_few,
    Q8_0,
    q8_0_quants,
    |_: &Q8_0| U16::ZERO,
    BlockPanel::multiply::<true, 1, 0, false, 4>,
    false
);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q4_0_quants(block: &Q4_0) -> __m256i {
    nibbles(&block.qs)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q4_1_quants(block: &Q4_1) -> __m256i {
    nibbles(&block.qs)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q5_0_quants(block: &Q5_0) -> __m256i {
    _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh.get()))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q5_1_quants(block: &Q5_1) -> __m256i {
    _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh.get()))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q8_0_quants(block: &Q8_0) -> __m256i {
    load_i8(&block.qs)
}
