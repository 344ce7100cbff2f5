//! Reports: renderings of one record, and sinks that put them somewhere.
//!
//! Every text format is a pure function `RunRecord → String`; [`file::ReportFile`] writes one of them atomically when the run
//! ends, [`term::Terminal`] follows the run. Model output is attacker-controlled, so nothing reaches a report but through
//! [`escape`]. Reports never judge: verdicts and scores are taken as they are.

pub mod bench;
pub mod chart;
pub mod escape;
pub mod file;
pub mod github;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod profile;
pub mod sarif;
pub mod sheet;
pub mod stages;
pub mod tap;
pub mod term;

#[cfg(test)]
mod tests;

use crate::event::{Outcome, Provenance, RunRecord};
use crate::score::{Standing, standing};
use crate::verdict::{Limit, Measure, Verdict};

/// The formats in which a finished run can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The record itself.
    Json,
    /// JUnit XML.
    Junit,
    /// A Markdown page, fit for a job summary.
    Markdown,
    /// One self-contained HTML page with charts.
    Html,
    /// TAP version 14.
    Tap,
    /// SARIF 2.1.0.
    Sarif,
    /// GitHub workflow annotations.
    Github,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Json, Self::Junit, Self::Markdown, Self::Html, Self::Tap, Self::Sarif, Self::Github];

    /// The name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Junit => "junit",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Tap => "tap",
            Self::Sarif => "sarif",
            Self::Github => "github",
        }
    }

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The usual file name of a report in this format.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Json => "report.json",
            Self::Junit => "junit.xml",
            Self::Markdown => "report.md",
            Self::Html => "report.html",
            Self::Tap => "report.tap",
            Self::Sarif => "report.sarif",
            Self::Github => "annotations.txt",
        }
    }

    /// Renders `record`.
    ///
    /// # Errors
    /// When a serialiser of the format refuses the record.
    pub fn render(self, record: &RunRecord) -> std::io::Result<String> {
        match self {
            Self::Json => json::render(record),
            Self::Junit => junit::render(record),
            Self::Markdown => Ok(markdown::render(record)),
            Self::Html => Ok(html::render(record)),
            Self::Tap => Ok(tap::render(record)),
            Self::Sarif => sarif::render(record),
            Self::Github => Ok(github::render(record)),
        }
    }
}

/// The word under which a case is shown; an expired waiver, a required skip and an observation outside of its usual range
/// are called by their name.
pub(crate) fn label(outcome: &Outcome, day: &str) -> &'static str {
    match (&outcome.verdict, standing(outcome, day)) {
        (Verdict::Falsified(_), Standing::Yellow) => "unusual",
        (Verdict::Waived { .. }, Standing::Red) => "waiver expired",
        (Verdict::Skipped { .. }, Standing::Red) => "skipped, but required",
        (verdict, _) => verdict.kind().name(),
    }
}

/// The red cases of a run, in plan order.
pub(crate) fn red(record: &RunRecord) -> impl Iterator<Item = &Outcome> {
    record.cases.iter().filter(|outcome| standing(outcome, record.day()) == Standing::Red)
}

/// Skips by need, most frequent first.
pub(crate) fn skips(record: &RunRecord) -> Vec<(&str, usize, &str)> {
    let mut needs: Vec<(&str, usize, &str)> = Vec::new();
    for outcome in &record.cases {
        if let Verdict::Skipped { need, why } = &outcome.verdict {
            match needs.iter_mut().find(|(known, _, _)| known == need) {
                Some((_, count, _)) => *count += 1,
                None => needs.push((need, 1, why)),
            }
        }
    }
    needs.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
    needs
}

/// The parameters that have another value than their default: what was judged is not what the catalogue says.
pub(crate) fn changed(record: &RunRecord) -> impl Iterator<Item = String> {
    record.provenance.parameters.iter().map(|value| format!("parameter {value}"))
}

/// "n corroborated / n required / n not measured": stands beside every score.
pub(crate) fn score_line(record: &RunRecord) -> String {
    let score = &record.score;
    let unproven = match score.unproven {
        None => String::new(),
        Some(0) => ", every gate proven".to_owned(),
        Some(count) => format!(", {count} corroborated by unproven gates"),
    };
    format!(
        "{} of {} points · {} corroborated / {} required / {} not measured{unproven}",
        score.points,
        score.points_max,
        score.corroborated_required,
        score.required,
        score.not_measured
    )
}

/// A number in four significant digits, plain where that is readable.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if value.fract() == 0.0 && size < 1e9 {
        format!("{value:.0}")
    } else if (1e-3..1e6).contains(&size) {
        let digits = (3 - size.log10().floor() as i32).clamp(0, 6);
        let plain = format!("{value:.*}", usize::try_from(digits).unwrap_or(0));
        // Zeros in front of the point count.
        let short = plain.trim_end_matches('0').trim_end_matches('.');
        if plain.contains('.') { short.to_owned() } else { plain }
    } else {
        let scientific = format!("{value:.2e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// `1 case`, `2 cases`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A measure against its limit: `nmse-worst-row 0.032 > 0.0001`; a broken limit is told apart from a kept one.
pub(crate) fn measure_line(measure: &Measure) -> String {
    let value = measure.value.map_or("not finite".to_owned(), number);
    let unit = if measure.unit.is_empty() { String::new() } else { format!(" {}", measure.unit) };
    let name = &measure.name;
    let Some(limit) = measure.limit else {
        return format!("{name} {value}{unit}");
    };
    let held = measure.holds();
    let (sign, bound) = match (limit, held) {
        (Limit::AtMost(bound), true) => ("≤", bound),
        (Limit::AtMost(bound), false) => (">", bound),
        (Limit::AtLeast(bound), true) => ("≥", bound),
        (Limit::AtLeast(bound), false) => ("<", bound),
        (Limit::Exactly(bound), true) => ("=", bound),
        (Limit::Exactly(bound), false) => ("≠", bound),
    };
    let sign = if measure.value.is_none() { "against" } else { sign };
    format!("{name} {value}{unit} {sign} {}{unit}", number(bound))
}

/// Options of a recorded command that say which cases ran, not how: a replay of one case drops them with their value.
const SELECTING: [&str; 7] =
    ["--case", "--shard", "--journal", "--report", "--reports", "--filter", "-f"];
/// Switches that a replay drops.
const SWITCHES: [&str; 3] = ["--resume", "--fail-fast", "--prove"];

/// The command that runs one case again, quoted for a POSIX shell: the recorded command with `--case ID` in place of whatever selected cases.
pub fn replay_command(provenance: &Provenance, case: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut recorded = provenance.command.iter();
    while let Some(word) = recorded.next() {
        if SELECTING.contains(&word.as_str()) {
            recorded.next();
        } else if !SWITCHES.contains(&word.as_str())
            && !SELECTING.iter().any(|option| is_assignment(word, option))
        {
            words.push(escape::shell(word));
        }
    }
    if words.is_empty() {
        words.extend(["apr".to_owned(), "qa".to_owned()]);
    }
    words.extend(["--case".to_owned(), escape::shell(case)]);
    words.join(" ")
}

/// The recorded command, quoted for a POSIX shell.
pub(crate) fn recorded_command(provenance: &Provenance) -> String {
    let words: Vec<String> = provenance.command.iter().map(|word| escape::shell(word)).collect();
    words.join(" ")
}

fn is_assignment(word: &str, option: &str) -> bool {
    word.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))
}
