//! Parsing: how long from bytes to a checked index, for files of many tensors and a large vocabulary.
//!
//! Throughput is in tensors per second: parsing never reads a payload, so bytes would say nothing.
//! APR without the checksum over the whole file, which is measured apart, in bytes per second.

use std::collections::BTreeMap;
use std::hint::black_box;

use apr_engine::format::write::{
    ArrayBuf, Outgoing, ValueBuf, write_apr, write_gguf, write_safetensors,
};
use apr_engine::format::{apr, gguf, safetensors};
use apr_engine::{Shape, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Map, json};

/// Tensors of a small and of the largest published models.
const COUNTS: [usize; 2] = [290, 2200];
/// Tokens of a large vocabulary.
const VOCABULARY: usize = 150_000;

fn tensors(count: usize) -> Vec<Outgoing> {
    let shape = Shape::new(&[8, 8]).expect("a small shape");
    let tensor = Tensor::from_f32(shape, &[0.5; 64]).expect("64 values");
    let name = |index| format!("model.layers.{}.self_attn.weight.{}", index / 12, index % 12);
    (0..count).map(|index| Outgoing::unchanged(name(index), tensor.clone())).collect()
}

fn vocabulary() -> Vec<String> {
    (0..VOCABULARY).map(|id| format!("token{id}")).collect()
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for count in COUNTS {
        group.throughput(Throughput::Elements(count as u64));
        let tensors = tensors(count);
        let vocabulary = vocabulary();

        let words = ValueBuf::Array(ArrayBuf::strings(&vocabulary));
        let pairs = [("tokenizer.ggml.tokens".to_owned(), words.value())];
        let mut bytes = Vec::new();
        write_gguf(&mut bytes, &pairs, &tensors).expect("a valid file");
        group.bench_function(BenchmarkId::new("gguf", count), |bencher| {
            bencher.iter(|| gguf::parse(black_box(&bytes)).expect("a valid file"));
        });

        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &BTreeMap::new(), &tensors).expect("a valid file");
        group.bench_function(BenchmarkId::new("safetensors", count), |bencher| {
            bencher.iter(|| safetensors::parse(black_box(&bytes)).expect("a valid file"));
        });

        let metadata = Map::from_iter([("tokenizer.vocabulary".to_owned(), json!(vocabulary))]);
        let mut bytes = Vec::new();
        write_apr(&mut bytes, &metadata, &tensors).expect("a valid file");
        group.bench_function(BenchmarkId::new("apr", count), |bencher| {
            bencher.iter(|| apr::parse_structure(black_box(&bytes)).expect("a valid file"));
        });
    }
    group.finish();
}

fn checksum(criterion: &mut Criterion) {
    let shape = Shape::new(&[1024, 4096]).expect("a shape");
    let values = vec![0.25; 1024 * 4096];
    let tensor = Tensor::from_f32(shape, &values).expect("as many values");
    let mut bytes = Vec::new();
    write_apr(&mut bytes, &Map::new(), &[Outgoing::unchanged("w", tensor)]).expect("a valid file");
    let mut group = criterion.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("apr", |bencher| {
        bencher.iter(|| apr::parse(black_box(&bytes)).expect("a valid file"));
    });
    group.finish();
}

criterion_group!(benches, parse, checksum);
criterion_main!(benches);
