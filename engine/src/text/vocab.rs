//! Vocabularies as GGUF and APR metadata carry them.
//!
//! Extraction checks types, lengths and ids; nothing is interpreted beyond that. What the vocabulary
//! means is the business of the tokenizer built from it.

use serde_json::{Map, Value as Json};

use crate::error::{Code, Error, Result};
use crate::format::{Array, Metadata, Value};

/// Most vocabulary entries a file may declare (real ones stay below 2^19).
const TOKENS_MAX: usize = 1 << 22;
/// Most merges a file may declare.
const MERGES_MAX: usize = 1 << 23;

/// A vocabulary out of model metadata. Ids are checked when a tokenizer is built from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab<'a> {
    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece-style BPE by scores).
    pub model: &'a str,
    /// Pre-tokenizer type of a `gpt2` vocabulary; empty when the file does not say.
    pub pre: &'a str,
    /// `general.name`: some stripping rules hang on it.
    pub name: &'a str,
    /// The entries; position is the id.
    pub tokens: Vec<&'a str>,
    /// One score per entry (`llama`), or empty.
    pub scores: Vec<f32>,
    /// One GGUF token type per entry, or empty when the file has none.
    pub token_types: Vec<i64>,
    /// `left right` pairs in order of rank (`gpt2`).
    pub merges: Vec<&'a str>,
    /// Beginning-of-text id.
    pub bos: Option<u64>,
    /// End-of-text id.
    pub eos: Option<u64>,
    /// End-of-turn id.
    pub eot: Option<u64>,
    /// Unknown-token id.
    pub unk: Option<u64>,
    /// Padding id.
    pub pad: Option<u64>,
    /// Whether encoding begins with the beginning token; `None` leaves it to the vocabulary type.
    pub add_bos: Option<bool>,
    /// Whether encoding ends with the end token.
    pub add_eos: Option<bool>,
    /// Whether a space is put in front of text (`llama`).
    pub add_space_prefix: Option<bool>,
}

impl<'a> GgufVocab<'a> {
    /// The vocabulary in `metadata` of a GGUF or APR file; `TokenizerMissing` when there is none.
    pub fn from_metadata(metadata: &'a Metadata<'_>) -> Result<Self> {
        match metadata {
            Metadata::Gguf(_) => Self::from_gguf(metadata),
            Metadata::Apr(object) => Self::from_apr(object),
            Metadata::SafeTensors(_) => Err(Error::new(Code::TokenizerMissing)
                .hint("SafeTensors models carry their tokenizer in tokenizer.json")),
        }
    }

    fn from_gguf(metadata: &'a Metadata<'_>) -> Result<Self> {
        let get = |key: &str| metadata.gguf(key);
        let Some(model) = get("tokenizer.ggml.model") else {
            return Err(Error::new(Code::TokenizerMissing).field("tokenizer.ggml.model"));
        };
        let text = |key, default| match get(key) {
            None => Ok(default),
            Some(Value::Str(text)) => Ok(*text),
            Some(_) => Err(invalid(key).expected("a string")),
        };
        let Value::Str(model) = model else {
            return Err(invalid("tokenizer.ggml.model").expected("a string"));
        };
        let vocab = Self {
            model,
            pre: text("tokenizer.ggml.pre", "")?,
            name: text("general.name", "")?,
            tokens: strings(get("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens", TOKENS_MAX)?,
            scores: floats(get("tokenizer.ggml.scores"), "tokenizer.ggml.scores")?,
            token_types: integers(get("tokenizer.ggml.token_type"), "tokenizer.ggml.token_type")?,
            merges: strings(get("tokenizer.ggml.merges"), "tokenizer.ggml.merges", MERGES_MAX)?,
            bos: id(get("tokenizer.ggml.bos_token_id"), "tokenizer.ggml.bos_token_id")?,
            eos: id(get("tokenizer.ggml.eos_token_id"), "tokenizer.ggml.eos_token_id")?,
            eot: id(get("tokenizer.ggml.eot_token_id"), "tokenizer.ggml.eot_token_id")?,
            unk: id(get("tokenizer.ggml.unknown_token_id"), "tokenizer.ggml.unknown_token_id")?,
            pad: id(get("tokenizer.ggml.padding_token_id"), "tokenizer.ggml.padding_token_id")?,
            add_bos: flag(get("tokenizer.ggml.add_bos_token"), "tokenizer.ggml.add_bos_token")?,
            add_eos: flag(get("tokenizer.ggml.add_eos_token"), "tokenizer.ggml.add_eos_token")?,
            add_space_prefix: flag(
                get("tokenizer.ggml.add_space_prefix"),
                "tokenizer.ggml.add_space_prefix",
            )?,
        };
        vocab.check_lengths()
    }

    fn from_apr(object: &'a Map<String, Json>) -> Result<Self> {
        if !object.contains_key("tokenizer.vocabulary") {
            return Err(Error::new(Code::TokenizerMissing).field("tokenizer.vocabulary"));
        }
        let text = |key: &str| object.get(key).and_then(Json::as_str);
        let number = |key: &str| match object.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| {
                Error::new(Code::TokenId).field(key).expected("a token id").found(value)
            }),
        };
        let architecture = text("tokenizer.architecture").or_else(|| text("architecture"));
        let scores = apr_numbers(object, "tokenizer.scores", Json::as_f64)?;
        let merges = apr_strings(object, "tokenizer.merges", MERGES_MAX)?;
        let declared = text("tokenizer.model").or_else(|| text("tokenizer.model_type"));
        let vocab = Self {
            model: match declared.map(str::to_ascii_lowercase).as_deref() {
                Some("llama" | "spm" | "sentencepiece" | "unigram") => "llama",
                None if merges.is_empty() => "llama",
                Some("gpt2" | "bpe") | None => "gpt2",
                Some(_) => declared.unwrap_or_default(),
            },
            pre: text("tokenizer.pre_type").unwrap_or_else(|| {
                // A vocabulary out of a tokenizer.json shows its words in its merges.
                let from_json = declared.is_some_and(|kind| kind.eq_ignore_ascii_case("bpe"));
                if from_json && merges.iter().any(|merge| joins_space_and_digit(merge)) {
                    return "gpt-2";
                }
                pre_of_architecture(architecture, &merges)
            }),
            name: text("tokenizer.model_name").or_else(|| text("name")).unwrap_or_default(),
            tokens: apr_strings(object, "tokenizer.vocabulary", TOKENS_MAX)?,
            scores: scores.into_iter().map(|score| score as f32).collect(),
            token_types: apr_numbers(object, "tokenizer.token_type", Json::as_i64)?,
            merges,
            bos: number("tokenizer.bos_token_id")?,
            eos: number("tokenizer.eos_token_id")?,
            eot: None,
            unk: number("tokenizer.unknown_token_id")?,
            pad: number("tokenizer.padding_token_id")?,
            add_bos: object.get("tokenizer.add_bos_token").and_then(Json::as_bool),
            add_eos: object.get("tokenizer.add_eos_token").and_then(Json::as_bool),
            add_space_prefix: object.get("tokenizer.add_space_prefix").and_then(Json::as_bool),
        };
        vocab.check_lengths()
    }

    fn check_lengths(self) -> Result<Self> {
        let tokens = self.tokens.len();
        if tokens == 0 {
            return Err(invalid("tokenizer.ggml.tokens").expected("at least one token").found(0));
        }
        let lengths = [
            ("tokenizer.ggml.scores", self.scores.len()),
            ("tokenizer.ggml.token_type", self.token_types.len()),
        ];
        for (key, len) in lengths {
            if len != 0 && len != tokens {
                let expected = format!("{tokens} elements, one for each token");
                return Err(invalid(key).expected(expected).found(len));
            }
        }
        if let Some(index) = self.scores.iter().position(|score| !score.is_finite()) {
            let field = format!("tokenizer.ggml.scores[{index}]");
            return Err(invalid(&field).expected("a finite score").found(self.scores[index]));
        }
        Ok(self)
    }
}

/// Whether a merge makes a space and a digit one token: only words like GPT-2's put them together.
fn joins_space_and_digit(merge: &str) -> bool {
    let mut joined = merge.chars().filter(|character| *character != ' ');
    joined.next() == Some('Ġ') && joined.next().is_some_and(|next| next.is_ascii_digit())
}

/// The pre-tokenizer type of files that only name the architecture. Where that does not decide it, a name
/// that is no type, so that the tokenizer is refused instead of giving wrong ids.
fn pre_of_architecture(architecture: Option<&str>, merges: &[&str]) -> &'static str {
    let digits = |merge: &&str| {
        merge.split_once(' ').is_some_and(|(left, right)| {
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            digits(left) && digits(right)
        })
    };
    match architecture.map(str::to_ascii_lowercase).as_deref() {
        Some(name) if name.starts_with("qwen") => "qwen2",
        Some(name) if name.starts_with("gpt") => "gpt-2",
        Some("llama") if merges.iter().any(digits) => "llama-bpe",
        _ => "not stated",
    }
}

fn invalid(key: &str) -> Error {
    Error::new(Code::TokenizerInvalid).field(key)
}

fn array<'v>(value: Option<&Value<'v>>, key: &str) -> Result<Option<Array<'v>>> {
    match value {
        None => Ok(None),
        Some(Value::Array(array)) => Ok(Some(*array)),
        Some(other) => Err(invalid(key).expected("an array").found(other.kind())),
    }
}

fn strings<'v>(value: Option<&Value<'v>>, key: &str, most: usize) -> Result<Vec<&'v str>> {
    let Some(array) = array(value, key)? else { return Ok(Vec::new()) };
    if array.len > most {
        return Err(Error::new(Code::LimitExceeded).field(key).expected(most).found(array.len));
    }
    Ok(array.strings().map_err(|error| error.field(key))?.collect())
}

fn floats(value: Option<&Value<'_>>, key: &str) -> Result<Vec<f32>> {
    let Some(array) = array(value, key)? else { return Ok(Vec::new()) };
    Ok(array.f32s().map_err(|error| error.field(key))?.collect())
}

fn integers(value: Option<&Value<'_>>, key: &str) -> Result<Vec<i64>> {
    let Some(array) = array(value, key)? else { return Ok(Vec::new()) };
    Ok(array.i32s().map_err(|error| error.field(key))?.map(i64::from).collect())
}

fn id(value: Option<&Value<'_>>, key: &str) -> Result<Option<u64>> {
    match value {
        // −1 is written by some converters for "none".
        None | Some(Value::Signed(-1)) => Ok(None),
        Some(Value::Unsigned(id)) => Ok(Some(*id)),
        Some(Value::Signed(id)) => u64::try_from(*id)
            .map(Some)
            .map_err(|_| Error::new(Code::TokenId).field(key).expected("a token id").found(id)),
        Some(_) => Err(invalid(key).expected("an integer")),
    }
}

fn flag(value: Option<&Value<'_>>, key: &str) -> Result<Option<bool>> {
    match value {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(invalid(key).expected("a boolean")),
    }
}

fn apr_list<'a>(object: &'a Map<String, Json>, key: &str) -> Result<&'a [Json]> {
    match object.get(key) {
        None | Some(Json::Null) => Ok(&[]),
        Some(Json::Array(list)) => Ok(list),
        Some(_) => Err(invalid(key).expected("an array")),
    }
}

fn apr_strings<'a>(object: &'a Map<String, Json>, key: &str, most: usize) -> Result<Vec<&'a str>> {
    let list = apr_list(object, key)?;
    if list.len() > most {
        return Err(Error::new(Code::LimitExceeded).field(key).expected(most).found(list.len()));
    }
    let strings = list.iter().map(Json::as_str).collect::<Option<_>>();
    strings.ok_or_else(|| invalid(key).expected("an array of strings"))
}

fn apr_numbers<T>(
    object: &Map<String, Json>,
    key: &str,
    number: impl Fn(&Json) -> Option<T>,
) -> Result<Vec<T>> {
    let numbers = apr_list(object, key)?.iter().map(number).collect::<Option<_>>();
    numbers.ok_or_else(|| invalid(key).expected("an array of numbers"))
}
