//! Markdown: a page for a job summary or a pull request. What a model wrote stands in code spans only.

use std::fmt::Write as _;

use super::escape::{clip, markdown, markdown_code};
use super::{
    changed, label, measure_line, recorded_command, red, replay_command, score_line, skips,
};
use crate::event::{Outcome, RunRecord};
use crate::kill::KillMatrix;
use crate::score::{Standing, exit_meaning, standing};

/// Job summaries end at one mebibyte: rows beyond this many are counted instead of listed.
const ROWS: usize = 1000;
/// Longest quoted text in a table cell, in characters.
const CELL: usize = 300;

/// Renders the record.
pub fn render(record: &RunRecord) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_head(&mut out, record);
    let _ = write_reds(&mut out, record);
    let _ = write_contracts(&mut out, record);
    if let Some(matrix) = &record.kill_matrix {
        let _ = write_matrix(&mut out, matrix);
    }
    let _ = write_cases(&mut out, record);
    let _ = write_provenance(&mut out, record);
    out
}

fn write_head(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    let (score, counts) = (&record.score, &record.counts);
    writeln!(out, "# Suite {}: {} {} %\n", markdown(&record.suite), score.grade, score.percent)?;
    writeln!(
        out,
        "**Exit {}: {}.** {}\n",
        record.exit_code,
        exit_meaning(record.exit_code),
        markdown(&score_line(record))
    )?;
    writeln!(out, "| corroborated | falsified | inconclusive | skipped | waived | broken |")?;
    writeln!(out, "|---:|---:|---:|---:|---:|---:|")?;
    writeln!(
        out,
        "| {} | {} | {} | {} | {} | {} |\n",
        counts.corroborated,
        counts.falsified,
        counts.inconclusive,
        counts.skipped,
        counts.waived,
        counts.broken
    )?;
    for parameter in changed(record) {
        writeln!(out, "- **{}**", markdown(&parameter))?;
    }
    for (need, count, why) in skips(record) {
        writeln!(out, "- {count} skipped for want of {}: {}", code(need), markdown(why))?;
    }
    for note in &record.notes {
        writeln!(out, "- note: {}", code(note))?;
    }
    Ok(())
}

fn write_reds(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    for outcome in red(record).take(ROWS) {
        let label = label(outcome, record.day());
        writeln!(out, "\n## {label}: {}\n", code(&outcome.case.id))?;
        writeln!(out, "{} ({})\n", markdown(&outcome.case.claim), outcome.case.severity.name())?;
        writeln!(out, "- seen: {}", code(&outcome.verdict.summary()))?;
        if let Some(evidence) = outcome.verdict.evidence() {
            for measure in &evidence.measures {
                let mark = if measure.holds() { "" } else { "**broken** " };
                writeln!(out, "- {mark}{}", code(&measure_line(measure)))?;
            }
            for detail in &evidence.details {
                writeln!(out, "- for instance {}", code(detail))?;
            }
        }
        let replay = replay_command(&record.provenance, &outcome.case.id);
        writeln!(out, "- replay: {}", code(&replay))?;
    }
    Ok(())
}

fn write_contracts(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    writeln!(out, "\n## Contracts\n\n| contract | points | of | cases |\n|---|---:|---:|---:|")?;
    for (name, score) in &record.score.by_contract {
        let (points, of) = (score.points, score.points_max);
        writeln!(out, "| {} | {points} | {of} | {} |", markdown(name), score.cases)?;
    }
    Ok(())
}

fn write_matrix(out: &mut String, matrix: &KillMatrix) -> std::fmt::Result {
    writeln!(out, "\n## Kill matrix\n\n{}\n", markdown(&matrix.summary()))?;
    writeln!(out, "| gate | fault | | first red | seen |\n|---|---|---|---|---|")?;
    for cell in &matrix.cells {
        let first = cell.first_red.as_deref().map(code).unwrap_or_default();
        let kill = cell.kill.name();
        let (gate, fault) = (code(&cell.gate), code(&cell.fault));
        writeln!(out, "| {gate} | {fault} | {kill} | {first} | {} |", code(&cell.note))?;
    }
    for case in &matrix.red_under_no_op {
        writeln!(out, "\n**Red under no-op:** {}", code(case))?;
    }
    Ok(())
}

fn write_cases(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    writeln!(out, "\n## Cases\n\n<details><summary>{} cases</summary>\n", record.cases.len())?;
    writeln!(out, "| case | verdict | evidence | ms |\n|---|---|---|---:|")?;
    for outcome in record.cases.iter().take(ROWS) {
        write_row(out, outcome, record.day())?;
    }
    if let Some(more) = record.cases.len().checked_sub(ROWS).filter(|more| *more > 0) {
        writeln!(out, "\n{more} more in the JSON record.")?;
    }
    writeln!(out, "\n</details>")
}

fn write_row(out: &mut String, outcome: &Outcome, day: &str) -> std::fmt::Result {
    let label = match standing(outcome, day) {
        Standing::Green => label(outcome, day).to_owned(),
        Standing::Yellow => format!("*{}*", label(outcome, day)),
        Standing::Red => format!("**{}**", label(outcome, day)),
    };
    let (id, summary) = (code(&outcome.case.id), code(&outcome.verdict.summary()));
    writeln!(out, "| {id} | {label} | {summary} | {:.0} |", outcome.duration_ms)
}

fn write_provenance(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    let from = &record.provenance;
    writeln!(out, "\n## Provenance\n")?;
    writeln!(out, "- command: {}", code(&recorded_command(from)))?;
    writeln!(out, "- apr {}, binary {}", code(&from.apr_version), code(&from.binary_sha256))?;
    writeln!(out, "- catalogue {}, seed {}", code(&from.catalogue_sha256), from.seed)?;
    writeln!(out, "- started {}", code(&from.started))?;
    for value in &from.parameters {
        writeln!(out, "- parameter {}", code(&value.to_string()))?;
    }
    for (name, sha) in &from.models {
        writeln!(out, "- model {}: {}", code(name), code(sha))?;
    }
    for (name, fact) in &from.machine {
        writeln!(out, "- {}: {}", markdown(name), code(fact))?;
    }
    Ok(())
}

fn code(text: &str) -> String {
    markdown_code(&clip(text, CELL))
}
