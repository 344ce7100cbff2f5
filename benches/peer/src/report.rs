//! What was measured, as a table for the terminal, as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use apr_harness::bench::compute::Work;
use apr_harness::bench::{Outcome as Follows, Ratio};
use apr_harness::report::escape::visible;
use serde::Serialize;

use crate::answers::Answers;
use crate::limits::{Compute, Memory};
use crate::measure::{Compared, Measure, Options, Outcome};
use crate::turns::Quartiles;

/// Everything that was measured, and where.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// When it began, UTC, RFC 3339.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
    /// Commit of this repository.
    pub commit: String,
    /// Version of llama.cpp and of the crate that builds it.
    pub peer: String,
    /// What llama.cpp says of its build.
    pub peer_build: String,
    /// Compiler flags of both sides, in words.
    pub flags: String,
    /// What is known of the machine.
    pub machine: BTreeMap<String, String>,
    /// How much was measured.
    pub options: Options,
    /// One for each model and number of threads.
    pub rows: Vec<Row>,
}

/// A model on a number of threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the file.
    pub model: String,
    /// SHA-256 of it.
    pub sha256: String,
    /// Types of the weights with their share of the bytes, largest first.
    pub types: Vec<(String, f64)>,
    /// Threads of both sides.
    pub threads: usize,
    /// Share of the processors that other programs took meanwhile, where the system tells.
    pub elsewhere: Option<f64>,
    /// What came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Report {
    /// Whether every row is a result.
    pub fn comparable(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.outcome.fault.is_none())
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_markdown(&mut out);
        out
    }

    fn write_markdown(&self, out: &mut String) -> fmt::Result {
        let date = self.started.split('T').next().unwrap_or_default();
        writeln!(out, "# apr and llama.cpp in turns, {date}\n")?;
        writeln!(out, "```console\n$ {}\n```\n", self.command.join(" "))?;
        writeln!(out, "- began {}; apr at {}; {}", self.started, self.commit, self.peer)?;
        let machine: Vec<String> =
            self.machine.iter().map(|(name, value)| format!("{name} {}", cell(value))).collect();
        writeln!(out, "- machine: {}", machine.join(", "))?;
        writeln!(out, "- flags: {}", self.flags)?;
        writeln!(out, "- llama.cpp was built with: {}", cell(&self.peer_build))?;
        let Options { prompt, first, decode, rounds, settle } = self.options;
        writeln!(
            out,
            "- prefill of {prompt} tokens, first token behind {first}, {decode} decoded tokens, {rounds} rounds of A B B A, \
             {} ms of quiet before each run\n",
            settle.as_millis()
        )?;
        writeln!(
            out,
            "Medians and quartiles. The last column: how many times as fast apr is, the median over the pairs with bounds"
        )?;
        writeln!(out, "that err in one of a hundred cases.\n")?;
        writeln!(
            out,
            "| model | threads | measure | apr | llama.cpp | setting | apr / llama.cpp |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let head = format!("| {} | {} |", cell(&row.model), row.threads);
            for line in lines(&row.outcome) {
                writeln!(out, "{head} {} |", line.map(|text| cell(&text)).join(" | "))?;
            }
            if let Some(fault) = &row.outcome.fault {
                writeln!(out, "{head} **answers differ, not comparable** | {} ||||", cell(fault))?;
            }
        }
        writeln!(out, "\n## Answers\n")?;
        for row in &self.rows {
            for answers in &row.outcome.answers {
                let (model, threads) = (cell(&row.model), threads(row));
                writeln!(out, "- {model}, {threads}, {}", cell(&told(answers)))?;
            }
        }
        self.write_scaling(out)?;
        writeln!(out, "\n## Neighbours\n")?;
        for row in &self.rows {
            writeln!(out, "- {}, {}: {}", cell(&row.model), threads(row), neighbours(row))?;
        }
        writeln!(out, "\n## Files\n")?;
        let mut seen: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !seen.contains(&row.sha256.as_str()) {
                seen.push(&row.sha256);
                writeln!(out, "- {}: {}; SHA-256 {}", cell(&row.model), types(row), row.sha256)?;
            }
        }
        Ok(())
    }

    /// Speeds with two threads as multiples of those with one, where both were measured.
    fn write_scaling(&self, out: &mut String) -> fmt::Result {
        let pairs = self.rows.iter().filter(|row| row.threads == 1).filter_map(|one| {
            let same = |row: &&Row| row.threads == 2 && row.sha256 == one.sha256;
            Some((one, self.rows.iter().find(same)?))
        });
        let mut head = "\n## Two threads against one\n\nMedians of this run.\n\n";
        for (one, two) in pairs {
            let compared = one.outcome.compared.iter().zip(&two.outcome.compared);
            let timed = compared
                .filter(|(one, _)| matches!(one.measure, Measure::Prefill | Measure::Decode));
            let told: Vec<String> = timed
                .map(|(one, two)| {
                    let name = one.measure.name();
                    let ours = one.ours_ms.median / two.ours_ms.median;
                    let theirs = one.theirs_ms.median / two.theirs_ms.median;
                    format!("{name} {ours:.2}, llama.cpp {theirs:.2}")
                })
                .collect();
            if !told.is_empty() {
                writeln!(out, "{head}- {}: {}", cell(&one.model), told.join("; "))?;
                head = "";
            }
        }
        Ok(())
    }
}

impl Row {
    /// As a table of about a hundred columns.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "{}, {}: {}", visible(&self.model), threads(self), types(self))?;
        if let Some(first) = self.outcome.compared.first() {
            let ratio = format!("times as fast, {} pairs (99 %)", first.ratio.pairs);
            let head = ["", &self.outcome.ours, "llama.cpp", "", &ratio].map(str::to_owned);
            let lines = lines(&self.outcome);
            for [name, ours, theirs, setting, ratio] in std::iter::once(head).chain(lines) {
                writeln!(out, "  {name:<15} {ours:<22} {theirs:<22} {setting:<10} {ratio}")?;
            }
        }
        for answers in &self.outcome.answers {
            writeln!(out, "  {:<15} {}", "answers", visible(&told(answers)))?;
        }
        writeln!(out, "  {:<15} {}", "neighbours", neighbours(self))?;
        if let Some(fault) = &self.outcome.fault {
            writeln!(out, "  ANSWERS DIFFER, not comparable: {}", visible(fault))?;
        }
        Ok(())
    }
}

/// Name, ours, theirs, their setting, ratio: a line for each measure, and one for each of their limits.
fn lines(outcome: &Outcome) -> Vec<[String; 5]> {
    let mut lines: Vec<[String; 5]> = outcome.compared.iter().map(line).collect();
    lines.extend(outcome.compute.as_ref().map(compute));
    lines.extend(outcome.memory.as_ref().map(memory));
    lines
}

fn line(compared: &Compared) -> [String; 5] {
    let speed = matches!(compared.measure, Measure::Prefill | Measure::Decode);
    let cell = |ms: &Quartiles| {
        if speed {
            let rate = |ms: f64| compared.tokens as f64 / (ms / 1e3);
            // The slow quartile of time is the lower one of speed.
            let [lower, median, upper] = [ms.upper, ms.median, ms.lower].map(rate);
            figure(Quartiles { lower, median, upper })
        } else {
            figure(*ms)
        }
    };
    let unit = if speed { "tok/s" } else { "ms" };
    [
        format!("{}, {unit}", compared.measure.name()),
        cell(&compared.ours_ms),
        cell(&compared.theirs_ms),
        setting(&compared.peer).to_owned(),
        ratio(&compared.ratio),
    ]
}

fn memory(memory: &Memory) -> [String; 5] {
    [
        "memory".to_owned(),
        share(memory.ours),
        share(memory.theirs),
        String::new(),
        format!(
            "of {} GB/s, {:.1} MB per token",
            figure(billions(memory.read)),
            memory.bytes_per_token as f64 / 1e6
        ),
    ]
}

fn compute(compute: &Compute) -> [String; 5] {
    let Work { bytes, floats } = compute.multiply_adds;
    // Packed weights are multiplied as bytes, plain ones and attention as floats.
    let parts = [(bytes, compute.bytes, "bytes"), (floats, compute.floats, "floats")];
    let told = parts.into_iter().filter(|(count, ..)| *count > 0).map(|(count, rate, name)| {
        format!("{:.1} G {name} at {} G/s", count as f64 / 1e9, figure(billions(rate)))
    });
    [
        "compute".to_owned(),
        share(compute.ours),
        share(compute.theirs),
        String::new(),
        format!("of {}", told.collect::<Vec<_>>().join(", ")),
    ]
}

fn share(Quartiles { lower, median, upper }: Quartiles) -> String {
    format!("{:.0} % ({:.0}-{:.0})", 100.0 * median, 100.0 * lower, 100.0 * upper)
}

fn billions(Quartiles { lower, median, upper }: Quartiles) -> Quartiles {
    Quartiles { lower: lower / 1e9, median: median / 1e9, upper: upper / 1e9 }
}

fn figure(Quartiles { lower, median, upper }: Quartiles) -> String {
    let digits = usize::from(median < 1000.0);
    format!("{median:.digits$} ({lower:.digits$}-{upper:.digits$})")
}

fn ratio(ratio: &Ratio) -> String {
    let follows = match ratio.outcome {
        Follows::Slower => "slower",
        Follows::Faster => "faster",
        Follows::Equal => "equal",
        Follows::Open => "cannot tell",
    };
    let Ratio { ratio, lower, upper, .. } = ratio;
    format!("{ratio:.3} ({lower:.3}-{upper:.3}) {follows}")
}

/// What stands in brackets behind the name of a side.
fn setting(peer: &str) -> &str {
    peer.split_once('(').map_or(peer, |(_, rest)| rest.trim_end_matches(')'))
}

fn told(answers: &Answers) -> String {
    let [ours, theirs] = answers.errors;
    let mut text = format!(
        "{}: logits {ours:.1e} and {theirs:.1e} from exact ones (NMSE, apr first; bound {:.0e}), {:.1e} from each other",
        setting(&answers.peer),
        answers.bound,
        answers.nmse
    );
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    // Writing to a string cannot fail.
    let _ = match &answers.parting {
        None => {
            write!(text, "; all {} tokens alike, {}", answers.tokens, short(&answers.ours_sha256))
        }
        Some(at) => write!(
            text,
            "; {} of {} tokens alike, then {} and {}, where apr's first leads its second by {:.1e} and theirs by {:.1e} (rounding turns {:.1e}), {:.1e} and {:.1e} from exact; {} and {}",
            at.alike,
            answers.tokens,
            at.ours,
            at.theirs,
            at.lead,
            at.behind,
            at.reach,
            at.errors[0],
            at.errors[1],
            short(&answers.ours_sha256),
            short(&answers.theirs_sha256)
        ),
    };
    text
}

fn neighbours(row: &Row) -> String {
    let share = row.elsewhere.map(|share| format!("{:.0} %", 100.0 * share));
    format!(
        "other programs took {} of the processors",
        share.as_deref().unwrap_or("an unknown share")
    )
}

fn threads(row: &Row) -> String {
    format!("{} thread{}", row.threads, if row.threads == 1 { "" } else { "s" })
}

fn types(row: &Row) -> String {
    let shares = row.types.iter().map(|(name, share)| format!("{name} {:.0} %", 100.0 * share));
    shares.collect::<Vec<_>>().join(", ")
}

/// Text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    visible(text).replace('|', "\\|").replace('<', "&lt;")
}
