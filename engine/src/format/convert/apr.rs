//! SafeTensors to APR: Hugging Face names stay, hyper-parameters get their canonical spelling.

use serde_json::{Map, Value, json};

use super::tokenizer::Tokenizer;
use super::{Precision, handles, model_name};
use crate::error::{Code, Error, Result};
use crate::format::write::Outgoing;
use crate::format::{Container, Metadata, Source, apr, json};
use crate::model::config::Family;

/// Hyper-parameters with a canonical spelling, in the order in which published writers put them.
const CANONICAL: &[&str] = &[
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "vocab_size",
    "intermediate_size",
    "max_position_embeddings",
];
/// What APR has no key for and a reader of the model still needs, carried as it is.
const CARRIED: &[&str] = &[
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "rope_local_base_freq",
    "hidden_act",
    "hidden_activation",
    "attention_bias",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "sliding_window_pattern",
    "layer_types",
    "use_bidirectional_attention",
    "query_pre_attn_scalar",
];
/// Carried with a null too, which says "none" where absence says "as usual in the family".
const DENIED_BY_NULL: &[&str] = &["attn_logit_softcapping", "final_logit_softcapping"];
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Metadata and tensors of the APR file.
pub(super) fn build(
    source: &Source,
    containers: &[Container<'_>],
    precision: Precision,
) -> Result<(Map<String, Value>, Vec<Outgoing>)> {
    let sidecars = source.sidecars();
    let config = sidecars.config.as_ref().ok_or_else(|| {
        Error::new(Code::ConfigMissing).field("config.json").in_file(source.path())
    })?;
    let config = json::object(config, Code::ConfigJson)?;
    let mut tensors = handles(source, containers, precision)?;
    let params: u64 = tensors.iter().map(|tensor| tensor.shape().elements()).sum();
    let copied = copy_tied_head(&config, &mut tensors);

    let mut metadata = Map::new();
    let mut put = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    let kind = config.get("model_type").cloned().unwrap_or_else(|| json!(""));
    put("model_type", kind.clone());
    put("name", json!(model_name(source)));
    for key in ["license", "data_source", "data_license"] {
        put(key, Value::Null);
    }
    put("original_format", json!("safetensors"));
    let sizes: Result<Vec<u64>> = tensors.iter().map(Outgoing::size).collect();
    put("total_size", json!(sizes?.iter().sum::<u64>()));
    put("param_count", json!(params));
    if let Precision::Uniform(dtype) = precision
        && dtype.is_quantized()
    {
        put("quantization", quantization(dtype));
    }
    put("architecture", kind.clone());
    if let Some(name) = config.get("architectures").and_then(|names| names.get(0)) {
        put("hf_architecture", name.clone());
    }
    put("hf_model_type", kind);
    put_hyper_parameters(&config, &mut metadata);
    if copied {
        metadata.insert("tied_embeddings".to_owned(), json!(true));
    }
    if let Some(Metadata::SafeTensors(source)) = containers.first().map(|first| &first.metadata)
        && !source.is_empty()
    {
        metadata.insert("source_metadata".to_owned(), json!(source));
    }
    let rows = apr::field(&config, "vocab_size").and_then(Value::as_u64).unwrap_or(0);
    if let Some(tokenizer) = Tokenizer::read(sidecars, &config, rows as usize)? {
        put_tokenizer(tokenizer, &mut metadata);
    }
    Ok((metadata, tensors))
}

/// A model with tied embeddings gets a head of its own, as APR readers expect; whether it did.
fn copy_tied_head(config: &Map<String, Value>, tensors: &mut Vec<Outgoing>) -> bool {
    let family = config.get("model_type").and_then(Value::as_str).and_then(Family::from_name);
    let usual = family.is_some_and(Family::tied);
    let tied = config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(usual);
    let embedding = tensors.iter().find(|tensor| tensor.name == EMBEDDING).cloned();
    let Some(embedding) = embedding.filter(|_| tied) else { return false };
    // A head stored beside a tied embedding is not the one that the model uses.
    tensors.retain(|tensor| tensor.name != HEAD);
    tensors.push(Outgoing { name: HEAD.to_owned(), ..embedding });
    true
}

fn quantization(dtype: crate::Dtype) -> Value {
    let bits = dtype.name().chars().find_map(|character| character.to_digit(10));
    let block = Some(dtype.block_len()).filter(|len| *len > 1);
    json!({
        "quant_type": dtype.name(),
        "bits": bits.unwrap_or(8),
        "block_size": block,
        "symmetric": true,
    })
}

fn put_hyper_parameters(config: &Map<String, Value>, metadata: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Option<&Value>| {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            metadata.insert(key.to_owned(), value.clone());
        }
    };
    for key in CANONICAL {
        put(key, apr::field(config, key));
    }
    let nested = config.get("rope_parameters").and_then(|parameters| parameters.get("rope_theta"));
    put("rope_theta", config.get("rope_theta").or(nested));
    // Hugging Face weights rotate halves.
    put("rope_type", Some(&json!(2)));
    put("rms_norm_eps", apr::field(config, "rms_norm_eps"));
    put("head_dim", config.get("head_dim"));
    for key in CARRIED {
        put(key, config.get(*key));
    }
    for key in DENIED_BY_NULL {
        if let Some(value) = config.get(*key) {
            metadata.insert((*key).to_owned(), value.clone());
        }
    }
}

fn put_tokenizer(tokenizer: Tokenizer, metadata: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| metadata.insert(format!("tokenizer.{key}"), value);
    if let Some(bpe) = tokenizer.bpe {
        put("model_type", json!("BPE"));
        put("pre_type", json!(bpe.pre));
        put("vocab_size", json!(bpe.tokens.len()));
        put("vocabulary", json!(bpe.tokens));
        put("token_type", json!(bpe.types));
        put("merges", json!(bpe.merges));
    }
    let ids = [
        ("bos_token_id", tokenizer.bos),
        ("eos_token_id", tokenizer.eos),
        ("padding_token_id", tokenizer.pad),
        ("unknown_token_id", tokenizer.unk),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            put(key, json!(id));
        }
    }
    put("add_bos_token", json!(tokenizer.add_bos));
    if let Some(template) = tokenizer.chat_template {
        put("chat_template", json!(template));
    }
    put("huggingface.json", json!(tokenizer.json));
}
