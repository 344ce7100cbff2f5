//! The contract gate: commands that act on a model refuse a damaged one, commands that diagnose it do not.

use std::path::Path;

use super::program::{root, run};

/// Where the data of a `SafeTensors` file begin.
fn data_start(bytes: &[u8]) -> usize {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    8 + usize::try_from(length).expect("a header that fits")
}

/// A copy of the carried model in `folder` whose values are all `filler`.
pub(crate) fn damaged(folder: &Path, filler: [u8; 2]) -> String {
    for entry in std::fs::read_dir(root().join("fixtures/golden")).expect("the fixture") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, folder.join(path.file_name().expect("a name"))).expect("a copy");
    }
    let weights = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("the weights");
    let start = data_start(&bytes);
    bytes[start..].chunks_exact_mut(2).for_each(|value| value.copy_from_slice(&filler));
    std::fs::write(&weights, bytes).expect("other weights");
    folder.to_string_lossy().into_owned()
}

#[test]
fn what_acts_on_a_damaged_model_is_refused_with_counts_five_violations_and_the_way_to_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = damaged(folder.path(), [0, 0]);
    let output = folder.path().join("out.apr");
    let convert = ["convert", &model, "-o", &output.to_string_lossy()];
    for arguments in [&["run", &model, "Hello"][..], &convert] {
        let refused = run(arguments);
        assert_eq!((refused.code, refused.out.as_str()), (5, ""), "{}", refused.err);
        let lines: Vec<&str> = refused.err.lines().collect();
        let shown = lines.iter().filter(|line| line.starts_with("  F-DATA-QUALITY-")).count();
        assert_eq!(shown, 5, "{}", refused.err);
        // The rest and the five are what the first line counts.
        let number = |line: &str, before: &str| -> usize {
            let words: Vec<&str> = line.split_whitespace().collect();
            let place = words.iter().position(|word| word.starts_with(before)).expect("a count");
            words[place - 1].parse().expect("a number")
        };
        let rest = lines.iter().find(|line| line.contains(" more")).expect("the rest");
        assert_eq!(number(lines[0], "violation"), 5 + number(rest, "more"), "{}", refused.err);
        assert!(lines[0].ends_with(" tensors"), "{}", lines[0]);
        assert!(refused.err.contains("apr validate --quality"), "{}", refused.err);
    }
    assert!(!output.exists(), "a refused model was written");
}

#[test]
fn what_diagnoses_a_damaged_model_works_on_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = damaged(folder.path(), [0, 0]);
    let all = run(&["validate", "--quality", &model]);
    assert_eq!(all.code, 5);
    let refused = run(&["run", &model, "Hello"]);
    let count = refused.err.split(" violations").next().and_then(|text| text.rsplit(' ').next());
    let count = count.expect("a count");
    assert!(all.out.contains(&format!("{count} violations;")), "{count}: {}", all.out);
    for command in ["inspect", "tensors"] {
        let told = run(&[command, &model]);
        assert_eq!(told.code, 0, "{command}: {}", told.err);
    }
    let checked = run(&["check", &model]);
    assert!(checked.out.contains("embedding"), "{}{}", checked.out, checked.err);
}

#[test]
fn a_value_that_is_not_finite_is_seen_and_skipping_the_contract_is_loud() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = damaged(folder.path(), [0xc0, 0x7f]);
    let refused = run(&["run", &model, "Hello"]);
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert!(refused.err.contains("F-DATA-QUALITY-002"), "{}", refused.err);
    let skipped = run(&["run", &model, "Hello", "--quiet", "--skip-contract"]);
    assert_ne!(skipped.code, 5, "{}", skipped.err);
    assert!(skipped.err.contains("NOT checked"), "{}", skipped.err);
}

#[test]
fn there_is_nothing_to_skip_in_front_of_a_diagnosis() {
    let refused = run(&["inspect", "fixtures/golden", "--skip-contract"]);
    assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{}", refused.err);
}
