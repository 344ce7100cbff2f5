//! The ten stages on the carried models: all green on healthy ones, and under each engine fault the right stage red.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apr_engine::format::Format;
use apr_engine::format::convert::{Precision, convert};
use apr_engine::model::Model;
use apr_harness::case::ModelRef;
use apr_harness::contract::Catalogue;
use apr_harness::event::Outcome;
use apr_harness::fault::{Plant, library};
use apr_harness::judge::{self, BackendSpec, JudgeContext, Planned};
use apr_harness::need::Needs;
use apr_harness::pipeline::{self, PipelineStage, StageReport, StageStatus};

/// Engine faults that no value of a pass shows which fits into the context.
const NO_STAGE: &[&str] = &[
    "engine/caches-shared",
    "engine/context-cut",
    "engine/memory-kept",
    "engine/observed-slow",
    "engine/positions-shared",
    "engine/slow",
    "engine/token-wrapped",
    "engine/twentieth-slower",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// Faults that show on models of a family alone, and a random model of it.
const OF_FAMILY: &[(&str, &str)] = &[
    ("engine/qk-norm-skipped", "qwen3"),
    ("engine/rotary-width", "longrope"),
    ("engine/long-divisors-never", "longrope"),
    ("engine/long-divisors-always", "longrope"),
    ("engine/attention-factor-missing", "longrope"),
    ("engine/window-infinite", "gemma2"),
    ("engine/window-too-long", "gemma2"),
    ("engine/window-too-short", "gemma2"),
    ("engine/window-everywhere", "gemma2"),
    ("engine/window-in-other-layers", "gemma2"),
    ("engine/score-cap-missing", "gemma2"),
    ("engine/score-cap-zero", "gemma2"),
    ("engine/logit-cap-missing", "gemma2"),
    ("engine/logit-cap-zero", "gemma2"),
    ("engine/attn-post-norm-skipped", "gemma2"),
    ("engine/ffn-post-norm-skipped", "gemma2"),
    ("engine/embedding-scale-missing", "gemma2"),
    ("engine/gelu-is-silu", "gemma2"),
    ("engine/score-scale-of-head-size", "gemma2-wide"),
    ("engine/local-theta", "gemma3"),
    ("engine/rope-scaling-dropped", "gemma3"),
];

/// The gates of the stages on a model.
struct Check {
    cases: Vec<Planned>,
    ctx: JudgeContext,
    _work: tempfile::TempDir,
}

impl Check {
    fn new(path: PathBuf, spec: &BackendSpec) -> Self {
        let contracts = fixtures().join("../contracts");
        let catalogue = Catalogue::from_directory(&contracts).expect("contracts");
        let form = ModelRef { model: "model".into(), form: "form".into(), path };
        let cases = pipeline::expansion(&catalogue, &form, spec).expect("cases").cases;
        let work = tempfile::tempdir().expect("work");
        let ctx = JudgeContext::new(fixtures(), work.path().into(), 0, Needs::probe());
        Self { cases, ctx, _work: work }
    }

    fn outcomes(&self, plant: Option<Arc<dyn Plant>>) -> Vec<Outcome> {
        let ctx = match plant {
            Some(plant) => self.ctx.planted(plant),
            None => self.ctx.clone(),
        };
        let judged = self.cases.iter().map(|case| Outcome {
            case: case.info.clone(),
            verdict: judge::run(case, &ctx),
            duration_ms: 0.0,
            resumed: false,
        });
        judged.collect()
    }
}

fn on(backend: &str) -> BackendSpec {
    BackendSpec { backend: backend.into(), isa: None, threads: None, reference: false }
}

/// What is not passed, stage by stage, with its reasons.
fn open(reports: &[StageReport<'_>]) -> BTreeMap<PipelineStage, Vec<String>> {
    let open = reports.iter().filter(|report| report.status != StageStatus::Passed);
    open.map(|report| (report.stage, report.reasons())).collect()
}

fn assert_healthy(path: &Path, backend: &str) {
    let check = Check::new(path.to_path_buf(), &on(backend));
    let outcomes = check.outcomes(None);
    let reports = pipeline::sum_up(&check.cases, &outcomes);
    assert_eq!(open(&reports), BTreeMap::new(), "{} on {backend}", path.display());
    let figures = reports.iter().filter(|report| report.figure().is_some()).count();
    assert_eq!(figures, PipelineStage::ALL.len(), "every stage has a figure");
}

#[test]
fn every_stage_passes_on_the_trained_model_in_every_format_and_on_every_processor_backend() {
    let work = tempfile::tempdir().expect("work");
    let source = Model::load(&fixtures().join("golden")).expect("golden");
    let apr = work.path().join("golden.apr");
    convert(&source, Format::Apr, Precision::Stored, File::create(&apr).expect("file"))
        .expect("golden.apr");
    for path in [fixtures().join("golden"), apr, fixtures().join("gguf/golden-Q8_0.gguf")] {
        for backend in ["scalar", "simd"] {
            assert_healthy(&path, backend);
        }
    }
    assert_healthy(&fixtures().join("gguf/golden-Q4_K_M.gguf"), "simd");
}

#[test]
fn random_models_of_every_family_pass_every_stage_and_are_found_to_be_guessing() {
    for name in [
        "qwen2-tied",
        "llama3-gqa",
        "mistral",
        "llama-mha",
        "qwen3",
        "phi3",
        "longrope",
        "gemma2",
        "gemma2-wide",
        "gemma3",
    ] {
        let check = Check::new(fixtures().join("pygmy").join(name), &on("simd"));
        let outcomes = check.outcomes(None);
        let reports = pipeline::sum_up(&check.cases, &outcomes);
        assert_eq!(open(&reports), BTreeMap::new(), "{name}");
        let poison = reports.iter().find(|report| report.stage == PipelineStage::Poison);
        let unusual: Vec<_> = poison.into_iter().flat_map(StageReport::unusual).collect();
        let guesses = unusual.iter().any(|(_, summary)| summary.contains("uniform entropy"));
        assert!(guesses, "{name}: {unusual:?}");
    }
}

#[test]
fn every_engine_fault_that_changes_a_stage_turns_that_stage_red() {
    let check = Check::new(fixtures().join("golden"), &on("simd"));
    let threads = BackendSpec { threads: Some(2), ..on("simd") };
    let portable = BackendSpec { isa: Some("portable".into()), ..on("simd") };
    let threads = Check::new(fixtures().join("golden"), &threads);
    let portable = Check::new(fixtures().join("golden"), &portable);
    let names: BTreeSet<&str> = OF_FAMILY.iter().map(|(_, name)| *name).collect();
    let random = |name: &str| Check::new(fixtures().join("pygmy").join(name), &on("simd"));
    let families: BTreeMap<&str, Check> =
        names.into_iter().map(|name| (name, random(name))).collect();
    let family = |id: &str| {
        let (_, name) = OF_FAMILY.iter().find(|(fault, _)| *fault == id)?;
        families.get(name)
    };
    let mut tried = 0;
    for fault in library::all() {
        let id = fault.info.id;
        if !id.starts_with("engine/") {
            continue;
        }
        let expected = match (id, fault.info.op) {
            (_, Some(op)) => Some(PipelineStage::of(op)),
            ("engine/reset-ignored", None) => Some(PipelineStage::Sampler),
            ("engine/token-lost", None) => Some(PipelineStage::LmHead),
            // The first stage whose products follow a rounding is what tells a declaration that is wrong.
            ("engine/misdeclared", None) => Some(PipelineStage::Qkv),
            // A trace that shows a NaN shows it first where the pass begins.
            ("engine/nan-reported", None) => Some(PipelineStage::Embedding),
            (id, None) => {
                assert!(NO_STAGE.contains(&id), "{id} is not known to spare every stage");
                None
            }
        };
        let check = match id {
            "engine/threads-race" => &threads,
            "engine/isa-differs" => &portable,
            id => family(id).unwrap_or(&check),
        };
        let outcomes = check.outcomes(Some(fault.plant));
        let reports = pipeline::sum_up(&check.cases, &outcomes);
        let failed = reports.iter().filter(|report| report.status == StageStatus::Failed);
        let failed: Vec<PipelineStage> = failed.map(|report| report.stage).collect();
        match expected {
            Some(stage) => assert!(failed.contains(&stage), "{id}: {stage:?} in {failed:?}"),
            None => assert_eq!(failed, [], "{id}"),
        }
        tried += 1;
    }
    assert!(tried > 40, "only {tried} faults");
}

#[test]
fn a_stage_that_a_pass_did_not_reach_is_not_measured() {
    let check = Check::new(fixtures().join("golden"), &on("simd"));
    let fault = library::by_id("engine/nan-at-layer").expect("the fault");
    let outcomes = check.outcomes(Some(fault.plant));
    let reports = pipeline::sum_up(&check.cases, &outcomes);
    let status =
        |stage| reports.iter().find(|report| report.stage == stage).map(|report| report.status);
    assert_eq!(status(PipelineStage::FeedForward), Some(StageStatus::Failed));
    for stage in [PipelineStage::LmHead, PipelineStage::Softmax, PipelineStage::Sampler] {
        assert_eq!(status(stage), Some(StageStatus::NotMeasured), "{stage:?}");
    }
    assert_eq!(status(PipelineStage::Embedding), Some(StageStatus::Passed));
}
