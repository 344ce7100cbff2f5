//! `apr check`: the table of the ten stages, and which of them a planted fault turns red.

use super::program::run;

const PASSED: &str = "10/10 STAGES PASSED";

#[test]
fn a_healthy_model_passes_ten_stages_in_eighty_columns() {
    for model in ["fixtures/golden", "fixtures/gguf/golden-Q8_0.gguf"] {
        let run = run(&["check", model]);
        assert_eq!(run.code, 0, "{}{}", run.out, run.err);
        assert!(run.out.ends_with(&format!("{PASSED}\n")), "{}", run.out);
        assert_eq!(run.out.lines().count(), 14, "head, ten stages, two looks, the last line");
        let wide = run.out.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None);
    }
}

#[test]
fn a_planted_fault_names_its_stage_and_fails_the_command() {
    for (fault, stage) in [
        ("engine/qkv-bias-dropped", "Q/K/V projection"),
        ("engine/layernorm", "norm"),
        ("engine/tile-zero", "feed-forward"),
        ("sampler/second-best", "sampler"),
        ("file/bias-zeroed", "structure"),
        ("file/scale-exploded", "poison"),
    ] {
        let run = run(&["check", "fixtures/golden", "--plant", fault]);
        assert_eq!(run.code, 1, "{fault}: {}{}", run.out, run.err);
        assert!(!run.out.contains(PASSED), "{fault}: {}", run.out);
        let last = run.out.lines().last().unwrap_or_default();
        assert!(last.contains("FAILED") && last.contains(stage), "{fault}: {last}");
    }
}

#[test]
fn a_model_that_does_not_load_has_ten_stages_that_nobody_measured() {
    let run = run(&["check", "fixtures/golden", "--plant", "file/layer-missing"]);
    assert_eq!(run.code, 5, "{}{}", run.out, run.err);
    assert_eq!(run.out.matches("not measured\n").count(), 12, "{}", run.out);
    assert!(run.err.contains("E0509"), "{}", run.err);
}

#[test]
fn an_unknown_fault_is_a_usage_error() {
    let run = run(&["check", "fixtures/golden", "--plant", "engine/gremlin"]);
    assert_eq!(run.code, 2, "{}", run.err);
}

#[test]
fn a_fault_that_concerns_nothing_of_the_run_is_not_taken_for_a_green_run() {
    // No bytes at the front of a SafeTensors file say what it is.
    let run = run(&["check", "fixtures/golden", "--plant", "file/magic"]);
    assert_eq!(run.code, 4, "{}{}", run.out, run.err);
    assert!(run.err.contains("file/magic changes nothing"), "{}", run.err);
}
