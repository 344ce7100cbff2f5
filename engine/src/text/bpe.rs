//! Byte-pair encoding through the `tokenizers` crate: normaliser, pre-tokenizer, merges.
//!
//! Only these three parts of the crate are used. Added tokens, special tokens and decoding are our own,
//! so that control strings can be barred from single places of a text. Every call into the crate is
//! contained: a panic inside it is an error here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::Range;
use tokenizers::{
    Model, NormalizedString, Normalizer, NormalizerWrapper, OffsetType, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper, SplitDelimiterBehavior, Token,
};

use super::added::{AddedTokens, Recognise};
use super::side_by_side::side_by_side;
use crate::error::{Code, Error, Result};

/// What the crate returns inside its callbacks.
type CrateResult<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The parts that turn text between special tokens into ids.
pub(super) struct Bpe {
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: Option<PreTokenizerWrapper>,
    pub(super) model: BPE,
}

impl std::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bpe").finish_non_exhaustive()
    }
}

/// Merging rules of a [`Bpe`] beyond its vocabulary.
#[derive(Clone, Debug, Default)]
pub(super) struct BpeRules {
    /// A word that is a vocabulary entry is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Characters without an entry become `<0xHH>` tokens.
    pub(super) byte_fallback: bool,
    /// Neighbouring unknown tokens become one.
    pub(super) fuse_unk: bool,
    /// The unknown token.
    pub(super) unk_token: Option<String>,
}

/// Builds the merge model from checked parts.
pub(super) fn build_model(vocab: Vocab, merges: Merges, rules: BpeRules) -> Result<BPE> {
    let (first, second) = merges.split_at(merges.len() / 2);
    let (first, second) = side_by_side(
        merges.len(),
        || check_merges(&vocab, first, 0),
        || check_merges(&vocab, second, merges.len() / 2),
    );
    first.and(second)?;
    contain("model", move || {
        let mut builder = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(rules.ignore_merges)
            .byte_fallback(rules.byte_fallback)
            .fuse_unk(rules.fuse_unk);
        if let Some(unk) = rules.unk_token {
            builder = builder.unk_token(unk);
        }
        builder.build()
    })
}

/// Every merge, from number `first`, joins two entries into a third: the crate panics or errs late on some that do not.
fn check_merges(vocab: &Vocab, merges: &[(String, String)], first: usize) -> Result<()> {
    let mut joined = String::new();
    for (index, (left, right)) in (first..).zip(merges) {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let missing = [left, right, &joined].into_iter().find(|part| !vocab.contains_key(*part));
        if let Some(missing) = missing {
            return Err(Error::new(Code::TokenizerInvalid)
                .field(format!("merges[{index}]"))
                .expected("two vocabulary entries that join into a third")
                .found(missing));
        }
    }
    Ok(())
}

/// A byte-level vocabulary with entries of several characters and no merge that makes one is half a
/// description: every text would be cut into single bytes, which no model was trained on.
///
/// # Errors
/// [`Code::TokenizerInvalid`] at `field` when `merges`, their number, is zero.
pub(super) fn check_merged<'a>(
    entries: impl Iterator<Item = &'a str>,
    merges: usize,
    field: &str,
) -> Result<()> {
    if merges > 0 {
        return Ok(());
    }
    let joined: Vec<&str> = entries.filter(|entry| entry.chars().nth(1).is_some()).collect();
    let Some(first) = joined.iter().min() else { return Ok(()) };
    Err(Error::new(Code::TokenizerInvalid)
        .field(field)
        .expected(format!("the merges that make {} entries, {first:?} among them", joined.len()))
        .found("none")
        .hint("convert the model again together with its tokenizer's merges"))
}

/// Runs `call` of the `tokenizers` crate; its errors and panics become errors at `field`.
pub(super) fn contain<T>(field: &str, call: impl FnOnce() -> CrateResult<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::new(Code::TokenizerInvalid).field(field).found(error)),
        Err(payload) => {
            let text = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a message");
            Err(Error::new(Code::TokenizerPanic).field(field).found(text))
        }
    }
}

impl Bpe {
    /// The ids of `text`, added tokens included.
    pub(super) fn encode(
        &self,
        text: &str,
        added: &Added<'_>,
        recognise: Recognise<'_>,
    ) -> Result<Vec<u32>> {
        contain("text", || {
            let mut pieces = PreTokenizedString::from(text);
            pieces.split(|_, piece| split_added(&piece, added.raw, recognise))?;
            pieces.split(|_, mut piece| {
                if let Some(normalizer) = &self.normalizer {
                    normalizer.normalize(&mut piece)?;
                }
                split_added(&piece, added.normalized, recognise)
            })?;
            if let Some(pre_tokenizer) = &self.pre_tokenizer {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| self.model.tokenize(piece.get()))?;
            Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
        })
    }

    /// The id of a vocabulary entry in its stored spelling.
    pub(super) fn entry(&self, token: &str) -> Option<u32> {
        self.model.token_to_id(token)
    }
}

/// The two sets of added tokens: those looked for before and after normalisation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added<'a> {
    pub(super) raw: &'a AddedTokens,
    pub(super) normalized: &'a AddedTokens,
}

/// Cuts one piece at its added tokens, keeping track of original positions.
fn split_added(
    piece: &NormalizedString,
    added: &AddedTokens,
    recognise: Recognise<'_>,
) -> CrateResult<Vec<(NormalizedString, Option<Vec<Token>>)>> {
    if added.is_empty() {
        return Ok(vec![(piece.clone(), None)]);
    }
    let parts = added.split(piece.get(), piece.offsets_original().0, recognise);
    let slices = parts.into_iter().map(|(id, range)| {
        let slice = piece
            .slice(Range::Normalized(range))
            .ok_or("an added token ends inside a normalised character")?;
        let token = id.map(|id| vec![Token::new(id, String::new(), (0, 0))]);
        Ok((slice, token))
    });
    slices.collect()
}

/// GPT-2's words: contractions, letters, digits, other marks, white space.
const WORDS_GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3: digits in groups of up to three.
const WORDS_LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: single digits.
const WORDS_QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's Tekken: words break where lower case turns into upper case.
const WORDS_TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a GGUF pre-tokenizer type (`tokenizer.ggml.pre`) means.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreType {
    /// Applied one after the other, each to the pieces the one before left.
    patterns: &'static [&'static str],
    /// The original tokenizer brings text into Unicode form C first.
    nfc: bool,
    /// See [`BpeRules::ignore_merges`].
    pub(super) ignore_merges: bool,
    /// Whether a beginning token is added when the file does not say.
    pub(super) add_bos: bool,
}

impl PreType {
    /// The row of a type name; an unknown name is an error, because the wrong words give wrong ids silently.
    pub(super) fn named(name: &str) -> Result<Self> {
        let row = |patterns| Self { patterns, nfc: false, ignore_merges: false, add_bos: false };
        Ok(match name {
            "qwen2" => Self { nfc: true, ..row(&[WORDS_QWEN2]) },
            "stablelm2" | "deepseek-r1-qwen" | "megrez" => row(&[WORDS_QWEN2]),
            "llama-bpe" | "llama3" | "llama-v3" => {
                Self { ignore_merges: true, add_bos: true, ..row(&[WORDS_LLAMA3]) }
            }
            "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" => row(&[WORDS_GPT2]),
            "smollm" | "starcoder" | "refact" | "codeshell" => row(&[r"\p{N}", WORDS_GPT2]),
            "tekken" => Self { ignore_merges: true, add_bos: true, ..row(&[WORDS_TEKKEN]) },
            "default" | "" => row(&[
                r"[\p{P}\$\+<=>\^~\|]+",
                r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
                r"\p{N}+",
                "[0-9][0-9][0-9]",
            ]),
            other => {
                return Err(Error::new(Code::TokenizerUnsupported)
                    .field("tokenizer.ggml.pre")
                    .expected("qwen2, llama-bpe, gpt-2, smollm, tekken or default")
                    .found(other)
                    .hint("use the model with its tokenizer.json"));
            }
        })
    }

    /// Pre-tokenizer and normaliser of this type.
    pub(super) fn parts(self) -> Result<(Option<NormalizerWrapper>, PreTokenizerWrapper)> {
        let mut steps = Vec::new();
        for pattern in self.patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let behavior = SplitDelimiterBehavior::Isolated;
            let split = contain("tokenizer.ggml.pre", || Split::new(pattern, behavior, false))?;
            steps.push(PreTokenizerWrapper::Split(split));
        }
        steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
        let normalizer = self.nfc.then(|| NormalizerWrapper::NFC(NFC));
        Ok((normalizer, PreTokenizerWrapper::Sequence(Sequence::new(steps))))
    }
}
