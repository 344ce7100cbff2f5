//! The kernels of attention, over keys and values of either type.

use std::fmt::Debug;

use half::f16;

use super::Simd;
use super::kernels::{CacheKernels, KEYS, Kernels, QUERIES, Strided};
use super::tests::activations;
use crate::backend::{Attention, Backend, CacheType, KvRows, KvShape, Scalar};
use crate::error::Code;
use crate::probe::{Op, Site};

/// Random numbers that f16 holds exactly.
fn halves(rows: usize, cols: usize) -> Vec<f16> {
    activations(rows, cols).into_iter().map(f16::from_f32).collect()
}

fn widened(values: &[f16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check_axpy<T: Copy + Into<f32>>(kernels: &CacheKernels<T>, x: &[T], name: &dyn Debug) {
    let mut out = vec![1.0; x.len()];
    (kernels.axpy)(0.5, x, &mut out);
    for (out, &x) in out.iter().zip(x) {
        assert!((out - (1.0 + 0.5 * x.into())).abs() <= 1e-6, "{name:?}");
    }
}

#[test]
fn axpy_adds_a_multiple() {
    for kernels in Kernels::available() {
        for len in [0, 1, 7, 8, 9, 15, 16, 17, 64, 67] {
            let x = &halves(1, len.max(1))[..len];
            check_axpy(&kernels.f16_cache, x, &kernels);
            check_axpy(&kernels.f32_cache, &widened(x), &kernels);
        }
    }
}

/// Shapes of heads: values, positions.
const HEADS: [(usize, usize); 12] = [
    (64, 9),
    (64, 70),
    (33, 43),
    (128, 4),
    (80, 7),
    (33, 5),
    (8, 3),
    (1, 1),
    (96, 0),
    (63, 6),
    (100, 5),
    (256, 13),
];

fn check_group<T: Copy + Into<f32>>(
    kernels: &Kernels,
    of_cache: &CacheKernels<T>,
    len: usize,
    rows: Strided<'_, T>,
    count: usize,
) {
    let mut strips = vec![[f32::NAN; KEYS]; count.div_ceil(KEYS) * len];
    (of_cache.turn)(rows, count, len, &mut strips);
    let x = activations(QUERIES, len);
    for together in 1..=QUERIES {
        let queries: Vec<_> = x.chunks_exact(len).take(together).collect();
        let mut scores = vec![f32::NAN; together * count];
        let mut of_each: Vec<_> = scores.chunks_exact_mut(count.max(1)).collect();
        of_each.resize_with(together, Default::default);
        (kernels.scores)(&queries, &strips, &mut of_each);
        let weights: Vec<_> = of_each.iter().map(|row| &**row).collect();
        let mut mixed = vec![0.5; together * len];
        let mut outputs: Vec<_> = mixed.chunks_exact_mut(len).collect();
        (of_cache.mix)(&weights, rows, &mut outputs);
        for (n, weights) in weights.into_iter().enumerate() {
            let name = format!("{kernels:?}: {n} of {together}, {len} x {count}");
            let (mut alone, mut one_by_one) = (vec![f32::NAN; count], vec![0.5; len]);
            (kernels.scores)(&queries[n..=n], &strips, &mut [&mut alone]);
            assert_eq!(bits(weights), bits(&alone), "{name}");
            for (j, &weight) in weights.iter().enumerate() {
                let products = queries[n].iter().zip(rows.row(j, len));
                let (exact, size) = products.fold((0.0, 0.0), |(sum, size), (&q, &key)| {
                    let product = f64::from(q) * f64::from(key.into());
                    (sum + product, size + product.abs())
                });
                let (error, bound) = (f64::from(weight) - exact, len as f64 * size);
                assert!(error.abs() <= bound * f64::from(f32::EPSILON), "{name}: {error}");
                (of_cache.axpy)(weight, rows.row(j, len), &mut one_by_one);
            }
            assert_eq!(bits(&mixed[n * len..][..len]), bits(&one_by_one), "{name}");
        }
    }
}

#[test]
fn queries_together_get_the_bits_of_one_each() {
    for kernels in Kernels::available() {
        for (len, count) in HEADS {
            let stride = len + 3;
            let values = halves(count + 1, stride);
            let rows = Strided { values: &values, stride };
            check_group(&kernels, &kernels.f16_cache, len, rows, count);
            let values = widened(&values);
            let rows = Strided { values: &values, stride };
            check_group(&kernels, &kernels.f32_cache, len, rows, count);
        }
    }
}

/// Attention of two kinds of heads, in a window and bent or not, over `context` positions of which the last `rows` ask.
struct Shape {
    head_dim: usize,
    heads: usize,
    kv_heads: usize,
    context: usize,
    rows: usize,
    window: Option<usize>,
    cap: Option<f32>,
}

const SHAPES: [Shape; 7] = [
    // More keys than are turned at once, and more scores than are kept at once.
    Shape {
        head_dim: 8,
        heads: 4,
        kv_heads: 2,
        context: 1100,
        rows: 500,
        window: Some(600),
        cap: None,
    },
    Shape { head_dim: 64, heads: 4, kv_heads: 4, context: 9, rows: 9, window: None, cap: None },
    Shape { head_dim: 32, heads: 7, kv_heads: 1, context: 33, rows: 5, window: None, cap: None },
    Shape {
        head_dim: 33,
        heads: 6,
        kv_heads: 2,
        context: 20,
        rows: 20,
        window: Some(7),
        cap: None,
    },
    Shape { head_dim: 80, heads: 4, kv_heads: 2, context: 12, rows: 1, window: Some(3), cap: None },
    Shape { head_dim: 7, heads: 2, kv_heads: 1, context: 5, rows: 3, window: None, cap: Some(2.0) },
    Shape { head_dim: 256, heads: 2, kv_heads: 2, context: 3, rows: 2, window: Some(1), cap: None },
];

impl Shape {
    /// Random queries over random keys and values, that f16 holds exactly where `exact`: the mixed values and the
    /// probabilities.
    fn run<B: Backend<Buf = Vec<f32>>>(
        &self,
        backend: &B,
        cache_type: CacheType,
        exact: bool,
    ) -> [Vec<f32>; 2] {
        let width = self.kv_heads * self.head_dim;
        let numbers = |rows| {
            if exact { widened(&halves(rows, width)) } else { activations(rows, width) }
        };
        let (keys, mut values) = (numbers(self.context), numbers(self.context));
        values.reverse();
        let q = activations(self.rows, self.heads * self.head_dim);
        let attention = Attention {
            first_row: 0,
            layer: 0,
            position: self.context - self.rows,
            rows: self.rows,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: 0.1,
            causal: true,
            window: self.window,
            cap: self.cap,
        };
        let shape = KvShape { layers: 1, width, capacity: self.context, cache_type };
        let mut kv = backend.kv_alloc(shape).unwrap();
        let rows = KvRows { layer: 0, first_row: 0, position: 0, rows: self.context };
        backend.kv_append(&mut kv, &keys, &values, rows).unwrap();
        let mut mixed = vec![f32::NAN; q.len()];
        let mut scores = vec![f32::NAN; self.rows * self.heads * self.context];
        let site = Site::layer(0, Op::AttnOut);
        backend.attention(site, &mut mixed, &q, &kv, &attention, Some(&mut scores)).unwrap();
        [mixed, scores]
    }
}

#[test]
fn attention_over_either_type_is_that_of_the_oracle() {
    for shape in SHAPES {
        for &cache_type in CacheType::ALL {
            let expected = shape.run(&Scalar::default(), cache_type, false);
            for kernels in Kernels::available() {
                let simd = Simd::new(Some(kernels.isa()), 1).unwrap();
                let found = shape.run(&simd, cache_type, false);
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    let (head_dim, error) = (shape.head_dim, (found - expected).abs());
                    assert!(error <= 1e-5, "{kernels:?} {cache_type} {head_dim}: {error}");
                }
            }
        }
    }
}

#[test]
fn numbers_that_f16_holds_give_the_same_bits_in_either_type() {
    for shape in SHAPES {
        for kernels in Kernels::available() {
            for threads in [1, 2, 3] {
                let simd = Simd::new(Some(kernels.isa()), threads).unwrap();
                let run = |cache_type| shape.run(&simd, cache_type, true).map(|all| bits(&all));
                let same = run(CacheType::F16) == run(CacheType::F32);
                assert!(same, "{kernels:?} {} on {threads}", shape.head_dim);
            }
        }
        let run =
            |cache_type| shape.run(&Scalar::default(), cache_type, true).map(|all| bits(&all));
        assert!(run(CacheType::F16) == run(CacheType::F32), "{}", shape.head_dim);
    }
}

/// What is cached is rounded once: an f32 cache of numbers rounded beforehand is the same cache.
#[test]
fn every_row_of_a_chunk_sees_rounded_keys_and_values() {
    for shape in SHAPES {
        let simd = Simd::new(None, 1).unwrap();
        let [rounded, exact] = [false, true]
            .map(|exact| shape.run(&simd, CacheType::F16, exact).map(|all| bits(&all)));
        assert!(rounded == exact, "{}", shape.head_dim);
    }
}

/// Rows of three caches of different lengths in one call, and each of them in a call of its own.
#[test]
fn several_caches_at_once_get_the_bits_of_one_each() {
    let (heads, kv_heads, head_dim) = (6, 2, 33);
    let (width, site) = (kv_heads * head_dim, Site::layer(0, Op::AttnOut));
    let runs = [(0, 2, 0), (2, 1, 8), (4, 3, 17)];
    let q = activations(7, heads * head_dim);
    for &cache_type in CacheType::ALL {
        for threads in [1, 3] {
            let simd = Simd::new(None, threads).unwrap();
            let caches: Vec<_> = runs
                .iter()
                .map(|&(first_row, rows, position)| {
                    let context = position + rows;
                    let shape = KvShape { layers: 1, width, capacity: context, cache_type };
                    let (mut kv, keys) =
                        (simd.kv_alloc(shape).unwrap(), activations(context + 1, width));
                    let at = KvRows { layer: 0, first_row: 1, position: 0, rows: context };
                    simd.kv_append(&mut kv, &keys, &keys, at).unwrap();
                    let attention = Attention {
                        layer: 0,
                        first_row,
                        position,
                        rows,
                        heads,
                        kv_heads,
                        head_dim,
                        scale: 0.1,
                        causal: true,
                        window: None,
                        cap: None,
                    };
                    (kv, attention)
                })
                .collect();
            let borrowed: Vec<_> = caches.iter().map(|(kv, one)| (kv, *one)).collect();
            let (mut together, mut apart) = (vec![7.0; q.len()], vec![7.0; q.len()]);
            simd.attention_of_each(site, &mut together, &q, &borrowed).unwrap();
            for (kv, one) in &caches {
                simd.attention(site, &mut apart, &q, kv, one, None).unwrap();
            }
            assert!(bits(&together) == bits(&apart), "{cache_type} on {threads}");
            let untouched = &together[3 * heads * head_dim..4 * heads * head_dim];
            assert!(bits(untouched) == bits(&vec![7.0; untouched.len()]), "a row that is nobody's");
            let error = simd
                .attention_of_each(site, &mut together, &q, &[borrowed[1], borrowed[0]])
                .unwrap_err();
            assert_eq!(error.code(), Code::BackendShape, "rows that do not ascend");
        }
    }
}
