//! Charts as inline SVG: no scripts, no fonts, no network. Colours come from the page's style sheet by class.

use std::fmt::Write as _;

use super::escape::{clip, html};
use super::{label, measure_line};
use crate::event::RunRecord;
use crate::kill::{Kill, KillMatrix};
use crate::verdict::VerdictKind;

/// Width of a chart in its own units; the page scales it.
const WIDTH: usize = 760;
/// Height of one row.
const ROW: usize = 22;
/// Where the labels of rows end and the bars begin.
const LABELS: usize = 300;
/// Rows of the margin chart: the tightest ones.
const TIGHTEST: usize = 30;
/// Characters that fit left of the bars.
const LABEL_CHARS: usize = 44;

/// Points reached by contract, as horizontal bars.
pub fn contracts(record: &RunRecord) -> String {
    let rows: Vec<String> = record
        .score
        .by_contract
        .iter()
        .enumerate()
        .map(|(at, (name, score))| {
            let share = score.points as f64 / score.points_max.max(1) as f64;
            let class = if score.points_max == 0 {
                "skipped"
            } else if score.points == score.points_max {
                "corroborated"
            } else {
                "falsified"
            };
            let text = format!("{} of {}", score.points, score.points_max);
            row(at, name, name, share, class, &text)
        })
        .collect();
    svg("Score by contract", rows.len(), &rows.concat())
}

/// How much of each judged measure's allowed room is left, tightest first.
pub fn margins(record: &RunRecord) -> String {
    let mut margins: Vec<(f64, &str, String)> = Vec::new();
    for outcome in &record.cases {
        for measure in outcome.verdict.evidence().into_iter().flat_map(|seen| &seen.measures) {
            let (Some(limit), Some(value)) = (measure.limit, measure.value) else { continue };
            if let Some(margin) = limit.margin(value) {
                margins.push((margin, &outcome.case.id, measure_line(measure)));
            }
        }
    }
    margins.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1)));
    let all = margins.len();
    margins.truncate(TIGHTEST);
    let rows: Vec<String> = margins
        .iter()
        .enumerate()
        .map(|(at, (margin, id, line))| {
            let class = match *margin {
                margin if margin < 0.0 => "falsified",
                margin if margin < 0.2 => "inconclusive",
                _ => "corroborated",
            };
            let share = if *margin < 0.0 { 1.0 } else { *margin };
            let title = format!("{id}: {line}");
            row(at, id, &title, share, class, &format!("{:.0} %", margin * 100.0))
        })
        .collect();
    let title = format!("Room left below the limit: the tightest {} of {all}", rows.len());
    svg(&title, rows.len(), &rows.concat())
}

/// Verdict counts as one stacked bar with a legend.
pub fn verdicts(record: &RunRecord) -> String {
    let total = record.counts.total().max(1);
    let (mut bars, mut legend, mut x) = (String::new(), String::new(), 0.0);
    for (at, kind) in VerdictKind::ALL.into_iter().enumerate() {
        let count = record.cases.iter().filter(|case| case.verdict.kind() == kind).count();
        let width = WIDTH as f64 * count as f64 / total as f64;
        let name = kind.name();
        // Writing to a string cannot fail.
        let _ = write!(
            bars,
            r#"<rect class="{name}" x="{x:.2}" y="0" width="{width:.2}" height="26"><title>{count} {name}</title></rect>"#
        );
        let left = at * WIDTH / VerdictKind::ALL.len();
        let _ = write!(
            legend,
            r#"<rect class="{name}" x="{left}" y="38" width="10" height="10" rx="2"/><text x="{}" y="47">{count} {name}</text>"#,
            left + 15
        );
        x += width;
    }
    format!(
        r#"<svg viewBox="0 0 {WIDTH} 54" role="img" aria-label="Verdict counts"><g class="stack">{bars}</g>{legend}</svg>"#
    )
}

/// Gates by faults, one square per cell that was aimed at.
pub fn kills(matrix: &KillMatrix) -> String {
    const CELL: usize = 16;
    const HEAD: usize = 170;
    let mut body = String::new();
    for (at, fault) in matrix.faults.iter().enumerate() {
        let x = LABELS + at * CELL + CELL / 2;
        let name = html(&clip(fault, 30));
        let _ = write!(
            body,
            r#"<text transform="translate({x} {}) rotate(-60)">{name}</text>"#,
            HEAD - 6
        );
    }
    for (line, gate) in matrix.gates.iter().enumerate() {
        let y = HEAD + line * CELL;
        let name = html(&clip(gate, LABEL_CHARS));
        let right = LABELS - 8;
        let _ = write!(body, r#"<text class="end" x="{right}" y="{}">{name}</text>"#, y + CELL - 4);
        for (column, fault) in matrix.faults.iter().enumerate() {
            body.push_str(&kill_cell(matrix, gate, fault, (LABELS + column * CELL, y)));
        }
    }
    let width = LABELS + matrix.faults.len() * CELL + 90;
    let height = HEAD + matrix.gates.len() * CELL + 8;
    format!(
        r#"<svg class="matrix" viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="Kill matrix">{body}</svg>"#
    )
}

fn kill_cell(matrix: &KillMatrix, gate: &str, fault: &str, (x, y): (usize, usize)) -> String {
    let Some(cell) = matrix.cell(gate, fault) else {
        return format!(r#"<rect class="empty" x="{x}" y="{y}" width="14" height="14" rx="3"/>"#);
    };
    let class = match cell.kill {
        Kill::Killed => "corroborated",
        Kill::Survived => "falsified",
        Kill::WrongReason => "inconclusive",
        Kill::NotRun => "skipped",
    };
    let title = html(&format!("{gate} · {fault}: {} {}", cell.kill.name(), cell.note));
    format!(
        r#"<rect class="{class}" x="{x}" y="{y}" width="14" height="14" rx="3"><title>{title}</title></rect>"#
    )
}

fn row(at: usize, name: &str, title: &str, share: f64, class: &str, text: &str) -> String {
    let room = (WIDTH - LABELS - 110) as f64;
    let width = room * share.clamp(0.0, 1.0);
    let (y, baseline) = (at * ROW + 3, at * ROW + 16);
    let (right, after) = (LABELS - 8, LABELS as f64 + room + 10.0);
    format!(
        concat!(
            r#"<g><title>{title}</title><text class="end" x="{right}" y="{baseline}">{name}</text>"#,
            r#"<rect class="empty" x="{x}" y="{y}" width="{room:.1}" height="16" rx="3"/>"#,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width:.1}" height="16" rx="3"/>"#,
            r#"<text x="{after:.1}" y="{baseline}">{text}</text></g>"#
        ),
        title = html(title),
        right = right,
        baseline = baseline,
        name = html(&clip(name, LABEL_CHARS)),
        x = LABELS,
        y = y,
        room = room,
        class = class,
        width = width,
        after = after,
        text = html(text),
    )
}

fn svg(title: &str, rows: usize, body: &str) -> String {
    let height = rows.max(1) * ROW + 6;
    let body = if rows == 0 { r#"<text x="0" y="16">nothing to show</text>"# } else { body };
    let title = html(title);
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{body}</svg>"#)
}

/// The style class of a case's chip.
pub(crate) fn chip(outcome: &crate::event::Outcome, day: &str) -> String {
    let class = outcome.verdict.kind().name();
    format!(r#"<span class="chip {class}">{}</span>"#, label(outcome, day))
}
