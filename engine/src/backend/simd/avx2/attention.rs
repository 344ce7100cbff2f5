//! Queries by keys, and weighted sums of values; two queries at once where the keys and values are the same.
//!
//! Keys and values are stored in either type of the cache. Eight of them are widened in a register as they are loaded, and
//! from there on there is one order of operations for both types.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use half::f16;
use zerocopy::transmute_ref;

use super::super::kernels::Strided;
use super::plain::plain_dot;
use super::vector::{load_f16, load_f32, store_f32, sums_of_eight};

/// Keys multiplied at once.
const KEYS: usize = 4;

/// What depends on the type of the cache: `$load` widens eight values, `$single` one.
macro_rules! cache_kernels {
    ($dot:ident, $axpy:ident, $dots:ident, $mix:ident, $type:ty, $load:expr, $single:expr) => {
        /// `query . key`.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $dot(query: &[f32], key: &[$type]) -> f32 {
            plain_dot(key, query, $load, $single)
        }

        /// `out += scale * x`.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $axpy(scale: f32, x: &[$type], out: &mut [f32]) {
            axpy(scale, x, out, $load, $single);
        }

        /// `out[n][j] = queries[n] . keys[j]`, with the bits of one by one.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $dots(queries: [&[f32]; 2], keys: Strided<'_, $type>, out: [&mut [f32]; 2]) {
            dots(queries, &keys, out, $load, $single);
        }

        /// `out[n] += weights[n][j] * values[j]` for every j in order, with the bits of one by one.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $mix(weights: [&[f32]; 2], values: Strided<'_, $type>, out: [&mut [f32]; 2]) {
            mix(weights, &values, out, $load, $single);
        }
    };
}

cache_kernels!(f32_dot, f32_axpy, f32_dots, f32_mix, f32, |eight| load_f32(eight), |&one| one);
cache_kernels!(
    f16_dot,
    f16_axpy,
    f16_dots,
    f16_mix,
    f16,
    |eight| load_f16(transmute_ref!(eight)),
    |one| one.to_f32()
);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn axpy<T>(
    scale: f32,
    x: &[T],
    out: &mut [f32],
    load: impl Fn(&[T; 8]) -> __m256,
    single: impl Fn(&T) -> f32,
) {
    let factor = _mm256_set1_ps(scale);
    let ((x, x_rest), (out, out_rest)) = (x.as_chunks::<8>(), out.as_chunks_mut::<8>());
    for (x, out) in x.iter().zip(out) {
        store_f32(_mm256_fmadd_ps(factor, load(x), load_f32(out)), out);
    }
    for (x, out) in x_rest.iter().zip(out_rest) {
        *out = scale.mul_add(single(x), *out);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<T>(
    queries: [&[f32]; 2],
    keys: &Strided<'_, T>,
    out: [&mut [f32]; 2],
    load: impl Fn(&[T; 8]) -> __m256,
    single: impl Fn(&T) -> f32,
) {
    let len = queries[0].len();
    let [first, second] = out;
    let whole = if len.is_multiple_of(32) { first.len() / KEYS * KEYS } else { 0 };
    let x = queries.map(|query| query.as_chunks::<8>().0.as_chunks::<4>().0);
    let (a, a_rest) = first.split_at_mut(whole);
    let (b, b_rest) = second.split_at_mut(whole);
    let (a, b) = (a.as_chunks_mut::<KEYS>().0, b.as_chunks_mut::<KEYS>().0);
    for (group, (a, b)) in a.iter_mut().zip(b).enumerate() {
        let rows = [0, 1, 2, 3].map(|j| {
            let key = keys.row(group * KEYS + j, len);
            key.as_chunks::<8>().0.as_chunks::<4>().0
        });
        let mut sums = [0.0; 8];
        store_f32(two_by_four(x, rows, &load), &mut sums);
        a.copy_from_slice(&sums[..KEYS]);
        b.copy_from_slice(&sums[KEYS..]);
    }
    for (j, (a, b)) in a_rest.iter_mut().zip(b_rest).enumerate() {
        let key = keys.row(whole + j, len);
        *a = plain_dot(key, queries[0], &load, &single);
        *b = plain_dot(key, queries[1], &load, &single);
    }
}

/// Products of two queries, each with four keys.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn two_by_four<T>(
    x: [&[[[f32; 8]; 4]]; 2],
    keys: [&[[[T; 8]; 4]]; KEYS],
    load: &impl Fn(&[T; 8]) -> __m256,
) -> __m256 {
    let mut halves = [[_mm256_setzero_ps(); 8]; 2];
    for (pair, half) in halves.iter_mut().enumerate() {
        let mut parts = [[_mm256_setzero_ps(); 8]; 2];
        for (part, lanes) in parts.iter_mut().enumerate() {
            *lanes = quarter(x, keys, 2 * pair + part, load);
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
fn quarter<T>(
    x: [&[[[f32; 8]; 4]]; 2],
    keys: [&[[[T; 8]; 4]]; KEYS],
    a: usize,
    load: &impl Fn(&[T; 8]) -> __m256,
) -> [__m256; 8] {
    let a = a % 4;
    let mut lanes = [_mm256_setzero_ps(); 8];
    let [k0, k1, k2, k3] = keys;
    let keys = k0.iter().zip(k1).zip(k2).zip(k3);
    for ((x0, x1), (((k0, k1), k2), k3)) in x[0].iter().zip(x[1]).zip(keys) {
        let (x0, x1) = (load_f32(&x0[a]), load_f32(&x1[a]));
        let keys = [load(&k0[a]), load(&k1[a]), load(&k2[a]), load(&k3[a])];
        for j in 0..KEYS {
            lanes[j] = _mm256_fmadd_ps(x0, keys[j], lanes[j]);
            lanes[KEYS + j] = _mm256_fmadd_ps(x1, keys[j], lanes[KEYS + j]);
        }
    }
    lanes
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn mix<T>(
    weights: [&[f32]; 2],
    values: &Strided<'_, T>,
    out: [&mut [f32]; 2],
    load: impl Fn(&[T; 8]) -> __m256,
    single: impl Fn(&T) -> f32,
) {
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
                let value = load(value);
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
            axpy(a, row, a_rest, &load, &single);
            axpy(b, row, b_rest, &load, &single);
        }
    }
}
