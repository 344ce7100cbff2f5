//! Two sides on the carried models: exactly equal to themselves, near other forms, parted where a fault was placed, and near
//! what independent implementations recorded.

use std::path::{Path, PathBuf};

use apr_engine::backend::{CacheType, Device};
use apr_engine::model::{Lm, LmOptions, Model};
use apr_harness::case::ModelRef;
use apr_harness::contract::Catalogue;
use apr_harness::contract::check::{Check, OtherSide};
use apr_harness::fault::engine::{EngineFault, faulty_lm};
use apr_harness::fault::{HarnessFault, library};
use apr_harness::filter::Filter;
use apr_harness::judge::{self, BackendSpec, JudgeContext};
use apr_harness::need::Needs;
use apr_harness::rosetta::{
    Comparison, Diff, Fingerprint, Options, Recorded, Side, SiteStatus, Source, Tokens, Wrong,
    compare, page, table,
};
use apr_harness::suite::{self, Roots};
use apr_harness::verdict::Verdict;

const FAMILIES: [&str; 10] = [
    "golden",
    "pygmy/qwen2-tied",
    "pygmy/llama3-gqa",
    "pygmy/mistral",
    "pygmy/llama-mha",
    "pygmy/qwen3",
    "pygmy/phi3",
    "pygmy/longrope",
    "pygmy/gemma2",
    "pygmy/gemma3",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn model(name: &str) -> Model {
    Model::load(&fixtures().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn ids(model: &Model) -> Vec<u32> {
    (0..16).map(|at| (at * 37 + 11) % model.config().vocab as u32).collect()
}

/// How a side is started.
type Start<'a> = &'a dyn Fn() -> apr_engine::Result<Box<dyn Lm>>;

fn side<'a>(name: &str, model: &'a Model, start: Start<'a>, device: &Device) -> Side<'a> {
    let (exact, cache_type) = (*device == Device::Scalar, CacheType::default());
    Side { name: name.to_owned(), model, start, exact, cache_type }
}

/// `target` on `theirs` against `source` on `ours`.
fn compared(source: &Model, ours: &Device, target: &Model, theirs: &Device) -> Comparison {
    let start = |model: &Model, device: &Device| model.lm_on(device, LmOptions::default());
    let (first, second) = (|| start(source, ours), || start(target, theirs));
    let tokens = Tokens { source: ids(source), target: ids(source) };
    let source = Source::Model(side("source", source, &first, ours));
    let target = side("target", target, &second, theirs);
    compare(&source, &target, tokens, Options::default()).expect("both sides start")
}

/// The model against itself with a fault of the engine in it.
fn faulty(model: &Model, fault: EngineFault, layer: usize, options: Options) -> Comparison {
    let spec = BackendSpec { backend: "simd".into(), isa: None, threads: None, reference: false };
    let start = || model.lm_on(&Device::SIMD, LmOptions::default());
    let broken = || faulty_lm(fault, Some(layer), model, &spec, LmOptions::default());
    let source = Source::Model(side("whole", model, &start, &Device::SIMD));
    let target = side("broken", model, &broken, &Device::SIMD);
    let tokens = Tokens { source: ids(model), target: ids(model) };
    compare(&source, &target, tokens, options).expect("both sides start")
}

fn assert_agrees(found: &Comparison, what: &str) {
    assert!(!found.diverges() && found.is_complete(), "{what}: {}", table::conclusion(found));
}

#[test]
fn a_model_is_exactly_itself_on_every_processor_backend() {
    for name in FAMILIES {
        let model = model(name);
        for device in [Device::Scalar, Device::SIMD] {
            let found = compared(&model, &device, &model, &device);
            assert!(found.is_zero(), "{name} on {device}: {}", table::conclusion(&found));
            assert!(found.rows > 300, "{name}: only {} rows", found.rows);
            let logits = found.logits.expect("logits");
            assert_eq!((logits.kl_max, logits.top_overlap_least), (Some(0.0), 1.0), "{name}");
        }
    }
}

#[test]
fn the_vector_backend_parts_from_the_oracle_by_rounding_alone() {
    for name in FAMILIES {
        let model = model(name);
        let found = compared(&model, &Device::Scalar, &model, &Device::SIMD);
        assert_agrees(&found, name);
        assert!(!found.is_zero(), "{name}: f32 and f64 sums are not the same");
    }
}

#[test]
fn every_carried_form_agrees_with_its_source_at_every_site() {
    let mut tried = 0;
    for entry in std::fs::read_dir(fixtures().join("gguf")).expect("forms") {
        let name = entry.expect("a form").file_name().into_string().expect("a name");
        let origin = FAMILIES
            .iter()
            .find(|origin| name.starts_with(&format!("{}-", origin.trim_start_matches("pygmy/"))));
        let Some(origin) = origin else { continue };
        let (source, target) = (model(origin), model(&format!("gguf/{name}")));
        let found = compared(&source, &Device::SIMD, &target, &Device::SIMD);
        assert_agrees(&found, &name);
        tried += 1;
    }
    assert!(tried >= 20, "only {tried} forms");
}

#[test]
fn both_processor_backends_agree_with_what_transformers_recorded() {
    for name in FAMILIES {
        let short = name.trim_start_matches("pygmy/");
        let file = fixtures().join(format!("oracle/transformers/{short}.safetensors"));
        let bytes = std::fs::read(file).expect("an oracle");
        let model = model(name);
        for device in [Device::Scalar, Device::SIMD] {
            let recorded = Recorded::parse(short, &bytes, "logits", &|_| true).expect("sites");
            let tokens =
                Tokens { source: recorded.tokens.clone(), target: recorded.tokens.clone() };
            let start = || model.lm_on(&device, LmOptions::default());
            let target = side("ours", &model, &start, &device);
            let source = Source::Recorded(recorded);
            let found = compare(&source, &target, tokens, Options::default()).expect("starts");
            assert_agrees(&found, &format!("{name} on {device}"));
            assert!(
                found.sites.len() >= 14 * model.config().layers,
                "{name}: {}",
                found.sites.len()
            );
        }
    }
}

/// The gate of placed faults with 100 of them, on models whose parts differ: biases, head norms, grouped heads.
#[test]
fn of_a_hundred_placed_faults_at_least_ninety_five_are_found_at_their_own_site() {
    let root = fixtures().join("..");
    let catalogue = Catalogue::from_directory(&root.join("contracts")).expect("contracts");
    let file = root.join("suites/default.yaml");
    let filter = Filter::parse("gate(=planted-fault-is-located)").expect("a filter");
    for model in ["golden", "pygmy/qwen3", "pygmy/llama3-gqa"] {
        let work = tempfile::tempdir().expect("work");
        let roots =
            Roots { fixtures: fixtures(), built: work.path().join("built"), ..Roots::default() };
        let suite = suite::load_suite(&file, &catalogue).expect("a suite");
        let suite = suite.on_model("model", "safetensors", &fixtures().join(model));
        let cases = suite::expand(&suite, &catalogue, &roots).expect("cases").cases;
        let mut case = cases.into_iter().find(|case| filter.selects(case)).expect("the gate");
        let mut gate = (*case.gate).clone();
        let Check::CompareInference(check) = &mut gate.check else { panic!("another check") };
        let OtherSide::Faulty(placements) = &mut check.with else { panic!("another side") };
        placements.count = 100;
        case.gate = gate.into();
        let ctx = JudgeContext::new(fixtures(), work.path().into(), 7, Needs::probe());
        let Verdict::Corroborated(evidence) = judge::run(&case, &ctx) else {
            panic!("{model}: {:?}", judge::run(&case, &ctx));
        };
        assert_eq!(evidence.comparisons, 100);
        let located = evidence.measures.iter().find(|measure| measure.name == "located-share");
        let located = located.and_then(|measure| measure.value).expect("a share");
        assert!(located >= 0.95, "{model}: {located}: {:?}", evidence.details);
    }
}

#[test]
fn the_oracle_blames_the_side_with_the_fault() {
    let model = model("golden");
    for (fault, site) in [
        (EngineFault::RopeStyle, "layers.1.rope_q"),
        (EngineFault::UpDropped, "layers.1.swiglu"),
        (EngineFault::RowSwap, "layers.1.o_proj"),
        (EngineFault::NanAtLayer { layer: 1 }, "layers.1.down"),
        (EngineFault::LogitsPermuted, "logits"),
    ] {
        let found = faulty(&model, fault, 1, Options::default());
        assert!(found.diverges(), "{fault:?}");
        let first = found.first.as_ref().expect("a first site");
        assert_eq!(first.site, site, "{fault:?}");
        let vote = first.vote.as_ref().expect("a vote");
        assert_eq!(vote.wrong, Wrong::Target, "{fault:?}: {vote:?}");
        let text = table::render(&found, "seeded", true);
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("first divergent site: {site} at")), "{last}");
        assert!(last.contains("the target computes it wrongly"), "{last}");
    }
}

#[test]
fn what_follows_a_fault_is_inherited_and_not_local() {
    let found = faulty(&model("golden"), EngineFault::UpDropped, 0, Options::default());
    let apart = |site: &str| {
        let site = found.sites.iter().find(|report| report.site == site).expect("the site");
        (site.status, site.inherited.expect("finite"))
    };
    assert_eq!(apart("layers.0.swiglu").0, SiteStatus::Mismatch);
    let (status, inherited) = apart("layers.2.q");
    assert_eq!(status, SiteStatus::Inherited, "the same operation on other inputs");
    assert!(inherited > 1e-4, "{inherited}");
}

/// The trained model with signs of one weight turned.
fn damaged(work: &Path) -> std::sync::Arc<Model> {
    let ctx = JudgeContext::new(fixtures(), work.into(), 0, Needs::default());
    let fault = library::by_id("file/sign-flipped").expect("the fault");
    let form = ModelRef {
        model: "golden".into(),
        form: "safetensors".into(),
        path: fixtures().join("golden"),
    };
    ctx.planted(fault.plant).model(&form).expect("it loads")
}

#[test]
fn a_damaged_weight_is_told_from_a_wrong_operation() {
    let work = tempfile::tempdir().expect("work");
    let damaged = damaged(work.path());
    let found = compared(&model("golden"), &Device::SIMD, &damaged, &Device::SIMD);
    let first = found.first.expect("a first site");
    let vote = first.vote.expect("a vote");
    assert_eq!(vote.wrong, Wrong::Weights, "{vote:?}");
    assert!(!vote.differing.is_empty(), "{vote:?}");
}

#[test]
fn equal_weights_have_one_fingerprint_in_every_container() {
    let f32s = Fingerprint::of(&model("gguf/llama-mha-F32.gguf")).expect("a fingerprint");
    let source = Fingerprint::of(&model("pygmy/llama-mha")).expect("a fingerprint");
    assert_eq!(f32s.values, source.values, "llama.cpp writes the same numbers");
    assert_eq!(f32s.stored, source.stored, "both files store them in single precision");
    assert!(source.tensors.len() > 10);
}

#[test]
fn other_weights_have_another_fingerprint_and_the_diff_names_them() {
    let work = tempfile::tempdir().expect("work");
    let (golden, damaged) = (model("golden"), damaged(work.path()));
    let (whole, other) = (Fingerprint::of(&golden), Fingerprint::of(&damaged));
    let (whole, other) = (whole.expect("a fingerprint"), other.expect("a fingerprint"));
    assert_ne!((&whole.values, &whole.stored), (&other.values, &other.stored));
    let pairs = whole.tensors.iter().zip(&other.tensors);
    let changed: Vec<&str> = pairs.filter(|(a, b)| a != b).map(|(a, _)| a.slot.as_str()).collect();
    let diff = Diff::of(&golden, &damaged).expect("a diff");
    let named: Vec<&str> = diff.tensors.iter().map(|tensor| tensor.slot.as_str()).collect();
    assert_eq!(named, changed);
    assert!(!named.is_empty() && diff.metadata.is_empty() && diff.tokenizer.is_empty());
    let first = diff.tensors[0].first.expect("a first byte");
    assert_eq!(first.source ^ first.target, 0x80, "the sign alone");
    assert!(!diff.same_values() && !diff.is_empty());
}

#[test]
fn a_model_does_not_differ_from_itself_and_other_dtypes_are_named() {
    let golden = model("golden");
    let same = Diff::of(&golden, &golden).expect("a diff");
    assert!(same.is_empty() && same.same_values(), "{}", same.render());
    assert!(same.tensors_compared > 40 && same.tokens_compared > 256, "{}", same.render());
    let blocks = Diff::of(&golden, &model("gguf/golden-Q8_0.gguf")).expect("a diff");
    let text = blocks.render();
    assert!(text.contains("source BF16") && text.contains("target Q8_0"), "{text}");
    assert!(blocks.tensors.iter().all(|tensor| tensor.nmse.is_some_and(|nmse| nmse < 1e-3)));
    assert_eq!(blocks.tokens_differing, 24, "llama.cpp names the rows that pad the table: {text}");
}

#[test]
fn a_comparison_of_nothing_is_no_agreement() {
    let options = Options { fault: Some(HarnessFault::EmptyComparison), ..Options::default() };
    let found = faulty(&model("golden"), EngineFault::RopeStyle, 0, options);
    assert_eq!(found.rows, 0);
    assert!(!found.is_complete() && !found.is_zero());
    assert_eq!(table::conclusion(&found), "nothing was compared");
}

#[test]
fn a_page_needs_nothing_from_outside_and_shows_every_site() {
    let found = faulty(&model("golden"), EngineFault::RopeStyle, 1, Options::default());
    let page = page::render(&found, "<script>alert(1)</script>");
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    for site in &found.sites {
        assert!(page.contains(&format!("<title>{} position", site.site)), "{}", site.site);
    }
    assert!(page.contains("first divergent site: layers.1.rope_q"), "the conclusion");
}
