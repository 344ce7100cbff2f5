//! Making hostile text harmless, once per place it can end up in.
//!
//! Gate claims come from our own catalogue, but evidence quotes model output, file names and tensor names: all of that
//! is written by whoever made the model. Every function here is total and returns text that its place shows and does not obey.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest text that is quoted in a report, in characters.
pub const MAX_QUOTED: usize = 4000;

/// Whether a character acts on a display instead of showing itself: controls, line separators, direction
/// overrides, invisible tags, byte order marks.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061C}'
                | '\u{200B}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{2069}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

/// One line of text in which every acting character is spelled out (`\n`, `\u{1b}`), cut at [`MAX_QUOTED`].
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clip(text, MAX_QUOTED).chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if acts(c) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// The first `limit` characters, with the number of those left out.
pub fn clip(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        None => Cow::Borrowed(text),
        Some((end, _)) => {
            let left = text[end..].chars().count();
            Cow::Owned(format!("{}… (+{left} characters)", &text[..end]))
        }
    }
}

/// Text inside HTML, in elements and in quoted attributes.
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Prose inside Markdown: every ASCII punctuation character that Markdown or its common extensions (mentions, bare
/// links, issue references, tables) act on becomes a character reference.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let text = visible(text);
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        // `www.` links itself even without a scheme.
        let links = rest.len() >= 4 && rest.as_bytes()[..4].eq_ignore_ascii_case(b"www.");
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '&'
            | '@' | '!' | '$' | ':' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c if links => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    // A list or a heading could only begin at the start of a line.
    if let Some(first @ ('-' | '+' | '=')) = out.chars().next() {
        out.replace_range(..1, &format!("&#{};", u32::from(first)));
    }
    out
}

/// A Markdown code span, fit for a table cell: nothing inside it is interpreted.
pub fn markdown_code(text: &str) -> String {
    let text = visible(text).replace('|', "\\|");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // The spaces keep a leading or trailing backtick apart from the fence and are stripped by the renderer.
    if text.is_empty() { "` `".to_owned() } else { format!("{fence} {text} {fence}") }
}

/// The message of a GitHub workflow command.
pub fn github_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a GitHub workflow command.
pub fn github_property(text: &str) -> String {
    github_data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A TAP description: `#` would begin a directive.
pub fn tap(text: &str) -> String {
    visible(text).replace('\\', "\\\\").replace('#', "\\#")
}

/// One word of a POSIX shell command. Acting characters would hide what is pasted, so a word with any of them
/// is written as `$'…'`, which bash, zsh, ksh and POSIX 2024 shells read back to the same bytes.
pub fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.chars().any(acts) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let mut out = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if acts(c) => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\{byte:03o}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_and_direction_overrides_are_spelled_out() {
        assert_eq!(visible("a\x1b[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\\nd");
    }

    #[test]
    fn emoji_and_chinese_stay_as_they_are() {
        assert_eq!(visible("你好 👩‍👩‍👧 é"), "你好 👩‍👩‍👧 é");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(clip("abcdef", 4), "abcd… (+2 characters)");
        assert_eq!(clip("abcd", 4), "abcd");
    }

    #[test]
    fn a_code_span_outgrows_the_backticks_inside() {
        assert_eq!(markdown_code("a``b|c"), "``` a``b\\|c ```");
    }

    #[test]
    fn prose_neither_mentions_nor_links() {
        let text = markdown("@team see https://evil.example www.evil.example #1 <b>");
        for acting in ["@", "https://", "www.", "#1 ", "<"] {
            assert!(!text.contains(acting), "{text}");
        }
    }

    #[test]
    fn a_workflow_command_cannot_begin_inside_a_message() {
        assert_eq!(github_data("a\n::error::b%"), "a%0A::error::b%25");
        assert_eq!(github_property("a:b,c"), "a%3Ab%2Cc");
    }

    #[test]
    fn shell_words_survive_quotes_and_controls() {
        assert_eq!(shell("a/b@c.d"), "a/b@c.d");
        assert_eq!(shell("it's"), "'it'\\''s'");
        assert_eq!(shell("a\nb"), "$'a\\012b'");
        assert_eq!(shell(""), "''");
    }

    proptest! {
        #[test]
        fn nothing_acting_survives(text in any::<String>()) {
            prop_assert!(!visible(&text).chars().any(acts));
            prop_assert!(!tap(&text).chars().any(acts));
            prop_assert!(!shell(&text).chars().any(acts));
            let html = html(&text);
            prop_assert!(!html.contains(['<', '>', '"', '\'']));
            prop_assert!(!markdown(&text).contains(['<', '>', '`', '*', '@', '[']));
            prop_assert!(!github_data(&text).contains(['\n', '\r']));
        }
    }
}
