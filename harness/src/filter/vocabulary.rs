//! Values that a question can name, so that a mistyped one is an error and not an empty selection.

use std::collections::BTreeSet;
use std::fmt;

use apr_engine::Dtype;
use apr_engine::backend::simd::Isa;
use apr_engine::format::Format;
use apr_engine::model::Family;

use super::{FACTS, Filter, Match, Question, answers};
use crate::case::BACKENDS;
use crate::contract::{Catalogue, Gate, Severity, Tier};
use crate::judge::Planned;
use crate::nearest::did_you_mean;
use crate::need;
use crate::suite::facts::{PARTS, STORED};

/// Subjects whose values are names of the catalogue.
const NAMED: [&str; 6] = ["contract", "gate", "check", "tag", "ref", "kill"];

/// A question that nothing answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The question, as it is written.
    pub question: String,
    /// What it names, and the nearest name that exists.
    pub message: String,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.question, self.message)
    }
}

impl Question {
    /// Refuses a value outside of a set that is closed.
    pub(super) fn known(&self) -> Result<(), String> {
        let Some(known) = closed(self.subject) else { return Ok(()) };
        self.among(known.iter().map(String::as_str)).map_err(|meant| {
            let (subject, known) = (self.subject, known.join(", "));
            format!("no {subject} is called {}, known are {known}{meant}", self.word())
        })
    }

    /// What the question names.
    fn word(&self) -> &str {
        match &self.pattern {
            Match::Exact(text) | Match::Part(text) | Match::Glob(text) => text,
            Match::Size(..) => "",
        }
    }

    /// Whether one of `known` answers; otherwise the one that may have been meant.
    fn among<'n>(&self, known: impl Iterator<Item = &'n str> + Clone) -> Result<(), String> {
        if known.clone().any(|name| self.pattern.holds(name)) {
            return Ok(());
        }
        Err(did_you_mean(self.word(), known))
    }
}

impl Filter {
    /// The first question that names a contract, gate, kind of check, tag, claim or fault that `catalogue` has not.
    pub fn stray_name(&self, catalogue: &Catalogue) -> Option<Stray> {
        // A contract without the values of its parameters has gates that nobody knows.
        if !catalogue.waiting.is_empty() {
            return None;
        }
        self.questions().into_iter().filter(|question| NAMED.contains(&question.subject)).find_map(
            |question| {
                let names = names(question.subject, catalogue);
                let meant = question.among(names.iter().map(String::as_str)).err()?;
                Some(question.unnamed(&meant))
            },
        )
    }

    /// The first question that none of `cases` answers: with it the filter selects nothing, or everything.
    pub fn stray(&self, cases: &[Planned]) -> Option<Stray> {
        self.questions().into_iter().find_map(|question| {
            if cases.iter().any(|case| question.holds_of(case) != Some(false)) {
                return None;
            }
            let subject = question.subject;
            if FACTS.contains(&subject) {
                return Some(question.stray("no judged file is like that".into()));
            }
            if NAMED.contains(&subject) {
                return Some(question.stray(format!("the suite has no case of this {subject}")));
            }
            let texts = cases.iter().flat_map(|case| answers(subject, case));
            let texts: BTreeSet<String> = texts.collect();
            if subject != "id" {
                let meant = did_you_mean(question.word(), texts.iter().map(String::as_str));
                return Some(question.unnamed(&meant));
            }
            // What is typed as a part of an id is the name of a contract or a gate.
            let names = texts.iter().flat_map(|id| id.split(['/', '@']));
            let (word, meant) = (question.word(), did_you_mean(question.word(), names));
            Some(question.stray(format!("no case has {word} in its id{meant}")))
        })
    }
}

impl Question {
    fn stray(&self, message: String) -> Stray {
        Stray { question: self.to_string(), message }
    }

    fn unnamed(&self, meant: &str) -> Stray {
        self.stray(format!("no {} is called {}{meant}", self.subject, self.word()))
    }
}

/// Everything that `subject` can name in `catalogue`.
fn names(subject: &str, catalogue: &Catalogue) -> BTreeSet<String> {
    let of = |gate: &Gate| match subject {
        "gate" => vec![gate.id.clone()],
        "check" => vec![gate.check.kind().to_owned()],
        "tag" => gate.tags.clone(),
        "ref" => gate.refs.clone(),
        _ => gate.kills.iter().map(|aim| aim.fault.clone()).collect(),
    };
    if subject == "contract" {
        return catalogue.names().cloned().collect();
    }
    catalogue.contracts.values().flat_map(|contract| &contract.gates).flat_map(of).collect()
}

/// The values that `subject` can have, whatever the catalogue and the machine are; `None` where they are open.
fn closed(subject: &str) -> Option<Vec<String>> {
    let owned = |name: &str| name.to_owned();
    Some(match subject {
        "severity" => Severity::ALL.iter().map(|severity| owned(severity.name())).collect(),
        "tier" => Tier::ALL.iter().map(|tier| owned(tier.name())).collect(),
        "backend" => BACKENDS.iter().map(|name| owned(name)).collect(),
        "isa" => Isa::ALL.iter().map(|isa| owned(isa.name())).collect(),
        "need" => need::KNOWN.iter().map(|(name, _)| owned(name)).collect(),
        "format" => Format::ALL.iter().map(|format| owned(format.name())).collect(),
        "family" => Family::ALL.iter().map(|family| owned(family.name)).collect(),
        "has" => PARTS.iter().map(|name| owned(name)).collect(),
        "stored" => {
            let dtypes = Dtype::ALL.iter().map(|dtype| dtype.name().to_ascii_lowercase());
            STORED.iter().map(|name| owned(name)).chain(dtypes).collect()
        }
        _ => return None,
    })
}
