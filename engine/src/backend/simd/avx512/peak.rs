//! What the processor could multiply at all with AVX-512, with VNNI and without.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::hint::black_box;

use super::super::peak::{Multiplied, Ones, VECTORS};
use super::vector::{load_bytes, load_f32};

/// Weights and vectors that are multiplied at once: sixteen chains, as many as hide the latency of an addition.
const TOGETHER: usize = 4;

/// Multiply-adds of `rounds` with `lanes` in a vector.
fn count(rounds: usize, lanes: usize) -> u64 {
    (rounds * VECTORS * TOGETHER * lanes) as u64
}

/// Bytes by bytes, with `step`, which adds the products of a weight and a vector to a chain; `sum` adds up its lanes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn bytes_with(
    rounds: usize,
    step: impl Fn(__m512i, __m512i, __m512i) -> __m512i,
    sum: impl Fn(__m512i) -> i32,
) -> Multiplied {
    let weights = black_box([_mm512_set1_epi8(1); TOGETHER]);
    let mut tokens = Ones::<i8, 64>::new(1);
    let mut sums = [[_mm512_setzero_si512(); TOGETHER]; TOGETHER];
    for _ in 0..rounds {
        for four in tokens.read::<TOGETHER>() {
            for (t, token) in four.iter().enumerate() {
                let token = load_bytes(token);
                for w in 0..TOGETHER {
                    sums[w][t] = step(sums[w][t], weights[w], token);
                }
            }
        }
    }
    // Taken by value, never as a slice, sums stay in registers.
    let sums = sums.map(|sums| sums.map(|lanes| u64::from(sum(lanes).cast_unsigned())));
    Multiplied { count: count(rounds, 64), sum: sums.as_flattened().iter().sum() }
}

/// Bytes by bytes, summed up in 16 bits.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn bytes(rounds: usize) -> Multiplied {
    bytes_with(
        rounds,
        |sums, weight, token| _mm512_add_epi16(sums, _mm512_maddubs_epi16(weight, token)),
        |sums| _mm512_reduce_add_epi32(_mm512_madd_epi16(sums, _mm512_set1_epi16(1))),
    )
}

/// Bytes by bytes, summed up in 32 bits.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
pub(super) fn vnni_bytes(rounds: usize) -> Multiplied {
    bytes_with(
        rounds,
        |sums, weight, token| _mm512_dpbusd_epi32(sums, weight, token),
        |sums| _mm512_reduce_add_epi32(sums),
    )
}

/// f32 by f32.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn floats(rounds: usize) -> Multiplied {
    let weights = black_box([_mm512_set1_ps(1.0); TOGETHER]);
    let mut tokens = Ones::<[f32; 8], 2>::new([1.0; 8]);
    let mut sums = [[_mm512_setzero_ps(); TOGETHER]; TOGETHER];
    for _ in 0..rounds {
        for four in tokens.read::<TOGETHER>() {
            for (t, token) in four.iter().enumerate() {
                let token = load_f32(token);
                for w in 0..TOGETHER {
                    sums[w][t] = _mm512_fmadd_ps(weights[w], token, sums[w][t]);
                }
            }
        }
    }
    let sums = sums.map(|sums| sums.map(|lanes| _mm512_reduce_add_ps(lanes)));
    let total: f32 = sums.as_flattened().iter().sum();
    Multiplied { count: count(rounds, 16), sum: total as u64 }
}
