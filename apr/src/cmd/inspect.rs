//! `apr inspect`: what a model file says about itself.

use std::collections::BTreeMap;

use apr_engine::format::Source;
use apr_engine::model::{Config, Model};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::ModelArg;
use crate::failure::Failure;
use crate::render::{Envelope, Terminal};

/// `inspect`: architecture, hyper-parameters and storage of a model.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InspectOutput {
    /// The model as it was named.
    path: String,
    /// `gguf`, `safetensors` or `apr`.
    format: String,
    /// Version of the format.
    format_version: u32,
    /// Weight files.
    files: usize,
    /// Bytes of all weight files.
    bytes: u64,
    /// SHA-256 of the weight files.
    sha256: String,
    /// Model family.
    architecture: String,
    /// Layers.
    layers: usize,
    /// Width of the residual stream.
    hidden_size: usize,
    /// Query heads.
    heads: usize,
    /// Key and value heads.
    kv_heads: usize,
    /// Values per head.
    head_dim: usize,
    /// Width of the feed-forward block.
    intermediate_size: usize,
    /// Token ids.
    vocab_size: usize,
    /// Longest context in tokens.
    context_length: usize,
    /// Epsilon of the norms.
    norm_eps: f32,
    /// Rotary embedding.
    rope: Rope,
    /// Whether the output head is the embedding.
    tied_embeddings: bool,
    /// Ids that end generation.
    eos: Vec<u32>,
    /// Elements of all tensors.
    parameters: u64,
    /// Tensors.
    tensors: usize,
    /// Dtype → how much of it.
    dtypes: BTreeMap<String, Stored>,
    /// What is legal but worth knowing.
    notes: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Rope {
    /// Base.
    theta: f64,
    /// Which values form a pair.
    style: String,
    /// Scaling of the frequencies.
    scaling: String,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
struct Stored {
    /// Tensors of this dtype.
    tensors: usize,
    /// Their bytes.
    bytes: u64,
}

pub(crate) fn run(args: &ModelArg, terminal: &Terminal) -> Result<u8, Failure> {
    let model = Model::load(&args.model)?;
    let output = describe(&model)?;
    if terminal.json {
        terminal.value(&Envelope::new("inspect", "inspect", output))?;
    } else {
        for (name, value) in rows(&output) {
            terminal.line(&format!("{name:<16} {value}"))?;
        }
    }
    Ok(0)
}

fn describe(model: &Model) -> Result<InspectOutput, Failure> {
    let source: &Source = model.source();
    let config: &Config = model.config();
    let containers = source.containers()?;
    let mut dtypes: BTreeMap<String, Stored> = BTreeMap::new();
    let (mut parameters, mut tensors) = (0, 0);
    for entry in containers.iter().flat_map(|container| &container.tensors) {
        let stored = dtypes.entry(entry.view.dtype().name().to_owned()).or_default();
        stored.tensors += 1;
        stored.bytes += entry.view.bytes().len() as u64;
        parameters += entry.view.shape().elements();
        tensors += 1;
    }
    Ok(InspectOutput {
        path: source.path().display().to_string(),
        format: source.format().name().to_owned(),
        format_version: containers.first().map_or(0, |container| container.version),
        files: containers.len(),
        bytes: source.bytes_total(),
        sha256: model.sha256(),
        architecture: config.family.name.to_owned(),
        layers: config.layers,
        hidden_size: config.hidden,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        intermediate_size: config.intermediate,
        vocab_size: config.vocab,
        context_length: config.context,
        norm_eps: config.norm_eps,
        rope: Rope {
            theta: config.rope.theta,
            style: format!("{:?}", config.rope.style).to_lowercase(),
            scaling: format!("{:?}", config.rope.scaling).to_lowercase(),
        },
        tied_embeddings: model.weights().tied(),
        eos: model.generation().eos.clone(),
        parameters,
        tensors,
        dtypes,
        notes: model.notes().iter().map(|note| format!("{}: {}", note.rule, note.text)).collect(),
    })
}

fn rows(output: &InspectOutput) -> Vec<(&'static str, String)> {
    let dtypes: Vec<String> = output
        .dtypes
        .iter()
        .map(|(name, stored)| {
            format!("{name} ({} tensors, {} bytes)", stored.tensors, stored.bytes)
        })
        .collect();
    let mut rows = vec![
        ("path", output.path.clone()),
        ("format", format!("{} version {}", output.format, output.format_version)),
        ("size", format!("{} bytes in {} file(s)", output.bytes, output.files)),
        ("sha256", output.sha256.clone()),
        ("architecture", output.architecture.clone()),
        ("layers", output.layers.to_string()),
        ("hidden size", output.hidden_size.to_string()),
        (
            "heads",
            format!(
                "{} query, {} key-value, {} wide",
                output.heads, output.kv_heads, output.head_dim
            ),
        ),
        ("feed-forward", output.intermediate_size.to_string()),
        ("vocabulary", output.vocab_size.to_string()),
        ("context", format!("{} tokens", output.context_length)),
        ("norm epsilon", format!("{:e}", output.norm_eps)),
        (
            "rope",
            format!(
                "base {}, {}, scaling {}",
                output.rope.theta, output.rope.style, output.rope.scaling
            ),
        ),
        ("tied head", if output.tied_embeddings { "yes" } else { "no" }.to_owned()),
        ("end ids", format!("{:?}", output.eos)),
        ("parameters", format!("{} in {} tensors", output.parameters, output.tensors)),
        ("dtypes", dtypes.join(", ")),
    ];
    rows.extend(output.notes.iter().map(|note| ("note", note.clone())));
    rows
}
