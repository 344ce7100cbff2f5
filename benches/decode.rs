//! Decoding: one token through the whole carried model, behind a short prompt, on one thread.
//!
//! Each step is taken back, so every measured one stands at the same position. The scalar backend is the oracle and
//! stays slow on purpose; it is here for the ratio.

use std::hint::black_box;
use std::path::Path;

use apr_engine::backend::Device;
use apr_engine::model::{Lm, LmOptions, Model, Want};
use apr_engine::probe::NoProbe;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// The carried model in three storages, below `fixtures/`.
const FORMS: [&str; 3] =
    ["gguf/golden-F16.gguf", "gguf/golden-Q8_0.gguf", "gguf/golden-Q4_K_M.gguf"];
/// Token ids that stand before the measured one; any valid ids do.
const PROMPT: [u32; 16] = [7; 16];

/// One token behind the prompt; the cache is left as it was.
fn step(lm: &mut dyn Lm) -> f32 {
    let start = lm.position();
    let rows = lm.forward(&[7], Want::Last, &mut NoProbe).expect("a valid token");
    let first = rows.last().first().copied().expect("logits");
    lm.truncate(start);
    first
}

fn decode(criterion: &mut Criterion) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let devices =
        [("simd", Device::Simd { isa: None, threads: Some(1) }), ("scalar", Device::Scalar)];
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for form in FORMS {
        let model = Model::load(&fixtures.join(form)).expect("the carried model");
        for (name, device) in &devices {
            let mut lm = model.lm_on(device, LmOptions::default()).expect("an available device");
            lm.forward(&PROMPT, Want::Last, &mut NoProbe).expect("a valid prompt");
            group.bench_function(BenchmarkId::new(*name, form), |bencher| {
                bencher.iter(|| black_box(step(&mut *lm)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
