//! `apr run --trace`: the answer is the same, and the way to it stands in a file.

use std::path::Path;

use apr_harness::trace::{History, Payload};
use serde_json::Value;

use super::program::{output, run};
use super::schema::differences;

const MODEL: &str = "fixtures/golden";
const PROMPT: &str = "What is 2+2?";

/// The trace of a run with these further arguments.
fn trace(folder: &Path, arguments: &[&str]) -> Value {
    let file = folder.join("trace.json").to_string_lossy().into_owned();
    let plain = output(&["run", MODEL, PROMPT]);
    let mut all = vec!["run", MODEL, PROMPT, "--trace-output", &file];
    all.extend(arguments);
    let traced = run(&all);
    assert_eq!((traced.code, traced.out, traced.err.as_str()), (0, plain, ""));
    serde_json::from_str(&std::fs::read_to_string(&file).expect("the trace")).expect("JSON")
}

/// The JSON inside every `input` and `output`.
fn texts(trace: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    for event in trace["events"].as_array().expect("events") {
        for details in event.as_object().expect("an event").values() {
            for side in ["input", "output"] {
                if let Some(text) = details.get(side).and_then(Value::as_str) {
                    found.push(serde_json::from_str(text).expect("JSON inside"));
                }
            }
        }
    }
    found
}

#[test]
fn a_trace_keeps_its_schema_and_tells_every_layer() {
    let folder = tempfile::tempdir().expect("a folder");
    let found = trace(folder.path(), &["--trace"]);
    let schema: Value = serde_json::from_str(&output(&["schema", "trace"])).expect("a schema");
    let mut wrong = Vec::new();
    differences(&schema, &found, &schema, "", &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let history: History = serde_json::from_value(found.clone()).expect("a history");
    let inside = texts(&found);
    let layers = inside.iter().filter(|text| text["kind"] == "layer").count();
    assert!(history.events.len() > layers && layers > 0, "{layers} layers");
    for text in inside {
        let _payload: Payload = serde_json::from_value(text).expect("a payload");
    }
}

#[test]
fn values_are_told_only_when_asked_for_and_only_of_the_wanted_layers() {
    let folder = tempfile::tempdir().expect("a folder");
    for verbose in [false, true] {
        let mut arguments = vec!["--trace=ffn_residual,logits", "--trace-layers", "0,1"];
        arguments.extend(verbose.then_some("--trace-verbose"));
        let found = texts(&trace(folder.path(), &arguments));
        let layers = found.iter().filter(|text| text["kind"] == "layer");
        let sites: Vec<&Value> =
            layers.filter_map(|layer| layer["sites"].as_array()).flatten().collect();
        assert!(!sites.is_empty());
        for site in sites {
            let name = site["site"].as_str().expect("a name");
            assert!(["layers.0.ffn_residual", "layers.1.ffn_residual"].contains(&name), "{name}");
            assert_eq!(site["values"].is_array(), verbose, "{site}");
        }
    }
}

#[test]
fn a_trace_of_nothing_or_of_what_is_not_there_is_a_usage_error() {
    for (arguments, part) in [
        (&["--trace=nowhere"][..], "attn_norm"),
        (&["--trace", "--trace-layers", "99"], "99"),
        (&["--trace-verbose"], "--trace"),
        (&["--trace-layers", "0"], "--trace"),
    ] {
        let mut all = vec!["run", MODEL, PROMPT];
        all.extend(arguments);
        let refused = run(&all);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{}", refused.err);
        assert!(refused.err.contains(part), "{}", refused.err);
    }
}

#[test]
fn a_run_that_fails_leaves_no_half_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trace.json");
    let path = file.to_string_lossy();
    let refused = run(&["run", MODEL, PROMPT, "--trace", "--trace-output", &path, "-t", "-1"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    if let Ok(text) = std::fs::read_to_string(&file) {
        let history: History = serde_json::from_str(&text).expect("a whole history");
        let last = history.events.last().expect("an end");
        assert!(last.execution_failed_event_details.is_some(), "{text}");
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_an_error_that_names_its_place() {
    let path = "/no/such/folder/trace.json";
    let refused = run(&["run", "fixtures/golden", "Hi", "--trace", "--trace-output", path]);
    assert_eq!((refused.code, refused.out.as_str()), (3, ""), "{}", refused.err);
    assert!(refused.err.contains("/no/such/folder"), "{}", refused.err);
}
