//! Workers that are shell scripts, and the worker's side in this process.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::*;
use crate::judge;
use crate::need::Needs;
use crate::runner::planned_for_tests;
use crate::verdict::VerdictKind;

const LONG: Duration = Duration::from_mins(1);

fn context() -> JudgeContext {
    JudgeContext::new("fixtures".into(), "work".into(), 7, Needs::default())
}

/// A pool whose worker is a shell that first says that it is ready.
fn pool(script: &str) -> Pool {
    let script = format!("read setup; echo '\"ready\"'; {script}");
    let args = vec!["-c".to_owned(), script];
    let isolation = Isolation { program: "/bin/sh".into(), args };
    Pool::new(isolation, &context(), Arc::default())
}

/// What a worker that runs `script` for its first case makes of it.
fn judged(script: &str, limit: Duration) -> Verdict {
    pool(script).judge(&planned_for_tests("a", 1)[0], limit)
}

#[test]
fn a_hang_is_a_falsification_and_its_children_die_with_it() {
    let home = tempfile::tempdir().unwrap();
    let pid = home.path().join("pid");
    // The grandchild ignores the end of its parent and would sleep on.
    let script = format!("(exec sleep 1000) & echo $! > {}; read case; wait", pid.display());
    let verdict = judged(&script, Duration::from_millis(300));
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
    let verdict = judged("read case; echo out of range >&2; kill -ABRT $$", LONG);
    assert_eq!(verdict.kind(), VerdictKind::Falsified);
    let evidence = verdict.evidence().unwrap();
    assert!(evidence.summary.contains("signal 6"), "{}", evidence.summary);
    assert_eq!(evidence.details, ["out of range"]);
}

#[test]
fn an_unexpected_exit_code_is_a_crash() {
    assert_eq!(judged("read case; exit 101", LONG).kind(), VerdictKind::Falsified);
}

#[test]
fn a_worker_that_says_it_is_broken_is_broken() {
    let verdict = judged("read case; echo no fixture >&2; exit 3", LONG);
    assert_eq!(verdict, Verdict::broken("in the worker: exit code 3; no fixture"));
}

#[test]
fn a_worker_that_does_not_start_is_broken() {
    let start = |program: &str, script: &str| {
        let args = ["-c", script].map(str::to_owned).to_vec();
        let isolation = Isolation { program: program.into(), args };
        let pool = Pool::new(isolation, &context(), Arc::default());
        pool.judge(&planned_for_tests("a", 1)[0], LONG)
    };
    for (program, script) in [("/nowhere/apr", ""), ("/bin/sh", "echo no room >&2; exit 1")] {
        assert_eq!(start(program, script).kind(), VerdictKind::Broken, "{program}");
    }
    let verdict = start("/bin/sh", "echo no room >&2; exit 1");
    assert!(verdict.summary().contains("no room"), "{}", verdict.summary());
}

#[test]
fn what_else_a_worker_prints_is_passed_over() {
    let broken = serde_json::to_string(&Answer::Judged(0, Verdict::broken("it is"))).unwrap();
    let verdict = judged(&format!("read case; echo noise; echo '{broken}'; read more"), LONG);
    assert_eq!(verdict, Verdict::broken("it is"));
}

#[test]
fn an_interruption_ends_the_worker_at_once() {
    let stop = Arc::new(AtomicBool::new(false));
    let args = ["-c", "read setup; echo '\"ready\"'; read case; exec sleep 1000"];
    let isolation = Isolation { program: "/bin/sh".into(), args: args.map(str::to_owned).to_vec() };
    let pool = Pool::new(isolation, &context(), Arc::clone(&stop));
    let case = &planned_for_tests("a", 1)[0];
    let verdict = std::thread::scope(|scope| {
        let judged = scope.spawn(|| pool.judge(case, LONG));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        judged.join().unwrap()
    });
    assert_eq!(verdict.kind(), VerdictKind::Skipped);
}

#[test]
fn cases_beside_one_that_crashes_are_judged_again() {
    // A worker dies of the case called `c/b`, and answers every other case only when it has seen that one or is alone.
    let home = tempfile::tempdir().unwrap();
    let seen = home.path().join("seen").display().to_string();
    let good = |id: &str| format!("{{\"judged\":[{id},{{\"broken\":{{\"error\":\"fine\"}}}}]}}");
    let answer = good("'$id'");
    let script = format!(
        "while read case; do \
           id=$(echo \"$case\" | sed 's/.*\"id\":\\([0-9]*\\),\"case\".*/\\1/'); \
           case $case in *'\"gate\":\"b\"'*) touch {seen}; kill -SEGV $$;; esac; \
           [ -e {seen} ] && echo '{answer}'; \
         done"
    );
    let pool = pool(&script);
    let cases = planned_for_tests("c", 2);
    let judge = |index: usize| {
        let mut case = cases[index].clone();
        case.info.gate = ["a", "b"][index].into();
        pool.judge(&case, LONG)
    };
    let (beside, culprit) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| judge(0));
        let culprit = scope.spawn(|| judge(1));
        (beside.join().unwrap(), culprit.join().unwrap())
    });
    assert_eq!(beside, Verdict::broken("fine"));
    assert_eq!(culprit.kind(), VerdictKind::Falsified, "{}", culprit.summary());
    assert!(culprit.summary().contains("signal 11"), "{}", culprit.summary());
}

/// An output that can be read while it is written.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_workers_side_answers_what_judging_in_place_answers() {
    let case = &planned_for_tests("a", 1)[0];
    let (input, mut parent) = std::io::pipe().unwrap();
    for line in [
        serde_json::to_string(&Setup::of(&context())).unwrap(),
        serde_json::to_string(&Request {
            id: 9,
            case: case.info.clone(),
            gate: Gate::clone(&case.gate),
        })
        .unwrap(),
    ] {
        writeln!(parent, "{line}").unwrap();
    }
    let (output, mut errors) = (Shared::default(), Vec::new());
    let heard = output.clone();
    let worker = std::thread::spawn(move || {
        let context = |setup: &Setup| {
            assert_eq!((setup.seed, setup.plant.as_deref()), (7, None));
            Ok(context())
        };
        serve(std::io::BufReader::new(input), output, &mut errors, context).unwrap()
    });
    let told = || String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
    while told().lines().count() < 2 {
        std::thread::yield_now();
    }
    drop(parent);
    assert_eq!(worker.join().unwrap(), 0);
    let told = told();
    let mut lines = told.lines().map(|line| serde_json::from_str::<Answer>(line).unwrap());
    assert!(matches!(lines.next(), Some(Answer::Ready)));
    let Some(Answer::Judged(9, verdict)) = lines.next() else { panic!("{told}") };
    assert_eq!(verdict, judge::run(case, &context()));
}

#[test]
fn the_workers_side_refuses_what_is_no_case() {
    for input in ["", "{}\n", "{\"fixtures\":\n"] {
        let (output, mut errors) = (Shared::default(), Vec::new());
        let code = serve(input.as_bytes(), output.clone(), &mut errors, |_| Ok(context()));
        assert_eq!(code.unwrap(), crate::score::EXIT_BROKEN, "{input}");
        assert!(output.0.lock().unwrap().is_empty() && !errors.is_empty(), "{input}");
    }
}

#[test]
fn a_limit_grows_with_the_model_unless_somebody_sets_one() {
    let mut case = planned_for_tests("a", 1).remove(0);
    assert_eq!(limit(&case, None), LIMIT);
    assert_eq!(limit(&case, Some(LONG)), LONG);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden");
    case.facts = Some(Arc::new(crate::suite::Facts::read(&fixtures)));
    assert!(limit(&case, None) > LIMIT);
    Arc::make_mut(&mut case.gate).timeout_s = Some(3);
    assert_eq!(limit(&case, Some(LONG)), Duration::from_secs(3));
}
