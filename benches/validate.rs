//! The reading pass of validation: every value of every tensor of the carried model, dequantised and summed up.
//!
//! Throughput is in bytes of the payload as stored, so a packed form may be held against its plain one.

use std::hint::black_box;
use std::path::Path;

use apr_engine::model::Model;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// The carried model in the forms that hold its payloads differently, below `fixtures/`.
const FORMS: [&str; 4] =
    ["golden", "gguf/golden-F16.gguf", "gguf/golden-Q8_0.gguf", "gguf/golden-Q4_K_M.gguf"];

/// What a check of values needs of them: how many are zero or not finite, and their norm.
#[derive(Debug, Default)]
struct Seen {
    zeros: u64,
    not_finite: u64,
    squares: f64,
}

impl Seen {
    fn row(&mut self, row: &[f32]) {
        for &value in row {
            self.zeros += u64::from(value == 0.0);
            self.not_finite += u64::from(!value.is_finite());
            self.squares += f64::from(value) * f64::from(value);
        }
    }
}

/// Reads all tensors of `model` once, row by row.
fn pass(model: &Model) -> Seen {
    let mut seen = Seen::default();
    let mut row = Vec::new();
    for (_, weight) in model.weights().iter() {
        let view = weight.tensor.view().expect("a tensor that was loaded");
        row.resize(view.cols(), 0.0);
        for index in 0..view.rows() {
            view.dequantize_row(index, &mut row).expect("a row of the tensor");
            seen.row(&row);
        }
    }
    seen
}

fn validate(criterion: &mut Criterion) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let mut group = criterion.benchmark_group("validate");
    group.sample_size(20);
    for form in FORMS {
        let model = Model::load(&fixtures.join(form)).expect("the carried model");
        let seen = pass(&model);
        assert!(seen.not_finite == 0 && seen.squares > 0.0, "{form}: {seen:?}");
        let bytes: usize =
            model.weights().iter().map(|(_, weight)| weight.tensor.bytes().len()).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("read", form), |bencher| {
            bencher.iter(|| black_box(pass(black_box(&model))));
        });
    }
    group.finish();
}

criterion_group!(benches, validate);
criterion_main!(benches);
