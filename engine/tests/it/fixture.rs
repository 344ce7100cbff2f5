//! Paths of carried files, recordings as numbers, and the measures of distance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apr_engine::backend::CacheType;
use apr_engine::format::Source;
use apr_engine::model::{LmOptions, Model};
use apr_engine::probe::{Probe, Site, Tap};

/// One carried random model of each family and shape.
pub(crate) const PYGMIES: [&str; 10] = [
    "qwen2-tied",
    "llama3-gqa",
    "mistral",
    "llama-mha",
    "qwen3",
    "phi3",
    "longrope",
    "gemma2",
    "gemma2-wide",
    "gemma3",
];

/// The recordings are of f32 arithmetic throughout: what a cache in f16 changes of a site, up to 1e-6, would hide what
/// they can tell.
pub(crate) const F32_CACHE: LmOptions =
    LmOptions { context: None, chunk: 128, cache_type: CacheType::F32, sequences: 1 };

/// A carried file or directory.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(relative)
}

/// A carried model.
pub(crate) fn model(relative: &str) -> Model {
    Model::load(&path(relative)).unwrap_or_else(|error| panic!("{error}"))
}

/// The tensors of a recording, each as f32.
pub(crate) struct Recording(BTreeMap<String, Vec<f32>>);

impl Recording {
    pub(crate) fn open(relative: &str) -> Self {
        // A recording carries no configuration, so only the container is read.
        let source = Source::open(&path(relative)).unwrap_or_else(|error| panic!("{error}"));
        let containers = source.containers().expect("a recording parses");
        let mut tensors = BTreeMap::new();
        for entry in &containers[0].tensors {
            let values = match entry.view.dtype() {
                apr_engine::Dtype::I32 => {
                    let words = entry.view.bytes().chunks_exact(4);
                    words
                        .map(|word| i32::from_le_bytes(word.try_into().expect("four bytes")) as f32)
                        .collect()
                }
                _ => entry.view.dequantize().expect("plain numbers"),
            };
            tensors.insert(entry.name.to_string(), values);
        }
        Self(tensors)
    }

    pub(crate) fn get(&self, name: &str) -> &[f32] {
        &self.0[name]
    }

    /// Names without the tokens.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| *name != "tokens")
    }

    pub(crate) fn tokens(&self) -> Vec<u32> {
        self.get("tokens").iter().map(|id| *id as u32).collect()
    }
}

/// Keeps every site of a run under its name, rows of later chunks behind those of earlier ones.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) BTreeMap<String, Vec<f32>>);

impl Probe for Recorder {
    fn wants(&self, _: Site) -> bool {
        true
    }

    fn tap(&mut self, tap: Tap<'_>) {
        self.0.entry(tap.site.to_string()).or_default().extend_from_slice(tap.values);
    }
}

/// Sum of squared differences over the sum of squares of `expected`.
pub(crate) fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    assert!(!expected.is_empty());
    let pairs = found.iter().zip(expected);
    let error: f64 = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let norm: f64 = expected.iter().map(|b| f64::from(*b).powi(2)).sum();
    error / norm
}
