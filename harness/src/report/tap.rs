//! TAP version 14: one line per case, and a YAML block (written as JSON strings, which YAML reads) under each that is not
//! plainly green.

use std::fmt::Write as _;

use super::escape::{tap, visible};
use super::{changed, label, measure_line, replay_command};
use crate::event::{Outcome, RunRecord};
use crate::score::{Standing, standing};

/// Renders the record.
pub fn render(record: &RunRecord) -> String {
    // Writing to a string cannot fail.
    let mut out = format!("TAP version 14\n1..{}\n", record.cases.len());
    for parameter in changed(record) {
        let _ = writeln!(out, "# {}", tap(&parameter));
    }
    for (index, outcome) in record.cases.iter().enumerate() {
        let _ = write_case(&mut out, record, index + 1, outcome);
    }
    if record.interrupted {
        out.push_str("Bail out! interrupted\n");
    }
    out
}

fn write_case(
    out: &mut String,
    record: &RunRecord,
    number: usize,
    outcome: &Outcome,
) -> std::fmt::Result {
    let standing = standing(outcome, record.day());
    let ok = if standing == Standing::Red { "not ok" } else { "ok" };
    let id = tap(&outcome.case.id);
    let why = tap(&outcome.verdict.summary());
    let directive = match standing {
        Standing::Yellow => format!(" # SKIP {}: {why}", label(outcome, record.day())),
        Standing::Green | Standing::Red => String::new(),
    };
    writeln!(out, "{ok} {number} - {id}{directive}")?;
    if standing != Standing::Red {
        return Ok(());
    }
    writeln!(out, "  ---")?;
    let mut field = |name: &str, text: &str| {
        let text = serde_json::Value::from(visible(text));
        writeln!(out, "  {name}: {text}")
    };
    field("verdict", label(outcome, record.day()))?;
    field("severity", outcome.case.severity.name())?;
    field("claim", &outcome.case.claim)?;
    field("message", &outcome.verdict.summary())?;
    for measure in outcome.verdict.evidence().into_iter().flat_map(|evidence| &evidence.measures) {
        field(&format!("\"{}\"", json_key(&measure.name)), &measure_line(measure))?;
    }
    field("replay", &replay_command(&record.provenance, &outcome.case.id))?;
    writeln!(out, "  ...")
}

/// A measure's name as the inside of a quoted YAML key.
fn json_key(name: &str) -> String {
    let quoted = serde_json::Value::from(format!("measure {}", visible(name))).to_string();
    quoted.trim_matches('"').to_owned()
}
