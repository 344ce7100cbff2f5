//! Conversions of carried models, judged against what others made of the same models.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::*;
use crate::dtype::Dtype;

mod directions;
mod halts;
mod strangers;

/// Every random model that is carried, one per family and peculiarity.
const PYGMIES: &[&str] = &[
    "pygmy/qwen2-tied",
    "pygmy/llama3-gqa",
    "pygmy/mistral",
    "pygmy/llama-mha",
    "pygmy/qwen3",
    "pygmy/phi3",
    "pygmy/longrope",
    "pygmy/gemma2",
    "pygmy/gemma3",
];

/// A carried file or directory.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

fn load(path: &Path) -> Model {
    Model::load(path).unwrap_or_else(|error| panic!("{error}"))
}

/// The weight file that `name` converts to.
fn converted(name: &str, to: Format, precision: Precision) -> Vec<u8> {
    let mut written = Vec::new();
    convert(&load(&fixture(name)), to, precision, &mut written).unwrap();
    written
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Converts the model at `from` into a file or directory in `folder`, and loads it.
fn stored(from: &Path, to: Format, folder: &Path) -> PathBuf {
    let path = folder.join(format!("model-{}", to.name()));
    convert_file(&load(from), to, Precision::Stored, &path, &mut go_on)
        .unwrap_or_else(|error| panic!("{} to {}: {error}", from.display(), to.name()));
    path
}

/// Name, dtype, shape and bytes of every tensor, sorted by name.
fn tensors(model: &Model) -> Vec<(String, Dtype, Vec<u64>, Vec<u8>)> {
    let containers = model.source().containers().unwrap();
    let entries = containers.iter().flat_map(|container| &container.tensors);
    let mut all: Vec<_> = entries
        .map(|entry| {
            let view = entry.view;
            let dims = view.shape().dims().to_vec();
            (entry.name.to_string(), view.dtype(), dims, view.bytes().to_vec())
        })
        .collect();
    all.sort();
    all
}

/// GGUF pairs with their types, sorted by key.
fn typed_pairs(model: &Model) -> Vec<(String, u32, String)> {
    let bytes = model.source().files()[0].bytes();
    let pairs = crate::format::gguf::typed_pairs(bytes).unwrap();
    let mut pairs: Vec<_> = pairs
        .into_iter()
        .map(|(key, typed)| (key.to_owned(), typed.id, format!("{:?}", typed.value)))
        .collect();
    pairs.sort();
    pairs
}
