//! `hostile`: malformed files give their error, quickly, within memory, and without a crash.
//!
//! Each file is given to the executable as a user would give it, in a process of its own, so that a hang, a crash or a
//! request for all memory is seen from outside and costs one row. Time is CPU time: what else runs on the machine is not in
//! it, and what noise is left only ever adds, so that the smallest of a few measurements is the file's own.

use std::path::Path;
use std::time::Duration;

use apr_engine::{Code, Error, Result};

use super::Planned;
use super::context::{JudgeContext, Look};
use crate::contract::check;
use crate::fixture::hostile::{self, Hostile};
use crate::subject::{Call, CommandOutput};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Wall time after which a file counts as hung, far beyond the limit it is judged by: a busy machine is not a hang.
const HUNG: Duration = Duration::from_secs(20);
/// How often a file that took too long is measured again.
const REPEATS: u64 = 6;
/// A prompt with a control string in it, so that tokenizer and template have something to do.
const PROMPT: &str = "hello <|im_end|> 2+2=";

/// Judges `check` on `case`.
pub(super) fn judge(check: &check::Hostile, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let rows: Vec<Hostile> =
        hostile::all().into_iter().filter(|row| row.id.starts_with(&check.rows)).collect();
    let scratch = ctx.scratch(case)?;
    let limit = Duration::from_millis(check.time_limit_ms);
    let memory = Some(check.memory_limit_mib.saturating_mul(1 << 20));
    let mut seen = Seen { rows: rows.len() as u64, ..Seen::default() };
    for row in &rows {
        let directory = scratch.join(row.id);
        let path = std::fs::create_dir_all(&directory)
            .and_then(|()| (row.build)().write(&directory))
            .map_err(|error| Box::new(Verdict::broken(format!("{}: {error}", row.id))))?;
        let mut call = Call::new(arguments(&path), &scratch, HUNG);
        call.limits.memory = memory;
        let taken = measure(limit, &mut || ctx.run_apr(call.clone()))?;
        seen.add(row, &taken);
        // The next row needs no leftovers; a file that cannot be removed does it no harm.
        let _left = std::fs::remove_dir_all(&directory);
    }
    Ok(seen.verdict(check))
}

/// One thread, so that the stacks of a machine with many cores are not taken for the file's memory.
fn arguments(path: &Path) -> Vec<String> {
    let path = path.to_string_lossy();
    let args = ["run", &path, PROMPT, "-n", "0", "--context", "64", "--threads", "1"];
    args.iter().map(|&arg| arg.to_owned()).collect()
}

/// What was measured of one file.
struct Taken {
    /// What each call did; the first call is always there.
    outputs: Vec<CommandOutput>,
    /// The smallest cost of any of them.
    cost: Duration,
}

/// Calls once, and again as long as it was above `limit` and repeats are left.
fn measure(limit: Duration, run: &mut dyn FnMut() -> Look<CommandOutput>) -> Look<Taken> {
    let first = run()?;
    let mut taken = Taken { cost: first.cost(), outputs: vec![first] };
    while taken.cost > limit && taken.outputs.len() as u64 <= REPEATS {
        let again = run()?;
        taken.cost = taken.cost.min(again.cost());
        taken.outputs.push(again);
    }
    Ok(taken)
}

/// What was seen of all files.
#[derive(Default)]
struct Seen {
    rows: u64,
    wrong: Vec<String>,
    crashes: u64,
    repeats: u64,
    slowest: (Duration, &'static str),
}

impl Seen {
    fn add(&mut self, row: &Hostile, taken: &Taken) {
        self.slowest = self.slowest.max((taken.cost, row.id));
        self.repeats += taken.outputs.len() as u64 - 1;
        // A repeat is asked for its time, but what it answers counts as well.
        if taken.outputs.iter().any(crashed) {
            self.crashes += 1;
        }
        self.wrong.extend(taken.outputs.iter().find_map(|output| misbehaviour(row, output)));
    }

    fn verdict(self, check: &check::Hostile) -> Verdict {
        let (cost, id) = (self.slowest.0.as_secs_f64() * 1e3, self.slowest.1);
        let summary = match self.wrong.first() {
            None => format!(
                "{} hostile files answered, slowest {id} in at most {cost:.0} ms; {} measured again",
                self.rows, self.repeats
            ),
            Some(first) => {
                format!("{} of {} hostile files: {first}", self.wrong.len(), self.rows)
            }
        };
        let wrong = self.wrong.len() as f64;
        let limit = Limit::AtMost(check.time_limit_ms as f64);
        let rows = Limit::AtLeast(check.rows_at_least as f64);
        let mut evidence = Evidence::new(self.rows, summary)
            .measure(Measure::judged("wrong-answers", wrong, Limit::Exactly(0.0)))
            .measure(Measure::judged("crashes", self.crashes as f64, Limit::Exactly(0.0)))
            .measure(Measure::judged("rows", self.rows as f64, rows))
            .measure(Measure::judged("slowest", cost, limit).unit("ms"))
            .measure(Measure::noted("measured-again", self.repeats as f64));
        evidence.details = self.wrong.into_iter().take(8).collect();
        evidence.verdict()
    }
}

/// Whether the program ended in a way that no input may cause; a refused allocation ends it so.
fn crashed(output: &CommandOutput) -> bool {
    output.code.is_none()
        || output.code == Some(101)
        || output.stderr_text().contains("panicked at")
}

/// What the executable did wrong on a row, if anything.
fn misbehaviour(row: &Hostile, output: &CommandOutput) -> Option<String> {
    if crashed(output) {
        return Some(format!("{} ({}): {}", row.id, row.what, output.ending()));
    }
    row.judge(&answer(output, &output.stderr_text())).err()
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

    /// A call that takes each of `times` in turn, in milliseconds; how many calls were made.
    fn calls(times: &[u64]) -> (Taken, usize) {
        let mut left = times.iter();
        let taken = measure(Duration::from_millis(100), &mut || {
            let cpu = Duration::from_millis(*left.next().expect("a call too many"));
            Ok(CommandOutput { cpu: Some(cpu), ..output(Some(0), "") })
        });
        let taken = taken.unwrap();
        let made = taken.outputs.len();
        (taken, made)
    }

    #[test]
    fn only_what_took_too_long_is_measured_again_and_the_smallest_time_counts() {
        for (times, cost, made) in [
            (&[100][..], 100, 1),
            (&[101, 40], 40, 2),
            (&[300, 200, 90], 90, 3),
            (&[300, 200, 250, 300, 300, 300, 110], 110, 7),
        ] {
            let (taken, calls) = calls(times);
            assert_eq!((taken.cost, calls), (Duration::from_millis(cost), made), "{times:?}");
        }
    }

    #[test]
    fn slow_files_wrong_answers_and_crashes_are_red_by_their_own_measure() {
        let check = check::Hostile {
            rows: "G".into(),
            rows_at_least: 1,
            time_limit_ms: 100,
            memory_limit_mib: 64,
        };
        let row = row();
        let right = format!("{}:", row.expected[0].number());
        let red = |cost: u64, output: CommandOutput| {
            let mut seen = Seen { rows: 1, ..Seen::default() };
            seen.add(&row, &Taken { outputs: vec![output], cost: Duration::from_millis(cost) });
            let verdict = seen.verdict(&check);
            let broken = verdict.evidence().unwrap().measures.iter().filter(|m| !m.holds());
            broken.map(|measure| measure.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(red(100, output(Some(5), &right)), [""; 0]);
        assert_eq!(red(101, output(Some(5), &right)), ["slowest"]);
        assert_eq!(red(1, output(Some(5), "no idea")), ["wrong-answers"]);
        assert_eq!(red(1, output(None, &right)), ["wrong-answers", "crashes"]);
    }
}
