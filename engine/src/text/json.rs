//! `tokenizer.json`: our own structural check in front of the `tokenizers` crate.
//!
//! The file is read by this module; only normaliser and pre-tokenizer, after their checks, are handed to
//! the crate. Truncation and padding are ignored (a prompt is never cut silently), the decoder is not
//! needed (pieces are decoded by their spelling), and the post-processor is reduced to the ids it puts
//! before and after a text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::added::AddedToken;
use super::bpe::{Bpe, BpeRules, build_model, check_merged, contain};
use crate::error::{Code, Error, Result};

/// Largest `tokenizer.json`; real ones reach 35 MB.
const FILE_BYTES_MAX: usize = 128 << 20;
/// Most vocabulary entries, merges and added tokens.
const ENTRIES_MAX: usize = 1 << 23;
/// Most steps of a normaliser or pre-tokenizer.
const STEPS_MAX: usize = 32;
/// How much longer replacements may make a text in all.
const GROWTH_MAX: usize = 64;
/// Longest regular expression.
const PATTERN_BYTES_MAX: usize = 4096;

/// The parts of the file that are used.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    post_processor: Json,
    #[serde(default)]
    decoder: Json,
    model: ModelEntry,
}

#[expect(clippy::struct_excessive_bools, reason = "the flags of the file format")]
#[derive(Deserialize)]
struct AddedEntry {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ModelEntry {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: VocabEntries,
    #[serde(default)]
    merges: Vec<MergeEntry>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Token to id, in file order; `None` when the vocabulary is not an object (Unigram).
struct VocabEntries(Option<Vec<(String, u32)>>);

impl<'de> Deserialize<'de> for VocabEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = VocabEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from token to id")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<String, u32>()? {
                    entries.push(entry);
                }
                Ok(VocabEntries(Some(entries)))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(VocabEntries(None))
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// A merge: `"left right"` in older files, `["left", "right"]` in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeEntry {
    Joined(String),
    Pair((String, String)),
}

/// What a checked `tokenizer.json` says.
pub(super) struct Loaded {
    pub(super) bpe: Bpe,
    /// Vocabulary entries in their stored spelling, in any order, ids unique.
    pub(super) vocab: Vec<(String, u32)>,
    pub(super) added: Vec<AddedToken>,
    pub(super) unk: Option<String>,
    /// Pieces spell bytes in the byte-level alphabet; otherwise `▁` is a space and `<0xHH>` a byte.
    pub(super) byte_level: bool,
    /// Decoding drops one leading space.
    pub(super) strips_leading_space: bool,
    pub(super) byte_fallback: bool,
    /// Ids the post-processor puts before a text.
    pub(super) prefix: Vec<u32>,
    /// Ids the post-processor puts after a text.
    pub(super) suffix: Vec<u32>,
}

fn invalid(field: &str) -> Error {
    Error::new(Code::TokenizerInvalid).field(field)
}

fn unsupported(field: &str) -> Error {
    Error::new(Code::TokenizerUnsupported).field(field)
}

/// Checks and loads the bytes of a `tokenizer.json`.
pub(super) fn load(bytes: &[u8]) -> Result<Loaded> {
    if bytes.len() > FILE_BYTES_MAX {
        let error = Error::new(Code::LimitExceeded).field("tokenizer.json");
        return Err(error.expected(format!("at most {FILE_BYTES_MAX} bytes")).found(bytes.len()));
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|error| {
        let place = crate::error::Place::Line(error.line() as u32, error.column() as u32);
        Error::new(Code::TokenizerInvalid).place(place).found(error)
    })?;
    let Document { added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model } =
        document;
    check_model(&model)?;
    let growth = check_steps(&normalizer, "normalizer", check_normalizer)?;
    let growth = growth.saturating_mul(check_steps(&pre_tokenizer, "pre_tokenizer", check_pre)?);
    if growth > GROWTH_MAX {
        let expected = format!("replacements that lengthen a text at most {GROWTH_MAX} times");
        return Err(invalid("normalizer").expected(expected).found(growth));
    }
    let byte_level = names_type(&pre_tokenizer, "ByteLevel")
        || names_type(&normalizer, "ByteLevel")
        || names_type(&decoder, "ByteLevel");
    let strips_leading_space = !byte_level
        && (names_type(&decoder, "Strip")
            || names_type(&decoder, "Metaspace") && !never_prepends(&decoder));
    let vocab = checked_vocab(model.vocab, added_tokens.len())?;
    let byte_fallback = model.byte_fallback;
    let rules = BpeRules {
        ignore_merges: model.ignore_merges,
        byte_fallback,
        fuse_unk: model.fuse_unk,
        unk_token: model.unk_token.clone(),
    };
    let merges = checked_merges(model.merges)?;
    if byte_level {
        let added: BTreeSet<&str> =
            added_tokens.iter().map(|token| token.content.as_str()).collect();
        let own = vocab.iter().map(|(token, _)| token.as_str());
        check_merged(own.filter(|token| !added.contains(token)), merges.len(), "model.merges")?;
    }
    let (prefix, suffix) = surroundings(&post_processor, 0)?;
    let bpe = Bpe {
        normalizer: component::<NormalizerWrapper>(normalizer, "normalizer")?,
        pre_tokenizer: component::<PreTokenizerWrapper>(pre_tokenizer, "pre_tokenizer")?,
        model: build_model(vocab.iter().cloned().collect(), merges, rules)?,
    };
    Ok(Loaded {
        bpe,
        vocab,
        added: added_tokens.into_iter().map(added_token).collect(),
        unk: model.unk_token,
        byte_level,
        strips_leading_space,
        byte_fallback,
        prefix,
        suffix,
    })
}

fn added_token(entry: AddedEntry) -> AddedToken {
    AddedToken {
        id: entry.id,
        special: entry.special,
        single_word: entry.single_word,
        lstrip: entry.lstrip,
        rstrip: entry.rstrip,
        normalized: entry.normalized.unwrap_or(!entry.special),
        content: entry.content,
    }
}

/// Refuses model types and options that this engine does not compute.
fn check_model(model: &ModelEntry) -> Result<()> {
    let kind = model.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(unsupported("model.type").expected("BPE").found(kind));
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err(unsupported("model.dropout").expected("null: ids must be reproducible"));
    }
    let affixes = [
        ("model.continuing_subword_prefix", &model.continuing_subword_prefix),
        ("model.end_of_word_suffix", &model.end_of_word_suffix),
    ];
    for (field, affix) in affixes {
        if let Some(text) = affix.as_deref().filter(|text| !text.is_empty()) {
            return Err(unsupported(field).expected("null or an empty string").found(text));
        }
    }
    if model.merges.len() > ENTRIES_MAX {
        let error = Error::new(Code::LimitExceeded).field("model.merges");
        return Err(error.expected(ENTRIES_MAX).found(model.merges.len()));
    }
    Ok(())
}

/// Vocabulary entries with unique, dense enough ids.
fn checked_vocab(vocab: VocabEntries, added: usize) -> Result<Vec<(String, u32)>> {
    let field = "model.vocab";
    let Some(vocab) = vocab.0 else {
        return Err(invalid(field).expected("an object from token to id").found("an array"));
    };
    if vocab.is_empty() {
        return Err(invalid(field).expected("at least one token").found(0));
    }
    if vocab.len() > ENTRIES_MAX {
        return Err(Error::new(Code::LimitExceeded).field(field).expected(ENTRIES_MAX));
    }
    let most = id_limit(vocab.len() + added);
    let mut owner = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (token, id) in &vocab {
        if *id >= most {
            let error = invalid(field).expected(format!("ids below {most}"));
            return Err(error.found(format!("{id} for {token:?}")));
        }
        if let Some(other) = owner.insert(*id, token) {
            let found = format!("{id} for {other:?} and {token:?}");
            return Err(invalid(field).expected("each id once").found(found));
        }
        if !seen.insert(token.as_str()) {
            return Err(invalid(field).expected("each token once").found(token));
        }
    }
    Ok(vocab)
}

/// Ids may leave holes, but not so many that a table over them would be mostly empty.
pub(super) fn id_limit(entries: usize) -> u32 {
    u32::try_from(entries.saturating_mul(4).saturating_add(65_536)).unwrap_or(u32::MAX)
}

/// Merges as pairs; the two spellings may not be mixed.
fn checked_merges(merges: Vec<MergeEntry>) -> Result<Vec<(String, String)>> {
    let joined = merges.iter().filter(|merge| matches!(merge, MergeEntry::Joined(_))).count();
    if joined != 0 && joined != merges.len() {
        return Err(invalid("model.merges").expected("all strings or all pairs").found("both"));
    }
    let pairs = merges.into_iter().enumerate().map(|(index, merge)| match merge {
        MergeEntry::Pair(pair) => Ok(pair),
        MergeEntry::Joined(text) => split_merge(&text)
            .map(|(left, right)| (left.to_owned(), right.to_owned()))
            .ok_or_else(|| {
                let field = format!("model.merges[{index}]");
                invalid(&field).expected("two tokens and one space").found(&text)
            }),
    });
    pairs.collect()
}

/// The two sides of `"left right"`.
pub(super) fn split_merge(text: &str) -> Option<(&str, &str)> {
    let (left, right) = text.split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' ')).then_some((left, right))
}

/// Instantiates a component of the crate; `null` is none.
fn component<T: serde::de::DeserializeOwned>(json: Json, field: &str) -> Result<Option<T>> {
    if json.is_null() {
        return Ok(None);
    }
    contain(field, || Ok(Some(serde_json::from_value(json)?)))
}

fn kind_of(json: &Json) -> &str {
    json.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// The members of a `Sequence`, whatever the list is called.
fn members(json: &Json) -> Option<&Vec<Json>> {
    let keys = ["normalizers", "pretokenizers", "decoders", "processors"];
    keys.iter().find_map(|key| json.get(*key)).and_then(Json::as_array)
}

/// Whether `json` is or contains a component of type `kind`.
fn names_type(json: &Json, kind: &str) -> bool {
    kind_of(json) == kind
        || members(json).is_some_and(|list| list.iter().any(|member| names_type(member, kind)))
}

fn never_prepends(json: &Json) -> bool {
    json.get("prepend_scheme").and_then(Json::as_str) == Some("never")
        || json.get("add_prefix_space").and_then(Json::as_bool) == Some(false)
}

/// Checks each step with `check` and returns by how much all of them can lengthen a text.
fn check_steps(json: &Json, field: &str, check: fn(&Json, &str) -> Result<usize>) -> Result<usize> {
    let mut growth = 1_usize;
    let mut open = vec![json];
    let mut steps = 0;
    while let Some(step) = open.pop() {
        if step.is_null() {
            continue;
        }
        steps += 1;
        if steps > STEPS_MAX {
            return Err(invalid(field).expected(format!("at most {STEPS_MAX} steps")));
        }
        if kind_of(step) == "Sequence" {
            open.extend(members(step).ok_or_else(|| invalid(field).expected("a list of steps"))?);
        } else {
            growth = growth.saturating_mul(check(step, field)?);
        }
    }
    Ok(growth)
}

/// The text of a pattern, `{"String": …}` or `{"Regex": …}`, within its limit.
fn check_pattern(step: &Json, field: &str) -> Result<()> {
    let pattern = step.get("pattern");
    let text = pattern
        .and_then(|pattern| pattern.get("String").or_else(|| pattern.get("Regex")))
        .and_then(Json::as_str)
        .ok_or_else(|| invalid(field).expected("a pattern"))?;
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
        let expected = format!("a pattern of 1 to {PATTERN_BYTES_MAX} bytes");
        return Err(invalid(field).expected(expected).found(text.len()));
    }
    Ok(())
}

fn check_normalizer(step: &Json, field: &str) -> Result<usize> {
    let text_len = |key: &str| step.get(key).and_then(Json::as_str).map_or(0, str::len);
    match kind_of(step) {
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "ByteLevel" | "Strip" | "StripAccents"
        | "Nmt" => Ok(1),
        "Prepend" if text_len("prepend") <= GROWTH_MAX => Ok(1),
        "Replace" => {
            check_pattern(step, field)?;
            Ok(text_len("content").div_ceil(3).max(1))
        }
        other => Err(unsupported(field)
            .expected("a normaliser of decoder-only models")
            .found(if other.is_empty() { "a step without type" } else { other })),
    }
}

fn check_pre(step: &Json, field: &str) -> Result<usize> {
    match kind_of(step) {
        "ByteLevel" | "Metaspace" | "Digits" | "Punctuation" | "Whitespace" | "WhitespaceSplit"
        | "UnicodeScripts" | "CharDelimiterSplit" => Ok(1),
        "Split" => check_pattern(step, field).map(|()| 1),
        other => Err(unsupported(field)
            .expected("a pre-tokenizer of decoder-only models")
            .found(if other.is_empty() { "a step without type" } else { other })),
    }
}

/// Ids before and after a single text.
fn surroundings(json: &Json, depth: usize) -> Result<(Vec<u32>, Vec<u32>)> {
    let field = "post_processor";
    match kind_of(json) {
        "" if json.is_null() => Ok((Vec::new(), Vec::new())),
        "ByteLevel" => Ok((Vec::new(), Vec::new())),
        "Sequence" if depth < 4 => {
            let list = members(json).ok_or_else(|| invalid(field).expected("a list of steps"))?;
            let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
            for step in list {
                let (before, after) = surroundings(step, depth + 1)?;
                prefix.splice(0..0, before);
                suffix.extend(after);
            }
            Ok((prefix, suffix))
        }
        "TemplateProcessing" => template_processing(json),
        "RobertaProcessing" | "BertProcessing" => {
            let id = |key: &str| {
                let id = json.get(key).and_then(|pair| pair.get(1)).and_then(Json::as_u64);
                id.and_then(|id| u32::try_from(id).ok()).ok_or_else(|| invalid(field).expected(key))
            };
            Ok((vec![id("cls")?], vec![id("sep")?]))
        }
        other => Err(unsupported(field).found(other)),
    }
}

/// Reads the `single` template: special tokens before and after sequence A.
fn template_processing(json: &Json) -> Result<(Vec<u32>, Vec<u32>)> {
    let field = "post_processor.single";
    let steps = json.get("single").and_then(Json::as_array);
    let (mut prefix, mut suffix, mut sequences) = (Vec::new(), Vec::new(), 0);
    for step in steps.ok_or_else(|| invalid(field).expected("a list"))? {
        if step.get("Sequence").is_some() {
            sequences += 1;
            continue;
        }
        let name = step.get("SpecialToken").and_then(|token| token.get("id"));
        let name = name.and_then(Json::as_str).ok_or_else(|| invalid(field).expected("a token"))?;
        let ids = json
            .get("special_tokens")
            .and_then(|tokens| tokens.get(name)?.get("ids")?.as_array())
            .ok_or_else(|| invalid(field).expected("a declared special token").found(name))?;
        for id in ids {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| invalid(field).expected("a token id"))?;
            if sequences == 0 { prefix.push(id) } else { suffix.push(id) }
        }
    }
    if sequences != 1 {
        return Err(invalid(field).expected("the text exactly once").found(sequences));
    }
    Ok((prefix, suffix))
}
