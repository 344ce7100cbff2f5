//! What a `tokenizer.json` says, in the words of GGUF and APR metadata: tokens, types, merges, special ids.
//!
//! Only byte-level BPE can be said in those words. Any tokenizer is carried whole besides, as the text of its
//! `tokenizer.json`, so nothing is lost.

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::format::{Sidecars, json};

/// GGUF token types.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
/// A pre-tokenizer that no name exists for: readers must use the embedded `tokenizer.json`.
const UNNAMED: &str = "huggingface";

const SPLIT_QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SPLIT_LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer in the words of model metadata.
#[derive(Debug, Default)]
pub(super) struct Tokenizer {
    /// The text of `tokenizer.json`.
    pub(super) json: String,
    /// Tokens, their types, merges and pre-tokenizer type; `None` unless it is byte-level BPE.
    pub(super) bpe: Option<Bpe>,
    pub(super) bos: Option<u64>,
    pub(super) eos: Option<u64>,
    pub(super) pad: Option<u64>,
    pub(super) unk: Option<u64>,
    pub(super) add_bos: bool,
    pub(super) chat_template: Option<String>,
}

/// A byte-level BPE vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    /// Index is the token id; as long as the embedding has rows.
    pub(super) tokens: Vec<String>,
    pub(super) types: Vec<i32>,
    /// `a b`, in order of rank.
    pub(super) merges: Vec<String>,
    pub(super) pre: &'static str,
}

impl Tokenizer {
    /// Reads the side files; `None` when there is no `tokenizer.json`. `rows` is the number of token ids that
    /// the embedding has; ids that no token has get an unused placeholder.
    pub(super) fn read(
        sidecars: &Sidecars,
        config: &Map<String, Value>,
        rows: usize,
    ) -> Result<Option<Self>> {
        let Some(bytes) = &sidecars.tokenizer_json else { return Ok(None) };
        let root = json::object(bytes, Code::TokenizerInvalid)?;
        let settings = match &sidecars.tokenizer_config {
            Some(bytes) => json::object(bytes, Code::TokenizerInvalid)?,
            None => Map::new(),
        };
        let ids = Ids { root: &root, settings: &settings, config };
        Ok(Some(Self {
            json: String::from_utf8_lossy(bytes).into_owned(),
            bpe: Bpe::read(&root, rows)?,
            bos: ids.special("bos"),
            eos: ids.special("eos"),
            pad: ids.special("pad"),
            unk: ids.special("unk"),
            add_bos: settings
                .get("add_bos_token")
                .and_then(Value::as_bool)
                .unwrap_or_else(|| begins_with_special(&root)),
            chat_template: chat_template(sidecars, &settings),
        }))
    }
}

/// Where the ids of special tokens are looked for.
struct Ids<'a> {
    root: &'a Map<String, Value>,
    settings: &'a Map<String, Value>,
    config: &'a Map<String, Value>,
}

impl Ids<'_> {
    /// The id of `bos`, `eos`, `pad` or `unk`: the tokenizer's word for it before the model's number.
    fn special(&self, which: &str) -> Option<u64> {
        let named = self.settings.get(&format!("{which}_token"));
        let content = named.and_then(|token| token.get("content").unwrap_or(token).as_str());
        let by_name = content.and_then(|content| self.id(content));
        let number = self.config.get(&format!("{which}_token_id"));
        let number = number.and_then(|id| id.get(0).unwrap_or(id).as_u64());
        by_name.or(number)
    }

    fn id(&self, content: &str) -> Option<u64> {
        let added = self.root.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
        let vocab = || self.root.get("model")?.get("vocab")?.get(content)?.as_u64();
        added
            .filter(|token| token.get("content").and_then(Value::as_str) == Some(content))
            .find_map(|token| token.get("id")?.as_u64())
            .or_else(vocab)
    }
}

/// Whether the post-processor puts a special token in front of a single text.
fn begins_with_special(root: &Map<String, Value>) -> bool {
    let begins = |processor: &Value| {
        let first = processor.get("single").and_then(|single| single.get(0));
        first.is_some_and(|piece| piece.get("SpecialToken").is_some())
    };
    let Some(processor) = root.get("post_processor") else { return false };
    let nested = processor.get("processors").and_then(Value::as_array);
    begins(processor) || nested.is_some_and(|processors| processors.iter().any(begins))
}

/// The template file before the setting; of several named ones the one called `default`.
fn chat_template(sidecars: &Sidecars, settings: &Map<String, Value>) -> Option<String> {
    if let Some(bytes) = &sidecars.chat_template {
        return std::str::from_utf8(bytes).ok().map(str::to_owned);
    }
    match settings.get("chat_template")? {
        Value::String(template) => Some(template.clone()),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template")?.as_str())
            .map(str::to_owned),
        _ => None,
    }
}

impl Bpe {
    fn read(root: &Map<String, Value>, rows: usize) -> Result<Option<Self>> {
        let Some(model) = root.get("model") else { return Ok(None) };
        let is_bpe = model.get("type").and_then(Value::as_str) == Some("BPE");
        let steps = steps(root.get("pre_tokenizer"));
        if !is_bpe || !steps.iter().any(|step| kind(step) == Some("ByteLevel")) {
            return Ok(None);
        }
        let invalid = |field: &str| Error::new(Code::TokenizerInvalid).field(field);
        let mut tokens = vec![None; rows];
        let mut put = |content: &str, id: Option<u64>, kind: i32| {
            let slot = id.and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
            match slot {
                Some(slot) => {
                    *slot = Some((content.to_owned(), kind));
                    Ok(())
                }
                None => {
                    Err(invalid("vocab").expected(format_args!("ids below {rows}")).found(content))
                }
            }
        };
        let vocab = model.get("vocab").and_then(Value::as_object);
        for (content, id) in vocab.into_iter().flatten() {
            put(content, id.as_u64(), NORMAL)?;
        }
        let added = root.get("added_tokens").and_then(Value::as_array);
        for token in added.into_iter().flatten() {
            let content = token.get("content").and_then(Value::as_str).unwrap_or_default();
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            let kind = if special { CONTROL } else { USER_DEFINED };
            put(content, token.get("id").and_then(Value::as_u64), kind)?;
        }
        let filled = tokens
            .into_iter()
            .enumerate()
            .map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)));
        let (tokens, types) = filled.unzip();
        Ok(Some(Self { tokens, types, merges: merges(model)?, pre: pre_type(root, &steps) }))
    }
}

fn merges(model: &Value) -> Result<Vec<String>> {
    let merges = model.get("merges").and_then(Value::as_array);
    let one = |(index, merge): (usize, &Value)| {
        let pair = merge.as_array().and_then(|pair| match pair.as_slice() {
            [left, right] => Some((left.as_str()?, right.as_str()?)),
            _ => None,
        });
        let pair = pair.or_else(|| merge.as_str()?.split_once(' '));
        match pair {
            // One blank divides the parts: a blank inside of one could not be told from it.
            Some((left, right)) if !left.contains(' ') && !right.contains(' ') => {
                Ok(format!("{left} {right}"))
            }
            _ => Err(Error::new(Code::TokenizerInvalid)
                .field(format!("merges[{index}]"))
                .expected("two parts without blanks")
                .found(merge)),
        }
    };
    merges.into_iter().flatten().enumerate().map(one).collect()
}

/// The steps of a pre-tokenizer, sequences unrolled.
fn steps(pre_tokenizer: Option<&Value>) -> Vec<&Value> {
    match pre_tokenizer {
        None | Some(Value::Null) => Vec::new(),
        Some(step) => match step.get("pretokenizers").and_then(Value::as_array) {
            Some(steps) => steps.iter().collect(),
            None => vec![step],
        },
    }
}

fn kind(step: &Value) -> Option<&str> {
    step.get("type")?.as_str()
}

/// The name that GGUF has for a combination of normaliser and pre-tokenizer.
fn pre_type(root: &Map<String, Value>, steps: &[&Value]) -> &'static str {
    let normalizer = root.get("normalizer").filter(|value| !value.is_null());
    let normalizer = normalizer.map(|value| kind(value).unwrap_or_default());
    let flag = |step: &Value, name: &str, default: bool| {
        step.get(name).and_then(Value::as_bool).unwrap_or(default)
    };
    // The byte-level step cuts words itself unless told not to, and must not add a blank in front.
    let plain = steps
        .iter()
        .all(|step| kind(step) != Some("ByteLevel") || !flag(step, "add_prefix_space", true));
    let cuts = |step: &Value| flag(step, "use_regex", true);
    let regex = |step: &'_ Value| {
        let isolated = step.get("behavior").and_then(Value::as_str) == Some("Isolated");
        let pattern = step.get("pattern").and_then(|pattern| pattern.get("Regex")?.as_str());
        pattern.filter(|_| isolated && !flag(step, "invert", false)).map(str::to_owned)
    };
    match steps {
        _ if !plain => UNNAMED,
        [bytes] if cuts(bytes) && normalizer.is_none() => "gpt-2",
        [digits, bytes]
            if kind(digits) == Some("Digits")
                && flag(digits, "individual_digits", false)
                && cuts(bytes)
                && normalizer.is_none() =>
        {
            "smollm"
        }
        [split, bytes] if kind(split) == Some("Split") && !cuts(bytes) => {
            match (regex(split).as_deref(), normalizer) {
                (Some(SPLIT_QWEN2), Some("NFC")) => "qwen2",
                (Some(SPLIT_QWEN2), None) => "deepseek-r1-qwen",
                (Some(SPLIT_LLAMA3), None) => "llama-bpe",
                _ => UNNAMED,
            }
        }
        _ => UNNAMED,
    }
}
