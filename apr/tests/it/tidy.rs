//! The invariants of the house that can be checked mechanically.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that may hold `unsafe` code, besides everything below the two kernel folders.
const UNSAFE_FILES: &[&str] = &[
    "engine/src/format/mmap/mod.rs",
    "engine/src/format/mmap/guard.rs",
    "benches/peer/src/llama.rs",
];
const UNSAFE_FOLDERS: &[&str] = &["engine/src/backend/simd/", "engine/src/backend/cuda/"];

/// Where an architecture may be called by its name.
const ARCHITECTURE_PLACES: &[&str] = &["engine/src/model/config/", "engine/src/model/slots.rs"];
/// Every family by the names it goes by.
const ARCHITECTURES: &[&str] = &[
    "\"qwen2\"",
    "\"qwen3\"",
    "\"llama\"",
    "\"mistral\"",
    "\"phi3\"",
    "\"gemma2\"",
    "\"gemma3\"",
    "ForCausalLM",
];
/// Pre-tokenizer types carry the names of the families that introduced them.
const PRE_TOKENIZER_PLACES: &[&str] = &["engine/src/text/", "engine/src/format/convert/words.rs"];

/// Files longer than this hold more than one idea.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace root").to_path_buf()
}

/// Every Rust file of the workspace as (path from the root, text).
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["engine", "harness", "apr", "benches"] {
        collect(&root().join(folder), &mut found);
    }
    found.sort();
    assert!(found.len() > 30, "the walk found only {} files", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            // What a package of its own has built is nobody's source.
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a UTF-8 source file");
            let name = path.strip_prefix(root()).expect("below the root");
            found.push((name.to_string_lossy().replace('\\', "/"), text));
        }
    }
}

/// The lines of a file that are code of the product: no comments, nothing behind the unit tests.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

fn manifest(name: &str) -> String {
    fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest")
}

#[test]
fn the_layers_point_one_way() {
    for (package, forbidden) in [
        ("engine", &["apr-harness", "clap", "indicatif", "serde_yaml", "libtest-mimic"][..]),
        ("harness", &["clap", "indicatif", "ctrlc", "libtest-mimic"][..]),
        ("benches", &["apr-harness", "clap"][..]),
    ] {
        let text = manifest(package);
        for name in forbidden {
            assert!(
                !text.lines().any(|line| line.starts_with(&format!("{name}."))),
                "{package} must not depend on {name}"
            );
        }
    }
}

#[test]
fn the_engine_has_no_cargo_features() {
    assert!(!manifest("engine").contains("[features]"), "devices are values, not features");
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    for (name, text) in sources() {
        let allowed = UNSAFE_FILES.contains(&name.as_str())
            || UNSAFE_FOLDERS.iter().any(|folder| name.starts_with(folder));
        let opens = text.contains("unsafe {") || text.contains("unsafe fn");
        assert!(allowed || !opens || name.ends_with("tidy.rs"), "{name} holds unsafe code");
    }
}

#[test]
fn architectures_are_named_only_in_config_and_slots() {
    for (name, text) in sources() {
        let exempt = ARCHITECTURE_PLACES.iter().any(|place| name.starts_with(place))
            || PRE_TOKENIZER_PLACES.iter().any(|place| name.starts_with(place))
            || name.ends_with("tests.rs")
            || name.contains("/tests/")
            || !name.starts_with("engine/src/");
        if exempt {
            continue;
        }
        for (number, line) in product_lines(&text) {
            for architecture in ARCHITECTURES {
                assert!(!line.contains(architecture), "{name}:{number} names {architecture}");
            }
        }
    }
}

#[test]
fn no_debt_is_admitted_in_the_sources() {
    let words =
        ["todo!", "unimplemented!", "TODO", "FIXME", "HACK", "XXX", "SATD", "#[ignore", "#[allow("];
    for (name, text) in sources() {
        if name.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for word in words {
                assert!(!line.contains(word), "{name}:{}: {word}", number + 1);
            }
        }
    }
}

#[test]
fn no_file_is_a_drawer_for_everything() {
    for (name, text) in sources() {
        let file = name.rsplit('/').next().unwrap_or(&name);
        assert!(
            !["utils.rs", "util.rs", "helpers.rs", "helper.rs", "misc.rs", "common.rs"]
                .contains(&file),
            "{name}: name the idea"
        );
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{name} has {lines} lines: split it by idea");
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let sources = sources();
    for package in ["engine", "harness", "apr"] {
        let folder = format!("{package}/tests/it/");
        let Some((_, main)) = sources.iter().find(|(name, _)| *name == format!("{folder}main.rs"))
        else {
            continue;
        };
        for (name, _) in &sources {
            let Some(file) = name.strip_prefix(&folder).and_then(|file| file.strip_suffix(".rs"))
            else {
                continue;
            };
            let module = file.split('/').next().unwrap_or(file);
            let declared = main.lines().any(|line| line.trim() == format!("mod {module};"));
            assert!(module == "main" || declared, "{name} is compiled by nobody");
        }
    }
}

#[test]
fn no_product_code_knows_where_it_was_built() {
    let name = ["CARGO_MANIFEST", "_DIR"].concat();
    let places: Vec<String> = sources()
        .into_iter()
        .filter(|(path, text)| path.starts_with("apr/src/") && text.contains(&name))
        .map(|(path, _)| path)
        .collect();
    assert!(places.is_empty(), "{places:?}");
}
