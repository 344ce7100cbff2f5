//! `hostile`: malformed files give their error, quickly, within memory, and without a crash.
//!
//! Each file is given to the executable as a user would give it, in a process of its own, so that a hang, a crash or a
//! request for all memory is seen from outside and costs one row.

use std::time::Duration;

use apr_engine::{Code, Error, Result};

use super::Planned;
use super::context::{JudgeContext, Look};
use crate::contract::check;
use crate::fixture::hostile::{self, Hostile};
use crate::subject::{CommandOutput, Limits};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Time after which a file counts as hung, beyond the limit it is judged by: a slow machine is not a hang.
const HUNG: Duration = Duration::from_secs(20);
/// A prompt with a control string in it, so that tokenizer and template have something to do.
const PROMPT: &str = "hello <|im_end|> 2+2=";

/// Judges `check` on `case`.
pub(super) fn judge(check: &check::Hostile, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let rows: Vec<Hostile> =
        hostile::all().into_iter().filter(|row| row.id.starts_with(&check.rows)).collect();
    let scratch = ctx.scratch(case)?;
    let memory = check.memory_limit_mib.saturating_mul(1 << 20);
    let limits = Limits { time: HUNG, memory: Some(memory) };
    let mut wrong = Vec::new();
    let mut slowest = (Duration::ZERO, "");
    for row in &rows {
        let directory = scratch.join(row.id);
        let path = std::fs::create_dir_all(&directory)
            .and_then(|()| (row.build)().write(&directory))
            .map_err(|error| Box::new(Verdict::broken(format!("{}: {error}", row.id))))?;
        let args = ["run", &path.to_string_lossy(), PROMPT, "-n", "0", "--context", "64"];
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let output = ctx.run_apr_limited(&args, b"", &scratch, limits)?;
        slowest = slowest.max((output.waited, row.id));
        wrong.extend(misbehaviour(row, &output));
        // The next row needs no leftovers; a file that cannot be removed does it no harm.
        let _left = std::fs::remove_dir_all(&directory);
    }
    Ok(verdict(check, rows.len(), slowest, wrong))
}

fn verdict(
    check: &check::Hostile,
    rows: usize,
    slowest: (Duration, &str),
    wrong: Vec<String>,
) -> Verdict {
    let slowest_ms = slowest.0.as_secs_f64() * 1e3;
    let summary = match wrong.first() {
        None => format!(
            "all of {rows} hostile files answered rightly, slowest {} in {slowest_ms:.0} ms",
            slowest.1
        ),
        Some(first) => format!("{} of {rows} hostile files: {first}", wrong.len()),
    };
    let mut evidence = Evidence::new(rows as u64, summary)
        .measure(Measure::judged("wrong-answers", wrong.len() as f64, Limit::Exactly(0.0)))
        .measure(Measure::judged("rows", rows as f64, Limit::AtLeast(check.rows_at_least as f64)))
        .measure(
            Measure::judged("slowest", slowest_ms, Limit::AtMost(check.time_limit_ms as f64))
                .unit("ms"),
        );
    evidence.details = wrong.into_iter().take(8).collect();
    evidence.verdict()
}

/// What the executable did wrong on a row, if anything.
fn misbehaviour(row: &Hostile, output: &CommandOutput) -> Option<String> {
    let stderr = output.stderr_text();
    if output.code.is_none() || output.code == Some(101) || stderr.contains("panicked at") {
        return Some(format!("{} ({}): {}", row.id, row.what, output.ending()));
    }
    row.judge(&answer(output, &stderr)).err()
}

/// The engine's answer, read back from the exit code and the error number on standard error.
fn answer(output: &CommandOutput, stderr: &str) -> Result<()> {
    if output.code == Some(0) {
        return Ok(());
    }
    let code =
        Code::ALL.iter().copied().find(|code| stderr.contains(&format!("{}:", code.number())));
    // No number at all is no answer that any row demands.
    let code = code.unwrap_or(Code::Io);
    Err(Error::new(code).found(stderr.lines().next().unwrap_or("nothing on standard error")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Hostile {
        let rows = hostile::all();
        rows.into_iter().find(|row| !row.loads && !row.expected.contains(&Code::Io)).unwrap()
    }

    fn output(code: Option<i32>, stderr: &str) -> CommandOutput {
        CommandOutput { code, stderr: stderr.into(), ..CommandOutput::default() }
    }

    #[test]
    fn the_demanded_error_is_right_and_every_other_ending_is_wrong() {
        let row = row();
        let right = format!("error: {}: something", row.expected[0].number());
        assert_eq!(misbehaviour(&row, &output(Some(5), &right)), None);
        assert!(misbehaviour(&row, &output(Some(0), "")).is_some());
        assert!(misbehaviour(&row, &output(Some(5), "error: no idea")).is_some());
        assert!(misbehaviour(&row, &output(None, "")).is_some());
        assert!(misbehaviour(&row, &output(Some(101), &right)).is_some());
    }
}
