//! What goes wrong in daily use ends with the documented exit code and a message that helps, and never with a panic.

use std::io::Read;
use std::process::{Command, Stdio};

use super::program::{apr, root, run};

const GOLDEN: &str = "fixtures/golden";

/// Runs `apr`, demands this exit code, nothing on standard output, and these parts in the message.
fn assert_fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let run = run(arguments);
    let shown = format!("apr {}: exit {}\n{}", arguments.join(" "), run.code, run.err);
    assert_eq!(run.code, code, "{shown}");
    assert_eq!(run.out, "", "{shown}");
    for part in parts {
        assert!(run.err.contains(part), "{part:?} is missing in {shown}");
    }
}

#[test]
fn a_missing_file_is_named() {
    for command in ["inspect", "tensors", "run"] {
        assert_fails(&[command, "no-such-file.gguf"], 3, &["E0001", "no-such-file.gguf"]);
    }
}

#[test]
fn a_command_without_its_model_is_a_usage_error() {
    for command in ["inspect", "tensors", "run"] {
        assert_fails(&[command], 2, &["<MODEL>"]);
    }
}

#[test]
fn a_file_that_is_no_model_violates_the_contract() {
    for command in ["inspect", "tensors", "run"] {
        assert_fails(&[command, "README.md"], 5, &["E0002", "README.md", "expected", "hint"]);
    }
}

#[test]
fn a_parameter_that_does_not_exist_or_has_the_wrong_type_is_a_usage_error() {
    for (set, part) in [
        ("throughput.ratios=1", "declared are decode-tokens, prefill-tokens, ratio"),
        ("speed.ratio=1", "contract speed is not in suite default"),
        ("throughput.ratio=fast", "expected a finite number"),
        ("throughput.ratio=-1", "throughput.yaml:"),
        ("ratio", "contract.parameter=value"),
    ] {
        assert_fails(&["qa", "--no-report", "--set", set], 2, &[part]);
    }
}

#[test]
fn a_temperature_below_zero_or_not_a_number_is_a_usage_error() {
    for temperature in ["--temperature=-1", "--temperature=nan", "--temperature=warm"] {
        assert_fails(&["run", GOLDEN, "hi", temperature], 2, &["temperature"]);
    }
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_both_numbers() {
    let prompt = "What is 2+2? ".repeat(8);
    assert_fails(&["run", GOLDEN, &prompt, "--context", "16"], 2, &["E0801", "16 tokens", "found"]);
}

#[test]
fn an_absent_gpu_is_an_error_and_never_another_backend() {
    if apr_engine::backend::Device::Cuda(0).unavailable().is_none() {
        return;
    }
    assert_fails(&["run", GOLDEN, "hi", "--backend", "cuda"], 3, &["E0901", "cuda"]);
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    assert_fails(&["frob"], 2, &["frob", "--help"]);
}

#[test]
fn an_unknown_name_is_answered_with_the_way_to_the_known_ones() {
    assert_fails(&["explain", "E9999"], 2, &["E9999", "apr explain"]);
    assert_fails(&["schema", "nope"], 2, &["nope", "inspect"]);
    assert_fails(&["qa", "list", "--filter", "("], 2, &["--filter"]);
}

#[test]
fn a_negative_number_is_a_value_out_of_range_and_no_option() {
    let refused = |option: &str, value: &str, code: i32, needle: &str| {
        assert_fails(&["run", GOLDEN, "hi", option, value], code, &[needle]);
    };
    refused("-t", "-1", 2, "temperature; expected 0 to 100; found -1");
    refused("--top-p", "-0.5", 2, "top_p");
    refused("--min-p", "-0.1", 2, "min_p");
    refused("--repeat-penalty", "-1", 2, "repeat_penalty");
    refused("--seed", "-1", 2, "invalid value '-1' for '--seed <N>'");
    refused("-n", "-2", 2, "invalid value '-2' for '--max-tokens <N>'");
}

#[test]
fn a_prompt_comes_through_a_pipe() {
    let piped = apr(&["run", GOLDEN]).write_stdin("What is 2+2?\n").output().expect("apr runs");
    assert!(piped.status.success());
    let given = run(&["run", GOLDEN, "What is 2+2?"]);
    assert_eq!(String::from_utf8_lossy(&piped.stdout), given.out);
    assert_eq!(given.err, "", "a plain run says nothing besides the answer");
}

#[test]
fn a_prompt_that_is_not_text_is_a_usage_error() {
    let run = apr(&["run", GOLDEN]).write_stdin(vec![0xff, 0xfe, 0x00]).output().expect("apr runs");
    let message = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{message}");
    assert!(message.contains("standard input"), "{message}");
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    for arguments in [&["qa", "list"][..], &["tensors", GOLDEN], &["run", GOLDEN, "Hello"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_apr"))
            .args(arguments)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("apr starts");
        drop(child.stdout.take());
        let mut message = String::new();
        let mut errors = child.stderr.take().expect("standard error");
        errors.read_to_string(&mut message).expect("UTF-8");
        let status = child.wait().expect("apr ends");
        assert_eq!((status.code(), message.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_long_answer_with_130() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_apr"))
        .args(["run", GOLDEN, "--raw", "--backend", "scalar", "-n", "400", "What"])
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("apr starts");
    let mut first = [0_u8; 1];
    child.stdout.as_mut().expect("standard output").read_exact(&mut first).expect("a first token");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    let output = child.wait_with_output().expect("apr ends");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_file_that_shrinks_while_it_runs_is_an_error_that_names_it() {
    let home = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(root().join(GOLDEN)).expect("the fixture") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, home.path().join(name)).expect("a copy");
    }
    let weights = home.path().join("model.safetensors");
    let mut child = Command::new(env!("CARGO_BIN_EXE_apr"))
        .arg("run")
        .arg(home.path())
        .args(["--raw", "--backend", "scalar", "-n", "400", "What"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("apr starts");
    let mut first = [0_u8; 1];
    child.stdout.as_mut().expect("standard output").read_exact(&mut first).expect("a first token");
    let file = std::fs::OpenOptions::new().write(true).open(&weights).expect("the weights");
    file.set_len(4096).expect("a shorter file");
    let output = child.wait_with_output().expect("apr ends");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("E0004") && message.contains("model.safetensors"), "{message}");
}
