//! The tokenizer facade: one type over every source of a vocabulary.
//!
//! Text goes in as `&str` and comes out as ids; ids come out as bytes, because a token may end inside a
//! character. It knows no chat format and no model.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::added::{AddedToken, AddedTokens, Recognise};
use super::bpe::{Added, Bpe, PreType};
use super::pieces::{Kind, PieceTable, byte_level_text, char_of_byte, parse_byte_token};
use super::side_by_side::side_by_side;
use super::spm::{SPACE, Spm};
use super::vocab::GgufVocab;
use super::{gguf, json};
use crate::error::{Code, Error, Result};
use crate::format::Metadata;

/// Longest text that is tokenised in one call, in bytes.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Longest vocabulary entry, in bytes.
const TOKEN_BYTES_MAX: usize = 1 << 16;

/// Control tokens that end a turn or a text in the families this engine runs. Vocabularies name one
/// end token; instruction-tuned models end their turns with another.
const END_TOKENS: [&str; 12] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_role|>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
    "_<EOT>",
    "</s>",
];

/// What happens to the strings of control tokens inside a text, and at its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Control strings are text; nothing is added. Added tokens that the vocabulary does not declare
    /// special are still one token, as in Hugging Face and llama.cpp.
    Plain,
    /// Control strings become control tokens; nothing is added.
    Parse,
    /// Like `Parse`, and the beginning and end tokens are added as the model declares.
    Add,
}

#[derive(Debug)]
enum Engine {
    Bpe(Box<Bpe>),
    Spm { spm: Box<Spm>, space_prefix: bool },
}

/// Text to token ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    engine: Engine,
    /// Added tokens looked for in the text as it is.
    raw: AddedTokens,
    /// Added tokens looked for in the normalised text.
    normalized: AddedTokens,
    pieces: PieceTable,
    /// Rows of the model's embedding: ids from the vocabulary up to here are padding.
    rows: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    unk: Option<u32>,
    pad: Option<u32>,
    ends: BTreeSet<u32>,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    strips_leading_space: bool,
    /// Entries spell bytes in the byte-level alphabet.
    byte_level: bool,
}

pub(super) fn invalid(field: &str) -> Error {
    Error::new(Code::TokenizerInvalid).field(field)
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`, and `tokenizer_config.json` for the names of the special
    /// tokens and whether they are added.
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self> {
        let loaded = json::load(tokenizer_json)?;
        let config = match tokenizer_config {
            None => Json::Null,
            Some(bytes) => serde_json::from_slice(bytes).map_err(|error| {
                Error::new(Code::ConfigJson).field("tokenizer_config.json").found(error)
            })?,
        };
        let pieces = json_pieces(&loaded)?;
        let mut tokenizer = Self {
            strips_leading_space: loaded.strips_leading_space,
            byte_level: loaded.byte_level,
            engine: Engine::Bpe(Box::new(loaded.bpe)),
            raw: added(&loaded.added, false)?,
            normalized: added(&loaded.added, true)?,
            pieces,
            rows: 0,
            bos: None,
            eos: None,
            unk: None,
            pad: None,
            ends: BTreeSet::new(),
            prefix: loaded.prefix,
            suffix: loaded.suffix,
        };
        for id in tokenizer.prefix.iter().chain(&tokenizer.suffix) {
            tokenizer.pieces.check(*id, "post_processor")?;
        }
        tokenizer.read_config(&config, loaded.unk.as_deref());
        tokenizer.find_ends([]);
        Ok(tokenizer)
    }

    /// The tokenizer inside a model file: its GGUF or APR vocabulary, or, where that is missing or of
    /// an unknown pre-tokenizer type, an embedded `tokenizer.json` (`tokenizer.huggingface.json`).
    pub fn from_metadata(metadata: &Metadata<'_>) -> Result<Self> {
        let embedded = match metadata {
            Metadata::Gguf(_) => match metadata.gguf("tokenizer.huggingface.json") {
                Some(crate::format::Value::Str(text)) => Some(*text),
                _ => None,
            },
            Metadata::Apr(object) => {
                object.get("tokenizer.huggingface.json").and_then(Json::as_str)
            }
            Metadata::SafeTensors(_) => None,
        };
        let own = GgufVocab::from_metadata(metadata).and_then(|vocab| Self::from_vocab(&vocab));
        match (own, embedded) {
            (Err(error), Some(text))
                if matches!(error.code(), Code::TokenizerMissing | Code::TokenizerUnsupported) =>
            {
                Self::from_json(text.as_bytes(), None)
            }
            (own, _) => own,
        }
    }

    /// Builds the tokenizer of a vocabulary out of model metadata.
    pub fn from_vocab(vocab: &GgufVocab<'_>) -> Result<Self> {
        let kinds = gguf::kinds(vocab)?;
        let byte_level = match vocab.model {
            "gpt2" => true,
            "llama" => false,
            other => {
                return Err(Error::new(Code::TokenizerUnsupported)
                    .field("tokenizer.ggml.model")
                    .expected("gpt2 or llama")
                    .found(other));
            }
        };
        let list = gguf::added(vocab, &kinds);
        let build_engine = || {
            if byte_level {
                return gguf::bpe(vocab, &kinds).map(|bpe| Engine::Bpe(Box::new(bpe)));
            }
            let space_prefix = vocab.add_space_prefix.unwrap_or(true);
            gguf::spm(vocab, &kinds).map(|spm| Engine::Spm { spm: Box::new(spm), space_prefix })
        };
        let (engine, pieces) = side_by_side(vocab.tokens.len(), build_engine, || {
            gguf::pieces(vocab, &kinds, byte_level)
        });
        let mut tokenizer = Self {
            engine: engine?,
            raw: AddedTokens::new(list)?,
            normalized: AddedTokens::new(Vec::new())?,
            pieces: pieces?,
            rows: 0,
            bos: None,
            eos: None,
            unk: None,
            pad: None,
            ends: BTreeSet::new(),
            prefix: Vec::new(),
            suffix: Vec::new(),
            strips_leading_space: !byte_level && vocab.add_space_prefix.unwrap_or(true),
            byte_level,
        };
        tokenizer.bos = tokenizer.checked(vocab.bos, "tokenizer.ggml.bos_token_id")?;
        tokenizer.eos = tokenizer.checked(vocab.eos, "tokenizer.ggml.eos_token_id")?;
        tokenizer.unk = tokenizer.checked(vocab.unk, "tokenizer.ggml.unknown_token_id")?;
        tokenizer.pad = tokenizer.checked(vocab.pad, "tokenizer.ggml.padding_token_id")?;
        let eot = tokenizer.checked(vocab.eot, "tokenizer.ggml.eot_token_id")?;
        let adds = if byte_level { PreType::named(vocab.pre)?.add_bos } else { true };
        if vocab.add_bos.unwrap_or(adds) {
            tokenizer.prefix.extend(tokenizer.bos);
        }
        if vocab.add_eos == Some(true) {
            tokenizer.suffix.extend(tokenizer.eos);
        }
        tokenizer.find_ends(eot);
        Ok(tokenizer)
    }

    fn checked(&self, id: Option<u64>, field: &str) -> Result<Option<u32>> {
        let Some(id) = id else { return Ok(None) };
        let narrow = u32::try_from(id).unwrap_or(u32::MAX);
        self.pieces.check(narrow, field).map(Some).map_err(|error| error.found(id))
    }

    /// Takes the special tokens out of `tokenizer_config.json`.
    fn read_config(&mut self, config: &Json, unk: Option<&str>) {
        // A token is a string or an object with its content.
        let token = |key: &str| {
            let entry = config.get(key)?;
            entry.as_str().or_else(|| entry.get("content")?.as_str())
        };
        self.bos = token("bos_token").and_then(|text| self.id_of(text));
        self.eos = token("eos_token").and_then(|text| self.id_of(text));
        self.unk = token("unk_token").or(unk).and_then(|text| self.id_of(text));
        self.pad = token("pad_token").and_then(|text| self.id_of(text));
        let flag = |key: &str| config.get(key).and_then(Json::as_bool);
        if let (Some(adds), Some(bos)) = (flag("add_bos_token"), self.bos) {
            self.prefix.retain(|id| *id != bos);
            if adds {
                self.prefix.insert(0, bos);
            }
        }
        if let (Some(adds), Some(eos)) = (flag("add_eos_token"), self.eos) {
            self.suffix.retain(|id| *id != eos);
            if adds {
                self.suffix.push(eos);
            }
        }
    }

    /// Collects the ids that end generation.
    fn find_ends(&mut self, declared: impl IntoIterator<Item = u32>) {
        let known = END_TOKENS.iter().filter_map(|text| self.id_of(text));
        let known: Vec<u32> = known.filter(|id| self.is_special(*id)).collect();
        self.ends.extend(declared.into_iter().chain(known).chain(self.eos));
    }

    /// The ids of `text`. Fails on texts above 16 MiB and where the vocabulary library fails.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        let recognise = match special {
            Special::Plain => Recognise::Nothing,
            Special::Parse | Special::Add => Recognise::Except(&[]),
        };
        let ids = self.encode_with(text, recognise)?;
        if special != Special::Add {
            return Ok(ids);
        }
        Ok([self.prefix.as_slice(), &ids, &self.suffix].concat())
    }

    /// The characters of `text` that no token spells: [`Tokenizer::encode`] leaves out the bytes that a
    /// byte-level vocabulary without an unknown token lacks, as transformers and llama.cpp do.
    pub fn unspelled(&self, text: &str) -> Vec<char> {
        let Engine::Bpe(bpe) = &self.engine else { return Vec::new() };
        if !self.byte_level || bpe.model.get_unk_token().is_some() {
            return Vec::new();
        }
        let lacks = |byte: u8| bpe.entry(char_of_byte(byte).encode_utf8(&mut [0; 4])).is_none();
        let lacking: Vec<bool> = (0..=255).map(lacks).collect();
        let mut bytes = [0; 4];
        let lost =
            |c: &char| c.encode_utf8(&mut bytes).bytes().any(|byte| lacking[usize::from(byte)]);
        text.chars().filter(lost).collect()
    }

    /// The ids of `text`, control strings recognised except across `barriers` (ascending byte positions).
    pub(super) fn encode_guarded(&self, text: &str, barriers: &[usize]) -> Result<Vec<u32>> {
        self.encode_with(text, Recognise::Except(barriers))
    }

    fn encode_with(&self, text: &str, recognise: Recognise<'_>) -> Result<Vec<u32>> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::new(Code::PromptTooLarge)
                .expected(format!("at most {TEXT_BYTES_MAX} bytes"))
                .found(text.len()));
        }
        match &self.engine {
            Engine::Bpe(bpe) => {
                let added = Added { raw: &self.raw, normalized: &self.normalized };
                bpe.encode(text, &added, recognise)
            }
            Engine::Spm { spm, space_prefix } => {
                let mut ids = Vec::new();
                // A prefix space stands at the start and after each special token.
                let mut after_special = true;
                for (id, range) in self.raw.split(text, 0, recognise) {
                    if let Some(id) = id {
                        ids.push(id);
                        after_special = self.is_special(id);
                        continue;
                    }
                    let space = if *space_prefix && after_special { "\u{2581}" } else { "" };
                    let text = text[range].replace(' ', "\u{2581}");
                    spm.encode(&format!("{space}{text}"), &mut ids);
                    after_special = false;
                }
                Ok(ids)
            }
        }
    }

    /// The bytes `id` stands for; a token may end inside a UTF-8 character. Padding stands for nothing.
    ///
    /// # Errors
    /// [`Code::TokenId`] outside the vocabulary and its padding.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        let is_padding = usize::try_from(id).is_ok_and(|index| index < self.rows);
        if !is_padding {
            self.pieces.check(id, "token")?;
        }
        Ok(self.pieces.bytes(id).unwrap_or_default())
    }

    /// The bytes of `ids` in a row, with control tokens left out when `skip_special`. As in the original
    /// tokenizers, one space that SentencePiece vocabularies put in front of text is dropped.
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut started = false;
        for id in ids {
            let piece = self.token_bytes(*id)?;
            if !(skip_special && self.is_special(*id)) {
                bytes.extend_from_slice(if started { piece } else { self.without_prefix(piece) });
                started = true;
            }
        }
        Ok(bytes)
    }

    /// Like [`Self::decode_bytes`]; invalid UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let bytes = self.decode_bytes(ids, skip_special)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The bytes of a text's first piece, without the space that encoding put in front.
    pub(super) fn without_prefix<'b>(&self, piece: &'b [u8]) -> &'b [u8] {
        match piece.strip_prefix(b" ") {
            Some(rest) if self.strips_leading_space => rest,
            _ => piece,
        }
    }

    /// Number of ids, unused ones included: every id is below it.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The id of a token in its stored spelling (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn id_of(&self, token: &str) -> Option<u32> {
        let added = self.raw.get(token).or_else(|| self.normalized.get(token));
        added.map(|token| token.id).or_else(|| match &self.engine {
            Engine::Bpe(bpe) => bpe.entry(token),
            Engine::Spm { spm, .. } => spm.piece(token),
        })
    }

    /// Whether `id` is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.pieces.kind(id).is_some_and(Kind::is_special)
    }

    /// The strings of all control tokens, sorted.
    pub fn special_strings(&self) -> impl Iterator<Item = &str> {
        let all = self.raw.iter().chain(self.normalized.iter());
        all.filter(|token| token.special).map(|token| token.content.as_str())
    }

    /// Whether a control string begins at byte `at` of `text`.
    pub(super) fn special_at(&self, text: &str, at: usize) -> bool {
        let sets = [&self.raw, &self.normalized];
        sets.iter().filter_map(|set| set.longest_at(text.as_bytes(), at)).any(|token| token.special)
    }

    /// Beginning-of-text id.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End-of-text id.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Unknown-token id.
    pub fn unk(&self) -> Option<u32> {
        self.unk
    }

    /// Padding id.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// The ids that end generation: the declared end token and the well-known control tokens that end a
    /// turn.
    pub fn eos_set(&self) -> &BTreeSet<u32> {
        &self.ends
    }

    /// Adds ids that end generation, for example those of `generation_config.json`.
    pub fn add_ends(&mut self, ids: impl IntoIterator<Item = u32>) -> Result<()> {
        for id in ids {
            self.ends.insert(self.pieces.check(id, "eos_token_id")?);
        }
        Ok(())
    }

    /// Says how many rows the model's embedding has. Embeddings are often padded to a round size: a model can then
    /// choose an id that no text encodes to, which decodes to nothing, as in transformers and llama.cpp.
    pub fn pad_to(&mut self, rows: usize) {
        self.rows = rows;
    }

    /// The text of `id` for templates (`bos_token`): what the vocabulary spells.
    pub(super) fn text_of(&self, id: Option<u32>) -> Option<String> {
        let bytes = self.pieces.bytes(id?)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// The added tokens that are looked for before (`normalized` false) or after normalisation.
fn added(list: &[AddedToken], normalized: bool) -> Result<AddedTokens> {
    AddedTokens::new(list.iter().filter(|token| token.normalized == normalized).cloned().collect())
}

/// The piece table of a `tokenizer.json`.
fn json_pieces(loaded: &json::Loaded) -> Result<PieceTable> {
    let most = json::id_limit(loaded.vocab.len() + loaded.added.len());
    let mut entries: BTreeMap<u32, (Vec<u8>, Kind)> = BTreeMap::new();
    for (token, id) in &loaded.vocab {
        check_token_len(token)?;
        let byte = parse_byte_token(token).filter(|_| loaded.byte_fallback);
        let entry = match (loaded.byte_level, byte) {
            (true, _) => (byte_level_text(token), Kind::Normal),
            (false, Some(byte)) => (vec![byte], Kind::Byte),
            (false, None) => (token.replace(SPACE, " ").into_bytes(), Kind::Normal),
        };
        entries.insert(*id, entry);
    }
    for token in &loaded.added {
        if token.id >= most {
            return Err(invalid("added_tokens")
                .expected(format!("ids below {most}"))
                .found(token.id));
        }
        let kind = if token.special { Kind::Control } else { Kind::UserDefined };
        entries.insert(token.id, (token.content.clone().into_bytes(), kind));
    }
    check_unknown(loaded)?;
    let mut table = PieceTable::default();
    for (id, (bytes, kind)) in entries {
        while table.len() < id as usize {
            table.push(b"", Kind::Unused);
        }
        table.push(&bytes, kind);
    }
    Ok(table)
}

/// An unknown token that the description names must be one that it has.
///
/// A byte or character without an entry is no fault of a vocabulary: published ones lack bytes that
/// no UTF-8 text holds and control characters. Text that needs one loses it ([`Tokenizer::unspelled`]).
fn check_unknown(loaded: &json::Loaded) -> Result<()> {
    let Some(unk) = &loaded.unk else { return Ok(()) };
    let known =
        loaded.bpe.entry(unk).is_some() || loaded.added.iter().any(|token| token.content == *unk);
    if known {
        return Ok(());
    }
    Err(invalid("model.unk_token").expected("a vocabulary entry").found(unk))
}

pub(super) fn check_token_len(token: &str) -> Result<()> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Error::new(Code::LimitExceeded)
            .field("vocabulary entry")
            .expected(format!("at most {TOKEN_BYTES_MAX} bytes"))
            .found(token.len()));
    }
    Ok(())
}
