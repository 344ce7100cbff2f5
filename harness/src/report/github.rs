//! GitHub workflow annotations.
//!
//! The service shows ten annotations of a kind per step; the rest would vanish without a word, so they are counted in
//! the last one. Messages are escaped so that no text of a model can begin a command of its own.

use std::fmt::Write as _;

use super::escape::{clip, github_data, github_property, visible};
use super::{changed, label, measure_line, replay_command, score_line};
use crate::event::{Outcome, RunRecord};
use crate::score::{Standing, exit_meaning, standing};

/// Annotations of one kind that the service shows per step.
const SHOWN: usize = 10;
/// Longest message, in characters.
const MESSAGE: usize = 1200;

/// Renders the record.
pub fn render(record: &RunRecord) -> String {
    let mut out = String::new();
    write_kind(&mut out, record, "error", Standing::Red);
    write_kind(&mut out, record, "warning", Standing::Yellow);
    let mut parts = vec![
        format!("{}% {}", record.score.percent, record.score.grade),
        score_line(record),
        exit_meaning(record.exit_code).to_owned(),
    ];
    parts.extend(changed(record));
    let message = parts.join(" · ");
    let title = github_property(&visible(&format!("apr qa: {}", record.suite)));
    // Writing to a string cannot fail.
    let _ = writeln!(out, "::notice title={title}::{}", github_data(&visible(&message)));
    out
}

fn write_kind(out: &mut String, record: &RunRecord, kind: &str, wanted: Standing) {
    let cases: Vec<&Outcome> =
        record.cases.iter().filter(|outcome| standing(outcome, record.day()) == wanted).collect();
    let shown = if cases.len() > SHOWN { SHOWN - 1 } else { cases.len() };
    for outcome in &cases[..shown] {
        let title = format!("{}: {}", label(outcome, record.day()), outcome.case.id);
        let title = github_property(&visible(&title));
        let _ = writeln!(out, "::{kind} title={title}::{}", message(record, outcome));
    }
    if cases.len() > shown {
        let ids: Vec<&str> =
            cases[shown..].iter().map(|outcome| outcome.case.id.as_str()).collect();
        let more = visible(clip(&ids.join(", "), MESSAGE).as_ref());
        let _ = writeln!(
            out,
            "::{kind} title=and {} more::{}",
            cases.len() - shown,
            github_data(&more)
        );
    }
}

fn message(record: &RunRecord, outcome: &Outcome) -> String {
    let mut lines = vec![visible(&outcome.case.claim), visible(&outcome.verdict.summary())];
    if let Some(evidence) = outcome.verdict.evidence() {
        let broken = evidence.measures.iter().filter(|measure| !measure.holds());
        lines.extend(broken.map(|measure| visible(&measure_line(measure))));
        lines.extend(evidence.details.iter().take(3).map(|detail| visible(detail)));
    }
    let mut text = clip(&lines.join("\n"), MESSAGE).into_owned();
    text.push_str("\nreplay: ");
    text.push_str(&replay_command(&record.provenance, &outcome.case.id));
    github_data(&text)
}
