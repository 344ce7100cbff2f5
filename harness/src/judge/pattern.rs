//! Patterns over text that a subject wrote: plain text, or a regular expression between slashes.

use regex::Regex;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Option<Regex>,
}

impl Pattern {
    /// Compiles `source`: `/…/` is a regular expression (multi-line, linear-time), anything else plain text.
    ///
    /// # Errors
    /// What is wrong with the expression; an empty pattern matches everything and is refused.
    pub fn new(source: &str) -> Result<Self, String> {
        if source.is_empty() {
            return Err("an empty pattern matches everything".into());
        }
        let expression = source.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let regex = match expression {
            Some(expression) => {
                let built = regex::RegexBuilder::new(expression)
                    .multi_line(true)
                    .size_limit(1 << 20)
                    .build();
                Some(built.map_err(|error| format!("pattern {source}: {error}"))?)
            }
            None => None,
        };
        Ok(Self { source: source.to_owned(), regex })
    }

    /// Whether `text` has the pattern.
    pub fn is_in(&self, text: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(text),
            None => text.contains(&self.source),
        }
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Whether `word` stands in `text` with no letter or digit directly before or after it: "4" is not in "14".
pub fn has_word(text: &str, word: &str) -> bool {
    if word.is_empty() {
        return false;
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (starts, ends) =
        (word.chars().next().is_some_and(is_part), word.chars().next_back().is_some_and(is_part));
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(is_part);
        let after = text[at + word.len()..].chars().next().is_some_and(is_part);
        !((starts && before) || (ends && after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_inside_a_larger_number_is_not_the_number() {
        assert!(has_word("2+2 is 4.", "4"));
        assert!(!has_word("2+2 is 14.", "4"));
        assert!(!has_word("the 4th", "4"));
        assert!(has_word("14 or 4", "4"));
        assert!(!has_word("anything", ""));
    }

    #[test]
    fn words_of_scripts_without_spaces_are_found_by_their_signs() {
        assert!(has_word("def f():", "def f():"));
        assert!(!has_word("你好吗", "好"), "letters of one word hide each other");
        assert!(has_word("你好 👋", "👋"));
    }

    #[test]
    fn slashes_make_an_expression_and_an_empty_pattern_is_refused() {
        assert!(Pattern::new(r"/^apr \d+\.\d+/").unwrap().is_in("noise\napr 0.1.0"));
        assert!(!Pattern::new("a.c").unwrap().is_in("abc"));
        assert!(Pattern::new("").is_err());
        assert!(Pattern::new("/(/").is_err());
    }
}
