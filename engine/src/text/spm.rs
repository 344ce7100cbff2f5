//! SentencePiece-style BPE: the adjacent pair whose joined piece has the best score is joined first.
//!
//! Works on one fragment of ordinary text; what no piece covers falls back to byte tokens. The algorithm
//! is that of the SentencePiece BPE model; added tokens are cut out before.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use crate::error::{Code, Error, Result};

/// `▁`, which stands for a space inside pieces.
pub(super) const SPACE: char = '\u{2581}';

/// Pieces, scores and byte tokens of a SentencePiece vocabulary.
#[derive(Debug)]
pub(super) struct Spm {
    /// Normal pieces only: control, user-defined and byte pieces are never built from text.
    pieces: BTreeMap<Box<str>, (u32, f32)>,
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
}

/// A possible join of two neighbouring symbols.
#[derive(Debug)]
struct Join {
    score: f32,
    left: usize,
    right: usize,
    bytes: usize,
}

impl PartialEq for Join {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Join {}

impl PartialOrd for Join {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Join {
    /// Best score first, then leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

/// A stretch of the text, linked to its neighbours; empty once it was joined to the left.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: usize,
    len: usize,
    prev: usize,
    next: usize,
}

/// No neighbour.
const NONE: usize = usize::MAX;

impl Spm {
    /// A vocabulary that can express every text: all 256 byte tokens, or an unknown token.
    pub(super) fn new(
        pieces: BTreeMap<Box<str>, (u32, f32)>,
        bytes: Box<[Option<u32>; 256]>,
        unknown: Option<u32>,
    ) -> Result<Self> {
        if let (Some(byte), None) = (bytes.iter().position(Option::is_none), unknown) {
            return Err(Error::new(Code::TokenizerInvalid)
                .expected("256 byte tokens <0x00> to <0xFF>, or an unknown token")
                .found(format!("no token <0x{byte:02X}> and no unknown token")));
        }
        Ok(Self { pieces, bytes, unknown })
    }

    /// The id of a normal piece.
    pub(super) fn piece(&self, text: &str) -> Option<u32> {
        self.pieces.get(text).map(|(id, _)| *id)
    }

    /// Appends the ids of `text`, in which spaces are already written as `▁`.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, character))| Symbol {
                start,
                len: character.len_utf8(),
                prev: index.checked_sub(1).unwrap_or(NONE),
                next: index + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let mut joins = BinaryHeap::new();
        for right in 1..symbols.len() {
            self.offer(text, &symbols, right - 1, right, &mut joins);
        }
        while let Some(join) = joins.pop() {
            let (left, right) = (symbols[join.left], symbols[join.right]);
            // A symbol that was joined since the offer was made has another length now.
            if left.len == 0 || right.len == 0 || left.len + right.len != join.bytes {
                continue;
            }
            symbols[join.left].len = join.bytes;
            symbols[join.left].next = right.next;
            symbols[join.right].len = 0;
            if right.next != NONE {
                symbols[right.next].prev = join.left;
                self.offer(text, &symbols, join.left, right.next, &mut joins);
            }
            if left.prev != NONE {
                self.offer(text, &symbols, left.prev, join.left, &mut joins);
            }
        }
        for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
            self.emit(&text[symbol.start..symbol.start + symbol.len], ids);
        }
    }

    fn offer(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: usize,
        right: usize,
        joins: &mut BinaryHeap<Join>,
    ) {
        let start = symbols[left].start;
        let bytes = symbols[left].len + symbols[right].len;
        if let Some((_, score)) = self.pieces.get(&text[start..start + bytes]) {
            joins.push(Join { score: *score, left, right, bytes });
        }
    }

    fn emit(&self, piece: &str, ids: &mut Vec<u32>) {
        if let Some(id) = self.piece(piece) {
            ids.push(id);
            return;
        }
        for byte in piece.bytes() {
            match (self.bytes[usize::from(byte)], self.unknown) {
                (Some(id), _) => ids.push(id),
                // One unknown token per piece, not per byte.
                (None, Some(id)) => return ids.push(id),
                (None, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy() -> Spm {
        let pieces =
            [("a", 0, 0.0), ("b", 1, 0.0), ("ab", 2, -2.0), ("ba", 3, -1.0), ("aba", 4, -3.0)];
        let pieces = pieces.into_iter().map(|(text, id, score)| (Box::from(text), (id, score)));
        Spm::new(
            pieces.collect(),
            Box::new(std::array::from_fn(|byte| Some(100 + byte as u32))),
            None,
        )
        .unwrap()
    }

    #[test]
    fn the_best_score_is_joined_first_and_ties_go_left() {
        let mut ids = Vec::new();
        toy().encode("abab", &mut ids);
        // "ba" (-1) beats both "ab" (-2); then "a"+"ba" makes "aba".
        assert_eq!(ids, [4, 1]);
    }

    #[test]
    fn characters_without_a_piece_become_bytes() {
        let mut ids = Vec::new();
        toy().encode("aé", &mut ids);
        assert_eq!(ids, [0, 100 + 0xC3, 100 + 0xA9]);
    }

    #[test]
    fn a_vocabulary_that_cannot_express_every_byte_needs_an_unknown_token() {
        let error = Spm::new(BTreeMap::new(), Box::new([None; 256]), None).expect_err("incomplete");
        assert_eq!(error.code(), Code::TokenizerInvalid);
        let mut ids = Vec::new();
        Spm::new(BTreeMap::new(), Box::new([None; 256]), Some(9)).unwrap().encode("é", &mut ids);
        assert_eq!(ids, [9]);
    }
}
