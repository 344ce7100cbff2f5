//! `convert`, `import`, `export` and `quantize` as a user calls them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::program::run;
use super::schema::assert_keeps;

const GOLDEN: &str = "fixtures/golden";

/// The JSON of a conversion that must succeed.
fn converted(arguments: &[&str]) -> Value {
    let run = run(&[arguments, &["--json"]].concat());
    assert_eq!(run.code, 0, "{arguments:?}: {}", run.err);
    let value: Value = serde_json::from_str(&run.out).expect("one JSON value");
    assert_keeps("convert", &value);
    value
}

/// The usage error of `arguments`.
fn refused(arguments: &[&str], code: i32) -> String {
    let run = run(arguments);
    assert_eq!(run.code, code, "{arguments:?}: {}", run.err);
    run.err
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect()
}

#[test]
fn a_model_goes_around_all_formats_and_keeps_its_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (gguf, apr, back) = (at("golden.gguf"), at("golden.apr"), at("back/"));
    for arguments in [
        &["convert", GOLDEN, "-o", &gguf][..],
        &["import", &gguf, "-o", &apr][..],
        &["export", &apr, "--format", "safetensors", "-o", &back][..],
    ] {
        let value = converted(arguments);
        assert_eq!(value["output"]["architecture"], value["source"]["architecture"], "{value}");
    }
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden");
    for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    {
        let read = |folder: &Path| fs::read(folder.join(name)).expect("a side file");
        assert!(read(&original) == read(Path::new(&back)), "{name}");
    }
}

#[test]
fn quantising_says_which_dtypes_it_wrote_and_what_it_rounded_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (four, six) = (at("four.gguf"), at("six.gguf"));
    let value = converted(&["quantize", GOLDEN, "--type", "q4_k_m", "-o", &four]);
    assert_eq!(value["requantised"], 0);
    assert!(value["dtypes"]["Q4_K"].as_u64() > Some(0), "{value}");
    assert!(value["dtypes"]["Q6_K"].as_u64() > Some(0), "{value}");
    let value = converted(&["quantize", &four, "--type", "q6_k", "-o", &six]);
    assert!(value["requantised"].as_u64() > Some(0), "{value}");
}

#[test]
fn what_is_there_is_replaced_only_by_force() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("golden.apr");
    fs::write(&path, "mine").expect("a file");
    let output = path.to_string_lossy();
    let message = refused(&["convert", GOLDEN, "-o", &output], 2);
    assert!(message.contains("--force"), "{message}");
    assert_eq!(fs::read(&path).expect("the file"), b"mine");
    converted(&["convert", GOLDEN, "-o", &output, "--force"]);
    let message = refused(
        &[
            "convert",
            GOLDEN,
            "-o",
            &folder.path().to_string_lossy(),
            "--format",
            "safetensors",
            "--force",
        ],
        2,
    );
    assert!(message.contains("golden.apr"), "{message}");
}

#[test]
fn what_cannot_be_done_is_a_usage_error_that_says_what_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    for (arguments, word) in [
        (&["convert", GOLDEN, "-o", &at("golden")][..], "--format"),
        (&["convert", GOLDEN, "-o", &at("x.gguf"), "--dtype", "q9"][..], "q4_k_m"),
        (&["quantize", GOLDEN, "-o", &at("x/"), "--type", "q8_0"][..], "SafeTensors"),
    ] {
        let message = refused(arguments, 2);
        assert!(message.contains(word), "{arguments:?}: {message}");
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_weight_that_is_not_a_number_stops_the_conversion_and_nothing_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad");
    fs::create_dir(&bad).expect("a folder");
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden");
    for name in names(&original) {
        fs::copy(original.join(&name), bad.join(&name)).expect("a copy");
    }
    let weights = bad.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&0x7FC0_u16.to_le_bytes());
    fs::write(&weights, bytes).expect("weights");
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("a folder");
    let target = out.join("model.gguf");
    // The gate in front of the command may see it first; what is asked here is what stands behind that.
    let (bad, target) = (bad.to_string_lossy(), target.to_string_lossy());
    let message = refused(&["convert", &bad, "-o", &target, "--skip-contract"], 1);
    assert!(message.contains("at tensor"), "{message}");
    assert!(names(&out).is_empty());
}

#[test]
fn a_model_that_goes_around_the_formats_is_judged_leg_by_leg() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (page, kept) = (at("way.html"), at("kept"));
    let verified = run(&["rosetta", "verify", GOLDEN, "--json", "--html", &page]);
    assert_eq!(verified.code, 0, "{}", verified.err);
    let value: Value = serde_json::from_str(&verified.out).expect("one JSON value");
    assert_keeps("rosetta-verify", &value);
    assert_eq!(value["whole"]["bytes_kept"], value["whole"]["weights"], "{value}");
    assert!(fs::read_to_string(&page).expect("a page").contains("safetensors to gguf"));
    let chained = run(&["rosetta", "chain", GOLDEN, "gguf:q8_0", "apr", "--json", "--keep", &kept]);
    assert_eq!(chained.code, 0, "{}", chained.err);
    let value: Value = serde_json::from_str(&chained.out).expect("one JSON value");
    assert_keeps("rosetta-chain", &value);
    assert!(value["whole"]["rounded"].as_u64() > Some(20), "{value}");
    let mut files = names(Path::new(&kept));
    files.sort();
    assert_eq!(files, ["1.gguf", "2.apr"]);
}

#[test]
fn a_way_that_cannot_be_gone_names_its_leg_and_one_that_is_none_is_a_usage_error() {
    let lost = run(&["rosetta", "chain", GOLDEN, "apr", "safetensors:q8_0", "gguf"]);
    assert_eq!(lost.code, 1, "{}", lost.err);
    assert!(lost.out.contains("leg 2, apr to safetensors:q8_0"), "{}", lost.out);
    for station in ["zip", "gguf:q9", "GGUF"] {
        let message = refused(&["rosetta", "chain", GOLDEN, station], 2);
        assert!(message.contains(station.split(':').next_back().unwrap_or(station)), "{message}");
    }
}
