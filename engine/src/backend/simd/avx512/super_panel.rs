//! Many activation rows by rows of K-quant super-blocks: a panel of sixteen weight rows in one vector of lanes.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::array;

use super::super::activations::{Q8Super, Q8SuperRow};
use super::super::avx2::block_panel::{Lanes, ROWS};
use super::super::avx2::super_panel::{SuperPanel, SuperTile, Unpacked};
use super::vector::{four_bytes, load_both, load_f32, store_column, two_words};
use crate::quant::SUPER;

/// Tokens multiplied at once.
const TOKENS: usize = 8;

/// Sets the block of row `row`, with scales that fill their lanes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
pub(super) fn put(tile: &mut SuperTile, row: usize, block: &Unpacked) {
    let first = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(block.scales));
    let second = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(block.scales));
    tile.put_with(row, block, [first, second]);
}

/// What a panel yields for each token.
type Sums = [__m512i; TOKENS];

/// `out[n, width]`: the columns of panel `index` out of those that make up `width` weight rows. `FOURS` of products by four
/// share a scale; `MINIMUMS` have a step of their own.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
pub(super) fn multiply<const FOURS: usize, const MINIMUMS: bool>(
    panel: &SuperPanel,
    acts: &Q8Super,
    out: &mut [f32],
    width: usize,
    index: usize,
) {
    multiply_with::<MINIMUMS>(
        panel,
        acts,
        out,
        (width, index),
        |tile, x| dots::<FOURS>(tile, x),
        |tile, sums| minimums(&tile.minimums, sums),
    );
}

/// The same without VNNI, with scales twice in their lanes. `DEPTH` fours of products, summed up, fit into sixteen bits.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn multiply_in_words<const DEPTH: usize, const MINIMUMS: bool>(
    panel: &SuperPanel,
    acts: &Q8Super,
    out: &mut [f32],
    width: usize,
    index: usize,
) {
    multiply_with::<MINIMUMS>(
        panel,
        acts,
        out,
        (width, index),
        |tile, x| dots_in_words::<DEPTH>(tile, x),
        |tile, sums| minimums_in_words(&tile.minimums, sums),
    );
}

/// With `dots` and `minimums`, which multiply a block of a panel.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn multiply_with<const MINIMUMS: bool>(
    panel: &SuperPanel,
    acts: &Q8Super,
    out: &mut [f32],
    (width, index): (usize, usize),
    dots: impl Fn(&SuperTile, [&[i8; SUPER]; TOKENS]) -> Sums,
    minimums: impl Fn(&SuperTile, &[i16; SUPER / 16]) -> __m512i,
) {
    let first = index * ROWS;
    let count = ROWS.min(width - first);
    let last = acts.rows() - 1;
    for (group, out) in out.chunks_mut(TOKENS * width).enumerate() {
        // A group that is not full computes its last row several times.
        let x = array::from_fn(|t| acts.row((group * TOKENS + t).min(last)));
        let sums = some_tokens::<MINIMUMS>(&panel.tiles, &x, &dots, &minimums);
        for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(width)) {
            store_column(sums, &mut out[first..first + count]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn some_tokens<const MINIMUMS: bool>(
    tiles: &[SuperTile],
    x: &[Q8SuperRow<'_>; TOKENS],
    dots: impl Fn(&SuperTile, [&[i8; SUPER]; TOKENS]) -> Sums,
    minimums: impl Fn(&SuperTile, &[i16; SUPER / 16]) -> __m512i,
) -> [__m512; TOKENS] {
    // As long as the panel: see `block_panel`.
    let x: &[_; TOKENS] = &array::from_fn(|t| x[t].first(tiles.len()));
    let mut dot_sums = [_mm512_setzero_ps(); TOKENS];
    let mut minimum_sums = dot_sums;
    for (b, tile) in tiles.iter().enumerate() {
        let mut quants = [&x[0].quants[b]; TOKENS];
        for (quants, x) in quants.iter_mut().zip(x) {
            *quants = &x.quants[b];
        }
        let dots = dots(tile, quants);
        let (d, dmin) = (load_f32(&tile.d), load_f32(&tile.dmin));
        for t in 0..TOKENS {
            let x_scale = _mm512_set1_ps(x[t].scales[b]);
            let minimums = minimums(tile, &x[t].sums[b]);
            let factor = _mm512_mul_ps(d, x_scale);
            if MINIMUMS {
                let dots = _mm512_cvtepi32_ps(dots[t]);
                dot_sums[t] = _mm512_fmadd_ps(dots, factor, dot_sums[t]);
                let factor = _mm512_mul_ps(dmin, x_scale);
                let minimums = _mm512_cvtepi32_ps(minimums);
                minimum_sums[t] = _mm512_fmadd_ps(minimums, factor, minimum_sums[t]);
            } else {
                let dots = _mm512_cvtepi32_ps(_mm512_sub_epi32(dots[t], minimums));
                dot_sums[t] = _mm512_fmadd_ps(dots, factor, dot_sums[t]);
            }
        }
    }
    if MINIMUMS {
        for t in 0..TOKENS {
            dot_sums[t] = _mm512_sub_ps(dot_sums[t], minimum_sums[t]);
        }
    }
    dot_sums
}

/// Scales by products of one block, as integers.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn dots<const FOURS: usize>(tile: &SuperTile, x: [&[i8; SUPER]; TOKENS]) -> Sums {
    let mut dots = [_mm512_setzero_si512(); TOKENS];
    for (chunk, quants) in tile.quants.iter().enumerate() {
        for (part, quants) in quants.as_chunks::<FOURS>().0.iter().enumerate() {
            let mut sums = [_mm512_setzero_si512(); TOKENS];
            for (i, weights) in quants.iter().enumerate() {
                let weights = load_both(weights);
                let four = 8 * chunk + FOURS * part + i;
                for t in 0..TOKENS {
                    let x = four_bytes(&x[t].as_chunks().0[four]);
                    sums[t] = _mm512_dpbusd_epi32(sums[t], weights, x);
                }
            }
            let scales = load_both(&tile.scales[chunk / 4][2 * (chunk % 4) + part]);
            for t in 0..TOKENS {
                dots[t] = _mm512_add_epi32(dots[t], _mm512_mullo_epi32(sums[t], scales));
            }
        }
    }
    dots
}

/// The same without VNNI.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn dots_in_words<const DEPTH: usize>(tile: &SuperTile, x: [&[i8; SUPER]; TOKENS]) -> Sums {
    let mut dots = [_mm512_setzero_si512(); TOKENS];
    let (quants, scales) = (tile.quants.as_flattened(), tile.scales.as_flattened());
    for (part, quants) in quants.as_chunks::<DEPTH>().0.iter().enumerate() {
        let mut words = [_mm512_setzero_si512(); TOKENS];
        for (i, weights) in quants.iter().enumerate() {
            let weights = load_both(weights);
            for t in 0..TOKENS {
                let x = four_bytes(&x[t].as_chunks().0[DEPTH * part + i]);
                words[t] = _mm512_add_epi16(words[t], _mm512_maddubs_epi16(weights, x));
            }
        }
        let scales = load_both(&scales[DEPTH * part / 4]);
        for t in 0..TOKENS {
            dots[t] = _mm512_add_epi32(dots[t], _mm512_madd_epi16(words[t], scales));
        }
    }
    dots
}

/// Minimums by sums of the activations of one token.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
fn minimums(minimums: &Lanes, x_sums: &[i16; SUPER / 16]) -> __m512i {
    let mut sums = _mm512_setzero_si512();
    for (minimums, x_sums) in minimums.iter().zip(x_sums.as_chunks().0) {
        sums = _mm512_dpwssd_epi32(sums, load_both(minimums), two_words(x_sums));
    }
    sums
}

/// The same without VNNI.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn minimums_in_words(minimums: &Lanes, x_sums: &[i16; SUPER / 16]) -> __m512i {
    let mut sums = _mm512_setzero_si512();
    for (minimums, x_sums) in minimums.iter().zip(x_sums.as_chunks().0) {
        let products = _mm512_madd_epi16(load_both(minimums), two_words(x_sums));
        sums = _mm512_add_epi32(sums, products);
    }
    sums
}
