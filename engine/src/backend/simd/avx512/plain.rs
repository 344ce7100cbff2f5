//! Products of f32, f16 and bf16 rows with many f32 rows: two weight rows in one vector of lanes.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::activations::{Arranged, Eight};
use super::super::avx2::plain::{
    bf16_panel, bf16_rows, f16_panel, f16_rows, f32_panel, f32_rows, plain_product,
};
use super::super::avx2::plain_panel::{ROWS, part, singles};
use super::super::avx2::vector::{lanes_f32, load_f32 as load_eight, sums_of_eight};
use super::super::kernels::Columns;
use super::vector::{halves, load_f32, twice};

/// Pairs of weight rows multiplied at once.
const TOGETHER: usize = 3;
/// Activation rows multiplied at once.
const TOKENS: usize = 8;

plain_product!("avx512bw,avx512vl", f32_product, f32_rows, f32_panel, multiply, ROWS);
plain_product!("avx512bw,avx512vl", f16_product, f16_rows, f16_panel, multiply, ROWS);
plain_product!("avx512bw,avx512vl", bf16_product, bf16_rows, bf16_panel, multiply, ROWS);

/// An eight of one row, and the same eight of the next.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Both([[f32; 8]; 2]);

/// Sums of three pairs of rows by tokens.
type Lanes = [[__m512; TOKENS]; TOGETHER];

/// `out[n, width]`: columns `first..` of the products of the rows of `panel` with those of `x`.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn multiply(panel: &Arranged, x: &Arranged, out: &mut [f32], width: usize, first: usize) {
    let cols = panel.cols;
    let rows = panel.eights.len() / cols.div_ceil(8);
    let pairs: Vec<Vec<Both>> = (0..ROWS / 2)
        .map(|pair| {
            // A row that is not there is computed as the last one, and not written.
            let eights = panel.row(2 * pair).iter().zip(panel.row(2 * pair + 1));
            eights.map(|(a, b)| Both([a.0, b.0])).collect()
        })
        .collect();
    for (group, out) in out.chunks_mut(TOKENS * width).enumerate() {
        let tokens = std::array::from_fn(|t| x.row(group * TOKENS + t));
        for (start, pairs) in (0..rows).step_by(2 * TOGETHER).zip(pairs.as_chunks().0) {
            let values = products(pairs.each_ref().map(Vec::as_slice), tokens, cols);
            for (w, values) in (start..rows).zip(values.as_flattened()) {
                for (out, value) in out.chunks_exact_mut(width).zip(values) {
                    out[first + w] = *value;
                }
            }
        }
    }
}

/// A few rows of `cols` weights by a few tokens.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn products(
    weights: [&[Both]; TOGETHER],
    tokens: [&[Eight]; TOKENS],
    cols: usize,
) -> [[[f32; TOKENS]; 2]; TOGETHER] {
    let groups = cols / 32;
    let none = [[_mm512_setzero_ps(); TOKENS]; TOGETHER];
    let part = |a: usize| (a * groups, groups);
    let mut first = accumulate(weights, tokens, part(0), none);
    if !cols.is_multiple_of(32) {
        // Whole eights that are left.
        first = accumulate(weights, tokens, (4 * groups, cols / 8 - 4 * groups), first);
    }
    let first = added(first, &accumulate(weights, tokens, part(1), none));
    let second = accumulate(weights, tokens, part(2), none);
    let second = added(second, &accumulate(weights, tokens, part(3), none));
    let sums = added(first, &second);
    let mut values = [[[0.0; TOKENS]; 2]; TOGETHER];
    for (r, values) in values.iter_mut().enumerate() {
        let mut rows = [[_mm256_setzero_ps(); TOKENS]; 2];
        for t in 0..TOKENS {
            [rows[0][t], rows[1][t]] = halves(sums[r][t]);
        }
        for (h, values) in values.iter_mut().enumerate() {
            // Of no single values a zero is left: it is added all the same.
            let sums = _mm256_add_ps(sums_of_eight(rows[h]), _mm256_setzero_ps());
            *values = lanes_f32(sums);
            if !cols.is_multiple_of(8) {
                let last = weights[r].last().map_or([0.0; 8], |both| both.0[h]);
                for (value, token) in values.iter_mut().zip(tokens) {
                    *value += singles(&[Eight(last)], token, cols);
                }
            }
        }
    }
    values
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn added(mut a: Lanes, b: &Lanes) -> Lanes {
    for (a, b) in a.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        *a = _mm512_add_ps(*a, *b);
    }
    a
}

/// Adds products of `count` eights of each row, from eight `start`, to `lanes`.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn accumulate(
    [w0, w1, w2]: [&[Both]; TOGETHER],
    tokens: [&[Eight]; TOKENS],
    (start, count): (usize, usize),
    mut lanes: Lanes,
) -> Lanes {
    let w0 = part(w0, start, count);
    let count = w0.len();
    let (w1, w2) = (&w1[start..][..count], &w2[start..][..count]);
    // Cut to one length before the loop, they are looked up in it without checks.
    let mut x = tokens;
    for x in &mut x {
        *x = &part(x, start, count)[..count];
    }
    for (i, ((w0, w1), w2)) in w0.iter().zip(w1).zip(w2).enumerate() {
        let weights = [load_f32(&w0.0), load_f32(&w1.0), load_f32(&w2.0)];
        for t in 0..TOKENS {
            let token = twice(load_eight(&x[t][i].0));
            for r in 0..TOGETHER {
                lanes[r][t] = _mm512_fmadd_ps(weights[r], token, lanes[r][t]);
            }
        }
    }
    lanes
}
