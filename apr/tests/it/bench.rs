//! `apr bench`: figures with their noise, and what they are held against. No test here judges how fast anything is.

use serde_json::Value;

use super::dispatch::damaged;
use super::program::run;
use super::schema::assert_keeps;

const MODEL: &str = "fixtures/pygmy/qwen3";
/// Little enough for a test.
const LITTLE: &[&str] = &[
    "--prompt-tokens",
    "8",
    "--first-tokens",
    "4",
    "--tokens",
    "4",
    "--samples",
    "2",
    "--threads",
    "1",
];

fn measured(args: &[&str]) -> (i32, Value) {
    let run = run(&[&["bench", MODEL, "--json"], LITTLE, args].concat());
    let value = serde_json::from_str(&run.out);
    (run.code, value.unwrap_or_else(|error| panic!("{error}: {}{}", run.out, run.err)))
}

#[test]
fn every_figure_comes_with_its_interval_and_its_number_of_samples() {
    let (code, bench) = measured(&[]);
    assert_eq!(code, 0);
    assert_keeps("bench", &bench);
    for (series, samples) in [
        (&bench["load"], 2),
        (&bench["prefill"]["time"], 2),
        (&bench["first_token"]["time"], 2),
        (&bench["decode"]["time"], 4),
    ] {
        let of = |name: &str| series[name].as_f64().expect("a number");
        assert_eq!(series["samples"], samples, "{series}");
        assert!(0.0 < of("lower_ms") && of("lower_ms") <= of("median_ms"), "{series}");
        assert!(of("median_ms") <= of("upper_ms") && of("median_ms") <= of("p99_ms"), "{series}");
    }
    for roof in ["roofline", "compute"] {
        assert!(bench[roof]["fraction"].as_f64().is_some_and(|share| share > 0.0), "{roof}");
    }
    assert!(bench["breakdown"]["covers"].as_f64().is_some_and(|share| share > 0.0 && share <= 1.0));
}

#[test]
fn a_model_against_another_is_a_ratio_of_runs_in_turns() {
    let (_, bench) = measured(&["--vs", MODEL]);
    assert_eq!(bench["against"]["name"], MODEL);
    for phase in ["prefill", "decode"] {
        let ratio = &bench["against"][phase];
        let of = |name: &str| ratio[name].as_f64().expect("a number");
        assert!(of("pairs") >= 15.0, "{ratio}");
        assert!(of("lower") <= of("ratio") && of("ratio") <= of("upper"), "{ratio}");
    }
}

#[test]
fn a_model_answers_like_itself_and_another_one_does_not() {
    let likeness = |other: &str| measured(&["--vs", other]).1["against"]["likeness"].clone();
    let own = likeness(MODEL);
    assert_eq!((&own["alike"], own["nmse"].as_f64()), (&own["tokens"], Some(0.0)), "{own}");
    assert!(own["tokens"].as_u64().is_some_and(|tokens| tokens >= 16), "{own}");
    let other = likeness("fixtures/pygmy/llama3-gqa");
    assert!(other["alike"].as_u64() < other["tokens"].as_u64(), "{other}");
    assert!(other["nmse"].as_f64().is_none_or(|nmse| nmse > 1e-3), "{other}");
}

#[test]
fn a_damaged_model_is_no_rival() {
    let folder = tempfile::tempdir().expect("a folder");
    let rival = damaged(folder.path(), [0, 0]);
    let refused = run(&[&["bench", MODEL, "--vs", &rival], LITTLE].concat());
    assert_eq!((refused.code, refused.out.as_str()), (5, ""), "{}", refused.err);
}

#[test]
fn a_build_against_another_is_measured_by_running_both() {
    let own = env!("CARGO_BIN_EXE_apr");
    let (_, bench) = measured(&["--baseline", own]);
    assert_eq!(bench["against"]["name"], own);
    assert_eq!(bench["against"]["decode"]["pairs"], 15);
}

#[cfg(unix)]
#[test]
fn a_baseline_that_measures_nothing_is_an_error_that_names_it() {
    let failed = run(&[&["bench", MODEL, "--baseline", "/bin/true"], LITTLE].concat());
    assert_eq!((failed.code, failed.out.as_str()), (3, ""), "{}", failed.err);
    assert!(failed.err.contains("/bin/true bench: no measurements"), "{}", failed.err);
    let absent = run(&[&["bench", MODEL, "--baseline", "/no/such/program"], LITTLE].concat());
    assert_eq!(absent.code, 3, "{}", absent.err);
    assert!(absent.err.contains("/no/such/program"), "{}", absent.err);
}

#[test]
fn more_tokens_than_the_context_are_refused_with_both_numbers() {
    let refused = run(&["bench", MODEL, "--prompt-tokens", "1000000", "--samples", "2"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("1000000"), "{}", refused.err);
}

#[test]
fn the_text_fits_eighty_columns() {
    let run = run(&[&["bench", MODEL, "--vs", MODEL], LITTLE].concat());
    assert_eq!(run.code, 0, "{}", run.err);
    for line in run.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for word in ["load", "prefill", "multiplying alone", "first token", "decode", "memory", "noise"]
    {
        assert!(run.out.contains(word), "{word}: {}", run.out);
    }
    for word in ["logits", "times as fast", "greedy tokens alike"] {
        assert!(run.out.contains(word), "{word}: {}", run.out);
    }
}

#[test]
fn a_cache_in_f16_takes_half_the_bytes_of_one_in_f32() {
    let [f16, f32] = ["f16", "f32"].map(|cache_type| {
        let (code, bench) = measured(&["--cache-type", cache_type]);
        assert_eq!((code, bench["cache_type"].as_str()), (0, Some(cache_type)));
        bench["cache_bytes"].as_u64().expect("a number")
    });
    assert!(f16 > 0 && f32 == 2 * f16, "{f16} and {f32}");
    assert_eq!(measured(&[]).1["cache_type"], "f16");
}
