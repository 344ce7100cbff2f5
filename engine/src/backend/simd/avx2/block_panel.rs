//! Many activation rows by rows of 32-value blocks: sixteen weight rows are unpacked once for all of them.
//!
//! A lane is a weight row here, and four adjacent values of it lie in the four bytes of the lane; what is
//! summed up in a lane is the same, in the same order, as in the product of a single activation row.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::array;

use zerocopy::little_endian::U16;

use super::super::activations::{Q8, Q8Row};
use super::vector::{
    eight_halves, four_bytes, load_f32, load_u8, store_f32, store_u8, turn_dwords,
};

/// Weight rows of a panel: two vectors of lanes.
pub(in super::super) const ROWS: usize = 16;
/// Fewer activation rows than this are multiplied one by one.
pub(in super::super) const MANY: usize = 3;

/// What a panel yields for one token, in a frame that is then aligned for all of its vectors.
#[repr(align(32))]
struct Column([[f32; 8]; 2]);

/// Stores what a panel yields for one token; as many values as `out` has.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn store_column([first, second]: [__m256; 2], out: &mut [f32]) {
    if let ([low, high], []) = out.as_chunks_mut::<8>() {
        store_f32(first, low);
        store_f32(second, high);
        return;
    }
    let mut column = Column([[0.0; 8]; 2]);
    store_f32(first, &mut column.0[0]);
    store_f32(second, &mut column.0[1]);
    out.copy_from_slice(&column.0.as_flattened()[..out.len()]);
}

/// `[8][half of the rows]` of 8 rows by four bytes, once turned; before that, the 32 bytes of row r at
/// `[r % 8][r / 8]`.
pub(in super::super) type Lanes = [[[u8; 32]; 2]; 8];

/// Turns what lies by row into what lies by lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn turn_lanes(lanes: &mut Lanes) {
    for half in 0..2 {
        let mut rows = [_mm256_setzero_si256(); 8];
        for (row, bytes) in rows.iter_mut().zip(&*lanes) {
            *row = load_u8(&bytes[half]);
        }
        for (row, bytes) in turn_dwords(rows).into_iter().zip(&mut *lanes) {
            store_u8(row, &mut bytes[half]);
        }
    }
}

/// One block of each row of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in super::super) struct BlockTile {
    /// Four adjacent values in a lane.
    pub(in super::super) quants: Lanes,
    pub(in super::super) scales: [[f32; 8]; 2],
    pub(in super::super) offsets: [[f32; 8]; 2],
}

impl BlockTile {
    const ZERO: Self =
        Self { quants: [[[0; 32]; 2]; 8], scales: [[0.0; 8]; 2], offsets: [[0.0; 8]; 2] };

    /// Sets the blocks of eight rows: their quants, scales and, where there are any, offsets.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn set(
        &mut self,
        half: usize,
        quants: [__m256i; 8],
        scales: [U16; 8],
        offsets: Option<[U16; 8]>,
    ) {
        for (lanes, quants) in self.quants.iter_mut().zip(turn_dwords(quants)) {
            store_u8(quants, &mut lanes[half]);
        }
        store_f32(eight_halves(scales), &mut self.scales[half]);
        if let Some(offsets) = offsets {
            store_f32(eight_halves(offsets), &mut self.offsets[half]);
        }
    }
}

/// Sixteen weight rows, unpacked.
pub(in super::super) struct BlockPanel {
    pub(in super::super) tiles: Vec<BlockTile>,
}

impl BlockPanel {
    /// A panel of rows of `blocks`, all zeros.
    pub(in super::super) fn new(blocks: usize) -> Self {
        Self { tiles: vec![BlockTile::ZERO; blocks] }
    }

    /// `out[n, width]`: the columns of panel `index` out of those that make up `width` weight rows.
    /// Parameters as those of [`some_tokens`].
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn multiply<
        const SIGNED: bool,
        const DEPTH: usize,
        const SHIFT: i32,
        const OFFSETS: bool,
        const N: usize,
    >(
        &self,
        acts: &Q8,
        out: &mut [f32],
        width: usize,
        index: usize,
    ) {
        let first = index * ROWS;
        let count = ROWS.min(width - first);
        let last = acts.rows() - 1;
        for (group, out) in out.chunks_mut(N * width).enumerate() {
            // A group that is not full computes its last row several times.
            let x = array::from_fn(|t| acts.row((group * N + t).min(last)));
            let sums = some_tokens::<SIGNED, DEPTH, SHIFT, OFFSETS, N>(&self.tiles, &x);
            for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(width)) {
                store_column(sums, &mut out[first..first + count]);
            }
        }
    }
}

/// `N` tokens, as many as there are registers for, by sixteen rows. Bytes are `SIGNED`, or `DEPTH` fours
/// of their products, summed up, fit into sixteen bits; `2^SHIFT` is taken away from each, unless it is 1;
/// blocks may have `OFFSETS`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some_tokens<
    const SIGNED: bool,
    const DEPTH: usize,
    const SHIFT: i32,
    const OFFSETS: bool,
    const N: usize,
>(
    tiles: &[BlockTile],
    x: &[Q8Row<'_>; N],
) -> [[__m256; 2]; N] {
    // Known to be as long as the panel, they are looked up without checks, behind which products would wait in memory.
    let x: &[_; N] = &array::from_fn(|t| x[t].first(tiles.len()));
    let mut chains = [[[_mm256_setzero_ps(); 2]; N]; 4];
    for (b, tile) in tiles.iter().enumerate() {
        let mut quants = [&x[0].quants[b]; N];
        for (quants, x) in quants.iter_mut().zip(x) {
            *quants = &x.quants[b];
        }
        let dots =
            if SIGNED { signed_dots(tile, quants) } else { dots::<DEPTH, SHIFT, N>(tile, quants) };
        let chains = &mut chains[b % 4];
        for t in 0..N {
            let x_scale = _mm256_set1_ps(x[t].scales[b]);
            for h in 0..2 {
                let mut dots = dots[t][h];
                if SHIFT > 0 {
                    dots = _mm256_sub_epi32(dots, _mm256_set1_epi32(x[t].sums[b] << SHIFT));
                }
                let factor = _mm256_mul_ps(load_f32(&tile.scales[h]), x_scale);
                let chain = &mut chains[t][h];
                *chain = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), factor, *chain);
                if OFFSETS {
                    let x_sum = _mm256_mul_ps(x_scale, _mm256_set1_ps(x[t].sums[b] as f32));
                    *chain = _mm256_fmadd_ps(load_f32(&tile.offsets[h]), x_sum, *chain);
                }
            }
        }
    }
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for t in 0..N {
        for h in 0..2 {
            let [a, b, c, d] = [chains[0][t][h], chains[1][t][h], chains[2][t][h], chains[3][t][h]];
            sums[t][h] = _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d));
        }
    }
    sums
}

/// Products of one block of unsigned bytes, as integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<const DEPTH: usize, const SHIFT: i32, const N: usize>(
    tile: &BlockTile,
    x: [&[i8; 32]; N],
) -> [[__m256i; 2]; N] {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); 2]; N];
    for first in (0..8).step_by(DEPTH) {
        let mut pairs = [[_mm256_setzero_si256(); 2]; N];
        for i in first..first + DEPTH {
            let quants = [load_u8(&tile.quants[i][0]), load_u8(&tile.quants[i][1])];
            for t in 0..N {
                let x = four_bytes(x[t].as_chunks().0[i]);
                for h in 0..2 {
                    pairs[t][h] = _mm256_add_epi16(pairs[t][h], _mm256_maddubs_epi16(quants[h], x));
                }
            }
        }
        for t in 0..N {
            for h in 0..2 {
                dots[t][h] = _mm256_add_epi32(dots[t][h], _mm256_madd_epi16(pairs[t][h], ones));
            }
        }
    }
    dots
}

/// Products of one block of signed bytes: the sign of each weight moves over to its activation.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_dots<const N: usize>(tile: &BlockTile, x: [&[i8; 32]; N]) -> [[__m256i; 2]; N] {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); 2]; N];
    for i in 0..8 {
        let quants = [load_u8(&tile.quants[i][0]), load_u8(&tile.quants[i][1])];
        let sizes = [_mm256_abs_epi8(quants[0]), _mm256_abs_epi8(quants[1])];
        for t in 0..N {
            let x = four_bytes(x[t].as_chunks().0[i]);
            for h in 0..2 {
                let pairs = _mm256_maddubs_epi16(sizes[h], _mm256_sign_epi8(x, quants[h]));
                dots[t][h] = _mm256_add_epi32(dots[t][h], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    dots
}
