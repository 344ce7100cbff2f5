//! What a model says that the target format has no words for: kept as it is, so that the way back finds it.
//!
//! Side files of Hugging Face travel as texts under `huggingface.` and their file name, GGUF pairs of other programs as
//! the object `gguf.kv` (each with its type), APR keys of others and SafeTensors metadata as objects. In GGUF and
//! SafeTensors, which know no objects, these are JSON in a string.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::error::{Code, Error, Result};
use crate::format::value::{fixed_size, type_id, type_name};
use crate::format::write::{ArrayBuf, ValueBuf};
use crate::format::{Array, Sidecars, Typed, json};

/// Prefix of side files in metadata.
const FILE_PREFIX: &str = "huggingface.";
/// GGUF pairs in APR and SafeTensors.
pub(super) const GGUF_PAIRS: &str = "gguf.kv";
/// APR keys in GGUF and SafeTensors.
const APR_KEYS: &str = "apr.metadata";
/// SafeTensors metadata in GGUF.
const SAFETENSORS_PAIRS: &str = "safetensors.metadata";
/// SafeTensors metadata in APR, as published importers call it.
const SAFETENSORS_PAIRS_IN_APR: &str = "source_metadata";
/// The name of a model in APR, which no side file of Hugging Face has a place for.
pub(super) const NAME: &str = "name";
const NAME_IN_GGUF: &str = "general.name";
/// The GGUF pairs that side files of Hugging Face have no place for.
pub(super) const UNSAID_ELSEWHERE: &[&str] = &[NAME_IN_GGUF, "tokenizer.ggml.add_space_prefix"];
/// Names of tensors that were widened to F32 because GGUF readers demand that, by the dtype they had.
const WIDENED: &str = "apr.widened.";
/// Gains as they were stored, by the tensor: where GGUF demands them whole, and their sum with what was left out of
/// them is rounded.
const GAIN: &str = "apr.gain.";

/// Side files that are carried; `tokenizer.json` has a standard key of its own.
const FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// The standard key of `tokenizer.json`.
pub(super) const TOKENIZER_JSON: &str = "tokenizer.huggingface.json";

/// A GGUF pair and the type it is stored in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnedPair {
    pub(super) key: String,
    pub(super) id: u32,
    pub(super) value: ValueBuf,
}

impl OwnedPair {
    pub(super) fn new(key: impl Into<String>, value: ValueBuf) -> Self {
        let id = Typed::from(value.value()).id;
        Self { key: key.into(), id, value }
    }

    pub(super) fn typed(&self) -> Typed<'_> {
        Typed { id: self.id, value: self.value.value() }
    }
}

/// What is carried.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Carried {
    /// Side files by name.
    pub(super) files: BTreeMap<String, String>,
    /// The text of `tokenizer.json`.
    pub(super) tokenizer_json: Option<String>,
    /// GGUF pairs that this engine does not write itself, or would write otherwise.
    pub(super) gguf: Vec<OwnedPair>,
    /// APR keys of the same kind.
    pub(super) apr: Map<String, Json>,
    /// SafeTensors metadata.
    pub(super) safetensors: BTreeMap<String, String>,
}

impl Carried {
    /// The side files that lie beside the weights, and what other containers left in SafeTensors metadata.
    pub(super) fn from_sidecars(
        sidecars: &Sidecars,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut carried = Self::default();
        let files = [
            ("config.json", &sidecars.config),
            ("generation_config.json", &sidecars.generation_config),
            ("tokenizer_config.json", &sidecars.tokenizer_config),
            ("special_tokens_map.json", &sidecars.special_tokens_map),
            ("chat_template.jinja", &sidecars.chat_template),
        ];
        for (name, bytes) in files {
            if let Some(bytes) = bytes {
                carried.files.insert(name.to_owned(), utf8(name, bytes)?);
            }
        }
        if let Some(bytes) = &sidecars.tokenizer_json {
            carried.tokenizer_json = Some(utf8("tokenizer.json", bytes)?);
        }
        for (key, text) in metadata {
            match key.as_str() {
                GGUF_PAIRS => carried.gguf = pairs_from_json(&object(key, text)?)?,
                APR_KEYS => carried.apr = object(key, text)?,
                _ => {
                    carried.safetensors.insert(key.clone(), text.clone());
                }
            }
        }
        Ok(carried)
    }

    /// What another container called the model.
    pub(super) fn name(&self) -> Option<String> {
        let gguf = self.gguf.iter().find(|pair| pair.key == NAME_IN_GGUF);
        let gguf = gguf.and_then(|pair| pair.value.value().as_str());
        let apr = || self.apr.get(NAME).and_then(Json::as_str);
        gguf.or_else(apr).filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// Takes one GGUF string pair in; whether it was one of ours.
    pub(super) fn take_gguf(&mut self, key: &str, text: &str) -> Result<bool> {
        let file = key.strip_prefix(FILE_PREFIX).filter(|name| FILES.contains(name));
        match (key, file) {
            (TOKENIZER_JSON, _) => self.tokenizer_json = Some(text.to_owned()),
            (APR_KEYS, _) => self.apr = object(key, text)?,
            (SAFETENSORS_PAIRS, _) => self.safetensors = strings(key, &object(key, text)?)?,
            (_, Some(name)) => {
                self.files.insert(name.to_owned(), text.to_owned());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes one APR key in; whether it was one of ours.
    pub(super) fn take_apr(&mut self, key: &str, value: &Json) -> Result<bool> {
        let wrong = |expected: &str| {
            Error::new(Code::AprMetadata).field(key).expected(expected).found(value)
        };
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a string"));
        let object = || value.as_object().ok_or_else(|| wrong("an object"));
        let file = key.strip_prefix(FILE_PREFIX).filter(|name| FILES.contains(name));
        match (key, file) {
            (TOKENIZER_JSON, _) => self.tokenizer_json = Some(text()?),
            (GGUF_PAIRS, _) => self.gguf = pairs_from_json(object()?)?,
            (SAFETENSORS_PAIRS_IN_APR, _) => self.safetensors = strings(key, object()?)?,
            (_, Some(name)) => {
                self.files.insert(name.to_owned(), text()?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// GGUF pairs that hold all of it but the GGUF pairs themselves.
    pub(super) fn gguf_pairs(&self) -> Vec<OwnedPair> {
        let text = |key: String, text: String| OwnedPair::new(key, ValueBuf::Str(text));
        let mut pairs = Vec::new();
        if let Some(json) = &self.tokenizer_json {
            pairs.push(text(TOKENIZER_JSON.to_owned(), json.clone()));
        }
        for (name, content) in &self.files {
            pairs.push(text(format!("{FILE_PREFIX}{name}"), content.clone()));
        }
        if !self.safetensors.is_empty() {
            pairs.push(text(SAFETENSORS_PAIRS.to_owned(), json!(self.safetensors).to_string()));
        }
        if !self.apr.is_empty() {
            pairs.push(text(APR_KEYS.to_owned(), json!(self.apr).to_string()));
        }
        pairs
    }

    /// APR keys that hold all of it but the APR keys themselves.
    pub(super) fn apr_keys(&self) -> Result<Map<String, Json>> {
        let mut map = Map::new();
        if let Some(json) = &self.tokenizer_json {
            map.insert(TOKENIZER_JSON.to_owned(), json!(json));
        }
        for (name, content) in &self.files {
            map.insert(format!("{FILE_PREFIX}{name}"), json!(content));
        }
        if !self.safetensors.is_empty() {
            map.insert(SAFETENSORS_PAIRS_IN_APR.to_owned(), json!(self.safetensors));
        }
        if !self.gguf.is_empty() {
            map.insert(GGUF_PAIRS.to_owned(), Json::Object(pairs_to_json(&self.gguf)?));
        }
        Ok(map)
    }

    /// SafeTensors metadata that holds what is no side file.
    pub(super) fn safetensors_pairs(&self) -> Result<BTreeMap<String, String>> {
        let mut pairs = self.safetensors.clone();
        if !self.gguf.is_empty() {
            let object = Json::Object(pairs_to_json(&self.gguf)?);
            pairs.insert(GGUF_PAIRS.to_owned(), object.to_string());
        }
        if !self.apr.is_empty() {
            pairs.insert(APR_KEYS.to_owned(), json!(self.apr).to_string());
        }
        Ok(pairs)
    }
}

/// The pair that remembers which tensors were widened from a dtype.
pub(super) fn widened_pair(dtype: crate::Dtype, names: Vec<&str>) -> OwnedPair {
    let key = format!("{WIDENED}{}", dtype.name().to_ascii_lowercase());
    OwnedPair::new(key, ValueBuf::Array(ArrayBuf::strings(names)))
}

/// The dtype and the names of tensors that a pair says were widened.
pub(super) fn widened<'a>(
    key: &str,
    typed: &Typed<'a>,
) -> Result<Option<(crate::Dtype, Vec<&'a str>)>> {
    let dtype = key.strip_prefix(WIDENED).and_then(crate::Dtype::from_name);
    match (dtype, typed.value.as_array()) {
        (Some(dtype), Some(names)) => Ok(Some((dtype, names.strings()?.collect()))),
        _ => Ok(None),
    }
}

/// The pair that remembers the gains of the tensor `name` as they were `stored`, less `offset`; `None` where taking
/// `offset` off again gives the same bits.
pub(super) fn gain_pair(name: &str, stored: &[f32], offset: f32) -> Option<OwnedPair> {
    let comes_back = |gain: &f32| ((gain + offset) - offset).to_bits() == gain.to_bits();
    if offset == 0.0 || stored.iter().all(comes_back) {
        return None;
    }
    let values = ValueBuf::Array(ArrayBuf::f32s(stored.iter().copied()));
    Some(OwnedPair::new(format!("{GAIN}{name}"), values))
}

/// The tensor whose gains a pair remembers, and those gains.
pub(super) fn gains<'a>(key: &'a str, typed: &Typed<'_>) -> Result<Option<(&'a str, Vec<f32>)>> {
    match (key.strip_prefix(GAIN), typed.value.as_array()) {
        (Some(name), Some(gains)) => Ok(Some((name, gains.f32s()?.collect()))),
        _ => Ok(None),
    }
}

fn utf8(name: &str, bytes: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::new(Code::ConfigJson).field(name).expected("UTF-8").found(error))?;
    Ok(text.to_owned())
}

fn object(key: &str, text: &str) -> Result<Map<String, Json>> {
    json::object(text.as_bytes(), Code::ConfigJson).map_err(|error| error.field(key))
}

fn strings(key: &str, object: &Map<String, Json>) -> Result<BTreeMap<String, String>> {
    let pairs = object.iter().map(|(name, value)| {
        let text = value.as_str().ok_or_else(|| {
            Error::new(Code::StMetadata).field(format!("{key}.{name}")).found(value)
        })?;
        Ok((name.clone(), text.to_owned()))
    });
    pairs.collect()
}

/// Pairs as an object of `{"t": type, "v": value}`, the form of published importers.
fn pairs_to_json(pairs: &[OwnedPair]) -> Result<Map<String, Json>> {
    pairs.iter().map(|pair| Ok((pair.key.clone(), typed_to_json(pair)?))).collect()
}

fn typed_to_json(pair: &OwnedPair) -> Result<Json> {
    Ok(match &pair.value {
        ValueBuf::Unsigned(number) => json!({ "t": tag(pair.id), "v": number }),
        ValueBuf::Signed(number) => json!({ "t": tag(pair.id), "v": number }),
        ValueBuf::Float(number) => json!({ "t": tag(pair.id), "v": float(pair.id, *number) }),
        ValueBuf::Bool(flag) => json!({ "t": tag(pair.id), "v": flag }),
        ValueBuf::Str(text) => json!({ "t": tag(pair.id), "v": text }),
        ValueBuf::Array(array) => {
            let Some(array) = array.value().as_array() else { return Ok(Json::Null) };
            json!({ "t": format!("arr_{}", tag(array.element_type)), "v": elements(array)? })
        }
    })
}

/// Our name of a value type, as these objects spell it.
fn tag(id: u32) -> &'static str {
    if id == type_id::STRING { "str" } else { type_name(id) }
}

fn id_of(tag: &str) -> Option<u32> {
    (0..=type_id::F64).find(|id| self::tag(*id) == tag)
}

/// A number, or its text where JSON readers would lose bits of it.
fn float(id: u32, number: f64) -> Json {
    let is_safe = number.is_finite() && id == type_id::F32;
    if is_safe { json!(number) } else { json!(number.to_string()) }
}

fn elements(array: Array<'_>) -> Result<Vec<Json>> {
    let words = |size: usize| array.bytes.chunks_exact(size);
    Ok(match array.element_type {
        type_id::STRING => array.strings()?.map(|text| json!(text)).collect(),
        type_id::F32 => array.f32s()?.map(|number| float(type_id::F32, number.into())).collect(),
        type_id::F64 => {
            let (words, _) = array.bytes.as_chunks::<8>();
            words.iter().map(|word| float(type_id::F64, f64::from_le_bytes(*word))).collect()
        }
        type_id::BOOL => array.bytes.iter().map(|byte| json!(*byte == 1)).collect(),
        type_id::U64 => words(8)
            .map(|word| json!(u64::from_le_bytes(word.try_into().unwrap_or_default())))
            .collect(),
        _ => array.integers()?.into_iter().map(|number| json!(number)).collect(),
    })
}

fn pairs_from_json(object: &Map<String, Json>) -> Result<Vec<OwnedPair>> {
    let pair = |(key, entry): (&String, &Json)| {
        let wrong = || {
            Error::new(Code::AprMetadata)
                .field(format!("{GGUF_PAIRS}.{key}"))
                .expected("a type and a value of it")
                .found(entry)
        };
        let tag = entry.get("t").and_then(Json::as_str).ok_or_else(wrong)?;
        let value = entry.get("v").ok_or_else(wrong)?;
        let (id, value) = if let Some(tag) = tag.strip_prefix("arr_") {
            (type_id::ARRAY, array_from_json(tag, value).ok_or_else(wrong)?)
        } else {
            let id = id_of(tag).ok_or_else(wrong)?;
            (id, scalar_from_json(id, value).ok_or_else(wrong)?)
        };
        Ok(OwnedPair { key: key.clone(), id, value })
    };
    object.iter().map(pair).collect()
}

fn scalar_from_json(id: u32, value: &Json) -> Option<ValueBuf> {
    Some(match id {
        type_id::U8 | type_id::U16 | type_id::U32 | type_id::U64 => {
            ValueBuf::Unsigned(value.as_u64()?)
        }
        type_id::I8 | type_id::I16 | type_id::I32 | type_id::I64 => {
            ValueBuf::Signed(value.as_i64()?)
        }
        type_id::F32 | type_id::F64 => ValueBuf::Float(float_from_json(value)?),
        type_id::BOOL => ValueBuf::Bool(value.as_bool()?),
        type_id::STRING => ValueBuf::Str(value.as_str()?.to_owned()),
        _ => return None,
    })
}

fn float_from_json(value: &Json) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn array_from_json(tag: &str, value: &Json) -> Option<ValueBuf> {
    let (id, list) = (id_of(tag)?, value.as_array()?);
    if id == type_id::STRING {
        let texts: Option<Vec<&str>> = list.iter().map(Json::as_str).collect();
        return Some(ValueBuf::Array(ArrayBuf::strings(texts?)));
    }
    let size = fixed_size(id)? as usize;
    let mut bytes = Vec::with_capacity(list.len() * size);
    for value in list {
        match scalar_from_json(id, value)? {
            ValueBuf::Unsigned(number) => bytes.extend(&number.to_le_bytes()[..size]),
            ValueBuf::Signed(number) => bytes.extend(&number.to_le_bytes()[..size]),
            ValueBuf::Float(number) if size == 4 => bytes.extend((number as f32).to_le_bytes()),
            ValueBuf::Float(number) => bytes.extend(number.to_le_bytes()),
            ValueBuf::Bool(flag) => bytes.push(flag.into()),
            ValueBuf::Str(_) | ValueBuf::Array(_) => return None,
        }
    }
    let array = Array { element_type: id, len: list.len(), bytes: &bytes };
    Some(ValueBuf::Array(ArrayBuf::copy_of(array)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gguf_pairs_of_every_type_come_back_from_json_with_their_type() {
        let array = |element_type, len, bytes: &[u8]| {
            ValueBuf::Array(ArrayBuf::copy_of(Array { element_type, len, bytes }))
        };
        let pairs: Vec<OwnedPair> = [
            (type_id::U8, ValueBuf::Unsigned(7)),
            (type_id::U64, ValueBuf::Unsigned(7)),
            (type_id::U64, ValueBuf::Unsigned(u64::MAX)),
            (type_id::I16, ValueBuf::Signed(-7)),
            (type_id::F32, ValueBuf::Float(f64::from(0.1_f32))),
            (type_id::F64, ValueBuf::Float(f64::NEG_INFINITY)),
            (type_id::BOOL, ValueBuf::Bool(true)),
            (type_id::STRING, ValueBuf::Str("\u{0} ü".into())),
            (type_id::ARRAY, array(type_id::I8, 2, &[1, 255])),
            (type_id::ARRAY, array(type_id::U64, 1, &[255; 8])),
            (type_id::ARRAY, array(type_id::F32, 1, &0.3_f32.to_le_bytes())),
            (type_id::ARRAY, array(type_id::BOOL, 3, &[1, 0, 1])),
            (type_id::ARRAY, ValueBuf::Array(ArrayBuf::strings(["a", "", "é"]))),
            (type_id::ARRAY, array(type_id::U32, 0, &[])),
        ]
        .into_iter()
        .enumerate()
        .map(|(index, (id, value))| OwnedPair { key: format!("key{index:02}"), id, value })
        .collect();
        let text = Json::Object(pairs_to_json(&pairs).unwrap()).to_string();
        let mut read = pairs_from_json(&object("pairs", &text).unwrap()).unwrap();
        read.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(read, pairs);
    }

    #[test]
    fn a_pair_of_an_unknown_type_is_refused() {
        for entry in [json!({ "t": "u128", "v": 1 }), json!({ "t": "u8" }), json!(7)] {
            let object = Map::from_iter([("k".to_owned(), entry)]);
            assert_eq!(pairs_from_json(&object).unwrap_err().code(), Code::AprMetadata);
        }
    }
}
