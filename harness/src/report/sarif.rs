//! SARIF 2.1.0: gates are rules, red and yellow cases are results.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};

use super::escape::visible;
use super::{changed, label, measure_line, recorded_command, replay_command};
use crate::contract::Severity;
use crate::event::{Outcome, RunRecord};
use crate::score::{Standing, gate_key, standing};
use crate::verdict::Verdict;

/// Where the layout is defined.
const LAYOUT: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Renders the record with a newline at its end.
///
/// # Errors
/// When the JSON cannot be serialised.
pub fn render(record: &RunRecord) -> io::Result<String> {
    let mut rules: BTreeMap<String, Value> = BTreeMap::new();
    for outcome in &record.cases {
        let key = gate_key(&outcome.case);
        rules.entry(visible(&key)).or_insert_with(|| rule(&key, outcome));
    }
    let index: BTreeMap<&str, usize> =
        rules.keys().enumerate().map(|(at, key)| (key.as_str(), at)).collect();
    let results: Vec<Value> = record
        .cases
        .iter()
        .filter(|outcome| standing(outcome, record.day()) != Standing::Green)
        .map(|outcome| {
            let key = visible(&gate_key(&outcome.case));
            result(record, outcome, index.get(key.as_str()).copied().unwrap_or(0))
        })
        .collect();
    let log = json!({
        "$schema": LAYOUT,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "apr",
                "version": record.provenance.apr_version,
                "rules": rules.values().collect::<Vec<_>>(),
            }},
            "invocations": [{
                "executionSuccessful": record.counts.broken == 0 && !record.interrupted,
                "exitCode": record.exit_code,
                "startTimeUtc": record.provenance.started,
                "commandLine": recorded_command(&record.provenance),
                "properties": {
                    "changedParameters": changed(record).map(|text| visible(&text)).collect::<Vec<_>>(),
                },
            }],
            "results": results,
        }],
    });
    let mut text = serde_json::to_string_pretty(&log)?;
    text.push('\n');
    Ok(text)
}

fn rule(key: &str, outcome: &Outcome) -> Value {
    json!({
        "id": visible(key),
        "shortDescription": { "text": visible(&outcome.case.claim) },
        "properties": {
            "severity": outcome.case.severity.name(),
            "tags": outcome.case.refs.iter().map(|id| visible(id)).collect::<Vec<_>>(),
        },
    })
}

fn result(record: &RunRecord, outcome: &Outcome, rule_index: usize) -> Value {
    let red = standing(outcome, record.day()) == Standing::Red;
    // The standard wants the level `none` for everything that is not a failure.
    let (kind, level) = match (red, outcome.case.severity) {
        (false, _) => ("review", "none"),
        (true, Severity::Minor) => ("fail", "warning"),
        (true, _) => ("fail", "error"),
    };
    let mut lines = vec![visible(&outcome.verdict.summary())];
    if let Some(evidence) = outcome.verdict.evidence() {
        lines.extend(evidence.measures.iter().map(|measure| visible(&measure_line(measure))));
        lines.extend(evidence.details.iter().map(|detail| visible(detail)));
    }
    let mut value = json!({
        "ruleId": visible(&gate_key(&outcome.case)),
        "ruleIndex": rule_index,
        "kind": kind,
        "level": level,
        "message": { "text": lines.join("\n") },
        "partialFingerprints": { "caseId/v1": visible(&outcome.case.id) },
        "locations": [{ "logicalLocations": [{ "fullyQualifiedName": visible(&outcome.case.id) }] }],
        "properties": {
            "verdict": label(outcome, record.day()),
            "replay": replay_command(&record.provenance, &outcome.case.id),
        },
    });
    if let Verdict::Waived { reason, .. } = &outcome.verdict {
        let status = if red { "rejected" } else { "accepted" };
        value["suppressions"] =
            json!([{ "kind": "external", "status": status, "justification": visible(reason) }]);
    }
    value
}
