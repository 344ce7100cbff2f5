//! Cases that hang or crash: they end as falsified, and the others are judged.

use serde_json::Value;

use super::program::{apr, run};

/// Cases of the carried model on the fast backend, one of which asks for two threads.
const PATHS: &str = "contract(paths) & format(safetensors) & backend(=simd)";

/// The one that does.
const THREADS: &str = "paths/threads-do-not-matter@golden.safetensors.simd";

/// Verdict and summary of every case under `fault`.
fn verdicts(fault: &str) -> Vec<(String, String, String)> {
    let arguments = ["qa", "--filter", PATHS, "--plant", fault, "--time-limit", "10"];
    let run = run(&[&arguments[..], &["--no-report", "--json", "--jobs", "2"]].concat());
    assert_eq!(run.code, 1, "{}", run.err);
    let record: Value = serde_json::from_str(&run.out).expect("one JSON value");
    let cases = record["cases"].as_array().expect("cases");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = |case: &Value| {
        (text(&case["id"]), text(&case["verdict"]), text(&case["evidence"]["summary"]))
    };
    cases.iter().map(told).collect()
}

#[test]
fn an_endless_loop_and_a_crash_falsify_their_case_and_no_other() {
    for (fault, said) in [("process/endless-loop", "hung"), ("process/abort", "signal 6")] {
        let verdicts = verdicts(fault);
        assert!(verdicts.len() > 5, "{verdicts:?}");
        for (id, verdict, summary) in verdicts {
            if id == THREADS {
                assert!(verdict == "falsified" && summary.contains(said), "{fault}: {summary}");
            } else {
                assert_eq!(verdict, "corroborated", "{fault}: {id}: {summary}");
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_case_that_hangs() {
    use apr_harness::subject::{Call, run_call};

    let arguments = ["qa", "--case", THREADS, "--plant", "process/endless-loop", "--no-report"];
    let program = apr(&[]).get_program().to_owned();
    let limit = std::time::Duration::from_mins(1);
    let arguments = arguments.map(str::to_owned).to_vec();
    let call = Call::new(arguments, &super::program::root(), limit);
    let output = run_call(program.as_ref(), &Call { interrupt: true, ..call }).expect("apr");
    assert_eq!(output.code, Some(130), "{}", output.ending());
}
