//! Streaming: ids in, whole characters out, stop strings held back.
//!
//! Both parts are pure state machines over bytes and text; they know no model and no sampler.

use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Turns ids into text piece by piece, never half a character. The pieces joined are what
/// [`Tokenizer::decode`] gives for all ids at once.
#[derive(Debug)]
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    skip_special: bool,
    started: bool,
    /// The incomplete character at the end, at most three bytes.
    pending: Vec<u8>,
}

impl<'t> StreamDecoder<'t> {
    /// A decoder at the start of a text; control tokens give no text when `skip_special`.
    pub fn new(tokenizer: &'t Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, started: false, pending: Vec::new() }
    }

    /// The text that `id` completes; may be empty. Bytes that can no longer become a character are
    /// U+FFFD.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let mut piece = self.tokenizer.token_bytes(id)?;
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        if !self.started {
            piece = self.tokenizer.without_prefix(piece);
        }
        self.started = true;
        self.pending.extend_from_slice(piece);
        let keep = incomplete_tail(&self.pending);
        let tail = self.pending.split_off(self.pending.len() - keep);
        let whole = std::mem::replace(&mut self.pending, tail);
        Ok(lossy(whole))
    }

    /// What is left at the end of the text: U+FFFD for an unfinished character, else nothing.
    pub fn finish(self) -> String {
        lossy(self.pending)
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Number of bytes at the end that are the beginning of a character still to be completed.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let window = &bytes[bytes.len().saturating_sub(4)..];
    for back in 1..=window.len() {
        let tail = &window[window.len() - back..];
        if tail[0] & 0xC0 != 0x80 {
            // The last character starts here; it is incomplete when UTF-8 only misses its end.
            return match std::str::from_utf8(tail) {
                Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => back,
                _ => 0,
            };
        }
    }
    0
}

/// Finds stop strings in a stream of text, across the borders of its pieces.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that could still become a stop string.
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher for `stops`; empty strings are ignored.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|stop: &String| !stop.is_empty());
        Self { stops: stops.collect(), held: String::new(), stopped: false }
    }

    /// Takes the next piece and returns the text that is certainly before any stop string. After a stop
    /// string was found, nothing is returned any more.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| open_end(&self.held, stop)).max().unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, tail)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The text held back, when the stream ends without a stop string.
    pub fn finish(self) -> String {
        self.held
    }
}

/// Length of the longest end of `text` that begins `stop` without completing it.
fn open_end(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let fits = |len: &usize| stop.is_char_boundary(*len) && text.ends_with(&stop[..*len]);
    (1..=longest).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unfinished_characters_count_as_tail() {
        let crab = "🦀".as_bytes();
        for cut in 1..4 {
            assert_eq!(incomplete_tail(&crab[..cut]), cut);
        }
        assert_eq!(incomplete_tail(crab), 0);
        assert_eq!(incomplete_tail(b"a\x80"), 0, "a stray byte never completes");
        assert_eq!(incomplete_tail(b"\xFF"), 0);
        assert_eq!(incomplete_tail(b"\xE2\x28"), 0, "broken by what follows");
        assert_eq!(incomplete_tail(b"\xED\xA0"), 0, "surrogates are no characters");
        assert_eq!(incomplete_tail(b""), 0);
    }

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().copied());
        let mut text: String = pieces.iter().map(|piece| matcher.push(piece)).collect();
        let stopped = matcher.stopped();
        text.push_str(&matcher.finish());
        (text, stopped)
    }

    #[test]
    fn a_stop_string_is_found_across_pieces() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), ("a ".to_owned(), true));
        assert_eq!(run(&["\n\n"], &["x\n", "\ny"]), ("x".to_owned(), true));
    }

    #[test]
    fn text_that_only_looked_like_a_stop_string_is_given_back() {
        assert_eq!(run(&["END"], &["E", "N", "X"]), ("ENX".to_owned(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b", "c"]), ("a".to_owned(), true));
        assert_eq!(run(&["END"], &["tail EN"]), ("tail EN".to_owned(), false));
    }

    #[test]
    fn the_earliest_stop_string_wins_and_empty_ones_are_ignored() {
        assert_eq!(run(&["", "b", "a"], &["xxab"]), ("xx".to_owned(), true));
        assert_eq!(run(&[""], &["abc"]), ("abc".to_owned(), false));
    }

    #[test]
    fn multi_byte_stop_strings_do_not_cut_characters() {
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), ("café?".to_owned(), false));
        assert_eq!(run(&["é!"], &["caf", "é", "!"]), ("caf".to_owned(), true));
    }
}
