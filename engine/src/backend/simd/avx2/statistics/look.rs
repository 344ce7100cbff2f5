//! Values of blocks looked at one by one, where sums of quants do not tell enough.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::vector::{lanes_f32, load_f32};
use crate::quant::Block;

/// The extremes so far.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) low: f32,
    pub(super) high: f32,
}

/// What was seen of the values of a few blocks.
pub(super) struct Seen {
    pub(super) zeros: u64,
    pub(super) range: Range,
}

/// Looks at every value of those of `blocks` that a bit of `lanes` belongs to, behind values of `range`; `None` when one of
/// them is not finite.
// Apart because few blocks are looked at.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn look<const LEN: usize, B: Block<LEN>>(
    blocks: &[B],
    lanes: u8,
    range: Range,
) -> Option<Seen> {
    let (mut low, mut high) = (_mm256_set1_ps(range.low), _mm256_set1_ps(range.high));
    let (mut zeros, mut nothing) = (_mm256_setzero_si256(), _mm256_setzero_ps());
    let mut values = [0.0; LEN];
    let lanes_per_block = 8 / blocks.len();
    for (index, block) in blocks.iter().enumerate() {
        if lanes >> (index * lanes_per_block) & (u8::MAX >> (8 - lanes_per_block)) == 0 {
            continue;
        }
        block.dequantize(&mut values);
        for values in values.as_chunks::<8>().0 {
            let values = load_f32(values);
            let zero = _mm256_cmp_ps::<_CMP_EQ_OQ>(values, _mm256_setzero_ps());
            zeros = _mm256_sub_epi32(zeros, _mm256_castps_si256(zero));
            // Stays zero unless a value is not finite.
            nothing = _mm256_fmadd_ps(values, _mm256_setzero_ps(), nothing);
            low = _mm256_min_ps(low, values);
            high = _mm256_max_ps(high, values);
        }
    }
    let zeros = lanes_f32(_mm256_castsi256_ps(zeros));
    let zeros = zeros.iter().map(|lane| u64::from(lane.to_bits())).sum();
    let low = lanes_f32(low).into_iter().fold(f32::INFINITY, f32::min);
    let high = lanes_f32(high).into_iter().fold(f32::NEG_INFINITY, f32::max);
    let finite = lanes_f32(nothing).iter().all(|&lane| lane == 0.0);
    finite.then_some(Seen { zeros, range: Range { low, high } })
}
