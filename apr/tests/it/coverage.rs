//! Which claims the gates cover: the committed page is what the gates say now.

use std::fs;

use apr_harness::contract::Catalogue;
use apr_harness::coverage::claim::Claims;
use apr_harness::coverage::{self, Coverage};

use super::program::{output, root};

fn coverage_now() -> Coverage {
    let contracts = root().join("contracts");
    let catalogue = Catalogue::from_directory(&contracts).unwrap_or_else(|error| panic!("{error}"));
    let claims =
        Claims::from_directory(&contracts.join("claims")).unwrap_or_else(|error| panic!("{error}"));
    Coverage::new(&claims, &catalogue).unwrap_or_else(|wrong| {
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

#[test]
fn every_gate_names_known_claims_and_every_claim_says_how_it_stands() {
    let coverage = coverage_now();
    assert!(coverage.tally.ids >= 1246, "{} ids: a claim was lost", coverage.tally.ids);
    assert!(coverage.tally.gates > 0 && coverage.tally.not_yet > 0);
}

#[test]
fn the_committed_page_is_up_to_date() {
    let committed = fs::read_to_string(root().join("reports/coverage.md")).unwrap_or_default();
    let now = coverage::markdown(&coverage_now());
    assert!(committed == now, "reports/coverage.md is old: run `apr qa coverage` and commit it");
}

#[test]
fn every_test_that_a_claim_rests_on_exists() {
    let missing = coverage::missing_tests(&coverage_now(), &root()).expect("readable sources");
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_command_writes_the_page_and_says_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let reports = folder.path().to_string_lossy().into_owned();
    let said = output(&["qa", "coverage", "--report", &reports]);
    let page = fs::read_to_string(folder.path().join("coverage.md")).expect("the page");
    assert_eq!(page, coverage::markdown(&coverage_now()));
    let json = fs::read_to_string(folder.path().join("coverage.json")).expect("the record");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let ids = json["tally"]["ids"].to_string();
    assert!(said.lines().last().is_some_and(|line| line.contains(&ids)), "{said}");
}
