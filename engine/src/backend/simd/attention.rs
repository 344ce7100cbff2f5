//! Attention: a few queries of the same keys at a time, so that keys and values are read once for all of them.

use std::ops::Range;

use super::elementwise::{soft_cap, softmax};
use super::kernels::{CacheKernels, KEYS, Kernels, QUERIES, Strided};
use crate::backend::Attention;
use crate::backend::kv::Cached;

/// One query head of one row.
pub(super) struct Query<'a> {
    /// `[head_dim]`.
    pub(super) q: &'a [f32],
    /// `[head_dim]`.
    pub(super) dst: &'a mut [f32],
    /// Probabilities, `[context]`, when wanted.
    pub(super) scores: Option<&'a mut [f32]>,
    pub(super) row: usize,
    pub(super) head: usize,
}

/// Keys and values of one head, `[positions, head_dim]` each.
struct Head<'a, T> {
    kernels: &'a Kernels,
    cache_kernels: &'a CacheKernels<T>,
    attention: &'a Attention,
    keys: Strided<'a, T>,
    values: Strided<'a, T>,
}

/// Keys that are turned at once, a multiple of those of a strip: they stay in the second-level cache for all queries.
const TURNED: usize = 512;
/// Most scores that are kept at once, a megabyte of them.
const SCORES: usize = 1 << 18;

/// The queries of `attention` that read the same keys, side by side. `q` and `dst` are `[rows, heads, head_dim]`; `scores`,
/// when not empty, is `[rows, heads, context]`.
pub(super) fn by_key<'a>(
    attention: &Attention,
    q: &'a [f32],
    dst: &'a mut [f32],
    scores: &'a mut [f32],
) -> Vec<Vec<Query<'a>>> {
    let a = attention;
    let mut scores = scores.chunks_exact_mut(a.context());
    let heads = q.chunks_exact(a.head_dim).zip(dst.chunks_exact_mut(a.head_dim));
    let mut queries: Vec<Vec<Query<'_>>> = Vec::new();
    queries.resize_with(a.kv_heads, Vec::new);
    for (index, (q, dst)) in heads.enumerate() {
        let (row, head) = (index / a.heads, index % a.heads);
        let query = Query { q, dst, scores: scores.next(), row, head };
        queries[head / (a.heads / a.kv_heads)].push(query);
    }
    queries
}

/// Attention of queries of one head of the cached keys and values, `[positions, kv_heads, head_dim]` each.
pub(super) fn attend<T>(
    kernels: &Kernels,
    cache_kernels: &CacheKernels<T>,
    queries: &mut [Query<'_>],
    cached: &Cached<'_, T>,
    attention: &Attention,
) {
    let Some(first) = queries.first() else { return };
    let column = first.head / (attention.heads / attention.kv_heads) * attention.head_dim;
    let stride = attention.kv_heads * attention.head_dim;
    let head = Head {
        kernels,
        cache_kernels,
        attention,
        keys: Strided { values: &cached.keys[column..], stride },
        values: Strided { values: &cached.values[column..], stride },
    };
    let together = (SCORES / attention.context().max(1)).max(1).next_multiple_of(QUERIES);
    for queries in queries.chunks_mut(together) {
        head.attend(queries);
    }
}

impl<T> Head<'_, T> {
    /// Attention of each of `queries`: its bits are those it has alone.
    fn attend(&self, queries: &mut [Query<'_>]) {
        let visible: Vec<_> = queries.iter().map(|q| self.attention.visible(q.row)).collect();
        let all = union(&visible);
        let mut scores = vec![0.0; queries.len() * all.len()];
        let mut rows: Vec<_> = scores.chunks_exact_mut(all.len().max(1)).collect();
        self.score(queries, &visible, &all, &mut rows);
        let mut weights: Vec<_> = rows
            .into_iter()
            .zip(&visible)
            .map(|(row, visible)| &mut row[visible.start - all.start..visible.end - all.start])
            .collect();
        for (query, weights) in queries.iter_mut().zip(&mut weights) {
            self.weigh(weights);
            query.dst.fill(0.0);
        }
        let groups = queries.chunks_mut(QUERIES).zip(weights.chunks(QUERIES));
        for ((queries, weights), visible) in groups.zip(visible.chunks(QUERIES)) {
            self.mix_together(queries, weights, visible);
        }
        for ((query, weights), visible) in queries.iter_mut().zip(weights).zip(visible) {
            query.show(weights, visible);
        }
    }

    /// Products of each of `queries` with the keys at `all` positions; those that are not `visible` to it need not be
    /// computed.
    fn score(
        &self,
        queries: &[Query<'_>],
        visible: &[Range<usize>],
        all: &Range<usize>,
        scores: &mut [&mut [f32]],
    ) {
        let len = self.attention.head_dim;
        let mut strips = vec![[0.0; KEYS]; all.len().min(TURNED).div_ceil(KEYS) * len];
        for start in all.clone().step_by(TURNED) {
            let end = all.end.min(start + TURNED);
            let strips = &mut strips[..(end - start).div_ceil(KEYS) * len];
            (self.cache_kernels.turn)(self.keys.from(start), end - start, len, strips);
            let groups = queries.chunks(QUERIES).zip(visible.chunks(QUERIES));
            for ((queries, visible), scores) in groups.zip(scores.chunks_mut(QUERIES)) {
                let visible = union(visible);
                let end = end.min(visible.end);
                if end <= start.max(visible.start) {
                    continue;
                }
                let mut q = [[].as_slice(); QUERIES];
                for (q, query) in q.iter_mut().zip(queries) {
                    *q = query.q;
                }
                let of_block = start - all.start..end - all.start;
                let mut out: Vec<_> =
                    scores.iter_mut().map(|scores| &mut scores[of_block.clone()]).collect();
                (self.kernels.scores)(&q[..queries.len()], strips, &mut out);
            }
        }
    }

    /// Adds the values that are visible to each of at most [`QUERIES`] queries; `weights` are those of `visible`.
    fn mix_together(
        &self,
        queries: &mut [Query<'_>],
        weights: &[&mut [f32]],
        visible: &[Range<usize>],
    ) {
        let start = visible.iter().map(|visible| visible.start).max().unwrap_or_default();
        let end = visible.iter().map(|visible| visible.end).min().unwrap_or_default();
        // Where nothing is visible to all of them, each has its values one by one.
        let common = if start < end { start..end } else { usize::MAX..usize::MAX };
        for ((query, weights), visible) in queries.iter_mut().zip(weights).zip(visible) {
            self.mix(query, weights, visible, visible.start..common.start.min(visible.end));
        }
        if common.is_empty() {
            return;
        }
        let of_common: Vec<_> = weights
            .iter()
            .zip(visible)
            .map(|(weights, visible)| {
                &weights[common.start - visible.start..common.end - visible.start]
            })
            .collect();
        let mut mixed: Vec<_> = queries.iter_mut().map(|query| &mut *query.dst).collect();
        (self.cache_kernels.mix)(&of_common, self.values.from(common.start), &mut mixed);
        for ((query, weights), visible) in queries.iter_mut().zip(weights).zip(visible) {
            self.mix(query, weights, visible, common.end..visible.end);
        }
    }

    /// Probabilities of products with keys, in place.
    fn weigh(&self, scores: &mut [f32]) {
        for score in &mut *scores {
            *score *= self.attention.scale;
        }
        if let Some(cap) = self.attention.cap {
            soft_cap(scores, cap);
        }
        softmax(self.kernels, scores);
    }

    /// Adds the values at `positions`; `weights` are those of `visible`.
    fn mix(
        &self,
        query: &mut Query<'_>,
        weights: &[f32],
        visible: &Range<usize>,
        positions: Range<usize>,
    ) {
        for position in positions {
            let value = self.values.row(position, query.dst.len());
            (self.cache_kernels.axpy)(weights[position - visible.start], value, query.dst);
        }
    }
}

/// From the first to the last of `ranges`.
fn union(ranges: &[Range<usize>]) -> Range<usize> {
    let start = ranges.iter().map(|range| range.start).min().unwrap_or_default();
    start..ranges.iter().map(|range| range.end).max().unwrap_or_default()
}

impl Query<'_> {
    /// Hands the probabilities out, zero where masked.
    fn show(&mut self, weights: &[f32], visible: Range<usize>) {
        if let Some(scores) = &mut self.scores {
            scores.fill(0.0);
            scores[visible].copy_from_slice(weights);
        }
    }
}
