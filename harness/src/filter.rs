//! The filter language: which cases are selected.
//!
//! `gate(=logits) & !backend(cuda) | tag(quick*)`. `&` binds tighter than `|`, `!` tightest; parentheses group. Inside
//! the brackets `=text` is exact, `~text` is a part, and plain text is exact with `*` for any run of characters.
//! A word without brackets selects cases whose printed id contains it.

use std::fmt;

use crate::judge::Planned;

/// What a filter can ask of a case.
const SUBJECTS: &[&str] = &[
    "contract", "gate", "id", "model", "form", "backend", "isa", "threads", "severity", "tag",
    "need", "ref", "check", "tier", "kill",
];

/// Deepest nesting of parentheses and negations.
const DEPTH_MAX: usize = 64;

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Every case.
    All,
    /// One question.
    Is(Question),
    /// The opposite.
    Not(Box<Filter>),
    /// Both.
    And(Box<Filter>, Box<Filter>),
    /// Either.
    Or(Box<Filter>, Box<Filter>),
}

/// One question about a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    subject: &'static str,
    pattern: Match,
}

/// How a text is matched.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Match {
    Exact(String),
    Part(String),
    Glob(String),
}

impl Match {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => text == wanted,
            Self::Part(wanted) => text.contains(wanted.as_str()),
            Self::Glob(pattern) => glob(pattern.as_bytes(), text.as_bytes()),
        }
    }
}

/// Whether `text` is `pattern` with `*` for any run of bytes; linear in both with one step back to the last star.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// A filter that does not parse: what was expected and at which character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Character position from 1.
    pub at: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter, character {}: {}", self.at, self.message)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Parses `text`; an empty one selects everything.
    ///
    /// # Errors
    /// Unknown subjects, open brackets, missing operands, nesting above the limit.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let mut parser = Parser { chars: text.chars().collect(), at: 0, depth: 0 };
        parser.space();
        if parser.at == parser.chars.len() {
            return Ok(Self::All);
        }
        let filter = parser.either()?;
        parser.space();
        if parser.at < parser.chars.len() {
            return Err(parser.wrong("expected & or | or the end"));
        }
        Ok(filter)
    }

    /// Whether the filter selects `case`.
    pub fn selects(&self, case: &Planned) -> bool {
        self.ask(&|question| {
            answers(question.subject, case).iter().any(|text| question.pattern.holds(text))
        })
    }

    /// Evaluates with `answer` for each question.
    pub(crate) fn ask(&self, answer: &dyn Fn(&Question) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Is(question) => answer(question),
            Self::Not(inner) => !inner.ask(answer),
            Self::And(left, right) => left.ask(answer) && right.ask(answer),
            Self::Or(left, right) => left.ask(answer) || right.ask(answer),
        }
    }

    /// Every subject the filter asks about.
    pub(crate) fn subjects(&self) -> Vec<&'static str> {
        match self {
            Self::All => Vec::new(),
            Self::Is(question) => vec![question.subject],
            Self::Not(inner) => inner.subjects(),
            Self::And(left, right) | Self::Or(left, right) => {
                let mut subjects = left.subjects();
                subjects.extend(right.subjects());
                subjects
            }
        }
    }
}

/// The texts a question about `subject` is held against.
fn answers(subject: &str, case: &Planned) -> Vec<String> {
    let (info, gate) = (&case.info, &case.gate);
    let cell = &info.cell;
    match subject {
        "contract" => vec![info.contract.clone()],
        "gate" => vec![info.gate.clone()],
        "id" => vec![info.id.clone()],
        "model" => cell.model.iter().map(|model| model.model.clone()).collect(),
        "form" => cell.model.iter().map(|model| model.form.clone()).collect(),
        "backend" => cell.backend.iter().cloned().collect(),
        "isa" => cell.isa.iter().cloned().collect(),
        "threads" => cell.threads.iter().map(ToString::to_string).collect(),
        "severity" => vec![info.severity.name().to_owned()],
        "tag" => gate.tags.clone(),
        "need" => gate.needs.clone(),
        "ref" => gate.refs.clone(),
        "kill" => gate.kills.iter().map(|aim| aim.fault.clone()).collect(),
        "check" => vec![gate.check.kind().to_owned()],
        "tier" => vec![gate.tier.name().to_owned()],
        _ => Vec::new(),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn wrong(&self, message: impl Into<String>) -> FilterError {
        FilterError { at: self.at + 1, message: message.into() }
    }

    fn space(&mut self) {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        self.space();
        let found = self.chars.get(self.at) == Some(&wanted);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self) -> Result<Filter, FilterError> {
        let mut left = self.both()?;
        while self.take('|') {
            left = Filter::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Filter, FilterError> {
        let mut left = self.one()?;
        while self.take('&') {
            left = Filter::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(format!("nested deeper than {DEPTH_MAX}")));
        }
        let filter = if self.take('!') {
            Filter::Not(Box::new(self.one()?))
        } else if self.take('(') {
            let inner = self.either()?;
            if !self.take(')') {
                return Err(self.wrong("expected )"));
            }
            inner
        } else {
            Filter::Is(self.question()?)
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn question(&mut self) -> Result<Question, FilterError> {
        self.space();
        let start = self.at;
        let is_word = |c: &char| !c.is_whitespace() && !"()&|!".contains(*c);
        while self.chars.get(self.at).is_some_and(is_word) {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        if word.is_empty() {
            return Err(self.wrong("expected a question such as gate(=x) or a word"));
        }
        if self.chars.get(self.at) != Some(&'(') {
            return Ok(Question { subject: "id", pattern: Match::Part(word) });
        }
        let Some(subject) = SUBJECTS.iter().copied().find(|subject| *subject == word) else {
            let message = format!("unknown subject {word}; known are {}", SUBJECTS.join(", "));
            return Err(FilterError { at: start + 1, message });
        };
        self.at += 1;
        let from = self.at;
        let Some(length) = self.chars[from..].iter().position(|&c| c == ')') else {
            return Err(self.wrong("expected )"));
        };
        self.at = from + length + 1;
        let text: String = self.chars[from..from + length].iter().collect();
        let text = text.trim();
        let pattern = match (text.strip_prefix('='), text.strip_prefix('~')) {
            (Some(exact), _) => Match::Exact(exact.trim().to_owned()),
            (_, Some(part)) => Match::Part(part.trim().to_owned()),
            _ => Match::Glob(text.to_owned()),
        };
        Ok(Question { subject, pattern })
    }
}

#[cfg(test)]
impl Question {
    /// Whether `text` answers a question about `subject`; `None` when the question is about something else.
    fn holds_for(&self, subject: &str, text: &str) -> Option<bool> {
        (self.subject == subject).then(|| self.pattern.holds(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates over `(subject, text)` facts.
    fn selects(filter: &str, facts: &[(&str, &str)]) -> bool {
        Filter::parse(filter).unwrap().ask(&|question| {
            facts.iter().any(|(subject, text)| question.holds_for(subject, text) == Some(true))
        })
    }

    #[test]
    fn and_binds_tighter_than_or_and_not_tightest() {
        let facts = [("gate", "x"), ("tag", "slow"), ("contract", "z")];
        assert!(selects("gate(=x) & tag(slow) | contract(q)", &facts));
        assert!(selects("gate(=q) & tag(slow) | contract(z)", &facts));
        assert!(!selects("gate(=x) & (tag(fast) | contract(q))", &facts));
        assert!(selects("gate(x) & !tag(fast)", &facts));
        assert!(!selects("!gate(x) | tag(fast)", &facts));
    }

    #[test]
    fn texts_match_exactly_in_part_or_with_stars() {
        let facts = [("form", "gguf-q4_k_m")];
        assert!(selects("form(gguf*)", &facts));
        assert!(selects("form(*q4*m)", &facts));
        assert!(!selects("form(=gguf)", &facts));
        assert!(selects("form(~q4)", &facts));
        assert!(!selects("form(gguf)", &facts));
        assert!(selects("form(*)", &facts));
    }

    #[test]
    fn a_bare_word_is_a_part_of_the_id() {
        assert!(selects("simd", &[("id", "parity/simd@golden")]));
        assert!(selects("", &[]));
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        for (text, at) in [("gate(=x", 6), ("colour(red)", 1), ("gate(x) tag(y)", 9), ("a &", 4)] {
            let error = Filter::parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
        }
        assert!(Filter::parse(&"!".repeat(100_000)).is_err());
        assert!(Filter::parse(&"(".repeat(100_000)).is_err());
    }
}
