//! Two queries by many keys, and two weighted sums of the same values.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::kernels::Strided;
use super::plain::{axpy, dot};
use super::vector::{load_f32, store_f32, sums_of_eight};

/// Keys multiplied at once.
const KEYS: usize = 4;

/// `out[n][j] = queries[n] . keys[j]`, with the bits of [`dot`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dots(queries: [&[f32]; 2], keys: Strided<'_>, out: [&mut [f32]; 2]) {
    let len = queries[0].len();
    let [first, second] = out;
    let whole = if len.is_multiple_of(32) { first.len() / KEYS * KEYS } else { 0 };
    let x = queries.map(|query| query.as_chunks::<8>().0.as_chunks::<4>().0);
    let (a, a_rest) = first.split_at_mut(whole);
    let (b, b_rest) = second.split_at_mut(whole);
    let (a, b) = (a.as_chunks_mut::<KEYS>().0, b.as_chunks_mut::<KEYS>().0);
    for (group, (a, b)) in a.iter_mut().zip(b).enumerate() {
        let mut rows = [x[0]; KEYS];
        for (j, row) in rows.iter_mut().enumerate() {
            let key = keys.row(group * KEYS + j, len);
            *row = key.as_chunks::<8>().0.as_chunks::<4>().0;
        }
        let mut sums = [0.0; 8];
        store_f32(two_by_four(x, rows), &mut sums);
        a.copy_from_slice(&sums[..KEYS]);
        b.copy_from_slice(&sums[KEYS..]);
    }
    for (j, (a, b)) in a_rest.iter_mut().zip(b_rest).enumerate() {
        let key = keys.row(whole + j, len);
        (*a, *b) = (dot(queries[0], key), dot(queries[1], key));
    }
}

/// Products of two queries, each with four keys.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn two_by_four(x: [&[[[f32; 8]; 4]]; 2], keys: [&[[[f32; 8]; 4]]; KEYS]) -> __m256 {
    let mut halves = [[_mm256_setzero_ps(); 8]; 2];
    for (pair, half) in halves.iter_mut().enumerate() {
        let mut parts = [[_mm256_setzero_ps(); 8]; 2];
        for (part, lanes) in parts.iter_mut().enumerate() {
            *lanes = quarter(x, keys, 2 * pair + part);
        }
        for (half, (a, b)) in half.iter_mut().zip(parts[0].iter().zip(&parts[1])) {
            *half = _mm256_add_ps(*a, *b);
        }
    }
    let mut sums = halves[0];
    for (sum, other) in sums.iter_mut().zip(&halves[1]) {
        *sum = _mm256_add_ps(*sum, *other);
    }
    // Nothing is left over, but a zero is added for it all the same.
    _mm256_add_ps(sums_of_eight(sums), _mm256_setzero_ps())
}

/// Accumulator `a` of the four that a product has, for each of the eight products.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quarter(x: [&[[[f32; 8]; 4]]; 2], keys: [&[[[f32; 8]; 4]]; KEYS], a: usize) -> [__m256; 8] {
    let a = a % 4;
    let mut lanes = [_mm256_setzero_ps(); 8];
    let [k0, k1, k2, k3] = keys;
    let keys = k0.iter().zip(k1).zip(k2).zip(k3);
    for ((x0, x1), (((k0, k1), k2), k3)) in x[0].iter().zip(x[1]).zip(keys) {
        let (x0, x1) = (load_f32(&x0[a]), load_f32(&x1[a]));
        let keys = [load_f32(&k0[a]), load_f32(&k1[a]), load_f32(&k2[a]), load_f32(&k3[a])];
        for j in 0..KEYS {
            lanes[j] = _mm256_fmadd_ps(x0, keys[j], lanes[j]);
            lanes[KEYS + j] = _mm256_fmadd_ps(x1, keys[j], lanes[KEYS + j]);
        }
    }
    lanes
}

/// `out[n] += weights[n][j] * values[j]` for every j in order, with the bits of [`axpy`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn mix(weights: [&[f32]; 2], values: Strided<'_>, out: [&mut [f32]; 2]) {
    let [first, second] = out;
    let len = first.len();
    let ((a, a_rest), (b, b_rest)) = (first.as_chunks_mut::<32>(), second.as_chunks_mut::<32>());
    let whole = len - a_rest.len();
    for (chunk, (a, b)) in a.iter_mut().zip(b).enumerate() {
        let (a, b) = (a.as_chunks_mut::<8>().0, b.as_chunks_mut::<8>().0);
        let mut lanes = [[_mm256_setzero_ps(); 4]; 2];
        for i in 0..4 {
            (lanes[0][i], lanes[1][i]) = (load_f32(&a[i]), load_f32(&b[i]));
        }
        for (j, (&a, &b)) in weights[0].iter().zip(weights[1]).enumerate() {
            let (a, b) = (_mm256_set1_ps(a), _mm256_set1_ps(b));
            let row = &values.row(j, len)[32 * chunk..];
            for (i, value) in row.as_chunks::<8>().0.iter().take(4).enumerate() {
                let value = load_f32(value);
                lanes[0][i] = _mm256_fmadd_ps(a, value, lanes[0][i]);
                lanes[1][i] = _mm256_fmadd_ps(b, value, lanes[1][i]);
            }
        }
        for i in 0..4 {
            store_f32(lanes[0][i], &mut a[i]);
            store_f32(lanes[1][i], &mut b[i]);
        }
    }
    if whole < len {
        for (j, (&a, &b)) in weights[0].iter().zip(weights[1]).enumerate() {
            let row = &values.row(j, len)[whole..];
            axpy(a, row, a_rest);
            axpy(b, row, b_rest);
        }
    }
}
