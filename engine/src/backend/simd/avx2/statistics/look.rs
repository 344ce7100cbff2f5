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

/// Looks at every value of `blocks`, behind values of `range`; `None` when one of them is not finite.
// Apart because few blocks are looked at.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn look<const LEN: usize, B: Block<LEN>>(blocks: &[B], range: Range) -> Option<Seen> {
    let (mut low, mut high) = (_mm256_set1_ps(range.low), _mm256_set1_ps(range.high));
    let infinite = _mm256_set1_ps(f32::INFINITY);
    let (mut zeros, mut finite) = (0, 0xFF);
    let mut values = [0.0; LEN];
    for block in blocks {
        block.dequantize(&mut values);
        for values in values.as_chunks::<8>().0 {
            let values = load_f32(values);
            let zero = _mm256_cmp_ps::<_CMP_EQ_OQ>(values, _mm256_setzero_ps());
            zeros += u64::from(_mm256_movemask_ps(zero).count_ones());
            let magnitudes = _mm256_andnot_ps(_mm256_set1_ps(-0.0), values);
            finite &= _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(magnitudes, infinite));
            low = _mm256_min_ps(low, values);
            high = _mm256_max_ps(high, values);
        }
    }
    let low = lanes_f32(low).into_iter().fold(f32::INFINITY, f32::min);
    let high = lanes_f32(high).into_iter().fold(f32::NEG_INFINITY, f32::max);
    (finite == 0xFF).then_some(Seen { zeros, range: Range { low, high } })
}
