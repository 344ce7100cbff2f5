//! Queries by keys, and weighted sums of values; a few queries at once where the keys and values are the same.
//!
//! Keys and values are stored in either type of the cache. Eight of them are widened in a register as they are loaded, and
//! from there on there is one order of operations for both types, and for any number of queries.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use half::f16;
use zerocopy::transmute_ref;

use super::super::kernels::{KEYS, Strided};
use super::vector::{lanes_f32, load_f16, load_f32, store_f32, turn_dwords};

/// What depends on the type of the cache: `$load` widens eight values, `$single` one.
macro_rules! cache_kernels {
    ($axpy:ident, $turn:ident, $mix:ident, $type:ty, $load:expr, $single:expr) => {
        /// `out += scale * x`.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $axpy(scale: f32, x: &[$type], out: &mut [f32]) {
            axpy(scale, x, out, $load, $single);
        }

        /// `strips[s][i][lane]` is value i of key 8 s + lane.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $turn(
            keys: Strided<'_, $type>,
            count: usize,
            len: usize,
            strips: &mut [[f32; KEYS]],
        ) {
            turn(&keys, count, len, strips, $load, $single);
        }

        /// `out[n] += weights[n][j] * values[j]` for every j in order, with the bits of one by one.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $mix(weights: &[&[f32]], values: Strided<'_, $type>, out: &mut [&mut [f32]]) {
            match *weights {
                [a] => mix::<1, 4, _>([a], &values, out, $load, $single),
                [a, b] => mix::<2, 4, _>([a, b], &values, out, $load, $single),
                [a, b, c] => mix::<3, 2, _>([a, b, c], &values, out, $load, $single),
                [a, b, c, d] => mix::<4, 2, _>([a, b, c, d], &values, out, $load, $single),
                _ => {}
            }
        }
    };
}

cache_kernels!(f32_axpy, f32_turn, f32_mix, f32, |eight| load_f32(eight), |&one| one);
cache_kernels!(f16_axpy, f16_turn, f16_mix, f16, |eight| load_f16(transmute_ref!(eight)), |one| {
    one.to_f32()
});

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
fn turn<T>(
    keys: &Strided<'_, T>,
    count: usize,
    len: usize,
    strips: &mut [[f32; KEYS]],
    load: impl Fn(&[T; 8]) -> __m256,
    single: impl Fn(&T) -> f32,
) {
    for (index, strip) in strips.chunks_exact_mut(len).enumerate() {
        let mut rows = [[].as_slice(); KEYS];
        for (lane, row) in rows.iter_mut().enumerate() {
            *row = keys.row((index * KEYS + lane).min(count - 1), len);
        }
        let (eights, rest) = strip.as_chunks_mut::<8>();
        for (i, lanes) in eights.iter_mut().enumerate() {
            let mut values = [_mm256_setzero_si256(); KEYS];
            for (values, row) in values.iter_mut().zip(rows) {
                *values = _mm256_castps_si256(load(&row.as_chunks::<8>().0[i]));
            }
            for (lanes, values) in lanes.iter_mut().zip(turn_dwords(values)) {
                store_f32(_mm256_castsi256_ps(values), lanes);
            }
        }
        for (i, lanes) in rest.iter_mut().enumerate() {
            for (lane, row) in lanes.iter_mut().zip(rows) {
                *lane = single(&row.as_chunks::<8>().1[i]);
            }
        }
    }
}

/// `out[n][j] = queries[n] . keys[j]` of the keys that were turned into `strips`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn scores(queries: &[&[f32]], strips: &[[f32; KEYS]], out: &mut [&mut [f32]]) {
    match *queries {
        [a] => scores_of::<1, 4>([a], strips, out),
        [a, b] => scores_of::<2, 4>([a, b], strips, out),
        [a, b, c] => scores_of::<3, 2>([a, b, c], strips, out),
        [a, b, c, d] => scores_of::<4, 2>([a, b, c, d], strips, out),
        _ => {}
    }
}

/// `S` strips at once, as long as there are so many.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scores_of<const N: usize, const S: usize>(
    queries: [&[f32]; N],
    strips: &[[f32; KEYS]],
    out: &mut [&mut [f32]],
) {
    let (len, count) = (queries[0].len(), out[0].len());
    let together = count / (S * KEYS) * S;
    for first in (0..together).step_by(S) {
        some_strips::<N, S>(queries, &strips[first * len..], out, first * KEYS);
    }
    for first in together..count.div_ceil(KEYS) {
        some_strips::<N, 1>(queries, &strips[first * len..], out, first * KEYS);
    }
}

/// Products with the first `S` of `strips`, from key `start` of `out`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn some_strips<const N: usize, const S: usize>(
    queries: [&[f32]; N],
    strips: &[[f32; KEYS]],
    out: &mut [&mut [f32]],
    start: usize,
) {
    // Cut to one length before the loop, they are looked up in it without checks.
    let len = queries[0].len();
    let (mut q, mut k) = ([[].as_slice(); N], [[].as_slice(); S]);
    for n in 0..N {
        q[n] = &queries[n][..len];
    }
    for s in 0..S {
        k[s] = &strips[s * len..][..len];
    }
    let mut sums = [[_mm256_setzero_ps(); S]; N];
    for i in 0..len {
        let mut keys = [_mm256_setzero_ps(); S];
        for s in 0..S {
            keys[s] = load_f32(&k[s][i]);
        }
        for n in 0..N {
            let value = _mm256_set1_ps(q[n][i]);
            for s in 0..S {
                sums[n][s] = _mm256_fmadd_ps(value, keys[s], sums[n][s]);
            }
        }
    }
    for n in 0..N {
        for (sums, out) in sums[n].iter().zip(out[n][start..].chunks_mut(KEYS)) {
            if let Ok(out) = out.try_into() {
                store_f32(*sums, out);
            } else {
                out.copy_from_slice(&lanes_f32(*sums)[..out.len()]);
            }
        }
    }
}

/// `V` vectors of each output are added up at once.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn mix<const N: usize, const V: usize, T>(
    weights: [&[f32]; N],
    values: &Strided<'_, T>,
    out: &mut [&mut [f32]],
    load: impl Fn(&[T; 8]) -> __m256,
    single: impl Fn(&T) -> f32,
) {
    let (len, count) = (out[0].len(), weights[0].len());
    // Cut to one length before the loop, they are looked up in it without checks.
    let mut factors = [[].as_slice(); N];
    for n in 0..N {
        factors[n] = &weights[n][..count];
    }
    let whole = len / (8 * V) * (8 * V);
    for first in (0..whole).step_by(8 * V) {
        let mut lanes = [[_mm256_setzero_ps(); V]; N];
        for n in 0..N {
            for (lanes, out) in lanes[n].iter_mut().zip(out[n][first..].as_chunks::<8>().0) {
                *lanes = load_f32(out);
            }
        }
        let rows = values.values[first..].chunks(values.stride).take(count);
        for (j, row) in rows.enumerate() {
            let row = &row.as_chunks::<8>().0[..V];
            for v in 0..V {
                let value = load(&row[v]);
                for n in 0..N {
                    let factor = _mm256_set1_ps(factors[n][j]);
                    lanes[n][v] = _mm256_fmadd_ps(factor, value, lanes[n][v]);
                }
            }
        }
        for n in 0..N {
            for (lanes, out) in lanes[n].iter().zip(out[n][first..].as_chunks_mut::<8>().0) {
                store_f32(*lanes, out);
            }
        }
    }
    if whole < len {
        for (weights, out) in factors.into_iter().zip(out) {
            for (j, &weight) in weights.iter().enumerate() {
                axpy(weight, &values.row(j, len)[whole..], &mut out[whole..], &load, &single);
            }
        }
    }
}
