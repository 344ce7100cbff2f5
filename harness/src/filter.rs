//! The filter language: which cases are selected.
//!
//! `gate(=logits) & !backend(cuda) | tag(quick*)`. `&` binds tighter than `|`, `!` tightest; parentheses group. Inside
//! the brackets `=text` is exact, `~text` is a part, and plain text is exact with `*` for any run of characters.
//! A word without brackets selects cases whose printed id contains it; `tied` alone is short for `has(tied-head)`.
//!
//! Some subjects are facts of the judged file: `stored(blocks)`, `stored(plain)` and `stored(q4_k)` speak of the
//! weights that are multiplied and `bits(<8)` of the fewest bits per value among them; `format(gguf)`, `family(llama)`
//! and `has(template)` of what the file states; `params(<1e9)` and `layers(>=12)` of its size, and `one-rope(>=512)` of
//! the longest text that one set of rotary frequencies serves, with `k`, `M`, `B` and `T` for powers of a thousand. What
//! is unknown of a file is neither true nor false, nor is its opposite, and a filter that remains undecided selects.

mod size;
mod vocabulary;

use std::fmt;

use crate::judge::Planned;
use crate::nearest::did_you_mean;

use size::Size;
pub use vocabulary::Stray;

/// What a filter can ask of a case.
const SUBJECTS: &[&str] = &[
    "contract", "gate", "id", "model", "form", "backend", "isa", "threads", "severity", "tag",
    "need", "ref", "check", "tier", "kill", "stored", "bits", "format", "family", "has", "params",
    "layers", "one-rope",
];

/// Subjects that are facts of the judged file, and need no name that a suite gave.
pub(crate) const FACTS: &[&str] =
    &["stored", "bits", "format", "family", "has", "params", "layers", "one-rope"];

/// Facts that are numbers.
const NUMBERS: &[&str] = &["bits", "params", "layers", "one-rope"];

/// Deepest nesting of parentheses and negations.
const DEPTH_MAX: usize = 64;

/// A parsed filter.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    subject: &'static str,
    pattern: Match,
}

/// How a text is matched.
#[derive(Clone, Debug, PartialEq)]
enum Match {
    Exact(String),
    Part(String),
    Glob(String),
    Size(Size),
}

impl Match {
    /// What stands inside the brackets of a question about `subject`; `None` when it is no number and ought to be one.
    fn parse(subject: &str, text: &str) -> Option<Self> {
        if NUMBERS.contains(&subject) {
            return Size::parse(text).map(Self::Size);
        }
        // Facts are written in lower case.
        let text = if FACTS.contains(&subject) { text.to_ascii_lowercase() } else { text.into() };
        Some(match (text.strip_prefix('='), text.strip_prefix('~')) {
            (Some(exact), _) => Self::Exact(exact.trim().to_owned()),
            (_, Some(part)) => Self::Part(part.trim().to_owned()),
            _ => Self::Glob(text),
        })
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => text == wanted,
            Self::Part(wanted) => text.contains(wanted.as_str()),
            Self::Glob(pattern) => glob(pattern.as_bytes(), text.as_bytes()),
            Self::Size(size) => text.parse().is_ok_and(|number| size.holds(number)),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Match::Exact(text) => write!(f, "{}(={text})", self.subject),
            Match::Part(text) => write!(f, "{}(~{text})", self.subject),
            Match::Glob(text) => write!(f, "{}({text})", self.subject),
            Match::Size(size) => write!(f, "{}({size})", self.subject),
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

    /// Whether the filter selects `case`; what depends on unknown facts is selected.
    pub fn selects(&self, case: &Planned) -> bool {
        self.ask(&|question| question.holds_of(case)) != Some(false)
    }

    /// Evaluates with `answer` for each question; `None` is unknown, and so is what depends on it.
    pub(crate) fn ask(&self, answer: &dyn Fn(&Question) -> Option<bool>) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Is(question) => answer(question),
            Self::Not(inner) => inner.ask(answer).map(|it| !it),
            Self::And(left, right) => match (left.ask(answer), right.ask(answer)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (left, right) => left.and(right),
            },
            Self::Or(left, right) => match (left.ask(answer), right.ask(answer)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (left, right) => left.and(right),
            },
        }
    }

    /// Every question of the filter, in the order in which they are written.
    pub(crate) fn questions(&self) -> Vec<&Question> {
        match self {
            Self::All => Vec::new(),
            Self::Is(question) => vec![question],
            Self::Not(inner) => inner.questions(),
            Self::And(left, right) | Self::Or(left, right) => {
                let mut questions = left.questions();
                questions.extend(right.questions());
                questions
            }
        }
    }

    /// Every subject the filter asks about.
    pub(crate) fn subjects(&self) -> Vec<&'static str> {
        self.questions().into_iter().map(|question| question.subject).collect()
    }
}

impl Question {
    /// Whether it holds of `case`; `None` when it asks for a fact of the file that is unknown.
    fn holds_of(&self, case: &Planned) -> Option<bool> {
        if !FACTS.contains(&self.subject) {
            return Some(answers(self.subject, case).iter().any(|text| self.pattern.holds(text)));
        }
        if case.info.cell.model.is_none() {
            return Some(false);
        }
        let facts = case.facts.as_ref()?;
        if let Match::Size(size) = &self.pattern {
            return facts.number(self.subject).map(|number| size.holds(number));
        }
        facts.texts(self.subject).map(|texts| texts.iter().any(|text| self.pattern.holds(text)))
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
            return Ok(match word.as_str() {
                "tied" => Question { subject: "has", pattern: Match::Exact("tied-head".into()) },
                _ => Question { subject: "id", pattern: Match::Part(word) },
            });
        }
        let Some(subject) = SUBJECTS.iter().copied().find(|subject| *subject == word) else {
            let meant = did_you_mean(&word, SUBJECTS.iter().copied());
            let known = SUBJECTS.join(", ");
            let message = format!("unknown subject {word}{meant}; known are {known}");
            return Err(FilterError { at: start + 1, message });
        };
        self.at += 1;
        let from = self.at;
        let Some(length) = self.chars[from..].iter().position(|&c| c == ')') else {
            return Err(self.wrong("expected )"));
        };
        self.at = from + length + 1;
        let text: String = self.chars[from..from + length].iter().collect();
        let refused = |message: String| FilterError { at: from + 1, message };
        let pattern = Match::parse(subject, text.trim()).ok_or_else(|| {
            refused(format!(
                "{subject} takes a number such as <1e9 or >=500M, found {:?}",
                text.trim()
            ))
        })?;
        let question = Question { subject, pattern };
        question.known().map_err(refused)?;
        Ok(question)
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
        let answer = |question: &Question| {
            Some(
                facts.iter().any(|(subject, text)| question.holds_for(subject, text) == Some(true)),
            )
        };
        Filter::parse(filter).unwrap().ask(&answer) == Some(true)
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

    #[test]
    fn what_depends_on_the_unknown_is_unknown() {
        let unknown = |text: &str| {
            let answer = |question: &Question| (question.subject != "stored").then_some(true);
            Filter::parse(text).unwrap().ask(&answer)
        };
        assert_eq!(unknown("stored(blocks)"), None);
        assert_eq!(unknown("!stored(blocks)"), None);
        assert_eq!(unknown("stored(blocks) & backend(simd)"), None);
        assert_eq!(unknown("stored(blocks) | backend(simd)"), Some(true));
        assert_eq!(unknown("stored(blocks) & !backend(simd)"), Some(false));
    }

    #[test]
    fn values_outside_a_closed_set_are_refused_with_the_nearest_one() {
        for (text, meant) in [
            ("severity(blokcing)", "blocking"),
            ("backend(=simdd)", "simd"),
            ("stored(=q4k)", "q4_k"),
            ("family(quen2)", "qwen2"),
            ("has(tempate)", "template"),
            ("need(golde)", "golden"),
            ("form(x) & form4t(gguf)", "format"),
        ] {
            let error = Filter::parse(text).expect_err(text).to_string();
            assert!(error.contains(&format!("did you mean {meant}?")), "{text}: {error}");
        }
        assert!(Filter::parse("severity(*) & backend(~s) & stored(Q4_K)").is_ok());
    }
}
