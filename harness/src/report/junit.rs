//! JUnit XML, one suite per contract.
//!
//! CI servers know four states, so six verdicts are mapped without losing a red one: a required skip and an undecided
//! required case are failures, a broken case is an error, an accepted falsification is a skip that says so. `quick-junit` filters
//! the characters that XML cannot hold; the visible form is escaped before that so nothing is lost.

use std::io;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::escape::visible;
use super::{label, measure_line, replay_command};
use crate::event::{Outcome, RunRecord};
use crate::score::{Standing, standing};
use crate::verdict::Verdict;

/// Renders the record.
///
/// # Errors
/// When the XML writer fails.
pub fn render(record: &RunRecord) -> io::Result<String> {
    let mut report = Report::new(visible(&record.suite));
    report.set_time(total(&record.cases));
    for contract in record.score.by_contract.keys() {
        let mine = record.cases.iter().filter(|outcome| outcome.case.contract == *contract);
        let mut suite = TestSuite::new(visible(contract));
        for outcome in mine {
            suite.add_test_case(case(record, outcome));
        }
        suite.add_property(Property::new("seed", record.provenance.seed.to_string()));
        suite.add_property(Property::new("binary-sha256", &record.provenance.binary_sha256));
        suite.add_property(Property::new("catalogue-sha256", &record.provenance.catalogue_sha256));
        for value in &record.provenance.parameters {
            let name = format!("parameter {}", value.parameter);
            suite.add_property(Property::new(visible(&name), visible(&value.to_string())));
        }
        report.add_test_suite(suite);
    }
    report.to_string().map_err(io::Error::other)
}

fn case(record: &RunRecord, outcome: &Outcome) -> TestCase {
    let mut case = TestCase::new(visible(&outcome.case.id), status(record, outcome));
    case.set_classname(visible(&format!("{}.{}", outcome.case.contract, outcome.case.gate)));
    case.set_time(duration(outcome));
    case.add_property(Property::new("claim", visible(&outcome.case.claim)));
    case.add_property(Property::new("severity", outcome.case.severity.name()));
    case.add_property(Property::new("verdict", label(outcome, record.day())));
    if let Some(evidence) = outcome.verdict.evidence() {
        case.set_assertions(usize::try_from(evidence.comparisons).unwrap_or(usize::MAX));
        case.set_system_out(body(outcome));
    }
    case
}

fn status(record: &RunRecord, outcome: &Outcome) -> TestCaseStatus {
    let red = standing(outcome, record.day()) == Standing::Red;
    let mut status = match &outcome.verdict {
        Verdict::Corroborated(_) => return TestCaseStatus::success(),
        Verdict::Broken { .. } => TestCaseStatus::non_success(NonSuccessKind::Error),
        _ if red => TestCaseStatus::non_success(NonSuccessKind::Failure),
        _ => TestCaseStatus::skipped(),
    };
    status.set_type(label(outcome, record.day()));
    status.set_message(visible(&outcome.verdict.summary()));
    if red {
        let replay = replay_command(&record.provenance, &outcome.case.id);
        status.set_description(format!("{}\nreplay: {replay}", visible(&outcome.case.claim)));
    }
    status
}

fn body(outcome: &Outcome) -> String {
    let Some(evidence) = outcome.verdict.evidence() else { return String::new() };
    let mut lines = vec![visible(&evidence.summary)];
    lines.extend(evidence.measures.iter().map(|measure| visible(&measure_line(measure))));
    lines.extend(evidence.details.iter().map(|detail| visible(detail)));
    lines.join("\n")
}

fn total(cases: &[Outcome]) -> Duration {
    cases.iter().map(duration).sum()
}

fn duration(outcome: &Outcome) -> Duration {
    Duration::try_from_secs_f64(outcome.duration_ms / 1000.0).unwrap_or_default()
}
