//! Many activation rows by rows of K-quant super-blocks: sixteen weight rows are unpacked once for all of
//! them. Lanes are weight rows, as in `block_panel`.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;

use zerocopy::little_endian::U16;

use super::super::activations::{Q8Super, Q8SuperRow};
use super::block_panel::{Lanes, ROWS, store_column, turn_lanes};
use super::vector::{four_bytes, load_f32, load_u8, single, store_u8, two_words};
use crate::quant::SUPER;

/// Tokens multiplied at once: as many as there are registers for.
const TOKENS: usize = 3;

/// A block taken apart: value = d * scale * quant - dmin * minimum, unless the minimum is in units of
/// `d` too and leaves the sum as an integer.
pub(in super::super) struct Unpacked {
    /// Unsigned bytes, by chunk of 32 values.
    pub(in super::super) quants: [__m256i; 8],
    /// Words, by sixteen values.
    pub(in super::super) scales: __m256i,
    /// Words, by sixteen values.
    pub(in super::super) minimums: __m256i,
    pub(in super::super) d: U16,
    pub(in super::super) dmin: U16,
}

/// One super-block of each row of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in super::super) struct SuperTile {
    /// Bytes by chunk of 32 values; four adjacent values in a lane.
    pub(in super::super) quants: [Lanes; 8],
    /// Words by eight times sixteen values, each scale twice in its lane; or scales that fill their lanes.
    pub(in super::super) scales: [Lanes; 2],
    /// Words by 32 values; two adjacent minimums in a lane.
    pub(in super::super) minimums: Lanes,
    pub(in super::super) d: [[f32; 8]; 2],
    pub(in super::super) dmin: [[f32; 8]; 2],
}

impl SuperTile {
    const ZERO: Self = Self {
        quants: [[[[0; 32]; 2]; 8]; 8],
        scales: [[[[0; 32]; 2]; 8]; 2],
        minimums: [[[0; 32]; 2]; 8],
        d: [[0.0; 8]; 2],
        dmin: [[0.0; 8]; 2],
    };

    /// Sets the block of row `row`, each scale twice.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn put(&mut self, row: usize, block: &Unpacked) {
        let low = _mm256_unpacklo_epi16(block.scales, block.scales);
        let high = _mm256_unpackhi_epi16(block.scales, block.scales);
        let first = _mm256_permute2x128_si256::<0x20>(low, high);
        self.put_with(row, block, [first, _mm256_permute2x128_si256::<0x31>(low, high)]);
    }

    /// Sets the block of row `row`, with `scales` in the form that the product wants.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn put_with(
        &mut self,
        row: usize,
        block: &Unpacked,
        scales: [__m256i; 2],
    ) {
        let (lane, half) = (row % 8, row / 8 % 2);
        for (to, quants) in self.quants.iter_mut().zip(block.quants) {
            store_u8(quants, &mut to[lane][half]);
        }
        for (to, scales) in self.scales.iter_mut().zip(scales) {
            store_u8(scales, &mut to[lane][half]);
        }
        store_u8(block.minimums, &mut self.minimums[lane][half]);
        self.d[half][lane] = single(block.d);
        self.dmin[half][lane] = single(block.dmin);
    }

    /// Turns what lies by row into what lies by lane, when every row has been put.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn turn(&mut self) {
        for quants in &mut self.quants {
            turn_lanes(quants);
        }
        for scales in &mut self.scales {
            turn_lanes(scales);
        }
        turn_lanes(&mut self.minimums);
    }
}

/// Sixteen weight rows, unpacked.
pub(in super::super) struct SuperPanel {
    pub(in super::super) tiles: Vec<SuperTile>,
}

impl SuperPanel {
    /// A panel of rows of `blocks`, all zeros.
    pub(in super::super) fn new(blocks: usize) -> Self {
        Self { tiles: vec![SuperTile::ZERO; blocks] }
    }

    /// `out[n, width]`: the columns of panel `index` out of those that make up `width` weight rows.
    /// Parameters as those of [`some_tokens`].
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn multiply<const DEPTH: usize, const MINIMUMS: bool>(
        &self,
        acts: &Q8Super,
        out: &mut [f32],
        width: usize,
        index: usize,
    ) {
        let first = index * ROWS;
        let count = ROWS.min(width - first);
        let last = acts.rows() - 1;
        for (group, out) in out.chunks_mut(TOKENS * width).enumerate() {
            // A group that is not full computes its last row several times.
            let x = array::from_fn(|t| acts.row((group * TOKENS + t).min(last)));
            let sums = some_tokens::<DEPTH, MINIMUMS>(&self.tiles, &x);
            for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(width)) {
                store_column(sums, &mut out[first..first + count]);
            }
        }
    }
}

/// Sums of tokens by half of the rows.
type Words = [[__m256i; 2]; TOKENS];

/// Some tokens by sixteen rows. `DEPTH` fours of products, summed up, fit into sixteen bits; `MINIMUMS`
/// have a step of their own.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some_tokens<const DEPTH: usize, const MINIMUMS: bool>(
    tiles: &[SuperTile],
    x: &[Q8SuperRow<'_>; TOKENS],
) -> [[__m256; 2]; TOKENS] {
    // As long as the panel: see `block_panel`.
    let x: &[_; TOKENS] = &array::from_fn(|t| x[t].first(tiles.len()));
    let mut dot_sums = [[_mm256_setzero_ps(); 2]; TOKENS];
    let mut minimum_sums = dot_sums;
    // Long runs are hidden from the compiler: it would unroll them, reorder their sums and be short of registers.
    let depth = if DEPTH == 8 { black_box(DEPTH) } else { DEPTH };
    for (b, tile) in tiles.iter().enumerate() {
        let mut quants = [&x[0].quants[b]; TOKENS];
        for (quants, x) in quants.iter_mut().zip(x) {
            *quants = &x.quants[b];
        }
        let dots = dots::<DEPTH>(tile, quants, depth);
        for t in 0..TOKENS {
            let x_scale = _mm256_set1_ps(x[t].scales[b]);
            let minimums = minimums(&tile.minimums, &x[t].sums[b]);
            for h in 0..2 {
                let factor = _mm256_mul_ps(load_f32(&tile.d[h]), x_scale);
                if MINIMUMS {
                    let dots = _mm256_cvtepi32_ps(dots[t][h]);
                    dot_sums[t][h] = _mm256_fmadd_ps(dots, factor, dot_sums[t][h]);
                    let factor = _mm256_mul_ps(load_f32(&tile.dmin[h]), x_scale);
                    let minimums = _mm256_cvtepi32_ps(minimums[h]);
                    minimum_sums[t][h] = _mm256_fmadd_ps(minimums, factor, minimum_sums[t][h]);
                } else {
                    let dots = _mm256_cvtepi32_ps(_mm256_sub_epi32(dots[t][h], minimums[h]));
                    dot_sums[t][h] = _mm256_fmadd_ps(dots, factor, dot_sums[t][h]);
                }
            }
        }
    }
    if MINIMUMS {
        for t in 0..TOKENS {
            for h in 0..2 {
                dot_sums[t][h] = _mm256_sub_ps(dot_sums[t][h], minimum_sums[t][h]);
            }
        }
    }
    dot_sums
}

/// Scales by products of one block, as integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<const DEPTH: usize>(tile: &SuperTile, x: [&[i8; SUPER]; TOKENS], depth: usize) -> Words {
    let mut dots = [[_mm256_setzero_si256(); 2]; TOKENS];
    let quants = tile.quants.as_flattened();
    let scales = tile.scales.as_flattened();
    for first in (0..SUPER / 4).step_by(DEPTH) {
        let mut pairs = [[_mm256_setzero_si256(); 2]; TOKENS];
        for i in first..first + depth {
            let quants = [load_u8(&quants[i][0]), load_u8(&quants[i][1])];
            for t in 0..TOKENS {
                let x = four_bytes(x[t].as_chunks().0[i]);
                for h in 0..2 {
                    pairs[t][h] = _mm256_add_epi16(pairs[t][h], _mm256_maddubs_epi16(quants[h], x));
                }
            }
        }
        let scales = [load_u8(&scales[first / 4][0]), load_u8(&scales[first / 4][1])];
        for t in 0..TOKENS {
            for h in 0..2 {
                let dot = _mm256_madd_epi16(pairs[t][h], scales[h]);
                dots[t][h] = _mm256_add_epi32(dots[t][h], dot);
            }
        }
    }
    dots
}

/// Minimums by sums of the activations of one token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn minimums(minimums: &Lanes, x_sums: &[i16; SUPER / 16]) -> [__m256i; 2] {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (minimums, &x_sums) in minimums.iter().zip(x_sums.as_chunks().0) {
        let x_sums = two_words(x_sums);
        for h in 0..2 {
            sums[h] = _mm256_add_epi32(sums[h], _mm256_madd_epi16(load_u8(&minimums[h]), x_sums));
        }
    }
    sums
}
