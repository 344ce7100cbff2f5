//! The proof that gates can go red, on the gates that cost little.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use apr_harness::contract::Catalogue;
use apr_harness::event::Provenance;
use apr_harness::fault::library;
use apr_harness::filter::Filter;
use apr_harness::judge::{self, JudgeContext, Planned};
use apr_harness::kill::{Kill, KillMatrix};
use apr_harness::need::Needs;
use apr_harness::proof;
use apr_harness::runner::{self, RunOptions};
use apr_harness::suite::{self, Roots};
use apr_harness::verdict::{Evidence, Limit, Measure, Verdict, VerdictKind};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn catalogue() -> Catalogue {
    Catalogue::from_directory(&root().join("contracts")).unwrap_or_else(|error| panic!("{error}"))
}

/// The cases of a carried suite that `filter` selects, and what their judges share.
struct Carried {
    cases: Vec<Planned>,
    ctx: JudgeContext,
    /// Removed with the rest.
    _work: tempfile::TempDir,
}

fn carried(suite: &str, filter: &str) -> Carried {
    let file = root().join("suites").join(suite).with_extension("yaml");
    let suite = suite::load_suite(&file, &catalogue());
    let suite = suite.unwrap_or_else(|error| panic!("{error}"));
    let work = tempfile::tempdir().expect("work");
    let roots = Roots {
        fixtures: root().join("fixtures"),
        built: work.path().join("built"),
        ..Roots::default()
    };
    let expansion = suite::expand(&suite, &catalogue(), &roots).expect("expansion");
    let filter = Filter::parse(filter).expect("filter");
    let cases: Vec<Planned> =
        expansion.cases.into_iter().filter(|case| filter.selects(case)).collect();
    let mut ctx = JudgeContext::new(roots.fixtures, work.path().to_path_buf(), 1, Needs::probe());
    ctx.builds = expansion.builds;
    ctx.forms = expansion.forms;
    Carried { cases, ctx, _work: work }
}

/// Proves the gates of a carried suite whose cases `filter` selects, with a judge of the caller's.
fn prove_with(
    suite: &str,
    filter: &str,
    judge: &(dyn Fn(&Planned, &JudgeContext) -> Verdict + Sync),
) -> (Vec<Planned>, KillMatrix) {
    let carried = carried(suite, filter);
    let matrix = proof::prove(&carried.cases, &carried.ctx, judge, 2, &mut |_| true);
    (carried.cases, matrix)
}

fn assert_proven(suite: &str, filter: &str, gates_at_least: usize) {
    let (cases, matrix) = prove_with(suite, filter, &judge::run);
    let lost: Vec<String> = matrix
        .cells
        .iter()
        .filter(|cell| matches!(cell.kill, Kill::Survived | Kill::WrongReason))
        .map(|cell| {
            format!("{} {} under {}: {}", cell.kill.name(), cell.gate, cell.fault, cell.note)
        })
        .collect();
    assert!(lost.is_empty(), "{}", lost.join("\n"));
    assert_eq!(matrix.red_under_no_op, Vec::<String>::new());
    assert_eq!(proof::blocking_unproven(&cases, &matrix), Vec::<String>::new());
    assert!(matrix.gates.len() >= gates_at_least, "only {:?}", matrix.gates);
}

#[test]
fn every_gate_names_a_fault_that_exists() {
    for contract in catalogue().contracts.values() {
        for gate in &contract.gates {
            assert!(!gate.kills.is_empty(), "{}/{} kills nothing", contract.contract, gate.id);
            for aim in &gate.kills {
                assert!(library::by_id(&aim.fault).is_some(), "{aim} of {}", gate.id);
            }
        }
    }
}

#[test]
fn gates_over_files_kill_every_fault_they_name() {
    let forms = "format(safetensors) | format(apr) | stored(q8_0)";
    let gates = "contract(=metadata) | contract(=tensor-layout) | contract(=format-integrity)";
    assert_proven("default", &format!("({forms}) & ({gates})"), 20);
}

#[test]
fn gates_over_the_engine_kill_every_fault_they_name() {
    let cells = "format(safetensors) & backend(=simd)";
    let gates = "contract(=stages) | contract(=generation)";
    assert_proven("default", &format!("{cells} & ({gates})"), 20);
}

#[test]
fn gates_over_families_kill_every_fault_they_name() {
    assert_proven("pygmy", "contract(=families)", 16);
}

#[test]
fn the_other_gates_over_random_models_kill_every_fault_they_name() {
    assert_proven("pygmy", "!contract(=families)", 50);
}

#[test]
fn gates_without_a_model_kill_every_fault_they_name() {
    assert_proven("default", "contract(=blocks) | contract(=sampler)", 15);
}

#[test]
fn a_gate_that_is_always_green_is_found() {
    let blind = |_: &Planned, _: &JudgeContext| {
        let measure = Measure::judged("violations", 0.0, Limit::Exactly(0.0));
        Evidence::new(1, "nothing seen").measure(measure).verdict()
    };
    let (cases, matrix) = prove_with("default", "contract(=sampler)", &blind);
    assert_eq!(matrix.count(Kill::Survived), matrix.cells.len());
    assert!(!proof::blocking_unproven(&cases, &matrix).is_empty());
}

#[test]
fn a_gate_that_is_red_under_nothing_is_found() {
    let nervous = |_: &Planned, ctx: &JudgeContext| {
        let wrong = if ctx.plant.is_some() { 1.0 } else { 0.0 };
        let measure = Measure::judged("violations", wrong, Limit::Exactly(0.0));
        Evidence::new(1, "something planted").measure(measure).verdict()
    };
    let (_, matrix) = prove_with("default", "contract(=sampler)", &nervous);
    assert_eq!(matrix.red_under_no_op.len(), matrix.gates.len());
}

/// What a run of one green gate says under `fault`: its exit code and the verdict.
fn planted_run(carried: &Carried, fault: &str) -> (u8, VerdictKind, String) {
    let plant = library::by_id(fault).unwrap_or_else(|| panic!("no fault {fault}")).plant;
    let provenance = Provenance {
        apr_version: String::new(),
        binary_sha256: String::new(),
        catalogue_sha256: String::new(),
        parameters: Vec::new(),
        models: BTreeMap::new(),
        machine: BTreeMap::new(),
        command: Vec::new(),
        seed: 1,
        started: "2026-01-01T00:00:00Z".into(),
    };
    let options = RunOptions::new("default", provenance);
    let ctx = carried.ctx.planted(plant);
    let record = runner::run(&carried.cases, &ctx, &mut [], options);
    let [outcome] = &record.cases[..] else { panic!("{} cases", record.cases.len()) };
    (record.exit_code, outcome.verdict.kind(), outcome.verdict.summary())
}

const SITES: &str = "gate(=sites-match-scalar) & format(safetensors) & backend(=simd)";

const LOGITS: &str = "gate(=float-backend-matches-scalar) & format(safetensors) & backend(=simd)";

#[test]
fn a_planted_fault_of_the_subject_ends_the_run_with_1() {
    let (exit, kind, summary) = planted_run(&carried("default", LOGITS), "engine/layernorm");
    assert_eq!((exit, kind), (1, VerdictKind::Falsified), "{summary}");
}

#[test]
fn no_fault_of_the_harness_is_ever_green() {
    let carried = carried("default", SITES);
    let aims = carried.cases[0].gate.kills.iter().map(|aim| aim.fault.as_str());
    for fault in aims.filter(|fault| fault.starts_with("harness/")) {
        let (exit, kind, summary) = planted_run(&carried, fault);
        assert_ne!(exit, 0, "{fault}: {summary}");
        assert_ne!(kind, VerdictKind::Corroborated, "{fault}: {summary}");
    }
}

#[test]
fn the_harness_hides_what_its_faults_say_and_each_is_noticed() {
    let (_, matrix) = prove_with("default", SITES, &judge::run);
    let harness: Vec<_> =
        matrix.cells.iter().filter(|cell| cell.fault.starts_with("harness/")).collect();
    for cell in &harness {
        assert_eq!(cell.kill, Kill::Killed, "{}: {}", cell.fault, cell.note);
    }
    assert_eq!(harness.len(), 6, "the seventh reads what a program prints");
}

#[test]
fn every_fault_of_the_library_is_named_by_a_gate() {
    let catalogue = catalogue();
    let gates = catalogue.contracts.values().flat_map(|contract| &contract.gates);
    let named: BTreeSet<String> =
        gates.flat_map(|gate| &gate.kills).map(|aim| aim.fault.clone()).collect();
    let idle: Vec<&str> = library::all()
        .iter()
        .map(|fault| fault.info.id)
        .filter(|id| !named.contains(*id))
        .collect();
    assert_eq!(idle, Vec::<&str>::new());
}

#[test]
fn a_gate_that_was_not_green_says_why_it_was_not_proved() {
    let red = |_: &Planned, _: &JudgeContext| {
        let measure = Measure::judged("violations", 3.0, Limit::Exactly(0.0));
        Evidence::new(1, "three things wrong").measure(measure).verdict()
    };
    let (_, matrix) = prove_with("default", "gate(=keeps-best)", &red);
    let [cell] = &matrix.cells[..] else { panic!("{:?}", matrix.cells) };
    assert_eq!(cell.kill, Kill::NotRun);
    assert!(cell.note.contains("falsified: three things wrong"), "{}", cell.note);
}

#[test]
fn a_gate_that_turns_red_by_another_measure_has_not_seen_the_fault() {
    let elsewhere = |_: &Planned, ctx: &JudgeContext| {
        let wrong = f64::from(u8::from(ctx.plant.as_ref().is_some_and(|p| p.sampler().is_some())));
        let measure = |name, value| Measure::judged(name, value, Limit::Exactly(0.0));
        let evidence = Evidence::new(1, "seen").measure(measure("aimed", 0.0));
        evidence.measure(measure("elsewhere", wrong)).verdict()
    };
    let mut carried = carried("default", "gate(=keeps-best)");
    let mut gate = (*carried.cases[0].gate).clone();
    for (by, kill) in [("aimed", Kill::WrongReason), ("elsewhere", Kill::Killed)] {
        gate.kills[0].by = Some(by.to_owned());
        carried.cases[0].gate = gate.clone().into();
        let matrix = proof::prove(&carried.cases, &carried.ctx, &elsewhere, 1, &mut |_| true);
        assert_eq!(matrix.cells[0].kill, kill, "{}", matrix.cells[0].note);
    }
}
