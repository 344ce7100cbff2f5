//! `apr validate`: every violation of a model file.

use std::collections::{BTreeMap, BTreeSet};

use apr_harness::validate::{Checked, Histogram, Options, Quality, Violation, validate};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::ValidateArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::memory;
use crate::render::{Envelope, Terminal};

/// `validate`: what is wrong with a model.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ValidateOutput {
    /// The model as it was named.
    path: String,
    /// Whether nothing is wrong.
    ok: bool,
    /// What is wrong, in the order files, parts, tensors.
    violations: Vec<Violation>,
    /// How much was looked at.
    checked: Checked,
    /// Rule by rule and tensor by tensor; only with `--quality`.
    quality: Option<Quality>,
    /// What it took.
    resources: Resources,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Resources {
    /// Largest resident memory of the process, mapped file pages included; absent where the system does not say.
    peak_memory_bytes: Option<u64>,
}

pub(crate) fn run(args: &ValidateArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let options = Options { quality: args.quality, strict: args.strict };
    let validation = validate(&args.model.model, options)?;
    let output = ValidateOutput {
        path: args.model.model.display().to_string(),
        ok: validation.ok(),
        violations: validation.violations,
        checked: validation.checked,
        quality: validation.quality,
        resources: Resources { peak_memory_bytes: memory::peak() },
    };
    let exit = if output.ok { Exit::Success } else { Exit::Contract };
    if terminal.json {
        terminal.value(&Envelope::new("validate", "validate", output))?;
    } else {
        text(&output, terminal)?;
    }
    Ok(exit.into())
}

/// One block per rule, then what was looked at.
fn text(output: &ValidateOutput, terminal: &Terminal) -> Result<(), Failure> {
    let mut rules: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in &output.violations {
        rules.entry(&violation.rule).or_default().push(violation);
    }
    for (rule, violations) in rules {
        let places: BTreeSet<&str> = violations.iter().map(|one| one.place.as_str()).collect();
        let count = counted(violations.len(), "violation");
        terminal.line(&format!("{rule}: {count} in {}", counted(places.len(), "place")))?;
        for one in violations {
            let offset = one.offset.map(|offset| format!(" at byte {offset}")).unwrap_or_default();
            let mut line = format!("  {}{offset}: expected {}", one.place, one.expected);
            for (name, text) in [("found", &one.found), ("hint:", &one.hint)] {
                if !text.is_empty() {
                    line.extend(["; ", name, " ", text]);
                }
            }
            terminal.line(&line)?;
        }
    }
    if !terminal.quiet {
        if let Some(quality) = &output.quality {
            values(quality, terminal)?;
        }
        let Checked { files, bytes, tensors, values } = output.checked;
        let verdict = match output.violations.len() {
            0 => "valid".to_owned(),
            count => counted(count, "violation"),
        };
        let looked = format!("{files} file(s), {bytes} bytes, {tensors} tensors, {values} values");
        terminal.line(&format!("{verdict}; checked {looked}"))?;
    }
    Ok(())
}

/// One line per rule on values, then the tensors that break the most of them.
fn values(quality: &Quality, terminal: &Terminal) -> Result<(), Failure> {
    for rule in &quality.rules {
        let kept = rule.tensors - rule.broken;
        terminal
            .line(&format!("{}: {kept} of {} tensors, {}", rule.rule, rule.tensors, rule.claim))?;
    }
    for tensor in &quality.tensors {
        let Some(histogram) = &tensor.histogram else { continue };
        let name = apr_engine::error::printable(&tensor.name);
        let (dtype, zeros, non_finite) = (&tensor.dtype, tensor.zeros, tensor.non_finite);
        terminal.line(&format!("{name}: {dtype}, {zeros} zeros, {non_finite} not finite"))?;
        terminal.line(&format!("  {}", drawn(histogram)))?;
    }
    Ok(())
}

/// A histogram in one line: the taller a bin, the denser its sign.
fn drawn(histogram: &Histogram) -> String {
    const SIGNS: [char; 7] = [' ', '.', ':', '-', '=', '#', '@'];
    let tallest = histogram.counts.iter().copied().max().unwrap_or(0).max(1);
    let sign = |count: &u64| {
        // A bin with a value is never drawn as an empty one.
        let height = (count * (SIGNS.len() as u64 - 1)).div_ceil(tallest);
        SIGNS[height as usize]
    };
    let bins: String = histogram.counts.iter().map(sign).collect();
    format!("{:.2e} [{bins}] {:.2e}", histogram.from, histogram.to)
}

pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_with_one_value_among_many_is_not_drawn_empty() {
        let histogram = Histogram { from: -1.0, to: 1.0, counts: vec![1, 0, 1_000_000] };
        assert_eq!(drawn(&histogram), "-1.00e0 [. @] 1.00e0");
    }
}
