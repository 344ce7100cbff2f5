//! A vocabulary in the words of GGUF and APR metadata: tokens, types, scores, merges, special ids.
//!
//! Comes from metadata as it is, or out of a `tokenizer.json`. Byte-level BPE and SentencePiece-style BPE can be said in
//! those words. Any tokenizer is carried whole besides, as the text of its `tokenizer.json`, so nothing is lost.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::format::{Sidecars, json};
use crate::text::GgufVocab;

/// GGUF token types.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;
/// A pre-tokenizer that no name exists for: readers must use the embedded `tokenizer.json`.
const UNNAMED: &str = "huggingface";

const SPLIT_QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SPLIT_LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer in the words of model metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Words {
    /// Tokens and how text is cut into them; `None` where these words do not reach.
    pub(super) vocabulary: Option<Vocabulary>,
    pub(super) bos: Option<u64>,
    pub(super) eos: Option<u64>,
    pub(super) pad: Option<u64>,
    pub(super) unk: Option<u64>,
    pub(super) add_bos: Option<bool>,
    pub(super) add_eos: Option<bool>,
    pub(super) chat_template: Option<String>,
    /// Whether special tokens swallow the white space behind them; readers of metadata know it by the model's name.
    pub(super) strips_right: bool,
}

/// Tokens by id, and how text is cut into them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Vocabulary {
    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece-style BPE by scores).
    pub(super) model: String,
    /// Pre-tokenizer type; empty where there is none.
    pub(super) pre: String,
    /// Index is the token id; as long as the embedding has rows.
    pub(super) tokens: Vec<String>,
    pub(super) types: Vec<i32>,
    /// One score per token (`llama`), or empty.
    pub(super) scores: Vec<f32>,
    /// `a b`, in order of rank (`gpt2`), or empty.
    pub(super) merges: Vec<String>,
    pub(super) add_space_prefix: Option<bool>,
}

impl Words {
    /// What metadata says.
    pub(super) fn from_vocab(vocab: &GgufVocab<'_>, chat_template: Option<String>) -> Self {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let vocabulary = Vocabulary {
            model: vocab.model.to_owned(),
            pre: vocab.pre.to_owned(),
            tokens: owned(&vocab.tokens),
            types: vocab.token_types.iter().map(|kind| *kind as i32).collect(),
            scores: vocab.scores.clone(),
            merges: owned(&vocab.merges),
            add_space_prefix: vocab.add_space_prefix,
        };
        Self {
            vocabulary: Some(vocabulary),
            bos: vocab.bos,
            eos: vocab.eos,
            pad: vocab.pad,
            unk: vocab.unk,
            add_bos: vocab.add_bos,
            add_eos: vocab.add_eos,
            chat_template,
            strips_right: false,
        }
    }

    /// The same, borrowed, as readers of metadata see it. `name` is the name of the model.
    pub(super) fn vocab<'a>(&'a self, name: &'a str) -> Option<GgufVocab<'a>> {
        let vocabulary = self.vocabulary.as_ref()?;
        Some(GgufVocab {
            model: &vocabulary.model,
            pre: &vocabulary.pre,
            name,
            tokens: vocabulary.tokens.iter().map(String::as_str).collect(),
            scores: vocabulary.scores.clone(),
            token_types: vocabulary.types.iter().map(|kind| i64::from(*kind)).collect(),
            merges: vocabulary.merges.iter().map(String::as_str).collect(),
            bos: self.bos,
            eos: self.eos,
            eot: None,
            unk: self.unk,
            pad: self.pad,
            add_bos: self.add_bos,
            add_eos: self.add_eos,
            add_space_prefix: vocabulary.add_space_prefix,
        })
    }

    /// Reads side files; `None` when there is no `tokenizer.json`. `rows` is the number of token ids that
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
        let setting = |key: &str| settings.get(key).and_then(Value::as_bool);
        let (first, last) = surroundings(&root);
        Ok(Some(Self {
            vocabulary: Vocabulary::read(&root, rows)?,
            bos: ids.special("bos"),
            eos: ids.special("eos"),
            pad: ids.special("pad"),
            unk: ids.special("unk"),
            add_bos: Some(setting("add_bos_token").unwrap_or(first)),
            add_eos: setting("add_eos_token").or(Some(last)).filter(|adds| *adds),
            chat_template: chat_template(sidecars, &settings),
            strips_right: strips_right(&root),
        }))
    }

    /// Fills the vocabulary up to one token for each of `rows` rows of the embedding, as GGUF readers demand.
    ///
    /// # Errors
    /// [`Code::TokenizerInvalid`] when there are more tokens than rows.
    pub(super) fn fill(&mut self, rows: usize) -> Result<()> {
        let Some(vocabulary) = &mut self.vocabulary else { return Ok(()) };
        let count = vocabulary.tokens.len();
        if count > rows {
            return Err(Error::new(Code::TokenizerInvalid)
                .field("vocabulary")
                .expected(format_args!("at most {rows} tokens, one for each row of the embedding"))
                .found(count));
        }
        vocabulary.tokens.extend((count..rows).map(|id| format!("[PAD{id}]")));
        if vocabulary.types.len() == count {
            vocabulary.types.resize(rows, UNUSED);
        }
        if vocabulary.scores.len() == count {
            vocabulary.scores.resize(rows, 0.0);
        }
        Ok(())
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

/// Whether the post-processor puts a special token in front of a single text, and behind it.
fn surroundings(root: &Map<String, Value>) -> (bool, bool) {
    let around = |processor: &Value| {
        let single = processor.get("single").and_then(Value::as_array);
        let is_special =
            |piece: Option<&Value>| piece.is_some_and(|piece| piece.get("SpecialToken").is_some());
        let single = single.map(Vec::as_slice).unwrap_or_default();
        (is_special(single.first()), is_special(single.last()))
    };
    let Some(processor) = root.get("post_processor") else { return (false, false) };
    let nested = processor.get("processors").and_then(Value::as_array).into_iter().flatten();
    let all = nested.chain([processor]).map(around);
    all.fold((false, false), |(first, last), (begins, ends)| (first || begins, last || ends))
}

fn strips_right(root: &Map<String, Value>) -> bool {
    let added = root.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    added.into_iter().any(|token| token.get("rstrip").and_then(Value::as_bool) == Some(true))
}

/// The template file before the setting.
fn chat_template(sidecars: &Sidecars, settings: &Map<String, Value>) -> Option<String> {
    match &sidecars.chat_template {
        Some(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        None => template_of_settings(settings).map(str::to_owned),
    }
}

/// The template in `tokenizer_config.json`; of several named ones the one called `default`.
pub(super) fn template_of_settings(settings: &Map<String, Value>) -> Option<&str> {
    match settings.get("chat_template")? {
        Value::String(template) => Some(template),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template")?.as_str()),
        _ => None,
    }
}

impl Vocabulary {
    /// `None` for a tokenizer that is neither byte-level nor SentencePiece-style BPE.
    fn read(root: &Map<String, Value>, rows: usize) -> Result<Option<Self>> {
        let Some(model) = root.get("model") else { return Ok(None) };
        let steps = steps(root.get("pre_tokenizer"));
        let is_bpe = model.get("type").and_then(Value::as_str) == Some("BPE");
        let byte_level = steps.iter().any(|step| kind(step) == Some("ByteLevel"));
        let falls_back = model.get("byte_fallback").and_then(Value::as_bool).unwrap_or(false);
        if !is_bpe || !(byte_level || falls_back) {
            return Ok(None);
        }
        let (tokens, types) = tokens(root, model, rows, !byte_level)?;
        let merges = merges(model)?;
        if byte_level {
            let pre = pre_type(root, &steps).to_owned();
            let model = "gpt2".to_owned();
            return Ok(Some(Self { model, pre, tokens, types, merges, ..Self::default() }));
        }
        Ok(Some(Self {
            model: "llama".to_owned(),
            pre: "default".to_owned(),
            scores: scores(&tokens, &merges),
            tokens,
            types,
            merges: Vec::new(),
            add_space_prefix: Some(prepends_space(root, &steps)),
        }))
    }
}

/// Tokens and their GGUF types by id. `pieces`: the vocabulary spells single bytes as `<0x00>`.
fn tokens(
    root: &Map<String, Value>,
    model: &Value,
    rows: usize,
    pieces: bool,
) -> Result<(Vec<String>, Vec<i32>)> {
    let mut tokens = vec![None; rows];
    let mut put = |content: &str, id: Option<u64>, kind: i32| match id
        .and_then(|id| tokens.get_mut(usize::try_from(id).ok()?))
    {
        Some(slot) => {
            *slot = Some((content.to_owned(), kind));
            Ok(())
        }
        None => Err(Error::new(Code::TokenizerInvalid)
            .field("vocab")
            .expected(format_args!("ids below {rows}"))
            .found(content)),
    };
    let is_byte = |content: &str| {
        pieces && content.len() == 6 && content.starts_with("<0x") && content.ends_with('>')
    };
    let vocab = model.get("vocab").and_then(Value::as_object);
    for (content, id) in vocab.into_iter().flatten() {
        put(content, id.as_u64(), if is_byte(content) { BYTE } else { NORMAL })?;
    }
    let unknown = model.get("unk_token").and_then(Value::as_str);
    let added = root.get("added_tokens").and_then(Value::as_array);
    for token in added.into_iter().flatten() {
        let content = token.get("content").and_then(Value::as_str).unwrap_or_default();
        let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
        let kind = match special {
            true if pieces && unknown == Some(content) => UNKNOWN,
            true => CONTROL,
            false => USER_DEFINED,
        };
        put(content, token.get("id").and_then(Value::as_u64), kind)?;
    }
    let filled = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)));
    Ok(filled.unzip())
}

/// Scores that rank pieces as the merges that make them are ranked; what no merge makes comes last.
fn scores(tokens: &[String], merges: &[String]) -> Vec<f32> {
    let mut ranks: BTreeMap<String, usize> = BTreeMap::new();
    for (rank, merge) in merges.iter().enumerate() {
        ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
    }
    let last = merges.len();
    let rank = |token: &String| ranks.get(token).copied().unwrap_or(last);
    // A rank above 2^24 is no f32; no vocabulary comes near.
    tokens.iter().map(|token| -(rank(token) as f32)).collect()
}

/// Whether a space is put in front of a text.
fn prepends_space(root: &Map<String, Value>, steps: &[&Value]) -> bool {
    let normalizer = root.get("normalizer");
    let nested = normalizer.and_then(|step| step.get("normalizers")?.as_array());
    let mut normalizers = nested.into_iter().flatten().chain(normalizer);
    let metaspace = steps.iter().find(|step| kind(step) == Some("Metaspace"));
    let scheme = metaspace.and_then(|step| step.get("prepend_scheme")?.as_str());
    normalizers.any(|step| kind(step) == Some("Prepend"))
        || metaspace.is_some() && scheme != Some("never")
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
