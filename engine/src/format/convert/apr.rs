//! A model as APR: Hugging Face names, hyper-parameters in their canonical spelling.

use serde_json::{Map, Value, json};

use super::Precision;
use super::carried::TOKENIZER_JSON;
use super::portable::Portable;
use super::words::Words;
use crate::error::Result;
use crate::format::write::Outgoing;
use crate::format::{Format, apr};
use crate::model::{Model, Role, Slot};

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
/// Where the text of `generation_config.json` is kept.
const GENERATION_CONFIG: &str = "huggingface.generation_config.json";
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Metadata and tensors of the APR file.
pub(super) fn build(
    model: &Portable<'_>,
    precision: Precision,
) -> Result<(Map<String, Value>, Vec<Outgoing>)> {
    let mut tensors = Vec::new();
    for part in &model.parts {
        let view = part.tensor.tensor.view()?;
        let dtype = match precision {
            // A tensor that was widened is stored in the dtype it had.
            Precision::Stored if !part.tensor.passes_through() => part.tensor.dtype,
            _ => precision.dtype(Format::Apr, part.slot, &view, model.config(), model.tied),
        };
        tensors.push(Outgoing { dtype, ..part.tensor.clone() });
    }
    let params: u64 = tensors.iter().map(|tensor| tensor.shape().elements()).sum();
    if model.tied {
        copy_tied_head(model, &mut tensors);
    }
    let mut written = metadata(model)?;
    written.insert("param_count".to_owned(), json!(params));
    written.extend(model.carried.apr.clone());
    put_storage(&mut written, &tensors)?;
    Ok((written, tensors))
}

/// Metadata of an APR file whose tensors are now stored otherwise.
pub(super) fn restored(
    mut metadata: Map<String, Value>,
    tensors: &[Outgoing],
    precision: Precision,
) -> Result<Map<String, Value>> {
    if precision != Precision::Stored {
        put_storage(&mut metadata, tensors)?;
    }
    Ok(metadata)
}

/// Says in `metadata` what the file left to the files beside it, which stay behind.
pub(super) fn take_in_side_files(model: &Model, metadata: &mut Map<String, Value>) -> Result<()> {
    let beside = model.source().sidecars();
    let text = |bytes: &[u8]| json!(String::from_utf8_lossy(bytes));
    let said = ["chat_template", "tokenizer.chat_template"];
    if !said.iter().any(|key| metadata.get(*key).is_some_and(Value::is_string))
        && let Some(template) = model.chat_template()?
    {
        metadata.insert("tokenizer.chat_template".to_owned(), json!(template.source()));
    }
    let has_words = metadata.contains_key("tokenizer.vocabulary");
    let side_files = [
        (TOKENIZER_JSON, beside.tokenizer_json.as_ref().filter(|_| !has_words)),
        (GENERATION_CONFIG, beside.generation_config.as_ref()),
    ];
    for (key, bytes) in side_files {
        if let Some(bytes) = bytes.filter(|_| !metadata.contains_key(key)) {
            metadata.insert(key.to_owned(), text(bytes));
        }
    }
    Ok(())
}

/// The keys that say how the tensors are stored.
fn put_storage(metadata: &mut Map<String, Value>, tensors: &[Outgoing]) -> Result<()> {
    let sizes: Result<Vec<u64>> = tensors.iter().map(Outgoing::size).collect();
    metadata.insert("total_size".to_owned(), json!(sizes?.iter().sum::<u64>()));
    match quantization(tensors) {
        Some(quantization) => metadata.insert("quantization".to_owned(), quantization),
        None => metadata.remove("quantization"),
    };
    Ok(())
}

/// Whether a key describes how tensors are stored in one file, or repeats another key.
pub(super) fn is_about_storage(key: &str) -> bool {
    const KEYS: [&str; 7] = [
        "total_size",
        "param_count",
        "quantization",
        "tensor_shapes",
        "original_format",
        "rope_type",
        "tokenizer.vocab_size",
    ];
    KEYS.contains(&key) || key.starts_with("model.") || apr::is_alias(key)
}

/// Everything but what depends on the dtypes of the tensors.
pub(super) fn metadata(model: &Portable<'_>) -> Result<Map<String, Value>> {
    let declared = &model.declared;
    let mut metadata = Map::new();
    let mut put = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    let kind = declared.get("model_type").cloned().unwrap_or_else(|| json!(""));
    put("model_type", kind.clone());
    put("name", json!(model.name));
    for key in ["license", "data_source", "data_license"] {
        put(key, Value::Null);
    }
    put("original_format", json!(model.model.format().name()));
    put("total_size", json!(0));
    put("param_count", json!(0));
    put("architecture", kind.clone());
    if let Some(name) = declared.get("architectures").and_then(|names| names.get(0)) {
        put("hf_architecture", name.clone());
    }
    put("hf_model_type", kind);
    put_hyper_parameters(declared, &mut metadata);
    if model.tied {
        metadata.insert("tied_embeddings".to_owned(), json!(true));
    }
    if let Some(words) = &model.words {
        put_tokenizer(words, &mut metadata);
    }
    metadata.extend(model.carried.apr_keys()?);
    if let Some(text) = model.generation_config() {
        metadata.insert(GENERATION_CONFIG.to_owned(), json!(text));
    }
    Ok(metadata)
}

/// A model with tied embeddings gets a head of its own, as APR readers expect.
fn copy_tied_head(model: &Portable<'_>, tensors: &mut Vec<Outgoing>) {
    let embed = Some(Slot::model(Role::Embed));
    let place = model.parts.iter().position(|part| part.slot == embed);
    let embedding = place.and_then(|place| tensors.get(place)).cloned();
    if let Some(embedding) = embedding {
        let name = embedding.name.replace(EMBEDDING, HEAD);
        // Base models name their weights without the leading `model.`.
        let name = if name == embedding.name { HEAD.to_owned() } else { name };
        tensors.push(Outgoing { name, ..embedding });
    }
}

/// The dtype of most values, when that is a block dtype.
fn quantization(tensors: &[Outgoing]) -> Option<Value> {
    let largest = tensors.iter().filter(|tensor| tensor.shape().rank() > 1);
    let dtype = largest.max_by_key(|tensor| tensor.shape().elements())?.dtype;
    if !dtype.is_quantized() {
        return None;
    }
    let bits = dtype.name().chars().find_map(|character| character.to_digit(10));
    let block = Some(dtype.block_len()).filter(|len| *len > 1);
    Some(json!({
        "quant_type": dtype.name(),
        "bits": bits.unwrap_or(8),
        "block_size": block,
        "symmetric": true,
    }))
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

fn put_tokenizer(words: &Words, metadata: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| metadata.insert(format!("tokenizer.{key}"), value);
    if let Some(vocabulary) = &words.vocabulary {
        let is_bpe = vocabulary.model == "gpt2";
        let kind = if is_bpe { ("model_type", "BPE") } else { ("model", &*vocabulary.model) };
        put(kind.0, json!(kind.1));
        put("pre_type", json!(vocabulary.pre));
        put("vocab_size", json!(vocabulary.tokens.len()));
        put("vocabulary", json!(vocabulary.tokens));
        if !vocabulary.types.is_empty() {
            put("token_type", json!(vocabulary.types));
        }
        if !vocabulary.scores.is_empty() {
            put("scores", json!(vocabulary.scores));
        }
        if is_bpe {
            put("merges", json!(vocabulary.merges));
        }
        if let Some(adds) = vocabulary.add_space_prefix {
            put("add_space_prefix", json!(adds));
        }
    }
    let ids = [
        ("bos_token_id", words.bos),
        ("eos_token_id", words.eos),
        ("padding_token_id", words.pad),
        ("unknown_token_id", words.unk),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            put(key, json!(id));
        }
    }
    let flags = [("add_bos_token", words.add_bos), ("add_eos_token", words.add_eos)];
    for (key, flag) in flags {
        if let Some(flag) = flag {
            put(key, json!(flag));
        }
    }
    if let Some(template) = &words.chat_template {
        put("chat_template", json!(template));
    }
}
