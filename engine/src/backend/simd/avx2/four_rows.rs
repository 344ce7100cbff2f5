//! Rows of `Q8_0` by few activation rows: four weight rows at once.
//!
//! These weights need no unpacking, and what they wait for is memory.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::activations::{Q8, Q8Row};
use super::vector::{apart, four_halves, lanes_four, load_i8, signed_fours, sums_of_four};
use crate::quant::{self, Q8_0};

/// Products of rows of `Q8_0` with few activation rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q8_0_few(bytes: &[u8], acts: &Q8, out: &mut [f32]) {
    let stride = acts.blocks * size_of::<Q8_0>();
    let width = bytes.len() / stride;
    apart(width, |indices: [usize; 4]| {
        let rows = indices.map(|row| quant::blocks(&bytes[row * stride..][..stride]));
        for (t, out) in out.chunks_exact_mut(width).enumerate() {
            for (row, value) in indices.into_iter().zip(lanes_four(q8_0_rows(rows, acts.row(t)))) {
                out[row] = value;
            }
        }
    });
}

/// Products of four weight rows with an activation row, a lane each; in the order of a single row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0_rows([a, b, c, d]: [&[Q8_0]; 4], x: Q8Row<'_>) -> __m128 {
    let blocks = x.quants.len();
    // Cut to one length before the loop, they are looked up in it without checks.
    let (a, b, c, d) = (&a[..blocks], &b[..blocks], &c[..blocks], &d[..blocks]);
    let scales = &x.scales[..blocks];
    let mut chains = [_mm_setzero_ps(); 4];
    for index in 0..blocks {
        let blocks = [&a[index], &b[index], &c[index], &d[index]];
        let quants = load_i8(&x.quants[index]);
        let mut dots = [_mm256_setzero_si256(); 4];
        for (dots, block) in dots.iter_mut().zip(blocks) {
            *dots = signed_fours(load_i8(&block.qs), quants);
        }
        let steps = four_halves([blocks[0].d, blocks[1].d, blocks[2].d, blocks[3].d]);
        let factors = _mm_mul_ps(steps, _mm_set1_ps(scales[index]));
        let dots = _mm_cvtepi32_ps(sums_of_four(dots));
        // Chains take turns at the first place, where they stay in registers.
        let [first, second, third, fourth] = chains;
        chains = [second, third, fourth, _mm_fmadd_ps(dots, factors, first)];
    }
    chains.rotate_right(blocks % 4);
    let [first, second, third, fourth] = chains;
    _mm_add_ps(_mm_add_ps(first, third), _mm_add_ps(second, fourth))
}
