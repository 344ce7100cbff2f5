//! The terminal report: short on green, precise on red.
//!
//! The sink follows a run on any `io::Write`. Whether there are colours, how wide a line is and whether a line may be
//! overwritten is told from outside in a [`Style`]; nothing here looks at a terminal or at the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::escape::{clip, visible};
use super::{changed, label, measure_line, plural, red, replay_command, score_line, skips};
use crate::case::CaseInfo;
use crate::event::{Event, Outcome, Provenance, RunRecord, Sink};
use crate::kill::{Kill, KillMatrix};
use crate::score::{EXIT_GREEN, Standing, exit_meaning, is_required, standing};
use crate::verdict::{Limit, Measure, VerdictKind};

/// Counterexample lines shown under a red case.
const DETAILS: usize = 6;
/// Narrowest line for which text is laid out; on a narrower terminal lines wrap by themselves.
const NARROW: usize = 40;

/// How much is said about what is not red.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Red cases and the last line only.
    Quiet,
    /// Red cases and a summary.
    #[default]
    Normal,
    /// A line per case as well.
    Verbose,
}

/// How the terminal is to be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether ANSI colours are wanted.
    pub colour: bool,
    /// Columns of a line.
    pub width: usize,
    /// Whether a progress line may be drawn and overwritten: only on a terminal.
    pub progress: bool,
    /// How much is said.
    pub detail: Detail,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, width: 100, progress: false, detail: Detail::Normal }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Ink {
    Green,
    Yellow,
    Red,
    Bold,
    Dim,
}

impl Style {
    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Green => "32",
            Ink::Yellow => "33",
            Ink::Red => "1;31",
            Ink::Bold => "1",
            Ink::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn columns(self) -> usize {
        self.width.max(NARROW)
    }
}

const fn ink(standing: Standing) -> Ink {
    match standing {
        Standing::Green => Ink::Green,
        Standing::Yellow => Ink::Yellow,
        Standing::Red => Ink::Red,
    }
}

/// A sink that follows a run on `W`.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    style: Style,
    provenance: Option<Provenance>,
    planned: usize,
    finished: usize,
    running: Vec<String>,
    red: usize,
    line_drawn: bool,
}

impl<W: Write> Terminal<W> {
    /// A sink that writes to `out`.
    pub fn new(out: W, style: Style) -> Self {
        let (provenance, running) = (None, Vec::new());
        let (planned, finished, red, line_drawn) = (0, 0, 0, false);
        Self { out, style, provenance, planned, finished, running, red, line_drawn }
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn clear_progress(&mut self) -> io::Result<()> {
        if self.line_drawn {
            write!(self.out, "\r\x1b[2K")?;
            self.line_drawn = false;
        }
        Ok(())
    }

    fn draw_progress(&mut self) -> io::Result<()> {
        if !self.style.progress || self.style.detail == Detail::Quiet {
            return Ok(());
        }
        let bar = bar(self.finished, self.planned, 16);
        let current = self.running.last().map_or("", String::as_str);
        let red = if self.red == 0 { String::new() } else { format!("  {} red", self.red) };
        let text = format!("{bar} {}/{}{red}  {current}", self.finished, self.planned);
        // One column is left free: a full line would wrap and could not be overwritten.
        let text: String = text.chars().take(self.style.width.saturating_sub(1)).collect();
        write!(self.out, "\r\x1b[2K{text}")?;
        self.line_drawn = true;
        self.out.flush()
    }

    fn started(&mut self, plan: &[CaseInfo], provenance: &Provenance) -> io::Result<()> {
        self.planned = plan.len();
        self.provenance = Some(provenance.clone());
        if self.style.detail == Detail::Quiet {
            return Ok(());
        }
        let required = plan.iter().filter(|case| is_required(case)).count();
        let contracts: BTreeSet<&str> = plan.iter().map(|case| case.contract.as_str()).collect();
        let text = format!(
            "{} of {}, {required} required, seed {}",
            plural(plan.len(), "case"),
            plural(contracts.len(), "contract"),
            provenance.seed
        );
        writeln!(self.out, "{}", self.style.paint(Ink::Dim, &text))?;
        self.draw_progress()
    }

    fn case_finished(&mut self, outcome: &Outcome) -> io::Result<()> {
        let day = self.provenance.as_ref().and_then(|p| p.started.get(..10)).unwrap_or_default();
        let standing = standing(outcome, day);
        let label = label(outcome, day);
        self.finished += 1;
        self.red += usize::from(standing == Standing::Red);
        let id = visible(&outcome.case.id);
        if let Some(at) = self.running.iter().position(|running| *running == id) {
            self.running.remove(at);
        }
        self.clear_progress()?;
        if standing == Standing::Red {
            self.write_red(outcome, label)?;
        } else if self.style.detail == Detail::Verbose {
            let word = self.style.paint(ink(standing), &format!("{label:<13}"));
            let summary = visible(&outcome.verdict.summary());
            writeln!(self.out, "{word} {id}  {}", self.style.paint(Ink::Dim, &summary))?;
        }
        self.draw_progress()
    }

    fn write_red(&mut self, outcome: &Outcome, label: &str) -> io::Result<()> {
        let style = self.style;
        let id = style.paint(Ink::Bold, &visible(&outcome.case.id));
        let severity = outcome.case.severity.name();
        writeln!(self.out, "{} {id} ({severity})", style.paint(Ink::Red, &label.to_uppercase()))?;
        self.field("claim", &outcome.case.claim)?;
        self.field("seen", &outcome.verdict.summary())?;
        if let Some(evidence) = outcome.verdict.evidence() {
            for measure in evidence.measures.iter().filter(|measure| !measure.holds()) {
                self.field("measure", &format!("{}{}", measure_line(measure), excess(measure)))?;
            }
            for detail in evidence.details.iter().take(DETAILS) {
                self.field("for instance", detail)?;
            }
            if let Some(more) = evidence.details.len().checked_sub(DETAILS).filter(|n| *n > 0) {
                self.field("", &format!("and {more} more, see the reports"))?;
            }
        }
        if let Some(provenance) = &self.provenance {
            let replay = replay_command(provenance, &outcome.case.id);
            // Not wrapped: it is there to be copied.
            writeln!(self.out, "  {:<13}{replay}", "replay")?;
        }
        writeln!(self.out)
    }

    fn field(&mut self, name: &str, text: &str) -> io::Result<()> {
        let text = visible(text);
        let mut head = name;
        for line in wrap(&text, self.style.columns().saturating_sub(15)) {
            writeln!(self.out, "  {head:<13}{line}")?;
            head = "";
        }
        Ok(())
    }

    fn finished(&mut self, record: &RunRecord) -> io::Result<()> {
        self.clear_progress()?;
        if self.style.detail != Detail::Quiet {
            self.write_contracts(record)?;
            for (need, count, why) in skips(record) {
                let text =
                    format!("{count} skipped for want of {}: {}", visible(need), visible(why));
                writeln!(self.out, "{}", self.style.paint(Ink::Yellow, &text))?;
            }
            let resumed = record.cases.iter().filter(|outcome| outcome.resumed).count();
            if resumed > 0 {
                writeln!(self.out, "{resumed} verdicts resumed from the journal")?;
            }
            for note in &record.notes {
                let text = format!("note: {}", visible(note));
                writeln!(self.out, "{}", self.style.paint(Ink::Yellow, &text))?;
            }
            if let Some(matrix) = &record.kill_matrix {
                write_matrix(&mut self.out, self.style, matrix)?;
            }
            if red(record).count() > 1 {
                writeln!(self.out, "red:")?;
                for outcome in red(record) {
                    let label = label(outcome, record.day());
                    writeln!(self.out, "  {label:<22}{}", visible(&outcome.case.id))?;
                }
            }
        }
        self.write_score(record)?;
        self.out.flush()
    }

    fn write_contracts(&mut self, record: &RunRecord) -> io::Result<()> {
        let widest = record.score.by_contract.keys().map(|name| name.chars().count()).max();
        let widest = widest.unwrap_or(0).min(40);
        for (name, score) in &record.score.by_contract {
            let mut tally: BTreeMap<VerdictKind, usize> = BTreeMap::new();
            let mine = record.cases.iter().filter(|outcome| outcome.case.contract == *name);
            let mut worst = Standing::Green;
            for outcome in mine {
                *tally.entry(outcome.verdict.kind()).or_default() += 1;
                worst = worst.max(standing(outcome, record.day()));
            }
            let tally: Vec<String> =
                tally.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
            let mark = match worst {
                Standing::Green => "✓",
                Standing::Yellow => "○",
                Standing::Red => "✗",
            };
            let name = clip(&visible(name), 40).into_owned();
            let bar = bar_u64(score.points, score.points_max, 12);
            let mark = self.style.paint(ink(worst), mark);
            writeln!(self.out, "{mark} {name:<widest$}  {bar}  {}", tally.join(", "))?;
        }
        Ok(())
    }

    fn write_score(&mut self, record: &RunRecord) -> io::Result<()> {
        let ink = if record.exit_code == EXIT_GREEN { Ink::Green } else { Ink::Red };
        for parameter in changed(record) {
            let text = self.style.paint(Ink::Yellow, &visible(&parameter));
            writeln!(self.out, "{text}")?;
        }
        let grade = format!("{} {}%", record.score.grade, record.score.percent);
        let grade = self.style.paint(ink, &grade);
        writeln!(self.out, "{grade}  {}", score_line(record))?;
        let meaning = exit_meaning(record.exit_code);
        let text = format!("exit {}: {meaning}", record.exit_code);
        writeln!(self.out, "{}", self.style.paint(ink, &text))
    }
}

impl<W: Write + Send> Sink for Terminal<W> {
    fn on(&mut self, event: &Event<'_>) -> io::Result<()> {
        match event {
            Event::Started { plan, provenance } => self.started(plan, provenance),
            Event::CaseStarted(case) => {
                self.running.push(visible(&case.id));
                self.draw_progress()
            }
            Event::CaseFinished(outcome) => self.case_finished(outcome),
            Event::Finished(record) => self.finished(record),
        }
    }
}

/// How far beyond its limit a broken measure is: ` (320 times the limit)`.
fn excess(measure: &Measure) -> String {
    match (measure.limit, measure.value) {
        (Some(Limit::AtMost(limit)), Some(value)) if limit > 0.0 && value > limit => {
            format!(" ({} times the limit)", super::number(value / limit))
        }
        _ => String::new(),
    }
}

fn bar(done: usize, of: usize, cells: usize) -> String {
    bar_u64(done as u64, of as u64, cells)
}

fn bar_u64(done: u64, of: u64, cells: usize) -> String {
    let filled = (u128::from(done) * cells as u128).checked_div(u128::from(of)).unwrap_or(0);
    let filled = usize::try_from(filled).unwrap_or(cells).min(cells);
    format!("{}{}", "█".repeat(filled), "░".repeat(cells - filled))
}

/// Lines of at most `width` characters, broken at spaces where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let chars: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + chars.len() > width {
            lines.push(String::new());
            used = 0;
        }
        if used > 0 {
            used += push(&mut lines, &[' ']);
        }
        for piece in chars.chunks(width.max(1)) {
            if used > 0 && used + piece.len() > width {
                lines.push(String::new());
                used = 0;
            }
            used += push(&mut lines, piece);
        }
    }
    lines
}

fn push(lines: &mut [String], chars: &[char]) -> usize {
    if let Some(line) = lines.last_mut() {
        line.extend(chars);
    }
    chars.len()
}

/// Writes the kill matrix: a line per gate with its marks, then what lived.
pub fn write_matrix(out: &mut impl Write, style: Style, matrix: &KillMatrix) -> io::Result<()> {
    writeln!(out, "{}", style.paint(Ink::Bold, "kill matrix"))?;
    for gate in &matrix.gates {
        let mine: Vec<_> = matrix.cells.iter().filter(|cell| cell.gate == *gate).collect();
        let marks: Vec<String> = mine
            .iter()
            .map(|cell| {
                let fault = visible(&cell.fault);
                match cell.kill {
                    Kill::Killed => style.paint(Ink::Green, &format!("✓ {fault}")),
                    Kill::Survived => style.paint(Ink::Red, &format!("✗ {fault} survived")),
                    Kill::WrongReason => style.paint(Ink::Red, &format!("? {fault} wrong-reason")),
                    Kill::NotRun => style.paint(Ink::Yellow, &format!("· {fault} not-run")),
                }
            })
            .collect();
        let marks = if marks.is_empty() {
            style.paint(Ink::Yellow, "no fault aimed at it")
        } else {
            marks.join("  ")
        };
        writeln!(out, "  {}: {marks}", visible(gate))?;
    }
    for cell in matrix.cells.iter().filter(|cell| cell.kill != Kill::Killed) {
        let (gate, fault) = (visible(&cell.gate), visible(&cell.fault));
        let note = visible(&cell.note);
        writeln!(out, "  {} {fault} at {gate}: {note}", cell.kill.name())?;
    }
    for case in &matrix.red_under_no_op {
        let text = format!("  red under no-op: {}", visible(case));
        writeln!(out, "{}", style.paint(Ink::Red, &text))?;
    }
    writeln!(out, "  {}", matrix.summary())
}
