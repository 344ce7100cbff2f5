//! Parameters of contracts on the command line: they reach the judges, and every report says so.

use std::fs;

use serde_json::Value;

use super::program::{output, run};

#[test]
fn a_changed_parameter_reaches_the_judge_and_every_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let reports = folder.path().to_string_lossy().into_owned();
    let filter = "contract(=sampler) & gate(=top-k)";
    let set = "sampler.cases=7";
    let run = run(&["qa", "--filter", filter, "--set", set, "--report", &reports]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let told = "sampler.cases = 7 instead of 256 (command line)";
    assert!(run.out.contains(told), "{}", run.out);
    for name in ["report.json", "junit.xml", "report.md", "report.html", "report.sarif"] {
        let report = fs::read_to_string(folder.path().join(name)).expect(name);
        let value: Value = serde_json::from_str(&report).unwrap_or_default();
        // The suite may change parameters of its own.
        let mut recorded = value["provenance"]["parameters"].as_array().into_iter().flatten();
        let is_told = |one: &Value| one["parameter"] == "sampler.cases" && one["value"] == 7;
        let in_record = recorded.any(is_told);
        assert!(in_record || report.contains(told), "{name}");
    }
    let record = fs::read_to_string(folder.path().join("report.json")).expect("the record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["cases"][0]["evidence"]["comparisons"], 7, "{}", record["cases"][0]);
}

#[test]
fn the_list_shows_every_parameter_and_what_was_changed() {
    let listed = output(&["qa", "list", "--parameters", "--set", "throughput.ratio=4"]);
    assert!(listed.contains("throughput.ratio = 4 instead of 2 (command line)"), "{listed}");
    assert!(listed.contains("blocks.rows = 64  [integer]"), "{listed}");
    let json: Value =
        serde_json::from_str(&output(&["qa", "list", "--json"])).expect("one JSON value");
    let names = json["parameters"].as_array().expect("parameters");
    assert_eq!(names.len(), listed.lines().count());
}

#[test]
fn a_claim_speaks_of_the_value_that_is_judged() {
    let arguments = ["qa", "list", "--json", "--set", "throughput.ratio=4"];
    let json: Value = serde_json::from_str(&output(&arguments)).expect("one JSON value");
    let gates = json["gates"].as_array().expect("gates");
    let gate = gates
        .iter()
        .find(|gate| gate["gate"] == "throughput/simd-decodes-faster-than-scalar")
        .expect("the gate");
    assert!(gate["claim"].as_str().is_some_and(|claim| claim.contains("at least 4 times")));
}
