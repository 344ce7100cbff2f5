//! `apr profile`: real times of real passes. No test here judges how fast anything is.

use serde_json::Value;

use super::program::run;
use super::schema::assert_keeps;

const MODEL: &str = "fixtures/pygmy/qwen3";
/// Little enough for a test.
const LITTLE: &[&str] = &["--prompt-tokens", "8", "--passes", "6", "--threads", "1"];

fn profiled(args: &[&str]) -> (i32, Value) {
    let run = run(&[&["profile", MODEL, "--json"], LITTLE, args].concat());
    let value = serde_json::from_str(&run.out);
    (run.code, value.unwrap_or_else(|error| panic!("{error}: {}{}", run.out, run.err)))
}

#[test]
fn bricks_have_counts_times_and_elements_and_add_up() {
    for phase in ["decode", "prefill"] {
        let (code, profile) = profiled(&["--phase", phase]);
        assert_keeps("profile", &profile);
        let of = |value: &Value, name: &str| value[name].as_u64().expect("a number");
        let tokens = if phase == "decode" { 6 } else { 48 };
        assert_eq!(of(&profile, "total_tokens"), tokens);
        let bricks = profile["bricks"].as_array().expect("bricks");
        let names: Vec<&str> = bricks.iter().filter_map(|brick| brick["name"].as_str()).collect();
        for name in ["embed", "rms-norm", "qkv", "rope", "attention", "o-proj", "ffn-gate-up"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        let mut sum = 0;
        for brick in bricks {
            assert!(of(brick, "count") > 0 && of(brick, "total_elements") > 0, "{brick}");
            assert!(of(brick, "min_ns") <= of(brick, "max_ns"), "{brick}");
            assert!(of(brick, "max_ns") <= of(brick, "total_ns"), "{brick}");
            sum += of(brick, "total_ns");
        }
        assert!(sum <= of(&profile, "total_ns"));
        // Whether they cover a pass of microseconds is up to the machine; the code must say the same as the flaw.
        assert_eq!(code != 0, profile["flaw"].is_string(), "{profile}");
        assert_eq!(profile["overhead"]["pairs"], 6);
    }
}

#[test]
fn the_files_hold_the_same_value_and_a_page_that_needs_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (json, html) = (file("p.json"), file("p.html"));
    let (_, profile) = profiled(&["--output", &json, "--html", &html]);
    let written = std::fs::read_to_string(&json).expect("a file");
    assert_eq!(serde_json::from_str::<Value>(&written).expect("JSON"), profile);
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.contains("class=\"flame\"") && page.contains("layer 1"), "{page}");
    assert!(!page.contains("://") && !page.contains("<script"), "{page}");
}

#[test]
fn the_text_fits_eighty_columns_and_says_what_was_measured() {
    let run = run(&[&["profile", MODEL], LITTLE].concat());
    for line in run.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for word in ["measured by a clock at every site", "the clocks cost", "qkv", "us/token"] {
        assert!(run.out.contains(word), "{word}: {}{}", run.out, run.err);
    }
}

#[test]
fn more_tokens_than_the_context_are_refused_with_both_numbers() {
    let refused = run(&["profile", MODEL, "--phase", "prefill", "--prompt-tokens", "1000000"]);
    assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{}", refused.err);
    assert!(refused.err.contains("1000000"), "{}", refused.err);
}
