//! Many activation rows by rows of 32-value blocks: a panel of sixteen weight rows in one vector of lanes.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::array;

use super::super::activations::{Q8, Q8Row};
use super::super::avx2::block_panel::{BlockPanel, BlockTile, ROWS};
use super::vector::{four_bytes, load_both, load_f32, store_column};

/// Tokens multiplied at once.
const TOKENS: usize = 8;

/// `out[n, width]`: the columns of panel `index` out of those that make up `width` weight rows. `2^SHIFT` is taken away from
/// each quant, unless it is 1; blocks may have `OFFSETS`.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
pub(super) fn multiply<const SHIFT: i32, const OFFSETS: bool>(
    panel: &BlockPanel,
    acts: &Q8,
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
        let sums = some_tokens::<SHIFT, OFFSETS>(&panel.tiles, &x);
        for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(width)) {
            store_column(sums, &mut out[first..first + count]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn some_tokens<const SHIFT: i32, const OFFSETS: bool>(
    tiles: &[BlockTile],
    x: &[Q8Row<'_>; TOKENS],
) -> [__m512; TOKENS] {
    // Known to be as long as the panel, they are looked up without checks, behind which products would wait in memory.
    let x: &[_; TOKENS] = &array::from_fn(|t| x[t].first(tiles.len()));
    let mut chains = [[_mm512_setzero_ps(); TOKENS]; 4];
    for (b, tile) in tiles.iter().enumerate() {
        let dots = dots::<SHIFT>(tile, x, b);
        let (scales, offsets) = (load_f32(&tile.scales), load_f32(&tile.offsets));
        let chains = &mut chains[b % 4];
        for t in 0..TOKENS {
            let x_scale = _mm512_set1_ps(x[t].scales[b]);
            let factor = _mm512_mul_ps(scales, x_scale);
            chains[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t]), factor, chains[t]);
            if OFFSETS {
                let x_sum = _mm512_mul_ps(x_scale, _mm512_set1_ps(x[t].sums[b] as f32));
                chains[t] = _mm512_fmadd_ps(offsets, x_sum, chains[t]);
            }
        }
    }
    let mut sums = [_mm512_setzero_ps(); TOKENS];
    for t in 0..TOKENS {
        let [a, b, c, d] = [chains[0][t], chains[1][t], chains[2][t], chains[3][t]];
        sums[t] = _mm512_add_ps(_mm512_add_ps(a, c), _mm512_add_ps(b, d));
    }
    sums
}

/// Products of block `b`, as integers.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn dots<const SHIFT: i32>(
    tile: &BlockTile,
    x: &[Q8Row<'_>; TOKENS],
    b: usize,
) -> [__m512i; TOKENS] {
    let mut quants = [&x[0].quants[b]; TOKENS];
    let mut dots = [_mm512_setzero_si512(); TOKENS];
    for t in 0..TOKENS {
        quants[t] = &x[t].quants[b];
        if SHIFT > 0 {
            dots[t] = _mm512_set1_epi32(-(x[t].sums[b] << SHIFT));
        }
    }
    for (i, weights) in tile.quants.iter().enumerate() {
        let weights = load_both(weights);
        for t in 0..TOKENS {
            dots[t] =
                _mm512_dpbusd_epi32(dots[t], weights, four_bytes(&quants[t].as_chunks().0[i]));
        }
    }
    dots
}
