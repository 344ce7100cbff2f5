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

/// What a panel yields for each token.
type Sums = [__m512i; TOKENS];

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
    multiply_with::<OFFSETS>(panel, acts, out, (width, index), |tile, x, b| {
        dots::<SHIFT>(tile, x, b)
    });
}

/// The same without VNNI. `DEPTH` fours of products, summed up, fit into sixteen bits.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn multiply_in_words<const DEPTH: usize, const SHIFT: i32, const OFFSETS: bool>(
    panel: &BlockPanel,
    acts: &Q8,
    out: &mut [f32],
    width: usize,
    index: usize,
) {
    multiply_with::<OFFSETS>(panel, acts, out, (width, index), |tile, x, b| {
        dots_in_words::<DEPTH, SHIFT>(tile, x, b)
    });
}

/// The same without VNNI for signed quants.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn multiply_signed(
    panel: &BlockPanel,
    acts: &Q8,
    out: &mut [f32],
    width: usize,
    index: usize,
) {
    multiply_with::<false>(panel, acts, out, (width, index), |tile, x, b| signed_dots(tile, x, b));
}

/// With `dots`, which multiplies a block of a panel.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn multiply_with<const OFFSETS: bool>(
    panel: &BlockPanel,
    acts: &Q8,
    out: &mut [f32],
    (width, index): (usize, usize),
    dots: impl Fn(&BlockTile, &[Q8Row<'_>; TOKENS], usize) -> Sums,
) {
    let first = index * ROWS;
    let count = ROWS.min(width - first);
    let last = acts.rows() - 1;
    for (group, out) in out.chunks_mut(TOKENS * width).enumerate() {
        // A group that is not full computes its last row several times.
        let x = array::from_fn(|t| acts.row((group * TOKENS + t).min(last)));
        let sums = some_tokens::<OFFSETS>(&panel.tiles, &x, &dots);
        for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(width)) {
            store_column(sums, &mut out[first..first + count]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn some_tokens<const OFFSETS: bool>(
    tiles: &[BlockTile],
    x: &[Q8Row<'_>; TOKENS],
    dots: impl Fn(&BlockTile, &[Q8Row<'_>; TOKENS], usize) -> Sums,
) -> [__m512; TOKENS] {
    // Known to be as long as the panel, they are looked up without checks, behind which products would wait in memory.
    let x: &[_; TOKENS] = &array::from_fn(|t| x[t].first(tiles.len()));
    let mut chains = [[_mm512_setzero_ps(); TOKENS]; 4];
    for (b, tile) in tiles.iter().enumerate() {
        let dots = dots(tile, x, b);
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
fn dots<const SHIFT: i32>(tile: &BlockTile, x: &[Q8Row<'_>; TOKENS], b: usize) -> Sums {
    let quants = quants(x, b);
    let mut dots = starts::<SHIFT>(x, b);
    for (i, weights) in tile.quants.iter().enumerate() {
        let weights = load_both(weights);
        for t in 0..TOKENS {
            dots[t] =
                _mm512_dpbusd_epi32(dots[t], weights, four_bytes(&quants[t].as_chunks().0[i]));
        }
    }
    dots
}

/// The same without VNNI.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn dots_in_words<const DEPTH: usize, const SHIFT: i32>(
    tile: &BlockTile,
    x: &[Q8Row<'_>; TOKENS],
    b: usize,
) -> Sums {
    let quants = quants(x, b);
    let mut dots = starts::<SHIFT>(x, b);
    for first in (0..8).step_by(DEPTH) {
        let mut words = [_mm512_setzero_si512(); TOKENS];
        for i in first..first + DEPTH {
            let weights = load_both(&tile.quants[i]);
            for t in 0..TOKENS {
                let products =
                    _mm512_maddubs_epi16(weights, four_bytes(&quants[t].as_chunks().0[i]));
                words[t] = _mm512_add_epi16(words[t], products);
            }
        }
        for t in 0..TOKENS {
            dots[t] = _mm512_add_epi32(dots[t], pairs(words[t]));
        }
    }
    dots
}

/// The same for signed quants: the sign of each weight moves over to its activation.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn signed_dots(tile: &BlockTile, x: &[Q8Row<'_>; TOKENS], b: usize) -> Sums {
    let quants = quants(x, b);
    let mut dots = [_mm512_setzero_si512(); TOKENS];
    for (i, weights) in tile.quants.iter().enumerate() {
        let weights = load_both(weights);
        let (sizes, negative) = (_mm512_abs_epi8(weights), _mm512_movepi8_mask(weights));
        for t in 0..TOKENS {
            let x = four_bytes(&quants[t].as_chunks().0[i]);
            let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
            dots[t] = _mm512_add_epi32(dots[t], pairs(_mm512_maddubs_epi16(sizes, x)));
        }
    }
    dots
}

/// Sums of two words each.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn pairs(words: __m512i) -> __m512i {
    _mm512_madd_epi16(words, _mm512_set1_epi16(1))
}

/// Block `b` of each row.
#[inline]
fn quants<'a>(x: &[Q8Row<'a>; TOKENS], b: usize) -> [&'a [i8; 32]; TOKENS] {
    let mut quants = [&x[0].quants[b]; TOKENS];
    for (quants, x) in quants.iter_mut().zip(x) {
        *quants = &x.quants[b];
    }
    quants
}

/// What the shift of the quants takes away.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn starts<const SHIFT: i32>(x: &[Q8Row<'_>; TOKENS], b: usize) -> Sums {
    let mut starts = [_mm512_setzero_si512(); TOKENS];
    if SHIFT > 0 {
        for t in 0..TOKENS {
            starts[t] = _mm512_set1_epi32(-(x[t].sums[b] << SHIFT));
        }
    }
    starts
}
