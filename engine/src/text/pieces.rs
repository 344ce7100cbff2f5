//! What each token id stands for: its bytes and its kind.
//!
//! The table holds decoded bytes: the byte-level alphabet, `▁` and `<0xHH>` are undone once, at load. It
//! knows no algorithm.

use crate::error::{Code, Error, Result};

/// What a vocabulary entry is for. The numbers are those of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text.
    Normal,
    /// The placeholder for what the vocabulary cannot express.
    Unknown,
    /// A control token: never produced by plain text, never shown.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// An id without an entry, or one declared unused.
    Unused,
    /// One byte.
    Byte,
}

impl Kind {
    /// The kind behind a GGUF token type id.
    pub(super) fn from_gguf(id: i64) -> Option<Self> {
        Some(match id {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether the token steers the model instead of being text.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// Bytes and kind of every id, in one allocation each.
#[derive(Debug, Default)]
pub(super) struct PieceTable {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<Kind>,
}

impl PieceTable {
    /// Appends the entry of the next id.
    pub(super) fn push(&mut self, bytes: &[u8], kind: Kind) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.kinds.push(kind);
    }

    /// Number of ids, holes included.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of `id`, or `None` outside the vocabulary.
    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let index = usize::try_from(id).ok()?;
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.bytes.get(start..end)
    }

    /// The kind of `id`, or `None` outside the vocabulary.
    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(usize::try_from(id).ok()?).copied()
    }

    /// `id` itself when it is inside the vocabulary.
    pub(super) fn check(&self, id: u32, field: &str) -> Result<u32> {
        if usize::try_from(id).is_ok_and(|index| index < self.len()) {
            return Ok(id);
        }
        Err(Error::new(Code::TokenId)
            .field(field)
            .expected(format!("an id below {}", self.len()))
            .found(id))
    }
}

/// The character that stands for `byte` in byte-level vocabularies: printable Latin-1 for itself, the
/// other 68 bytes as U+0100 and up (the alphabet of the GPT-2 tokenizer).
pub(super) fn char_of_byte(byte: u8) -> char {
    let code = u32::from(byte);
    let moved = match byte {
        0..=32 => 256 + code,
        127..=160 => 256 + 33 + code - 127,
        173 => 256 + 67,
        _ => code,
    };
    char::from_u32(moved).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `character` stands for in byte-level vocabularies.
fn byte_of_char(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        33..=126 | 161..=172 | 174..=255 => code,
        256..=288 => code - 256,
        289..=322 => code - 289 + 127,
        323 => 173,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The bytes of a byte-level entry; one with characters outside the alphabet (added by hand) is its own
/// text.
pub(super) fn byte_level_text(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of_char).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte of a `<0xHH>` token, exactly two hexadecimal digits.
pub(super) fn parse_byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let valid = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if valid { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        for byte in 0..=255 {
            assert_eq!(byte_of_char(char_of_byte(byte)), Some(byte), "byte {byte}");
        }
        assert_eq!(char_of_byte(b' '), 'Ġ');
        assert_eq!(char_of_byte(b'\n'), 'Ċ');
        assert_eq!(byte_of_char('▁'), None);
    }

    #[test]
    fn a_byte_token_has_exactly_two_hex_digits() {
        assert_eq!(parse_byte_token("<0x0A>"), Some(10));
        for bad in ["<0x-1>", "<0xZZ>", "<0x1>", "<0x001>", "<0x+1>", "0x0A", "<0x>"] {
            assert_eq!(parse_byte_token(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_outside_the_table_have_neither_bytes_nor_kind() {
        let mut table = PieceTable::default();
        table.push(b"a", Kind::Normal);
        table.push(b"", Kind::Control);
        assert_eq!(table.bytes(0), Some(&b"a"[..]));
        assert_eq!(table.bytes(1), Some(&b""[..]));
        assert_eq!(table.bytes(2), None);
        assert_eq!(table.kind(u32::MAX), None);
        assert_eq!(table.check(2, "eos").expect_err("outside").code(), Code::TokenId);
    }
}
