//! Added tokens: strings that are one token whatever stands around them.
//!
//! Finds them in text, leftmost and longest first, with the stripping and word rules that
//! `tokenizer.json` can ask for. Special ones can be switched off, or be barred from single places of the
//! text. It knows neither normalisation nor merging.

use std::ops::Range;

use super::pieces::Kind;
use crate::error::{Code, Error, Result};

/// Longest added token in bytes; real ones stay below 64.
const CONTENT_BYTES_MAX: usize = 256;

/// One added token.
#[expect(clippy::struct_excessive_bools, reason = "the flags of the file format")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    /// Control token: only recognised where the caller allows it.
    pub(super) special: bool,
    /// Only where no word character touches it.
    pub(super) single_word: bool,
    /// Swallows white space before it.
    pub(super) lstrip: bool,
    /// Swallows white space after it.
    pub(super) rstrip: bool,
    /// Is looked for in the normalised text.
    pub(super) normalized: bool,
}

impl AddedToken {
    /// A token without stripping rules, as GGUF vocabularies have them.
    pub(super) fn plain(id: u32, content: &str, kind: Kind) -> Self {
        Self {
            id,
            content: content.to_owned(),
            special: kind.is_special(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
        }
    }
}

/// Where special tokens may be recognised.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recognise<'a> {
    /// Nowhere: special strings are text.
    Nothing,
    /// Anywhere, except across one of these byte positions of the original text (ascending).
    Except(&'a [usize]),
}

impl Recognise<'_> {
    fn allows(self, range: &Range<usize>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Except(barriers) => {
                let first = barriers.partition_point(|position| *position <= range.start);
                barriers.get(first).is_none_or(|position| *position >= range.end)
            }
        }
    }
}

/// A stretch of text: an added token, or ordinary text between them.
pub(super) type Part = (Option<u32>, Range<usize>);

/// Added tokens in a form that can be searched for.
#[derive(Debug)]
pub(super) struct AddedTokens {
    /// Sorted by content.
    tokens: Vec<AddedToken>,
    /// Which first bytes occur at all.
    starts: [bool; 256],
}

impl AddedTokens {
    /// Sorts and checks `tokens`: no empty, overlong or repeated content.
    pub(super) fn new(mut tokens: Vec<AddedToken>) -> Result<Self> {
        tokens.sort_by(|a, b| a.content.as_bytes().cmp(b.content.as_bytes()));
        let mut starts = [false; 256];
        for token in &tokens {
            let Some(first) = token.content.bytes().next() else {
                return Err(invalid(token).expected("text").found("an empty string"));
            };
            if token.content.len() > CONTENT_BYTES_MAX {
                let found = token.content.len();
                return Err(invalid(token).expected("at most 256 bytes").found(found));
            }
            starts[usize::from(first)] = true;
        }
        if let Some(pair) = tokens.windows(2).find(|pair| pair[0].content == pair[1].content) {
            return Err(invalid(&pair[1]).expected("each string once").found(&pair[1].content));
        }
        Ok(Self { tokens, starts })
    }

    /// Whether there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The token with exactly this content.
    pub(super) fn get(&self, content: &str) -> Option<&AddedToken> {
        let found = self.tokens.binary_search_by(|token| token.content.as_str().cmp(content));
        found.ok().map(|index| &self.tokens[index])
    }

    /// All tokens, sorted by content.
    pub(super) fn iter(&self) -> impl Iterator<Item = &AddedToken> {
        self.tokens.iter()
    }

    /// The longest token that starts at byte `at`.
    pub(super) fn longest_at(&self, text: &[u8], at: usize) -> Option<&AddedToken> {
        if !self.starts[usize::from(*text.get(at)?)] {
            return None;
        }
        // Narrow the sorted list byte by byte; a token that ends here sorts first in the range.
        let (mut low, mut high, mut longest) = (0, self.tokens.len(), None);
        for (depth, byte) in text[at..].iter().enumerate() {
            let range = &self.tokens[low..high];
            let key = |token: &AddedToken| token.content.as_bytes().get(depth).copied();
            let from = range.partition_point(|token| key(token) < Some(*byte));
            let to = range.partition_point(|token| key(token) <= Some(*byte));
            (low, high) = (low + from, low + to);
            if low == high {
                break;
            }
            if self.tokens[low].content.len() == depth + 1 {
                longest = Some(&self.tokens[low]);
            }
        }
        longest
    }

    /// Cuts `text` at the added tokens. `base` is where `text` starts in the original text.
    pub(super) fn split(&self, text: &str, base: usize, recognise: Recognise<'_>) -> Vec<Part> {
        let mut parts = Vec::new();
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            let Some(token) = self.longest_at(text.as_bytes(), at) else {
                at += 1;
                continue;
            };
            let found = at..at + token.content.len();
            at = found.end;
            let place = base + found.start..base + found.end;
            if (token.special && !recognise.allows(&place)) || !fits_words(token, text, &found) {
                continue;
            }
            let range = stripped(token, text, &found, done);
            if done < range.start {
                parts.push((None, done..range.start));
            }
            (done, at) = (range.end, range.end);
            parts.push((Some(token.id), range));
        }
        if done < text.len() {
            parts.push((None, done..text.len()));
        }
        parts
    }
}

fn invalid(token: &AddedToken) -> Error {
    Error::new(Code::TokenizerInvalid).field(format!("added token {}", token.id))
}

/// Whether the word rule of `token` holds around `found`.
fn fits_words(token: &AddedToken, text: &str, found: &Range<usize>) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    !token.single_word
        || (!text[..found.start].chars().next_back().is_some_and(is_word)
            && !text[found.end..].chars().next().is_some_and(is_word))
}

/// `found` grown over the white space that `token` swallows, not beyond `done`.
fn stripped(token: &AddedToken, text: &str, found: &Range<usize>, done: usize) -> Range<usize> {
    let mut range = found.clone();
    if token.lstrip {
        range.start = text[done..found.start].trim_end().len() + done;
    }
    if token.rstrip {
        let rest = &text[found.end..];
        range.end += rest.len() - rest.trim_start().len();
    }
    range
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(list: &[(u32, &str, Kind)]) -> AddedTokens {
        let list = list.iter().map(|(id, text, kind)| AddedToken::plain(*id, text, *kind));
        AddedTokens::new(list.collect()).unwrap()
    }

    fn ids(parts: &[Part]) -> Vec<Option<u32>> {
        parts.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn the_longest_token_at_the_leftmost_place_wins() {
        let added = tokens(&[
            (1, "<a", Kind::Control),
            (2, "<a>", Kind::Control),
            (3, "a>x", Kind::Control),
        ]);
        let parts = added.split("..<a>x<a.", 0, Recognise::Except(&[]));
        assert_eq!(
            parts,
            [(None, 0..2), (Some(2), 2..5), (None, 5..6), (Some(1), 6..8), (None, 8..9)]
        );
    }

    #[test]
    fn plain_text_recognises_user_defined_tokens_only() {
        let added = tokens(&[(1, "<s>", Kind::Control), (2, "<u>", Kind::UserDefined)]);
        assert_eq!(ids(&added.split("<s><u>", 0, Recognise::Nothing)), [None, Some(2)]);
    }

    #[test]
    fn a_barrier_inside_a_special_string_keeps_it_text_and_one_beside_it_does_not() {
        let added = tokens(&[(1, "<s>", Kind::Control)]);
        for (barriers, expected) in [
            (vec![11], vec![None]),
            (vec![10], vec![Some(1)]),
            (vec![13], vec![Some(1)]),
            (vec![12], vec![None]),
        ] {
            assert_eq!(
                ids(&added.split("<s>", 10, Recognise::Except(&barriers))),
                expected,
                "{barriers:?}"
            );
        }
    }

    #[test]
    fn stripping_and_word_rules_hold() {
        let strip =
            AddedToken { lstrip: true, rstrip: true, ..AddedToken::plain(7, "<m>", Kind::Control) };
        let added = AddedTokens::new(vec![strip]).unwrap();
        assert_eq!(
            added.split("a  <m>\n b", 0, Recognise::Except(&[])),
            [(None, 0..1), (Some(7), 1..8), (None, 8..9)]
        );
        let word =
            AddedToken { single_word: true, ..AddedToken::plain(8, "day", Kind::UserDefined) };
        let added = AddedTokens::new(vec![word]).unwrap();
        assert_eq!(ids(&added.split("monday day", 0, Recognise::Nothing)), [None, Some(8)]);
    }

    #[test]
    fn empty_and_repeated_contents_are_refused() {
        for list in [vec![(1, "")], vec![(1, "x"), (2, "x")]] {
            let list = list.iter().map(|(id, text)| AddedToken::plain(*id, text, Kind::Control));
            let error = AddedTokens::new(list.collect()).expect_err("refused");
            assert_eq!(error.code(), Code::TokenizerInvalid);
        }
    }
}
