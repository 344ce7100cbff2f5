//! One HTML file: no scripts, no network, dark and light by the reader's preference. The content security policy in
//! its head forbids everything but its own style sheet.

use std::fmt::Write as _;

use super::chart;
use super::escape::html;
use super::{changed, measure_line, recorded_command, red, replay_command, score_line, skips};
use crate::event::{Outcome, RunRecord};
use crate::score::{EXIT_GREEN, exit_meaning};

/// Forbids scripts, images, frames, forms and connections; the one inline style sheet is all the page needs.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("html.css");

/// Renders the record.
pub fn render(record: &RunRecord) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut out, record);
    out
}

/// Everything in front of what a page says.
pub(crate) fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"referrer\" content=\"no-referrer\">\
         <title>{}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n",
        html(title)
    )
}

/// Everything behind it.
pub(crate) const FOOT: &str = "</main></body></html>\n";

fn write_page(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    out.push_str(&head(&format!("apr qa: {} {} %", record.suite, record.score.percent)));
    write_head(out, record)?;
    let reds: Vec<&Outcome> = red(record).collect();
    if !reds.is_empty() {
        writeln!(out, "<section><h2>Red</h2>")?;
        for outcome in reds {
            write_red(out, record, outcome)?;
        }
        writeln!(out, "</section>")?;
    }
    writeln!(
        out,
        "<section><h2>Score by contract</h2>{}</section>\n<section><h2>Margins</h2>\
         <p class=\"note\">How much of the allowed room each measure left, the tightest first.</p>{}</section>",
        chart::contracts(record),
        chart::margins(record)
    )?;
    write_matrix(out, record)?;
    write_cases(out, record)?;
    write_provenance(out, record)?;
    out.push_str(FOOT);
    Ok(())
}

fn write_head(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    let class = if record.exit_code == EXIT_GREEN { "corroborated" } else { "falsified" };
    writeln!(
        out,
        "<header><div class=\"grade {class}\">{}<small>{} %</small></div><div><h1>Suite {}</h1>\
         <p class=\"verdict\">Exit {}: {}</p><p>{}</p></div></header>",
        html(&record.score.grade),
        record.score.percent,
        html(&record.suite),
        record.exit_code,
        exit_meaning(record.exit_code),
        html(&score_line(record)),
    )?;
    writeln!(out, "<section>{}", chart::verdicts(record))?;
    let skips = skips(record);
    let changed: Vec<String> = changed(record).collect();
    if !skips.is_empty() || !record.notes.is_empty() || !changed.is_empty() {
        writeln!(out, "<ul class=\"note\">")?;
        for parameter in changed {
            writeln!(out, "<li class=\"seen\">{}</li>", html(&parameter))?;
        }
        for (need, count, why) in skips {
            let (need, why) = (html(need), html(why));
            writeln!(out, "<li>{count} skipped for want of <code>{need}</code>: {why}</li>")?;
        }
        for note in &record.notes {
            writeln!(out, "<li>{}</li>", html(note))?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</section>")
}

fn write_red(out: &mut String, record: &RunRecord, outcome: &Outcome) -> std::fmt::Result {
    let replay = replay_command(&record.provenance, &outcome.case.id);
    writeln!(
        out,
        "<article>{} <b class=\"id\">{}</b> <span class=\"note\">{}</span><p>{}</p>\
         <p class=\"seen\">{}</p>",
        chart::chip(outcome, record.day()),
        html(&outcome.case.id),
        outcome.case.severity.name(),
        html(&outcome.case.claim),
        html(&outcome.verdict.summary()),
    )?;
    write_evidence(out, outcome)?;
    writeln!(out, "<pre class=\"replay\">{}</pre></article>", html(&replay))
}

fn write_evidence(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let Some(evidence) = outcome.verdict.evidence() else { return Ok(()) };
    if !evidence.measures.is_empty() {
        write!(out, "<ul class=\"measures\">")?;
        for measure in &evidence.measures {
            let class = if measure.holds() { "kept" } else { "lost" };
            write!(out, "<li class=\"{class}\">{}</li>", html(&measure_line(measure)))?;
        }
        write!(out, "</ul>")?;
    }
    if !evidence.details.is_empty() {
        let lines: Vec<String> = evidence.details.iter().map(|detail| html(detail)).collect();
        write!(out, "<pre>{}</pre>", lines.join("\n"))?;
    }
    Ok(())
}

fn write_matrix(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    let Some(matrix) = &record.kill_matrix else { return Ok(()) };
    writeln!(
        out,
        "<section><h2>Kill matrix</h2><p class=\"note\">{}</p><div class=\"wide\">{}</div>",
        html(&matrix.summary()),
        chart::kills(matrix)
    )?;
    if !matrix.red_under_no_op.is_empty() {
        writeln!(out, "<p class=\"seen\">Red under the fault that changes nothing:</p><ul>")?;
        for case in &matrix.red_under_no_op {
            writeln!(out, "<li>{}</li>", html(case))?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</section>")
}

fn write_cases(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    writeln!(out, "<section><h2>Cases</h2>")?;
    for contract in record.score.by_contract.keys() {
        let mine: Vec<&Outcome> =
            record.cases.iter().filter(|outcome| outcome.case.contract == *contract).collect();
        writeln!(
            out,
            "<details><summary>{} <span class=\"note\">{} cases</span></summary>\
             <div class=\"wide\"><table><tr><th>verdict</th><th>case</th><th>evidence</th><th class=\"end\">ms</th></tr>",
            html(contract),
            mine.len()
        )?;
        for outcome in mine {
            writeln!(
                out,
                "<tr><td>{}</td><td><span class=\"id\">{}</span><p class=\"note\">{}</p></td>\
                 <td>{}</td><td class=\"end\">{:.0}</td></tr>",
                chart::chip(outcome, record.day()),
                html(&outcome.case.id),
                html(&outcome.case.claim),
                html(&outcome.verdict.summary()),
                outcome.duration_ms
            )?;
        }
        writeln!(out, "</table></div></details>")?;
    }
    writeln!(out, "</section>")
}

fn write_provenance(out: &mut String, record: &RunRecord) -> std::fmt::Result {
    let from = &record.provenance;
    let mut rows = vec![
        ("command".to_owned(), recorded_command(from)),
        ("apr".to_owned(), from.apr_version.clone()),
        ("binary sha256".to_owned(), from.binary_sha256.clone()),
        ("catalogue sha256".to_owned(), from.catalogue_sha256.clone()),
        ("seed".to_owned(), from.seed.to_string()),
        ("started".to_owned(), from.started.clone()),
    ];
    rows.extend(from.parameters.iter().map(|value| ("parameter".to_owned(), value.to_string())));
    rows.extend(from.models.iter().map(|(name, sha)| (format!("model {name}"), sha.clone())));
    rows.extend(from.machine.iter().map(|(name, fact)| (name.clone(), fact.clone())));
    writeln!(out, "<section><h2>Provenance</h2><div class=\"wide\"><table>")?;
    for (name, value) in rows {
        let (name, value) = (html(&name), html(&value));
        writeln!(out, "<tr><th>{name}</th><td class=\"id\">{value}</td></tr>")?;
    }
    writeln!(out, "</table></div></section>")
}
