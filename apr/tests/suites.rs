//! Every case of the carried suites as a test of its own: `cargo test --test suites -- gate-name`.
//!
//! Listing expands the matrix and loads no model. A case is judged by the harness in this process; gates that start the program start the
//! one that cargo has just built. Cases of the default suite that need seconds or a second machine are left to `apr qa`.

#![expect(clippy::print_stderr, reason = "a catalogue that cannot be read is told before any test")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use apr_engine::backend::Device;
use apr_harness::contract::Catalogue;
use apr_harness::filter::Filter;
use apr_harness::judge::{self, JudgeContext, Planned};
use apr_harness::need::Needs;
use apr_harness::suite::{self, Roots};
use apr_harness::verdict::Verdict;
use libtest_mimic::{Arguments, Failed, Trial};

/// Suites and the part of each that is fast enough to be a test.
const SUITES: &[(&str, &str)] = &[
    ("pygmy", "!check(throughput) & !check(steady-memory)"),
    (
        "default",
        "!check(throughput) & !check(steady-memory) & !check(cli) & !check(convert-run) & (backend(=simd) | !backend(*))",
    ),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Removed when the last trial is done; a listing leaves nothing behind either.
    let trials = tempfile::Builder::new()
        .prefix("apr-suites-")
        .tempdir()
        .map_err(|error| format!("no scratch directory: {error}"))
        .and_then(|work| Ok((trials(work.path())?, work)));
    match trials {
        Ok((trials, _work)) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The trials of all suites.
fn trials(work: &Path) -> Result<Vec<Trial>, String> {
    let catalogue = Catalogue::from_directory(&root().join("contracts"))
        .map_err(|error| format!("contracts: {error}"))?;
    let mut trials = Vec::new();
    for (name, part) in SUITES {
        let file = root().join("suites").join(name).with_extension("yaml");
        let suite = suite::load_suite(&file, &catalogue).map_err(|error| error.to_string())?;
        let work = work.join(name);
        let roots = Roots {
            fixtures: root().join("fixtures"),
            built: work.join("built"),
            ..Roots::default()
        };
        let expansion = suite::expand(&suite, &catalogue, &roots)
            .map_err(|error| format!("{name}: {error}"))?;
        let filter = Filter::parse(part).map_err(|error| format!("{name}: {error}"))?;
        let mut ctx = JudgeContext::new(roots.fixtures, work, 0, needs());
        ctx.apr = Some(PathBuf::from(env!("CARGO_BIN_EXE_apr")));
        ctx.builds = expansion.builds;
        ctx.forms = expansion.forms;
        let ctx = Arc::new(ctx);
        let before = trials.len();
        for case in expansion.cases {
            if filter.selects(&case) {
                trials.push(trial(case, Arc::clone(&ctx)));
            }
        }
        if trials.len() == before {
            return Err(format!("{name}: no case is left of the suite"));
        }
    }
    Ok(trials)
}

/// What this machine has; the executable is the one under test.
fn needs() -> Needs {
    let mut needs = Needs::probe();
    let cuda = Device::Cuda(0).unavailable();
    needs.set(
        "no-cuda",
        cuda.as_ref().map_or(Err("a device is there".into()), |why| Ok(why.why.clone())),
    );
    needs.set("cuda", cuda.map_or(Ok("device 0".into()), |why| Err(why.why)));
    needs.set("apr", Ok(env!("CARGO_BIN_EXE_apr").into()));
    needs
}

fn trial(case: Planned, ctx: Arc<JudgeContext>) -> Trial {
    let kind = case.info.cell.backend.clone().unwrap_or_else(|| "once".into());
    Trial::test(case.info.id.clone(), move || settle(&case, &judge::run(&case, &ctx)))
        .with_kind(kind)
}

/// A green verdict passes; a skip passes where nothing requires the case; all else fails with what was seen.
fn settle(case: &Planned, verdict: &Verdict) -> Result<(), Failed> {
    match verdict {
        Verdict::Corroborated(_) => Ok(()),
        Verdict::Skipped { .. } if !case.info.required => Ok(()),
        _ => {
            let mut text =
                format!("{}\n{}: {}", case.info.claim, verdict.kind().name(), verdict.summary());
            for line in verdict.evidence().iter().flat_map(|evidence| &evidence.details) {
                text.push_str("\n  ");
                text.push_str(line);
            }
            Err(text.into())
        }
    }
}
