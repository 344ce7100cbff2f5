//! Isolation: a case that can hang or crash runs in a child process of its own.
//!
//! The parent writes a [`Wire`] to the child's input, the child answers with a verdict. A child that hangs or crashes is an
//! observation of the subject: it falsifies the claim. A child that says it could not do its work, or whose answer
//! cannot be read, is broken. The child's process group is killed as a whole when the time is over.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::{CaseInfo, ModelRef};
use crate::contract::Gate;
use crate::contract::check::CacheTypeName;
use crate::judge::{self, JudgeContext, Planned};
use crate::score::EXIT_BROKEN;
use crate::subject::{Call, CommandOutput, run_call};
use crate::suite::Build;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Longest case a child reads, in bytes.
const WIRE_MAX: u64 = 16 << 20;
/// Lines of a crashed child's error output that are kept.
const STDERR_LINES: usize = 8;

/// How a child is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The `apr` executable.
    pub program: PathBuf,
    /// Its arguments: the hidden subcommand that ends in [`answer`].
    pub args: Vec<String>,
}

/// A case as a child reads it, with what it needs to build the same context as its parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wire {
    /// The case.
    pub case: CaseInfo,
    /// Its gate.
    pub gate: Gate,
    /// Directory of the carried fixtures.
    pub fixtures: PathBuf,
    /// Scratch directory of the run.
    pub work: PathBuf,
    /// Directory of the published models.
    pub published: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
    /// What keys and values are cached as, where a gate does not say.
    pub cache_type: CacheTypeName,
    /// Forms that are built on demand: path → recipe and path of the source form.
    pub builds: BTreeMap<PathBuf, (Build, PathBuf)>,
    /// Every judged form, for comparisons between forms.
    pub forms: Vec<ModelRef>,
    /// Id of the planted fault, when a gate is being proved.
    pub plant: Option<String>,
}

impl Wire {
    /// The wire form of `case` in `ctx`.
    pub fn new(case: &Planned, ctx: &JudgeContext) -> Self {
        Self {
            case: case.info.clone(),
            gate: Gate::clone(&case.gate),
            fixtures: ctx.fixtures.clone(),
            work: ctx.work.clone(),
            published: ctx.published.clone(),
            seed: ctx.seed,
            cache_type: CacheTypeName(ctx.cache_type),
            builds: ctx.builds.clone(),
            forms: ctx.forms.clone(),
            plant: ctx.plant.as_ref().map(|plant| plant.id().to_owned()),
        }
    }
}

/// Judges `case` in a child process that is killed after `limit`.
pub fn judge_in_child(
    case: &Planned,
    ctx: &JudgeContext,
    isolation: &Isolation,
    limit: Duration,
) -> Verdict {
    let wire = match serde_json::to_vec(&Wire::new(case, ctx)) {
        Ok(wire) => wire,
        Err(error) => return Verdict::broken(format!("the case cannot be sent: {error}")),
    };
    let program = &isolation.program;
    let call = Call { stdin: wire, ..Call::new(isolation.args.clone(), Path::new("."), limit) };
    match run_call(program, &call) {
        Ok(output) => read_answer(&output, limit),
        Err(error) => Verdict::broken(format!("{}: {error}", program.display())),
    }
}

fn read_answer(output: &CommandOutput, limit: Duration) -> Verdict {
    if output.timed_out {
        let seconds = limit.as_secs_f64();
        let evidence = Evidence::new(1, format!("hung: no answer within {seconds} s"));
        let measure =
            Measure::judged("seconds", output.waited.as_secs_f64(), Limit::AtMost(seconds));
        return Verdict::Falsified(evidence.measure(measure.unit("s")));
    }
    match output.code {
        Some(0) => serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            Verdict::broken(format!("the child's answer cannot be read: {error}"))
        }),
        Some(code) if code == i32::from(EXIT_BROKEN) => {
            Verdict::broken(format!("in the child: {}", output.stderr_text().trim()))
        }
        _ => crashed(output),
    }
}

fn crashed(output: &CommandOutput) -> Verdict {
    let evidence = Evidence::new(1, format!("crashed: {}", output.ending()))
        .measure(Measure::judged("crashes", 1.0, Limit::Exactly(0.0)));
    let stderr = output.stderr_text();
    let lines: Vec<&str> = stderr.lines().collect();
    let last = &lines[lines.len().saturating_sub(STDERR_LINES)..];
    Verdict::Falsified(last.iter().fold(evidence, |evidence, line| evidence.detail(*line)))
}

/// The child's side: reads a [`Wire`] from `input`, judges, writes the verdict to `output`.
///
/// `context` builds the judge's context. Returns the exit code of the child; on [`EXIT_BROKEN`] the reason stands in
/// `errors`.
///
/// # Errors
/// When `output` or `errors` cannot be written.
pub fn answer(
    input: impl Read,
    mut output: impl Write,
    mut errors: impl Write,
    context: impl FnOnce(&Wire) -> Result<JudgeContext, String>,
) -> io::Result<u8> {
    match judge_wire(input, context) {
        Ok(verdict) => {
            output.write_all(&serde_json::to_vec(&verdict)?)?;
            output.flush()?;
            Ok(0)
        }
        Err(error) => {
            writeln!(errors, "{error}")?;
            Ok(EXIT_BROKEN)
        }
    }
}

fn judge_wire(
    input: impl Read,
    context: impl FnOnce(&Wire) -> Result<JudgeContext, String>,
) -> Result<Verdict, String> {
    let wire: Wire = serde_json::from_reader(input.take(WIRE_MAX))
        .map_err(|error| format!("the case cannot be read: {error}"))?;
    let mut ctx = context(&wire)?;
    ctx.forms = wire.forms;
    let case = Planned { info: wire.case, gate: Arc::new(wire.gate), facts: None };
    catch_unwind(AssertUnwindSafe(|| judge::run(&case, &ctx)))
        .map_err(|panic| format!("the judge panicked: {}", crate::runner::panic_message(&*panic)))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::need::Needs;
    use crate::runner::planned_for_tests;
    use crate::verdict::VerdictKind;

    fn context() -> JudgeContext {
        JudgeContext::new("fixtures".into(), "work".into(), 7, Needs::default())
    }

    fn child(script: &str, limit: Duration) -> Verdict {
        let args = ["-c", script].map(str::to_owned).to_vec();
        let isolation = Isolation { program: "/bin/sh".into(), args };
        judge_in_child(&planned_for_tests("a", 1)[0], &context(), &isolation, limit)
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn a_hang_is_a_falsification_and_its_children_die_with_it() {
        let home = tempfile::tempdir().unwrap();
        let pid = home.path().join("pid");
        // The grandchild ignores the end of its parent and would sleep on.
        let script = format!("(exec sleep 1000) & echo $! > {}; wait", pid.display());
        let verdict = child(&script, Duration::from_millis(300));
        assert_eq!(verdict.kind(), VerdictKind::Falsified);
        assert!(verdict.summary().contains("hung"), "{}", verdict.summary());
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        // A killed process may linger until it is scheduled once more, then as a zombie until its new parent reaps it.
        let lives = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            std::thread::yield_now();
            !state.is_empty() && !state.contains(") Z ")
        };
        assert!((0..1_000_000).any(|_| !lives()), "the grandchild lives on");
    }

    #[test]
    fn a_crash_is_a_falsification_with_its_last_words() {
        let verdict = child("echo out of range >&2; kill -ABRT $$", LONG);
        assert_eq!(verdict.kind(), VerdictKind::Falsified);
        let evidence = verdict.evidence().unwrap();
        assert!(evidence.summary.contains("signal 6"), "{}", evidence.summary);
        assert_eq!(evidence.details, ["out of range"]);
    }

    #[test]
    fn an_unexpected_exit_code_is_a_crash() {
        assert_eq!(child("exit 101", LONG).kind(), VerdictKind::Falsified);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_broken() {
        for script in ["true", "echo '{\"corroborated\":'", "echo fine"] {
            assert_eq!(child(script, LONG).kind(), VerdictKind::Broken, "{script}");
        }
    }

    #[test]
    fn a_child_that_says_it_is_broken_is_broken() {
        let verdict = child("echo no fixture >&2; exit 3", LONG);
        assert_eq!(verdict, Verdict::broken("in the child: no fixture"));
    }

    #[test]
    fn an_executable_that_does_not_exist_is_broken() {
        let isolation = Isolation { program: "/nowhere/apr".into(), args: Vec::new() };
        let verdict = judge_in_child(&planned_for_tests("a", 1)[0], &context(), &isolation, LONG);
        assert_eq!(verdict.kind(), VerdictKind::Broken);
    }

    #[test]
    fn the_childs_side_answers_what_judging_in_place_answers() {
        let case = &planned_for_tests("a", 1)[0];
        let wire = serde_json::to_vec(&Wire::new(case, &context())).unwrap();
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let code = answer(&*wire, &mut output, &mut errors, |wire| {
            assert_eq!((wire.seed, wire.plant.as_deref()), (7, None));
            Ok(context())
        });
        assert_eq!(code.unwrap(), 0);
        let verdict: Verdict = serde_json::from_slice(&output).unwrap();
        assert_eq!(verdict, judge::run(case, &context()));
    }

    #[test]
    fn the_childs_side_refuses_what_is_no_case() {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let code = answer(&b"{}"[..], &mut output, &mut errors, |_| Ok(context())).unwrap();
        assert_eq!((code, output.len()), (EXIT_BROKEN, 0));
        assert!(!errors.is_empty());
    }
}
