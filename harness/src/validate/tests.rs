//! Validation over the carried fixtures, whole and damaged.

use std::path::PathBuf;

use apr_engine::format::Format;
use apr_engine::format::convert::{Precision, convert};

use super::*;
use crate::case::ModelRef;
use crate::fault::library;

const ALL: Options = Options { quality: true, strict: false };

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

fn copy_of_golden() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(fixture("golden").join(name), directory.path().join(name)).unwrap();
    }
    directory
}

fn rules(validation: &Validation) -> Vec<&str> {
    validation.violations.iter().map(|violation| violation.rule.as_str()).collect()
}

/// Every model of the fixtures: files of weights, and directories that hold one.
fn carried() -> Vec<PathBuf> {
    let files =
        |name: &str| std::fs::read_dir(fixture(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut models: Vec<PathBuf> = files("gguf").collect();
    models.extend(files("pygmy").filter(|path| path.is_dir()));
    models.push(fixture("golden"));
    models.sort();
    models
}

#[test]
fn no_carried_model_has_a_violation_and_all_its_values_are_counted() {
    let models = carried();
    assert!(models.len() >= 40, "{models:?}");
    for path in models {
        let validation = validate(&path, ALL).unwrap();
        assert_eq!(validation.violations, [], "{}", path.display());
        assert!(validation.checked.values > validation.checked.tensors, "{}", path.display());
        let quality = validation.quality.unwrap();
        let held: Vec<u64> = quality.rules.iter().map(|rule| rule.tensors).collect();
        assert!(!held.contains(&0), "{}: {held:?}", path.display());
        assert_eq!(quality.tensors.len() as u64, validation.checked.tensors);
    }
}

#[test]
fn an_absent_tokenizer_is_a_violation_to_the_strict_alone() {
    let directory = copy_of_golden();
    std::fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
    assert_eq!(validate(directory.path(), Options::default()).unwrap().violations, []);
    let strict = Options { quality: false, strict: true };
    let validation = validate(directory.path(), strict).unwrap();
    assert_eq!(rules(&validation), [apr_engine::Code::TokenizerMissing.number()]);
}

/// A planted fault, how the rule begins that lists it and a part of the place it points at: (fault, rule, place). Where
/// formats differ, `|` stands between what may be.
const SEEN: &[(&str, &str, &str)] = &[
    ("file/magic", "E0", ""),
    ("file/historic-magic", "E0302", ""),
    ("file/version", "E0", ""),
    ("file/index-zeroed", "E0", ""),
    ("file/truncated", "E0", ""),
    ("file/trailing-bytes", "", ""),
    ("file/bit-flip", "E0304", ""),
    ("file/header-checksum", "E0303", ""),
    ("file/column-major", "E0305", ""),
    ("file/tensor-count", "E0", ""),
    ("file/type-ids-swapped", "E0", "tensor "),
    ("file/dims-reversed", "E0506", "embd.weight|embed_tokens.weight"),
    ("file/bias-renamed", "E05|E0314", "bias|.apr"),
    ("file/norm-renamed", "E0505", "norm"),
    ("file/layer-missing", "E05|E0314", "up|.apr"),
    ("file/dtype-integer", "E0", "down"),
    ("file/half-kind", "F-DATA-QUALITY-003", "down"),
    ("file/name-control", "E0", ""),
    ("file/embedding-zeroed", "F-DATA-QUALITY-001", "embed_tokens.weight|token_embd.weight"),
    ("file/spot-zeroed", "F-DATA-QUALITY-004", "embed_tokens.weight|token_embd.weight"),
    ("file/tail-zeroed", "F-DATA-QUALITY-001", "tensor "),
    ("file/tensors-zeroed", "F-DATA-QUALITY-003", "layers.1.|blk.1."),
    (
        "file/projection-zeroed",
        "F-DATA-QUALITY-001",
        "layers.0.self_attn.v_proj.weight|blk.0.attn_v.weight",
    ),
    (
        "file/nan-weight",
        "F-DATA-QUALITY-002",
        "layers.1.mlp.down_proj.weight|blk.1.ffn_down.weight",
    ),
    ("file/nan-minimum", "F-DATA-QUALITY-002", "blk.1."),
    ("file/bytes-swapped", "F-DATA-QUALITY-002", "down"),
    (
        "file/inf-weight",
        "F-DATA-QUALITY-002",
        "layers.1.mlp.down_proj.weight|blk.1.ffn_down.weight",
    ),
    (
        "file/tensor-constant",
        "F-DATA-QUALITY-003",
        "layers.0.mlp.down_proj.weight|blk.0.ffn_down.weight",
    ),
    (
        "file/values-vanished",
        "F-DATA-QUALITY-003",
        "layers.0.mlp.down_proj.weight|blk.0.ffn_down.weight",
    ),
    ("file/rms-eps", "implausible", "hyper-parameters"),
    ("file/rms-eps-zero", "E0503", "eps"),
    ("file/head-count", "E05", ""),
    ("file/hidden-size-missing", "E0502", "hidden_size|embedding_length"),
    ("file/layer-count", "E0509", "2"),
    ("file/architecture", "E0504", ""),
    ("file/untied", "E0505", "head"),
    ("file/vocabulary-grown", "E06", ""),
    ("file/tokenizer-hidden", "E0601|E0602", ""),
    ("file/eos-wrong", "special-token", "tokenizer"),
    ("file/merges-dropped", "E0602", "merges"),
];

/// File faults that no look at the bytes can tell from a model that is meant so, and who sees them instead.
const UNSEEN: &[(&str, &str)] = &[
    ("file/rope-theta", "another base is as plausible; the answers show it"),
    ("file/shifted", "one byte late is refused in GGUF, and legal in SafeTensors"),
    (
        "file/scale-exploded",
        "the magnitude gate has a limit; none is part of the data-quality contract",
    ),
    ("file/rows-swapped", "every row is a row of the model; the answers show it"),
    ("file/transposed", "a square matrix is as good the other way; the answers show it"),
    ("file/bias-zeroed", "a bias of zeros is what no bias would be"),
    ("file/gains-less-one", "gains have no right size; the stages show it"),
    ("file/entry-lost", "an entry without use is nothing that is missed here"),
    ("file/scale-off", "a fifth more is as plausible; comparisons with the source show it"),
    ("file/sign-flipped", "either sign is as plausible; the answers show it"),
    (
        "file/kv-heads-missing",
        "as many as query heads is what leaving it out means; shapes then tell where they can",
    ),
    ("file/byte-token-lost", "the round trip of bytes shows it"),
    ("file/template-empty", "a template may ignore the conversation; the prompts show it"),
    ("file/pre-tokenizer", "token ids show it"),
    ("file/added-tokens-dropped", "token ids show it"),
    ("file/template-role", "the prompts show it"),
];

/// Faults that change a form and leave it a model that is whole: (fault, form, why).
const HARMLESS: &[(&str, &str, &str)] =
    &[("file/untied", "apr", "a converted file carries a head of its own, as it then says")];

/// The model in every format, and in blocks: (form, path).
fn forms(work: &Path) -> Vec<(&'static str, PathBuf)> {
    let apr = work.join("golden.apr");
    let model = Model::load(&fixture("golden")).unwrap();
    let mut file = std::fs::File::create(&apr).unwrap();
    convert(&model, Format::Apr, Precision::Stored, &mut file).unwrap();
    vec![
        ("safetensors", fixture("golden")),
        ("gguf-f16", fixture("gguf/golden-F16.gguf")),
        ("gguf-q4_k_m", fixture("gguf/golden-Q4_K_M.gguf")),
        ("apr", apr),
    ]
}

/// A copy of the model at `from` with the fault in it; `None` when it changes nothing there.
fn damaged(fault: &library::Fault, form: &str, from: &Path) -> Option<tempfile::TempDir> {
    let form = ModelRef { model: "golden".into(), form: form.into(), path: from.to_path_buf() };
    let target = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = if from.is_dir() {
        std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect()
    } else {
        vec![from.to_path_buf()]
    };
    let mut changed = false;
    for file in files.iter().filter(|file| file.is_file()) {
        let name = file.file_name().unwrap();
        let bytes = std::fs::read(file).unwrap();
        let other = fault.plant.mutate_file(&form, Path::new(name), &bytes);
        changed |= other.is_some();
        std::fs::write(target.path().join(name), other.unwrap_or(bytes)).unwrap();
    }
    changed.then_some(target)
}

#[test]
fn every_fault_in_a_file_is_listed_by_its_rule_at_its_place_or_is_known_to_be_invisible() {
    let work = tempfile::tempdir().unwrap();
    let forms = forms(work.path());
    let strict = Options { quality: true, strict: true };
    let mut wrong = Vec::new();
    for fault in library::all().iter().filter(|fault| fault.info.id.starts_with("file/")) {
        let id = fault.info.id;
        let seen = SEEN.iter().find(|(seen, ..)| *seen == id);
        assert!(seen.is_some() != UNSEEN.iter().any(|(unseen, _)| *unseen == id), "{id}");
        let Some((_, rule, places)) = seen else { continue };
        let mut tried = 0;
        for (form, from) in &forms {
            let Some(target) = damaged(fault, form, from) else { continue };
            let path = if from.is_dir() {
                target.path().to_path_buf()
            } else {
                target.path().join(from.file_name().unwrap())
            };
            tried += 1;
            let harmless = HARMLESS.iter().any(|(fault, one, _)| *fault == id && one == form);
            let found = validate(&path, strict).unwrap().violations;
            let hit = found.iter().any(|one| {
                rule.split('|').any(|rule| one.rule.starts_with(rule))
                    && places.split('|').any(|part| one.place.contains(part))
            });
            if hit == harmless {
                wrong.push(format!("{id} in {form}: {found:#?}"));
            }
        }
        if tried == 0 {
            wrong.push(format!("{id} changes no form"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_wrong_shape_is_listed() {
    let directory = copy_of_golden();
    let config = directory.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let wider = json["intermediate_size"].as_u64().unwrap() + 32;
    let layers = json["num_hidden_layers"].as_u64().unwrap() as usize;
    json["intermediate_size"] = wider.into();
    std::fs::write(&config, json.to_string()).unwrap();
    std::fs::write(directory.path().join("tokenizer.json"), "{").unwrap();
    let violations = validate(directory.path(), Options::default()).unwrap().violations;
    let shapes = violations.iter().filter(|violation| violation.rule == "E0506").count();
    assert_eq!(shapes, 3 * layers, "gate, up and down of every layer");
    assert!(violations.iter().any(|violation| violation.rule == "E0602"), "{violations:?}");
}

/// Where `name` stands behind its length, of `width` bytes.
fn named_at(bytes: &[u8], name: &str, width: usize) -> usize {
    let length = (name.len() as u64).to_le_bytes();
    let stored = [&length[..width], name.as_bytes()].concat();
    let at = bytes.windows(stored.len()).position(|window| window == stored).unwrap();
    at + stored.len()
}

#[test]
fn everything_that_is_broken_in_a_structure_is_listed_in_every_format() {
    let work = tempfile::tempdir().unwrap();
    let broken = |name: &str, bytes: &[u8]| {
        let path = work.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let validation = validate(&path, Options::default()).unwrap();
        validation.violations.iter().map(|one| format!("{} {}", one.rule, one.place)).collect()
    };

    let mut bytes = std::fs::read(fixture("golden/model.safetensors")).unwrap();
    for tensor in ["model.norm.weight", "model.embed_tokens.weight"] {
        let entry = format!("\"{tensor}\":{{\"dtype\":\"BF1");
        let found = bytes.windows(entry.len()).position(|window| window == entry.as_bytes());
        bytes[found.unwrap() + entry.len()] = b'7';
    }
    let found: Vec<String> = broken("model.safetensors", &bytes[..bytes.len() - 4]);
    assert!(found.iter().any(|one| one.starts_with("E0201 ")), "{found:?}");
    assert_eq!(found.iter().filter(|one| one.starts_with("E0205 tensor ")).count(), 2, "{found:?}");

    let mut bytes = std::fs::read(fixture("gguf/golden-F16.gguf")).unwrap();
    for tensor in ["output_norm.weight", "blk.0.attn_norm.weight"] {
        // One dimension, and then the type.
        let at = named_at(&bytes, tensor, 8) + 4 + 8;
        bytes[at] = 77;
    }
    let found: Vec<String> = broken("model.gguf", &bytes[..bytes.len() / 2]);
    let types = found.iter().filter(|one| one.starts_with("E0115 tensor "));
    assert_eq!(types.count(), 2, "{found:?}");
    // And every tensor that the cut took.
    assert!(found.iter().filter(|one| one.contains(" tensor blk.")).count() > 3, "{found:?}");

    let (_, path) = forms(work.path()).pop().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    for tensor in ["model.norm.weight", "model.embed_tokens.weight"] {
        let at = named_at(&bytes, tensor, 2);
        bytes[at] = 99;
    }
    let found: Vec<String> = broken("model.apr", &bytes);
    assert!(found.len() >= 2, "{found:?}");
    assert!(found.iter().all(|one| one.starts_with("E03")), "{found:?}");
}

#[test]
fn a_file_that_is_no_model_is_a_violation_and_a_missing_one_an_error() {
    let validation = validate(&fixture("manifest.yaml"), Options::default()).unwrap();
    assert_eq!(validation.violations[0].rule, "E0002");
    let error = validate(&fixture("no-such-file"), Options::default()).unwrap_err();
    assert_eq!(error.code(), apr_engine::Code::Io);
}
