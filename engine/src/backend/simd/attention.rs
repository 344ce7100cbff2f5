//! Attention: queries of the same keys two at a time, so that keys and values are read once for both.

use std::ops::Range;

use super::elementwise::{soft_cap, softmax};
use super::kernels::{CacheKernels, Kernels, Strided};
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
    let stride = attention.kv_heads * attention.head_dim;
    for pair in queries.chunks_mut(2) {
        let column = pair.first().map_or(0, |query| {
            query.head / (attention.heads / attention.kv_heads) * attention.head_dim
        });
        let head = Head {
            kernels,
            cache_kernels,
            attention,
            keys: Strided { values: &cached.keys[column..], stride },
            values: Strided { values: &cached.values[column..], stride },
        };
        match pair {
            [first, second] => head.attend_both(first, second),
            rest => rest.iter_mut().for_each(|query| head.attend_one(query)),
        }
    }
}

impl<T> Head<'_, T> {
    fn attend_one(&self, query: &mut Query<'_>) {
        let visible = self.attention.visible(query.row);
        let mut weights = vec![0.0; visible.len()];
        for (weight, position) in weights.iter_mut().zip(visible.clone()) {
            *weight = (self.cache_kernels.dot)(query.q, self.keys.row(position, query.q.len()));
        }
        self.weigh(&mut weights);
        query.dst.fill(0.0);
        self.mix(query, &weights, &visible, visible.clone());
        query.show(&weights, visible);
    }

    /// The same for two, bit by bit.
    fn attend_both(&self, a: &mut Query<'_>, b: &mut Query<'_>) {
        let visible = [self.attention.visible(a.row), self.attention.visible(b.row)];
        let [first, second] = &visible;
        let either = first.start.min(second.start)..first.end.max(second.end);
        let both = first.start.max(second.start)..first.end.min(second.end);
        if both.is_empty() {
            self.attend_one(a);
            self.attend_one(b);
            return;
        }
        let mut scores = [vec![0.0; either.len()], vec![0.0; either.len()]];
        let [a_scores, b_scores] = &mut scores;
        let keys = self.keys.from(either.start);
        (self.cache_kernels.dots)([a.q, b.q], keys, [&mut *a_scores, &mut *b_scores]);
        let part = |of: &Range<usize>| of.start - either.start..of.end - either.start;
        let (a_weights, b_weights) = (&mut a_scores[part(first)], &mut b_scores[part(second)]);
        for weights in [&mut *a_weights, &mut *b_weights] {
            self.weigh(weights);
        }
        a.dst.fill(0.0);
        b.dst.fill(0.0);
        self.mix(a, a_weights, first, first.start..both.start);
        self.mix(b, b_weights, second, second.start..both.start);
        let part = |of: &Range<usize>| both.start - of.start..both.end - of.start;
        let weights = [&a_weights[part(first)], &b_weights[part(second)]];
        (self.cache_kernels.mix)(weights, self.values.from(both.start), [&mut *a.dst, &mut *b.dst]);
        self.mix(a, a_weights, first, both.end..first.end);
        self.mix(b, b_weights, second, both.end..second.end);
        a.show(a_weights, first.clone());
        b.show(b_weights, second.clone());
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

impl Query<'_> {
    /// Hands the probabilities out, zero where masked.
    fn show(&mut self, weights: &[f32], visible: Range<usize>) {
        if let Some(scores) = &mut self.scores {
            scores.fill(0.0);
            scores[visible].copy_from_slice(weights);
        }
    }
}
