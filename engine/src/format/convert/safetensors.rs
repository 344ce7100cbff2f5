//! A model as a Hugging Face directory: weights, `config.json`, tokenizer and templates.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::Precision;
use super::portable::Portable;
use super::words::Words;
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::format::write::Outgoing;
use crate::format::{Format, json};

/// The name of the weight file.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// Metadata and tensors of the weight file.
pub(super) fn build(
    model: &Portable<'_>,
    precision: Precision,
) -> Result<(BTreeMap<String, String>, Vec<Outgoing>)> {
    if !precision.is_plain() {
        return Err(Error::new(Code::ConversionUnsupported)
            .expected("f32, f16 or bf16 for SafeTensors, which holds no quantised blocks")
            .hint("quantise to GGUF or APR"));
    }
    let tensors = model.parts.iter().map(|part| {
        let view = part.tensor.tensor.view()?;
        let dtype = match precision {
            Precision::Stored if !part.tensor.passes_through() => part.tensor.dtype,
            _ => {
                let (config, tied) = (model.config(), model.tied);
                precision.dtype(Format::SafeTensors, part.slot, &view, config, tied)
            }
        };
        Ok(Outgoing { dtype, ..part.tensor.clone() })
    });
    let mut metadata = model.carried.safetensors_pairs()?;
    // The Hugging Face library refuses weights that do not say which framework they are for.
    metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    Ok((metadata, tensors.collect::<Result<_>>()?))
}

/// The files beside the weights, by name.
pub(super) fn side_files(
    model: &Portable<'_>,
    tensors: &[Outgoing],
) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, text) in &model.carried.files {
        files.insert(name.clone(), text.clone().into_bytes());
    }
    files.insert("config.json".to_owned(), config(model, tensors));
    if let Some(text) = model.generation_config() {
        files.insert("generation_config.json".to_owned(), text.into_bytes());
    }
    let Some(words) = &model.words else { return Ok(files) };
    files.insert("tokenizer.json".to_owned(), tokenizer_json(model, words)?);
    if !files.contains_key("tokenizer_config.json") {
        files.insert("tokenizer_config.json".to_owned(), pretty(&tokenizer_config(model, words)));
    }
    // A template that the settings do not hold goes where newer exports put it.
    if let Some(template) = &words.chat_template
        && !holds_template(&files, template)?
    {
        files.insert("chat_template.jinja".to_owned(), template.clone().into_bytes());
    }
    Ok(files)
}

/// The declared configuration, with the dtype that the weights now have.
fn config(model: &Portable<'_>, tensors: &[Outgoing]) -> Vec<u8> {
    let mut declared = model.declared.clone();
    let matrix = tensors.iter().filter(|tensor| tensor.shape().rank() > 1);
    let dtype = matrix.max_by_key(|tensor| tensor.shape().elements()).map(|tensor| tensor.dtype);
    let name = match dtype {
        Some(Dtype::F32) => "float32",
        Some(Dtype::F16) => "float16",
        Some(Dtype::BF16) => "bfloat16",
        _ => "",
    };
    let key = if declared.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    let is_right = declared.get(key).and_then(Json::as_str) == Some(name);
    if let Some(text) = model.carried.files.get("config.json").filter(|_| is_right) {
        return text.clone().into_bytes();
    }
    if !name.is_empty() {
        declared.insert(key.to_owned(), json!(name));
    }
    pretty(&declared)
}

fn tokenizer_json(model: &Portable<'_>, words: &Words) -> Result<Vec<u8>> {
    if let Some(text) = &model.carried.tokenizer_json {
        return Ok(text.clone().into_bytes());
    }
    let missing = || Error::new(Code::TokenizerMissing).hint("the file carries no vocabulary");
    let vocab = words.vocab(&model.name).ok_or_else(missing)?;
    let json = vocab.to_tokenizer_json()?;
    serde_json::to_vec(&json).map_err(|error| Error::new(Code::TokenizerInvalid).found(error))
}

fn tokenizer_config(model: &Portable<'_>, words: &Words) -> Map<String, Json> {
    let text = |id: Option<u64>| {
        let vocabulary = words.vocabulary.as_ref()?;
        vocabulary.tokens.get(usize::try_from(id?).ok()?).cloned()
    };
    let mut map = Map::new();
    let mut put = |key: &str, value: Json| map.insert(key.to_owned(), value);
    put("tokenizer_class", json!("PreTrainedTokenizerFast"));
    for (key, id) in [
        ("bos_token", words.bos),
        ("eos_token", words.eos),
        ("unk_token", words.unk),
        ("pad_token", words.pad),
    ] {
        put(key, json!(text(id)));
    }
    for (key, flag) in [("add_bos_token", words.add_bos), ("add_eos_token", words.add_eos)] {
        if let Some(flag) = flag {
            put(key, json!(flag));
        }
    }
    put("model_max_length", json!(model.config().context));
    put("clean_up_tokenization_spaces", json!(false));
    if let Some(template) = &words.chat_template {
        put("chat_template", json!(template));
    }
    map
}

/// Whether the side files already hold this chat template; one that holds another is a contradiction.
fn holds_template(files: &BTreeMap<String, Vec<u8>>, template: &str) -> Result<bool> {
    let contradicts = |found: &str| {
        Error::new(Code::ConversionMismatch)
            .field("chat_template")
            .expected("one chat template")
            .found(format_args!("another in the carried {found}"))
    };
    if let Some(bytes) = files.get("chat_template.jinja") {
        return if bytes == template.as_bytes() {
            Ok(true)
        } else {
            Err(contradicts("chat_template.jinja"))
        };
    }
    let Some(bytes) = files.get("tokenizer_config.json") else { return Ok(false) };
    let settings = json::object(bytes, Code::TokenizerInvalid)?;
    match super::words::template_of_settings(&settings) {
        None => Ok(false),
        Some(found) if found == template => Ok(true),
        Some(_) => Err(contradicts("tokenizer_config.json")),
    }
}

/// JSON as people like to read it, with a line end.
fn pretty(map: &Map<String, Json>) -> Vec<u8> {
    let mut text = format!("{:#}", Json::Object(map.clone()));
    text.push('\n');
    text.into_bytes()
}
