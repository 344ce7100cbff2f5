//! Many activation rows by rows of plain numbers: twelve weight rows are widened once for all of them.
//!
//! Both sides are arranged by accumulator, so that what a register sums up lies side by side: three weight rows by four
//! activation rows at a time, one accumulator of each after the other.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::activations::{Arranged, Eight};
use super::vector::{lanes_f32, load_f32, sums_of_eight};

/// Weight rows of a panel.
pub(in super::super) const ROWS: usize = 12;
/// Weight rows multiplied at once.
const TOGETHER: usize = 3;
/// Activation rows multiplied at once.
const TOKENS: usize = 4;

/// `out[n, width]`: columns `first..` of the products of the rows of `panel` with those of `x`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn multiply(
    panel: &Arranged,
    x: &Arranged,
    out: &mut [f32],
    width: usize,
    first: usize,
) {
    let rows = panel.eights.len() / panel.cols.div_ceil(8);
    for (group, out) in out.chunks_mut(TOKENS * width).enumerate() {
        // Rows that are not there are computed as the last one, and not written.
        let token = |t| x.row(group * TOKENS + t);
        let tokens = [token(0), token(1), token(2), token(3)];
        for start in (0..rows).step_by(TOGETHER) {
            let weight = |r| panel.row(start + r);
            let products = products([weight(0), weight(1), weight(2)], tokens, panel.cols);
            for (w, values) in (start..rows).zip(products) {
                for (out, value) in out.chunks_exact_mut(width).zip(values) {
                    out[first + w] = value;
                }
            }
        }
    }
}

/// A few rows of `cols` weights by a few tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn products(
    weights: [&[Eight]; TOGETHER],
    tokens: [&[Eight]; TOKENS],
    cols: usize,
) -> [[f32; TOKENS]; TOGETHER] {
    let groups = cols / 32;
    let none = [[_mm256_setzero_ps(); TOKENS]; TOGETHER];
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
    let mut values = [[0.0; TOKENS]; TOGETHER];
    for r in 0..TOGETHER {
        let [a, b, c, d] = sums[r];
        let zero = _mm256_setzero_ps();
        // Of no single values a zero is left: it is added all the same.
        let sums = _mm256_add_ps(sums_of_eight([a, b, c, d, zero, zero, zero, zero]), zero);
        values[r].copy_from_slice(&lanes_f32(sums)[..TOKENS]);
        if !cols.is_multiple_of(8) {
            for t in 0..TOKENS {
                values[r][t] += singles(weights[r], tokens[t], cols);
            }
        }
    }
    values
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn added(
    mut a: [[__m256; TOKENS]; TOGETHER],
    b: &[[__m256; TOKENS]; TOGETHER],
) -> [[__m256; TOKENS]; TOGETHER] {
    for (a, b) in a.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        *a = _mm256_add_ps(*a, *b);
    }
    a
}

/// Products of the single values that are left of two rows, summed up.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn singles(a: &[Eight], b: &[Eight], cols: usize) -> f32 {
    let mut sum = 0.0f32;
    if let (Some(Eight(a)), Some(Eight(b))) = (a.last(), b.last()) {
        for (a, b) in a.iter().zip(b).take(cols % 8) {
            sum = a.mul_add(*b, sum);
        }
    }
    sum
}

/// Adds products of `count` eights of each row, from eight `start`, to `lanes`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn accumulate(
    [w0, w1, w2]: [&[Eight]; TOGETHER],
    [t0, t1, t2, t3]: [&[Eight]; TOKENS],
    (start, count): (usize, usize),
    mut lanes: [[__m256; TOKENS]; TOGETHER],
) -> [[__m256; TOKENS]; TOGETHER] {
    let (w0, w1) = (part(w0, start, count), part(w1, start, count));
    let (w2, t0) = (part(w2, start, count), part(t0, start, count));
    let (t1, t2) = (part(t1, start, count), part(t2, start, count));
    let weights = w0.iter().zip(w1).zip(w2);
    let tokens = t0.iter().zip(t1).zip(t2).zip(part(t3, start, count));
    for (((w0, w1), w2), (((t0, t1), t2), t3)) in weights.zip(tokens) {
        let weights = [load_f32(&w0.0), load_f32(&w1.0), load_f32(&w2.0)];
        for (t, token) in [t0, t1, t2, t3].into_iter().enumerate() {
            let token = load_f32(&token.0);
            for r in 0..TOGETHER {
                lanes[r][t] = _mm256_fmadd_ps(weights[r], token, lanes[r][t]);
            }
        }
    }
    lanes
}

/// `count` of the row from `start`; fewer where there are no more.
#[inline]
pub(in super::super) fn part<T>(row: &[T], start: usize, count: usize) -> &[T] {
    let row = row.get(start..).unwrap_or_default();
    row.get(..count).unwrap_or(row)
}
