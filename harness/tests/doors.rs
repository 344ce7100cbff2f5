//! What each of the three doors says of damaged files: `validate` names the rule and the tensor or field, `check` the stage,
//! `compare-inference` the first site that parts from the whole file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use apr_engine::backend::{CacheType, Device};
use apr_engine::model::{LmOptions, Model};
use apr_harness::case::ModelRef;
use apr_harness::contract::Catalogue;
use apr_harness::event::Outcome;
use apr_harness::fault::library;
use apr_harness::judge::{self, BackendSpec, JudgeContext, Planned};
use apr_harness::need::Needs;
use apr_harness::pipeline::{self, StageStatus};
use apr_harness::rosetta::{Options, Side, Source, Tokens, compare};
use apr_harness::validate::{self, validate};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// A whole model and everything that looks at damaged copies of it.
struct Doors {
    form: ModelRef,
    whole: Model,
    cases: Vec<Planned>,
    ctx: JudgeContext,
    _work: tempfile::TempDir,
}

/// What the doors said of one damaged copy.
#[derive(Debug)]
struct Said {
    /// `rule place` of every violation.
    violations: Vec<String>,
    /// Stages that failed; none when `check` was not asked.
    stages: BTreeSet<&'static str>,
    /// The first site that parts, or why there is none.
    site: String,
}

impl Doors {
    fn of(form: &str, path: &str) -> Self {
        let catalogue =
            Catalogue::from_directory(&fixtures().join("../contracts")).expect("contracts");
        let path = fixtures().join(path);
        let form = ModelRef { model: "golden".into(), form: form.into(), path };
        let spec =
            BackendSpec { backend: "simd".into(), isa: None, threads: None, reference: false };
        let cases = pipeline::expansion(&catalogue, &form, &spec).expect("cases").cases;
        let work = tempfile::tempdir().expect("work");
        let ctx = JudgeContext::new(fixtures(), work.path().into(), 0, Needs::probe());
        let whole = Model::load(&form.path).expect("the whole model");
        Self { form, whole, cases, ctx, _work: work }
    }

    /// Damages a copy by `fault` and asks the doors, `check` only when wanted; `None` when the fault changes no byte of it.
    fn ask(&self, fault: &str, check: bool) -> Option<Said> {
        let plant = library::by_id(fault).unwrap_or_else(|| panic!("no fault {fault}")).plant;
        let ctx = self.ctx.planted(plant);
        let path = ctx.path(&self.form).expect("a copy");
        if path == self.form.path {
            return None;
        }
        let options = validate::Options { quality: true, strict: false };
        let found = validate(&path, options).expect("a validation");
        let violations =
            found.violations.iter().map(|one| format!("{} {}", one.rule, one.place)).collect();
        let cases = if check { self.cases.as_slice() } else { &[] };
        let outcomes: Vec<Outcome> = cases
            .iter()
            .map(|case| Outcome {
                case: case.info.clone(),
                verdict: judge::run(case, &ctx),
                duration_ms: 0.0,
                resumed: false,
            })
            .collect();
        let reports = pipeline::sum_up(cases, &outcomes);
        let failed = reports.iter().filter(|report| report.status == StageStatus::Failed);
        let stages = failed.map(|report| report.stage.name()).collect();
        Some(Said { violations, stages, site: self.first_site(&path) })
    }

    fn first_site(&self, path: &Path) -> String {
        let damaged = match Model::load(path) {
            Ok(model) => model,
            Err(error) => return format!("refused: {}", error.code().name()),
        };
        let start = |model: &Model| model.lm_on(&Device::SIMD, LmOptions::default());
        let (first, second) = (|| start(&self.whole), || start(&damaged));
        let ids: Vec<u32> = (0..12).map(|at| at * 37 + 11).collect();
        let tokens = Tokens { source: ids.clone(), target: ids };
        let cache_type = CacheType::default();
        let side =
            |model, start| Side { name: "side".into(), model, start, exact: false, cache_type };
        let found = compare(
            &Source::Model(side(&self.whole, &first)),
            &side(&damaged, &second),
            tokens,
            Options::default(),
        );
        match found {
            Ok(found) => found.first.map_or_else(|| "none".to_owned(), |first| first.site),
            Err(error) => format!("error: {error:?}"),
        }
    }
}

/// A fault, what `validate` must say of it, the stage that `check` must name, and the site at which `compare-inference` must see the
/// two part (or the error with which the damaged files are refused). Nothing is asked where a text is empty: a turned sign is
/// nobody's violation, and a token that is lost changes no site.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const SAFETENSORS: &[Row] = &[
    ("file/embedding-zeroed", "F-DATA-QUALITY-001 tensor model.embed_tokens.weight", "embedding", "embed"),
    ("file/projection-zeroed", "F-DATA-QUALITY-001 tensor model.layers.0.self_attn.v_proj.weight", "Q/K/V projection", "layers.0.v"),
    ("file/tensors-zeroed", "F-DATA-QUALITY-001 tensor model.layers.1.mlp.down_proj.weight", "poison", ""),
    ("file/nan-weight", "F-DATA-QUALITY-002", "feed-forward", "layers.1.down"),
    ("file/inf-weight", "F-DATA-QUALITY-002", "poison", "layers.1.down"),
    ("file/tensor-constant", "F-DATA-QUALITY-003", "poison", "layers.0.down"),
    ("file/values-vanished", "F-DATA-QUALITY-003", "poison", "layers.0.down"),
    ("file/scale-exploded", "", "poison", "layers.0.down"),
    ("file/bias-zeroed", "", "structure", "layers.0.q"),
    ("file/gains-less-one", "", "", "layers.0.attn_norm"),
    ("file/rms-eps", "", "", "layers.0.attn_norm"),
    ("file/rope-theta", "", "", "layers.0.rope_q"),
    ("file/rows-swapped", "", "", "layers.0.o_proj"),
    ("file/transposed", "", "", "layers.0.o_proj"),
    ("file/sign-flipped", "", "", "layers.0.gate"),
    ("file/added-tokens-dropped", "", "tokenizer", ""),
    ("file/eos-wrong", "", "tokenizer", ""),
    ("file/pre-tokenizer", "", "tokenizer", ""),
    ("file/byte-token-lost", "E0602 field merges[25]", "tokenizer", ""),
    ("file/vocabulary-grown", "E0602", "tokenizer", ""),
    ("file/architecture", "E0504 field model_type", "", "refused: Architecture"),
    ("file/hidden-size-missing", "E0502 field hidden_size", "", "refused: ConfigMissing"),
    ("file/rms-eps-zero", "E0503 field rms_norm_eps", "", "refused: ConfigValue"),
    ("file/head-count", "E0506 tensor model.layers.0.self_attn.k_proj.weight", "", "refused: WeightShape"),
    ("file/kv-heads-missing", "E0506 tensor model.layers.0.self_attn.k_proj.weight", "", "refused: WeightShape"),
    ("file/dims-reversed", "E0506 tensor model.embed_tokens.weight", "", "refused: WeightShape"),
    ("file/bias-renamed", "E0505 tensor model.layers.0.self_attn.q_proj.bias", "", "refused: WeightUnexpected"),
    ("file/norm-renamed", "E0505 tensor model.norm.weight", "", "refused: WeightMissing"),
    ("file/untied", "E0505 tensor lm_head.weight", "", "refused: WeightMissing"),
    ("file/layer-missing", "E0505 tensor model.layers.1.mlp.up_proj.weight", "", "refused: WeightUnexpected"),
    ("file/layer-count", "E0509 tensor model.layers.2.input_layernorm.weight", "", "refused: WeightUnexpected"),
    ("file/truncated", "E0201", "", "refused: StTruncated"),
    ("file/trailing-bytes", "E0208", "", "refused: StTrailing"),
];

#[rustfmt::skip]
const GGUF: &[Row] = &[
    ("file/values-vanished", "F-DATA-QUALITY-001 tensor blk.0.ffn_down.weight", "", "layers.0.down"),
    ("file/nan-weight", "F-DATA-QUALITY-002 tensor blk.1.ffn_down.weight", "", "layers.1.down"),
    ("file/magic", "E0002", "", "refused: NotAModel"),
    ("file/version", "E0102", "", "refused: GgufVersion"),
    ("file/tensor-count", "E0104", "", "refused: GgufCount"),
    ("file/shifted", "E0117 tensor token_embd.weight", "", "refused: GgufTensorOffset"),
    ("file/truncated", "E0101", "", "refused: GgufTruncated"),
    ("file/rope-theta", "", "", "layers.0.rope_q"),
];

/// Asks the doors for each row and gives everything that a row demands and no door said.
fn unsaid(doors: &Doors, rows: &[Row]) -> Vec<String> {
    let mut unsaid = Vec::new();
    for (fault, violation, stage, site) in rows {
        let Some(said) = doors.ask(fault, !stage.is_empty()) else {
            unsaid.push(format!("{fault} changes nothing"));
            continue;
        };
        let named = said.violations.iter().any(|one| one.starts_with(violation));
        if !violation.is_empty() && !named {
            unsaid.push(format!("{fault}: validate: {violation} is not in {:?}", said.violations));
        }
        if !stage.is_empty() && !said.stages.contains(stage) {
            unsaid.push(format!("{fault}: check: {stage} is not in {:?}", said.stages));
        }
        if !site.is_empty() && said.site != *site {
            unsaid.push(format!("{fault}: compare-inference: {site}, not {}", said.site));
        }
    }
    unsaid
}

#[test]
fn every_door_names_the_place_of_what_it_can_see() {
    let unsaid = unsaid(&Doors::of("safetensors", "golden"), SAFETENSORS);
    assert_eq!(unsaid, Vec::<String>::new());
}

#[test]
fn the_doors_say_the_same_of_a_quantised_file() {
    let unsaid = unsaid(&Doors::of("gguf-q8_0", "gguf/golden-Q8_0.gguf"), GGUF);
    assert_eq!(unsaid, Vec::<String>::new());
}

#[test]
fn a_whole_model_is_none_of_the_doors_business() {
    let doors = Doors::of("safetensors", "golden");
    let options = validate::Options { quality: true, strict: false };
    assert_eq!(validate(&doors.form.path, options).expect("a validation").violations, []);
    assert_eq!(doors.first_site(&doors.form.path), "none");
}
