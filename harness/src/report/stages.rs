//! The ten stages as a table of 80 columns.

use std::fmt::Write as _;

use super::escape::visible;
use super::term::{Detail, Ink, Style};
use super::{label, number};
use crate::pipeline::{StageReport, StageStatus};
use crate::verdict::{Limit, Measure};

/// Renders the reports: a row each, then why a stage is not passed, then one line that says it all.
pub fn render(reports: &[StageReport<'_>], style: Style) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_table(&mut out, reports, style);
    out
}

fn write_table(
    out: &mut String,
    reports: &[StageReport<'_>],
    style: Style,
) -> Result<(), std::fmt::Error> {
    if style.detail != Detail::Quiet {
        let head = row("#", "stage", "in plain words", ["figure", "limit", "result"]);
        writeln!(out, "{}", style.paint(Ink::Bold, &head))?;
        for report in reports {
            write_stage(out, report, style)?;
        }
    }
    for report in reports.iter().filter(|report| report.status != StageStatus::Passed) {
        for reason in report.reasons() {
            let name = style.paint(ink(report.status), report.stage.name());
            writeln!(out, "{name}: {}", visible(&reason))?;
        }
    }
    for report in reports {
        for (gate, summary) in report.unusual() {
            let name = style.paint(Ink::Yellow, report.stage.name());
            writeln!(out, "{name}: unusual, no fault by itself: {gate}: {}", visible(&summary))?;
        }
    }
    let last = conclusion(reports);
    let healthy = reports.iter().all(|report| report.status == StageStatus::Passed);
    writeln!(out, "{}", style.paint(if healthy { Ink::Green } else { Ink::Red }, &last))
}

fn write_stage(
    out: &mut String,
    report: &StageReport<'_>,
    style: Style,
) -> Result<(), std::fmt::Error> {
    let at = report.stage.number().map_or_else(String::new, |at| at.to_string());
    let (figure, limit) = report.figure().map_or_else(Default::default, figures);
    let (name, words) = (report.stage.name(), report.stage.in_plain_words());
    let cells = row(&at, name, words, [&figure, &limit, ""]);
    let status = style.paint(ink(report.status), report.status.name());
    writeln!(out, "{cells} {status}")?;
    if style.detail == Detail::Verbose {
        for outcome in &report.outcomes {
            let kind = label(outcome, "");
            let summary = visible(&outcome.verdict.summary());
            writeln!(out, "      {kind}: {}: {summary}", outcome.case.gate)?;
        }
    }
    Ok(())
}

/// The cells of a row, at most 80 columns with its result.
fn row(at: &str, name: &str, words: &str, [figure, limit, result]: [&str; 3]) -> String {
    let row = format!("{at:>2} {name:<19} {words:<22} {figure:>9} {limit:>9} {result}");
    row.trim_end().to_owned()
}

fn figures(measure: &Measure) -> (String, String) {
    let limit = match measure.limit {
        Some(Limit::AtMost(bound)) => format!("<= {}", number(bound)),
        Some(Limit::AtLeast(bound)) => format!(">= {}", number(bound)),
        Some(Limit::Exactly(bound)) => format!("= {}", number(bound)),
        None => String::new(),
    };
    (measure.value.map_or("infinite".to_owned(), number), limit)
}

/// The line that says it all. The words of success stand there only when nothing at all is wrong or open.
fn conclusion(reports: &[StageReport<'_>]) -> String {
    let of = |status: StageStatus| {
        let of = reports.iter().filter(move |report| report.status == status);
        of.map(|report| report.stage.name()).collect::<Vec<_>>()
    };
    let (failed, open) = (of(StageStatus::Failed), of(StageStatus::NotMeasured));
    let numbered = reports.iter().filter(|report| report.stage.number().is_some());
    let all = numbered.clone().count();
    let passed = numbered.filter(|report| report.status == StageStatus::Passed).count();
    if failed.is_empty() && open.is_empty() && !reports.is_empty() {
        return format!("{passed}/{all} STAGES PASSED");
    }
    let mut line = format!("{passed} of {all} stages passed");
    for (what, names) in [("FAILED", failed), ("not measured", open)] {
        if !names.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(line, "; {what}: {}", names.join(", "));
        }
    }
    line
}

const fn ink(status: StageStatus) -> Ink {
    match status {
        StageStatus::Passed => Ink::Green,
        StageStatus::Failed => Ink::Red,
        StageStatus::NotMeasured => Ink::Yellow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Severity;
    use crate::event::Outcome;
    use crate::pipeline::{PipelineStage, sum_up};
    use crate::runner::planned_for_tests;
    use crate::verdict::{Evidence, Verdict};

    fn outcomes(verdicts: &[Verdict]) -> (Vec<crate::judge::Planned>, Vec<Outcome>) {
        let mut cases = planned_for_tests("stages", verdicts.len());
        for (case, stage) in cases.iter_mut().zip(PipelineStage::ALL) {
            let mut gate = (*case.gate).clone();
            gate.stage = Some(stage);
            case.gate = gate.into();
        }
        let outcome = |(case, verdict): (&crate::judge::Planned, &Verdict)| Outcome {
            case: case.info.clone(),
            verdict: verdict.clone(),
            duration_ms: 0.0,
            resumed: false,
        };
        let outcomes = cases.iter().zip(verdicts).map(outcome).collect();
        (cases, outcomes)
    }

    fn seen(value: f64) -> Verdict {
        let limit = Limit::AtMost(1e-10);
        Evidence::new(9, "nine rows").measure(Measure::judged("nmse", value, limit)).verdict()
    }

    fn table(verdicts: &[Verdict]) -> String {
        let (cases, outcomes) = outcomes(verdicts);
        render(&sum_up(&cases, &outcomes), Style::default())
    }

    #[test]
    fn the_table_fits_eighty_columns_whatever_became_of_the_stages() {
        for verdict in [seen(1.234e-15), seen(f64::NAN), Verdict::skipped("model", "none")] {
            let table = table(&vec![verdict; 12]);
            for line in table.lines().take(13) {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn the_words_of_success_stand_there_only_when_nothing_is_wrong_or_open() {
        let words = "10/10 STAGES PASSED";
        let mut verdicts = vec![seen(0.0); 12];
        assert!(table(&verdicts).ends_with(&format!("{words}\n")));
        for (at, verdict) in [
            (4, seen(1.0)),
            (7, Verdict::broken("b")),
            (10, seen(1.0)),
            (11, Verdict::skipped("model", "n")),
        ] {
            let before = std::mem::replace(&mut verdicts[at], verdict.clone());
            let table = table(&verdicts);
            assert!(!table.contains(words), "{table}");
            let name = PipelineStage::ALL[at].name();
            let open = !matches!(verdict, Verdict::Falsified(_));
            let what = if open { "not measured" } else { "FAILED" };
            assert!(table.contains(&format!("{what}: {name}")), "{table}");
            verdicts[at] = before;
        }
    }

    #[test]
    fn an_unusual_observation_is_shown_and_decides_nothing() {
        let (cases, mut outcomes) = outcomes(&vec![seen(0.0); 12]);
        let observed = Outcome {
            case: crate::case::CaseInfo { severity: Severity::Info, ..cases[4].info.clone() },
            verdict: seen(1.0),
            ..outcomes[4].clone()
        };
        let mut cases = cases;
        cases.push(cases[4].clone());
        outcomes.push(observed);
        let table = render(&sum_up(&cases, &outcomes), Style::default());
        assert!(table.ends_with("10/10 STAGES PASSED\n"), "{table}");
        assert!(table.contains("attention: unusual, no fault by itself"), "{table}");
        // A stage of which there are observations alone is not measured.
        let alone: Vec<Outcome> = outcomes.pop().into_iter().collect();
        let table = render(&sum_up(&cases[12..], &alone), Style::default());
        assert!(table.contains("0 of 10 stages passed"), "{table}");
    }

    #[test]
    fn a_stage_that_no_gate_spoke_of_is_not_measured() {
        assert!(
            table(&[seen(0.0), seen(0.0)])
                .contains("2 of 10 stages passed; not measured: positional")
        );
    }
}
