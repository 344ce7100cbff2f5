//! Healthy models as a user brings them: one file, known by what it states and not by a name that a suite gave. No gate
//! may accuse one.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use apr_engine::format::convert::{Precision, convert_file};
use apr_engine::format::{Format, Source};
use apr_engine::model::Model;
use apr_harness::contract::Catalogue;
use apr_harness::filter::Filter;
use apr_harness::judge::{self, JudgeContext};
use apr_harness::need::Needs;
use apr_harness::suite::{self, Roots};
use apr_harness::validate::{self, Options};
use apr_harness::verdict::VerdictKind;

/// The contracts whose bounds depend on what a file stores or states, on the fast backend.
const JUDGED: &str = "(contract(parity) | contract(paths) | contract(stages) | contract(rosetta) \
                      | contract(metadata) | contract(tensor-layout) | contract(tensor-quality) \
                      | contract(validation)) & (backend(=simd) | !backend(*))";
/// What is merely usual accuses nobody.
const OBSERVED: &str = "severity(info)";
/// What every pygmy is converted to.
const TARGETS: [(Format, Option<&str>, &str); 7] = [
    (Format::Gguf, Some("q8_0"), "q8_0.gguf"),
    (Format::Gguf, Some("q4_0"), "q4_0.gguf"),
    (Format::Gguf, Some("q4_k_m"), "q4_k_m.gguf"),
    (Format::Gguf, Some("q5_k_m"), "q5_k_m.gguf"),
    (Format::Gguf, Some("q6_k"), "q6_k.gguf"),
    (Format::Apr, None, "stored.apr"),
    (Format::Apr, Some("q4_k_m"), "q4_k_m.apr"),
];
/// A pygmy whose scores are scaled as no reader of GGUF would.
const SCALED: &str = "gemma2-wide";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Directories and GGUF files of a folder of the fixtures.
fn models_in(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("fixtures").join(folder)).expect(folder);
    let paths = entries.map(|entry| entry.expect("entry").path());
    let is_model = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|e| e == "gguf");
    let mut models: Vec<PathBuf> = paths.filter(is_model).collect();
    models.sort();
    models
}

/// What accuses the model at `path`.
fn accusations(path: &Path, catalogue: &Catalogue) -> Vec<String> {
    let file = root().join("suites/model.yaml");
    let suite = suite::load_suite(&file, catalogue).unwrap_or_else(|error| panic!("{error}"));
    let format = Source::open(path).expect("a model").format().name();
    let mut suite = suite.on_model("model", format, path);
    suite.backends = vec!["simd".into()];
    let work = tempfile::tempdir().expect("work");
    let roots = Roots {
        fixtures: root().join("fixtures"),
        built: work.path().join("built"),
        ..Roots::default()
    };
    let expansion = suite::expand(&suite, catalogue, &roots).expect("expansion");
    let mut ctx = JudgeContext::new(roots.fixtures, work.path().into(), 1, Needs::probe());
    ctx.forms = expansion.forms;
    let [judged, observed] = [JUDGED, OBSERVED].map(|text| Filter::parse(text).expect("a filter"));
    let wanted = |case: &&judge::Planned| judged.selects(case) && !observed.selects(case);
    let cases: Vec<_> = expansion.cases.iter().filter(wanted).collect();
    assert!(cases.len() > 50, "{}: only {} cases", path.display(), cases.len());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut red = Vec::new();
    for case in cases {
        let verdict = judge::run(case, &ctx);
        let spared = verdict.kind() == VerdictKind::Skipped && !case.info.required;
        if verdict.kind() != VerdictKind::Corroborated && !spared {
            red.push(format!("{name}: {}: {}", case.info.id, verdict.summary()));
        }
    }
    let options = Options { quality: true, strict: false };
    let validation = validate::validate(path, options).expect("a readable file");
    let violation = |one: &validate::Violation| format!("{name}: {}: {}", one.rule, one.found);
    red.extend(validation.violations.iter().map(violation));
    red
}

/// Demands that nothing accuses any of `models`; two are judged at a time.
fn assert_spared(models: Vec<PathBuf>) {
    let catalogue = Catalogue::from_directory(&root().join("contracts")).expect("contracts");
    let (queue, red) = (Mutex::new(models), Mutex::new(Vec::new()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = next() {
                    let accused = accusations(&path, &catalogue);
                    red.lock().unwrap_or_else(PoisonError::into_inner).extend(accused);
                }
            });
        }
    });
    let red: Vec<String> = red.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(red.is_empty(), "{} false accusations:\n{}", red.len(), red.join("\n"));
}

#[test]
fn no_carried_model_is_accused() {
    let mut models = vec![root().join("fixtures/golden")];
    models.extend(models_in("pygmy"));
    models.extend(models_in("gguf"));
    assert!(models.len() > 40, "{} models", models.len());
    assert_spared(models);
}

#[test]
fn no_pygmy_is_accused_in_any_quantisation() {
    let work = tempfile::tempdir().expect("work");
    let mut models = Vec::new();
    for pygmy in models_in("pygmy") {
        let model = Model::load(&pygmy).expect("a pygmy");
        let name = pygmy.file_name().unwrap_or_default().to_string_lossy();
        for (format, dtype, ending) in TARGETS {
            let precision =
                dtype.map_or(Precision::Stored, |name| Precision::from_name(name).expect(name));
            if name == SCALED && format == Format::Gguf {
                continue;
            }
            let path = work.path().join(format!("{name}-{ending}"));
            convert_file(&model, format, precision, &path, &mut |_| ControlFlow::Continue(()))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            models.push(path);
        }
    }
    assert_eq!(models.len(), 65);
    assert_spared(models);
}
