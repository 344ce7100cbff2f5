//! What the processor could multiply at all with AVX2 and FMA.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::hint::black_box;

use super::super::peak::{Multiplied, Ones, VECTORS};
use super::vector::{lanes_i16, load_f32, load_i8, sum};

/// Bytes by bytes, summed up in 16 bits: four weights by two vectors at once, eight chains.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bytes(rounds: usize) -> Multiplied {
    const WEIGHTS: usize = 4;
    let weights = black_box([_mm256_set1_epi8(1); WEIGHTS]);
    let mut tokens = Ones::<i8, 32>::new(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; WEIGHTS];
    for _ in 0..rounds {
        for pair in tokens.read::<2>() {
            for (t, token) in pair.iter().enumerate() {
                let token = load_i8(token);
                for w in 0..WEIGHTS {
                    let products = _mm256_maddubs_epi16(weights[w], token);
                    sums[w][t] = _mm256_add_epi16(sums[w][t], products);
                }
            }
        }
    }
    // Taken by value, never as a slice, sums stay in registers.
    let words = sums.map(|sums| sums.map(|words| lanes_i16(words)));
    let words = words.as_flattened().as_flattened().iter();
    let sum = words.map(|word| u64::from(word.cast_unsigned())).sum();
    Multiplied { count: (rounds * VECTORS * WEIGHTS * 32) as u64, sum }
}

/// f32 by f32: two weights by six vectors at once, twelve chains, as many as hide the latency of an addition.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn floats(rounds: usize) -> Multiplied {
    const WEIGHTS: usize = 2;
    let weights = black_box([_mm256_set1_ps(1.0); WEIGHTS]);
    let mut tokens = Ones::<f32, 8>::new(1.0);
    let mut sums = [[_mm256_setzero_ps(); 6]; WEIGHTS];
    for _ in 0..rounds {
        for six in tokens.read::<6>() {
            for (t, token) in six.iter().enumerate() {
                let token = load_f32(token);
                for w in 0..WEIGHTS {
                    sums[w][t] = _mm256_fmadd_ps(weights[w], token, sums[w][t]);
                }
            }
        }
    }
    let sums = sums.map(|sums| sums.map(|lanes| sum(lanes)));
    let total: f32 = sums.as_flattened().iter().sum();
    Multiplied { count: (rounds * VECTORS * WEIGHTS * 8) as u64, sum: total as u64 }
}
