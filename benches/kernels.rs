//! Products of packed weight rows with activations, in bytes of weights per second: the number to hold
//! against the memory bandwidth of one core. Weights stay in the second-level cache.

use std::hint::black_box;

use apr_benches::{DTYPES, wave};
use apr_engine::backend::simd::Kernels;
use apr_engine::quant::quantize;
use apr_engine::{Dtype, Shape, TensorView};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Weight rows per call.
const ROWS: usize = 64;
/// Values per row.
const COLS: usize = 4096;

/// One token (decode), or several that share the weights (prefill).
fn products(criterion: &mut Criterion) {
    let weights = wave(ROWS * COLS);
    for tokens in [1, 32] {
        let mut group = criterion.benchmark_group(format!("product/{tokens}"));
        let x = wave(tokens * COLS);
        for &dtype in DTYPES {
            let Ok(bytes) = quantize(dtype, COLS, &weights) else { continue };
            let Ok(shape) = Shape::new(&[ROWS as u64, COLS as u64]) else { continue };
            let Ok(view) = TensorView::new(dtype, shape, &bytes) else { continue };
            if tokens == 1 {
                group.throughput(Throughput::Bytes(bytes.len() as u64));
            } else {
                group.throughput(Throughput::Elements((ROWS * COLS * tokens) as u64));
            }
            for kernels in Kernels::available() {
                let Ok(acts) = kernels.activations(&x, COLS, &[dtype]) else { continue };
                let mut out = vec![0.0; ROWS * tokens];
                let id = BenchmarkId::new(dtype.name(), kernels.isa());
                group.bench_function(id, |bencher| {
                    bencher.iter(|| kernels.product(&view, 0..ROWS, &acts, black_box(&mut out)));
                });
            }
        }
    }
}

/// Rounding one row of activations for packed weights.
fn rounding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rounding");
    let x = wave(COLS);
    group.throughput(Throughput::Elements(COLS as u64));
    for dtype in [Dtype::Q8_0, Dtype::Q4K] {
        for kernels in Kernels::available() {
            let id = BenchmarkId::new(dtype.name(), kernels.isa());
            group.bench_function(id, |bencher| {
                bencher.iter(|| kernels.activations(black_box(&x), COLS, &[dtype]));
            });
        }
    }
}

criterion_group!(benches, products, rounding);
criterion_main!(benches);
