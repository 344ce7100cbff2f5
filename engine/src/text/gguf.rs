//! A tokenizer's parts out of a GGUF (or APR) vocabulary.
//!
//! Kinds and texts of the entries are checked against each other here; what the entries mean to the two
//! algorithms is built once, at load.

use std::collections::{BTreeMap, BTreeSet};

use tokenizers::models::bpe::{Merges, Vocab};

use super::added::AddedToken;
use super::bpe::{Bpe, BpeRules, PreType, build_model, check_merged};
use super::json::split_merge;
use super::pieces::{Kind, PieceTable, byte_level_text, parse_byte_token};
use super::side_by_side::side_by_side;
use super::spm::{SPACE, Spm};
use super::tokenizer::{check_token_len, invalid};
use super::vocab::GgufVocab;
use crate::error::Result;

/// The kind of every entry, checked against its text.
pub(super) fn kinds(vocab: &GgufVocab<'_>) -> Result<Vec<Kind>> {
    let special = |id: usize| {
        let ids = [vocab.bos, vocab.eos, vocab.eot, vocab.unk, vocab.pad];
        ids.contains(&Some(id as u64))
    };
    let mut kinds = Vec::with_capacity(vocab.tokens.len().min(4096));
    for (id, token) in vocab.tokens.iter().enumerate() {
        check_token_len(token)?;
        let kind = match vocab.token_types.get(id) {
            Some(number) => Kind::from_gguf(*number).ok_or_else(|| {
                let field = format!("tokenizer.ggml.token_type[{id}]");
                invalid(&field).expected("a token type from 1 to 6").found(number)
            })?,
            // Without types, spelling decides.
            None if special(id) || is_bracketed(token) => Kind::Control,
            None if vocab.model == "llama" && parse_byte_token(token).is_some() => Kind::Byte,
            None => Kind::Normal,
        };
        if kind == Kind::Byte && parse_byte_token(token).is_none() {
            let field = format!("tokenizer.ggml.tokens[{id}]");
            return Err(invalid(&field).expected("<0x00> to <0xFF>").found(token));
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

/// Control tokens of vocabularies without types look like `<|name|>`.
fn is_bracketed(token: &str) -> bool {
    token.len() > 4 && token.starts_with("<|") && token.ends_with("|>")
}

/// Added tokens of a GGUF vocabulary: everything that is not built from text.
pub(super) fn added(vocab: &GgufVocab<'_>, kinds: &[Kind]) -> Vec<AddedToken> {
    let mut taken = BTreeSet::new();
    let mut list = Vec::new();
    for (id, (token, kind)) in vocab.tokens.iter().zip(kinds).enumerate() {
        // A string that stands twice belongs to its first id; an empty one can never be found.
        let wanted = matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined);
        if wanted && !token.is_empty() && token.len() <= 256 && taken.insert(*token) {
            let mut added = AddedToken::plain(id as u32, token, *kind);
            added.rstrip = strips_right(vocab.name, token, *kind);
            list.push(added);
        }
    }
    list
}

/// Phi-3's tokenizer swallows white space after its control tokens; GGUF has no field for that, so the
/// model name decides, as in llama.cpp.
fn strips_right(name: &str, token: &str, kind: Kind) -> bool {
    place_of_family(name).is_some()
        && match token {
            "</s>" => true,
            "<unk>" | "<s>" | "<|endoftext|>" => false,
            _ => kind.is_special(),
        }
}

/// Where the words that say so stand in a model's name, and their length.
fn place_of_family(name: &str) -> Option<(usize, usize)> {
    let lower = name.to_ascii_lowercase();
    ["phi-3", "phi3"].iter().find_map(|word| Some((lower.find(word)?, word.len())))
}

/// `name`, or one near it that readers of metadata take for that of a model whose special tokens swallow the white space
/// behind them, or do not.
pub(crate) fn telling_name(name: String, strips_right: bool) -> String {
    match (place_of_family(&name), strips_right) {
        (None, true) => format!("phi-3 {name}"),
        (Some((start, len)), false) => {
            let apart = format!("{}phi 3{}", &name[..start], &name[start + len..]);
            telling_name(apart, false)
        }
        _ => name,
    }
}

pub(super) fn pieces(
    vocab: &GgufVocab<'_>,
    kinds: &[Kind],
    byte_level: bool,
) -> Result<PieceTable> {
    let mut table = PieceTable::default();
    for (token, kind) in vocab.tokens.iter().zip(kinds) {
        match kind {
            Kind::Byte => {
                let byte =
                    parse_byte_token(token).ok_or_else(|| invalid("tokenizer.ggml.tokens"))?;
                table.push(&[byte], *kind);
            }
            Kind::Normal if byte_level => table.push(&byte_level_text(token), *kind),
            Kind::Normal => table.push(token.replace(SPACE, " ").as_bytes(), *kind),
            _ => table.push(token.as_bytes(), *kind),
        }
    }
    Ok(table)
}

/// The normal tokens and their ids.
fn entries(vocab: &GgufVocab<'_>, kinds: &[Kind]) -> Result<Vocab> {
    let mut entries = Vocab::with_capacity(vocab.tokens.len());
    let normal = |id: usize| kinds.get(id) == Some(&Kind::Normal);
    for (id, token) in vocab.tokens.iter().enumerate().filter(|(id, _)| normal(*id)) {
        if let Some(first) = entries.insert((*token).to_owned(), id as u32) {
            let field = format!("tokenizer.ggml.tokens[{id}]");
            let found = format!("{token:?}, which is also token {first}");
            return Err(invalid(&field).expected("each token once").found(found));
        }
    }
    Ok(entries)
}

/// The pairs of tokens that are merged, the first ones first.
fn merges(vocab: &GgufVocab<'_>) -> Result<Merges> {
    let pair = |(index, merge): (usize, &&str)| {
        let (left, right) = split_merge(merge).ok_or_else(|| {
            let field = format!("tokenizer.ggml.merges[{index}]");
            invalid(&field).expected("two tokens and one space").found(merge)
        })?;
        Ok((left.to_owned(), right.to_owned()))
    };
    vocab.merges.iter().enumerate().map(pair).collect()
}

/// Byte-level BPE out of a GGUF vocabulary.
pub(super) fn bpe(vocab: &GgufVocab<'_>, kinds: &[Kind]) -> Result<Bpe> {
    let pre = PreType::named(vocab.pre)?;
    let (normalizer, pre_tokenizer) = pre.parts()?;
    let (entries, merges) =
        side_by_side(vocab.tokens.len(), || entries(vocab, kinds), || merges(vocab));
    let (entries, merges) = (entries?, merges?);
    check_merged(entries.keys().map(String::as_str), merges.len(), "tokenizer.ggml.merges")?;
    let rules = BpeRules { ignore_merges: pre.ignore_merges, ..BpeRules::default() };
    let model = build_model(entries, merges, rules)?;
    let pre_tokenizer = Some(pre_tokenizer);
    Ok(Bpe { normalizer, pre_tokenizer, model })
}

/// SentencePiece-style BPE out of a GGUF vocabulary.
pub(super) fn spm(vocab: &GgufVocab<'_>, kinds: &[Kind]) -> Result<Spm> {
    if vocab.scores.is_empty() {
        return Err(invalid("tokenizer.ggml.scores").expected("one score for each token").found(0));
    }
    let mut pieces = BTreeMap::new();
    let mut bytes = Box::new([None; 256]);
    for (id, ((token, kind), score)) in
        vocab.tokens.iter().zip(kinds).zip(&vocab.scores).enumerate()
    {
        let id = id as u32;
        match (kind, parse_byte_token(token)) {
            (Kind::Byte, Some(byte)) => bytes[usize::from(byte)] = Some(id),
            (Kind::Normal, _) => {
                pieces.entry(Box::from(*token)).or_insert((id, *score));
            }
            _ => {}
        }
    }
    let unknown = vocab.unk.and_then(|id| u32::try_from(id).ok());
    let unknown = unknown.filter(|id| (*id as usize) < kinds.len());
    Spm::new(pieces, bytes, unknown)
}

#[cfg(test)]
mod tests {
    use super::telling_name;

    #[test]
    fn a_name_says_whether_special_tokens_swallow_white_space() {
        for (name, strips, expected) in [
            ("model", true, "phi-3 model"),
            ("Phi-3-mini", true, "Phi-3-mini"),
            ("Phi-3-phi3", false, "phi 3-phi 3"),
            ("é phi3", false, "é phi 3"),
            ("model", false, "model"),
        ] {
            assert_eq!(telling_name(name.to_owned(), strips), expected);
        }
    }
}
