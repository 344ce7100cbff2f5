use std::io;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::contract::load_contract;
use crate::verdict::{Evidence, Limit, Measure, VerdictKind};

/// Cases of gates that need no model; the last one of `count` wants the machine alone.
pub(crate) fn planned_for_tests(contract: &str, count: usize) -> Vec<Planned> {
    let mut text = format!("contract: {contract}\ntitle: a contract for tests\ngates:\n");
    for at in 0..count {
        let check = if count > 1 && at + 1 == count {
            "{ throughput: { phase: decode, against: itself, tokens: 4, ratio-at-least: 0.9, why: calibration of itself } }"
        } else {
            "{ sampler: { property: greedy, cases: 9 } }"
        };
        let head = format!("id: gate-{at}, claim: Gate {at} holds as claimed., severity: major");
        text.push_str(&["  - { ", &head, ", check: ", check, " }\n"].concat());
    }
    let loaded = load_contract(&text, Path::new("contract.yaml")).unwrap();
    loaded
        .gates
        .into_iter()
        .map(|gate| Planned {
            info: CaseInfo {
                id: format!("{contract}/{}", gate.id),
                contract: contract.to_owned(),
                gate: gate.id.clone(),
                claim: gate.claim.clone(),
                severity: gate.severity,
                refs: Vec::new(),
                cell: crate::case::Cell::default(),
                required: true,
            },
            gate: Arc::new(gate),
            facts: None,
        })
        .collect()
}

fn evidence(value: f64) -> Evidence {
    Evidence::new(1, "one").measure(Measure::judged("error", value, Limit::AtMost(1.0)))
}

fn green(_: &Planned) -> Verdict {
    evidence(0.5).verdict()
}

fn provenance() -> Provenance {
    Provenance {
        apr_version: "0".into(),
        binary_sha256: "b".into(),
        catalogue_sha256: "c".into(),
        models: BTreeMap::new(),
        machine: BTreeMap::new(),
        command: Vec::new(),
        parameters: Vec::new(),
        seed: 1,
        started: "2026-11-21T10:00:00Z".into(),
    }
}

fn options() -> RunOptions {
    RunOptions::new("suite", provenance())
}

/// A sink that writes one word per event.
struct Words(Arc<Mutex<Vec<String>>>);

impl Sink for Words {
    fn on(&mut self, event: &Event<'_>) -> io::Result<()> {
        let word = match event {
            Event::Started { plan, .. } => format!("started {}", plan.len()),
            Event::CaseStarted(case) => format!("begin {}", case.gate),
            Event::CaseFinished(outcome) => format!("end {}", outcome.case.gate),
            Event::Finished(record) => format!("finished {}", record.exit_code),
        };
        self.0.lock().unwrap().push(word);
        Ok(())
    }
}

/// A sink whose disk is full.
struct Full;

impl Sink for Full {
    fn on(&mut self, _: &Event<'_>) -> io::Result<()> {
        Err(io::Error::other("disk full"))
    }
}

#[test]
fn every_case_of_the_plan_is_in_the_record_in_plan_order() {
    for jobs in [1, 2, 7] {
        let cases = planned_for_tests("a", 6);
        let record = run_with(&cases, &green, &mut [], RunOptions { jobs, ..options() });
        let ids: Vec<&str> = record.cases.iter().map(|outcome| &*outcome.case.gate).collect();
        assert_eq!(ids, ["gate-0", "gate-1", "gate-2", "gate-3", "gate-4", "gate-5"]);
        assert_eq!((record.exit_code, record.score.percent), (0, 100));
    }
}

#[test]
fn sinks_see_the_plan_each_case_and_the_end() {
    let words = Arc::default();
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(Words(Arc::clone(&words)))];
    run_with(&planned_for_tests("a", 2), &green, &mut sinks, options());
    let words = words.lock().unwrap().join(", ");
    assert_eq!(words, "started 2, begin gate-0, end gate-0, begin gate-1, end gate-1, finished 0");
}

#[test]
fn a_sink_that_fails_is_noted_and_the_others_go_on() {
    let words = Arc::default();
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(Full), Box::new(Words(Arc::clone(&words)))];
    let record = run_with(&planned_for_tests("a", 2), &green, &mut sinks, options());
    assert_eq!(record.notes, ["disk full"]);
    assert_eq!(words.lock().unwrap().len(), 6);
}

#[test]
fn an_exclusive_case_never_runs_beside_another() {
    let running = Mutex::new(0);
    let judge = |case: &Planned| {
        *running.lock().unwrap() += 1;
        let alone = *running.lock().unwrap() == 1;
        let ok = alone || !case.gate.check.is_exclusive();
        std::thread::yield_now();
        *running.lock().unwrap() -= 1;
        evidence(if ok { 0.0 } else { 2.0 }).verdict()
    };
    let cases = planned_for_tests("a", 9);
    let record = run_with(&cases, &judge, &mut [], RunOptions { jobs: 4, ..options() });
    assert_eq!(record.exit_code, 0);
}

#[test]
fn fail_fast_skips_the_rest_and_says_why() {
    let judge = |_: &Planned| evidence(2.0).verdict();
    let fast = RunOptions { fail_fast: true, ..options() };
    let record = run_with(&planned_for_tests("a", 4), &judge, &mut [], fast);
    assert_eq!((record.counts.falsified, record.counts.skipped), (1, 3));
    assert_eq!(record.exit_code, score::EXIT_FALSIFIED);
    assert_eq!(record.cases[3].verdict, Verdict::skipped(NEED_RUN, "an earlier case was red"));
    assert_eq!(record.score.points_max, 16, "the denominator is the plan's");
}

#[test]
fn an_interrupted_run_keeps_what_it_has_and_exits_with_130() {
    let options = options();
    let stop = Arc::clone(&options.stop);
    let judge = move |_: &Planned| {
        stop.store(true, Ordering::Relaxed);
        evidence(0.5).verdict()
    };
    let record = run_with(&planned_for_tests("a", 3), &judge, &mut [], options);
    assert_eq!((record.counts.corroborated, record.counts.skipped), (1, 2));
    assert_eq!(record.exit_code, score::EXIT_INTERRUPTED);
}

#[test]
fn a_resumed_run_judges_only_what_the_journal_does_not_know() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.jsonl");
    let cases = planned_for_tests("a", 3);
    let journal = Some(Journal::create(&path).unwrap());
    run_with(&cases[..2], &green, &mut [], RunOptions { journal, ..options() });
    let judged = Mutex::new(Vec::new());
    let judge = |case: &Planned| {
        judged.lock().unwrap().push(case.info.gate.clone());
        green(case)
    };
    let journal = Some(Journal::resume(&path).unwrap());
    let record = run_with(&cases, &judge, &mut [], RunOptions { journal, ..options() });
    assert_eq!(*judged.lock().unwrap(), ["gate-2"]);
    let resumed: Vec<bool> = record.cases.iter().map(|outcome| outcome.resumed).collect();
    assert_eq!(resumed, [true, true, false]);
    assert_eq!(record.exit_code, 0);
}

#[test]
fn a_changed_seed_or_executable_voids_the_journal() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.jsonl");
    let cases = planned_for_tests("a", 2);
    let journal = Some(Journal::create(&path).unwrap());
    run_with(&cases, &green, &mut [], RunOptions { journal, ..options() });
    for change in
        [|p: &mut Provenance| p.seed = 2, |p: &mut Provenance| p.binary_sha256 = "other".into()]
    {
        let journal = Some(Journal::resume(&path).unwrap());
        let mut changed = RunOptions { journal, ..options() };
        change(&mut changed.provenance);
        let record = run_with(&cases, &green, &mut [], changed);
        assert!(record.cases.iter().all(|outcome| !outcome.resumed));
    }
}

fn waiver(expires: &str) -> Waiver {
    let text = format!(
        "waivers:\n  - {{ case: a/gate-0, owner: qa, reason: known rounding of one kernel, expires: {expires} }}\n"
    );
    crate::contract::load_waivers(&text, Path::new("waivers.yaml")).unwrap().remove(0)
}

#[test]
fn a_waiver_covers_a_falsification_until_it_expires() {
    for (expires, code) in [("2026-11-21", 0), ("2026-11-20", score::EXIT_WAIVER_EXPIRED)] {
        let judge =
            |case: &Planned| evidence(if case.info.gate == "gate-0" { 2.0 } else { 0.5 }).verdict();
        let options = RunOptions { waivers: vec![waiver(expires)], ..options() };
        let record = run_with(&planned_for_tests("a", 2), &judge, &mut [], options);
        assert_eq!(record.cases[0].verdict.kind(), VerdictKind::Waived);
        assert_eq!((record.exit_code, record.required_green), (code, code == 0));
        assert_eq!(record.score.points, 4, "a waived case earns nothing");
    }
}

#[test]
fn a_waiver_changes_nothing_about_a_broken_case() {
    let judge = |_: &Planned| Verdict::broken("disk");
    let options = RunOptions { waivers: vec![waiver("2027-01-01")], ..options() };
    let record = run_with(&planned_for_tests("a", 1), &judge, &mut [], options);
    assert_eq!(record.exit_code, score::EXIT_BROKEN);
}

#[test]
fn an_unproven_gate_earns_nothing_in_a_run_with_a_kill_matrix() {
    let options = RunOptions { kill_matrix: Some(KillMatrix::default()), ..options() };
    let record = run_with(&planned_for_tests("a", 2), &green, &mut [], options);
    assert_eq!((record.score.points, record.score.unproven), (0, Some(2)));
}

fn sharded(cases: &[Planned], index: usize, of: usize) -> RunRecord {
    let shard = Some(parse_shard(&format!("{index}/{of}"), cases.len()).unwrap());
    run_with(cases, &green, &mut [], RunOptions { shard, ..options() })
}

#[test]
fn merged_shards_are_the_whole_run() {
    let cases = planned_for_tests("a", 8);
    let whole = run_with(&cases, &green, &mut [], options());
    for of in [1, 2, 3, 8] {
        let parts = (1..=of).rev().map(|index| sharded(&cases, index, of)).collect();
        let mut merged = merge(parts).unwrap();
        for (merged, whole) in merged.cases.iter_mut().zip(&whole.cases) {
            merged.duration_ms = whole.duration_ms;
        }
        assert_eq!(merged, whole, "{of} shards");
    }
}

#[test]
fn a_missing_shard_is_an_error_not_a_smaller_denominator() {
    let cases = planned_for_tests("a", 5);
    let parts = vec![sharded(&cases, 1, 3), sharded(&cases, 3, 3)];
    assert_eq!(merge(parts), Err(MergeError::Missing { missing: vec![2], of: 3 }));
}

#[test]
fn shards_of_different_runs_do_not_merge() {
    let cases = planned_for_tests("a", 4);
    let (one, mut two) = (sharded(&cases, 1, 2), sharded(&cases, 2, 2));
    assert!(matches!(
        merge(vec![one.clone(), one.clone()]),
        Err(MergeError::Twice { index: 1, of: 2 })
    ));
    two.provenance.catalogue_sha256 = "other".into();
    assert!(matches!(merge(vec![one, two]), Err(MergeError::Differs { what: "catalogue", .. })));
    assert_eq!(merge(Vec::new()), Err(MergeError::Nothing));
}

#[test]
fn a_record_with_fewer_cases_than_its_shard_had_does_not_merge() {
    let cases = planned_for_tests("a", 4);
    let (one, mut two) = (sharded(&cases, 1, 2), sharded(&cases, 2, 2));
    two.cases.pop();
    assert_eq!(merge(vec![one, two]), Err(MergeError::Cases { expected: 4, found: 3 }));
}

#[test]
fn shards_outside_one_to_n_are_refused() {
    for text in ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3"] {
        assert!(parse_shard(text, 9).is_err(), "{text}");
    }
    assert_eq!(parse_shard("2/5", 9), Ok(Shard { index: 2, of: 5, cases: 9 }));
}
