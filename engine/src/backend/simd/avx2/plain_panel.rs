//! Many activation rows by rows of plain numbers: twelve weight rows are widened once for all of them.
//!
//! The four accumulators of a product are computed one after the other, each for three weight rows by four
//! activation rows, over so many values that both stay in the first cache.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::kernels::Columns;
use super::plain::finish;
use super::vector::{lanes_f32, load_f32, sums_of_eight};

/// Weight rows of a panel.
pub(super) const ROWS: usize = 12;
/// Weight rows multiplied at once.
const TOGETHER: usize = 3;
/// Activation rows multiplied at once.
const TOKENS: usize = 4;
/// Groups of 32 values multiplied before the next rows have their turn.
const SPAN: usize = 24;

/// 32 values, by accumulator.
type Group = [[f32; 8]; 4];
/// `out[n, width]`: columns `first..` of the products of `panel`, `[rows, cols]`, with `x`, `[n, cols]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply(panel: &[f32], x: Columns<'_>, out: &mut [f32], width: usize, first: usize) {
    let rows = panel.len() / x.cols;
    for (group, out) in out.chunks_mut(TOKENS * width).enumerate() {
        let token = |t: usize| row(x.values, x.cols, group * TOKENS + t);
        let tokens = [token(0), token(1), token(2), token(3)];
        let mut sums = [[[[_mm256_setzero_ps(); TOKENS]; TOGETHER]; 4]; ROWS / TOGETHER];
        for start in (0..x.cols / 32).step_by(SPAN) {
            let [a, b, c, d] = tokens;
            let tokens = [span(a, start), span(b, start), span(c, start), span(d, start)];
            for (three, sums) in sums.iter_mut().enumerate().take(rows.div_ceil(TOGETHER)) {
                let weight = |r: usize| span(row(panel, x.cols, three * TOGETHER + r), start);
                let weights = [weight(0), weight(1), weight(2)];
                for (a, sums) in sums.iter_mut().enumerate() {
                    accumulate(weights, tokens, a, sums);
                }
            }
        }
        for (three, sums) in sums.iter().enumerate().take(rows.div_ceil(TOGETHER)) {
            let [a, b, c, d] = sums;
            let lanes = a.iter().zip(b).zip(c).zip(d).map(|(((a, b), c), d)| [a, b, c, d]);
            for (w, lanes) in (three * TOGETHER..rows).zip(lanes) {
                let values = finish_tokens(lanes, row(panel, x.cols, w), tokens);
                for (out, value) in out.chunks_exact_mut(width).zip(values) {
                    out[first + w] = value;
                }
            }
        }
    }
}

/// One weight row by its tokens, from their accumulators.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn finish_tokens(
    lanes: [&[__m256; TOKENS]; 4],
    weights: &[f32],
    tokens: [&[f32]; TOKENS],
) -> [f32; TOKENS] {
    let mut values = [0.0; TOKENS];
    if weights.len().is_multiple_of(32) {
        let mut sums = [_mm256_setzero_ps(); 8];
        for t in 0..TOKENS {
            let [a, b, c, d] = [lanes[0][t], lanes[1][t], lanes[2][t], lanes[3][t]];
            sums[t] = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
        }
        // Nothing is left over, but a zero is added for it all the same.
        let sums = lanes_f32(_mm256_add_ps(sums_of_eight(sums), _mm256_setzero_ps()));
        values.copy_from_slice(&sums[..TOKENS]);
    } else {
        for t in 0..TOKENS {
            let lanes = [lanes[0][t], lanes[1][t], lanes[2][t], lanes[3][t]];
            values[t] = finish(lanes, weights, tokens[t], |eight| load_f32(eight), |one| *one);
        }
    }
    values
}

/// The groups from group `start` that are multiplied in one go.
#[inline]
fn span(values: &[f32], start: usize) -> &[Group] {
    let groups = values.as_chunks::<8>().0.as_chunks::<4>().0;
    &groups[start..groups.len().min(start + SPAN)]
}

/// Row `row` of `[rows, cols]`, or the last one.
#[inline]
fn row(values: &[f32], cols: usize, row: usize) -> &[f32] {
    let row = row.min(values.len() / cols - 1);
    &values[row * cols..][..cols]
}

/// Adds products to accumulator `a`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn accumulate(
    weights: [&[Group]; TOGETHER],
    tokens: [&[Group]; TOKENS],
    a: usize,
    sums: &mut [[__m256; TOKENS]; TOGETHER],
) {
    let a = a % 4;
    let mut lanes = *sums;
    let ([w0, w1, w2], [t0, t1, t2, t3]) = (weights, tokens);
    let weights = w0.iter().zip(w1).zip(w2);
    let tokens = t0.iter().zip(t1).zip(t2).zip(t3);
    for (((w0, w1), w2), (((t0, t1), t2), t3)) in weights.zip(tokens) {
        let weights = [load_f32(&w0[a]), load_f32(&w1[a]), load_f32(&w2[a])];
        for (t, token) in [t0, t1, t2, t3].into_iter().enumerate() {
            let token = load_f32(&token[a]);
            for r in 0..TOGETHER {
                lanes[r][t] = _mm256_fmadd_ps(weights[r], token, lanes[r][t]);
            }
        }
    }
    *sums = lanes;
}
