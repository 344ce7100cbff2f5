use std::path::PathBuf;

use super::*;

const CONTRACT: &str = "\
contract: files
title: Files are whole.
gates:
  - id: parses
    claim: The file parses and holds a tensor.
    severity: major
    refs: [F001, F003]
    check: { format-integrity: { rule: parses } }
  - id: magic
    claim: The first bytes are the right ones.
    severity: major
    refs: [F003]
    check: { format-integrity: { rule: magic } }
";

fn coverage(claims: &str, contract: &str) -> Result<Coverage, String> {
    let text = format!("title: Files\nclaims:{claims}");
    let claims = Claims::from_texts(&[(PathBuf::from("claims/files.yaml"), text)])
        .map_err(|error| error.to_string())?;
    let catalogue =
        Catalogue::from_texts(&[("files", contract)]).map_err(|error| error.to_string())?;
    Coverage::new(&claims, &catalogue)
        .map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn what_covers_a_claim_is_read_off_the_gates() {
    let claims = "
  - { ids: [F001, F002], title: Two ids of one claim. }
  - { ids: [F003..F005], title: A range. }
  - { ids: [F006], title: A twin., same-as: F001 }
  - { ids: [F007], title: Foreign., not-applicable: nothing like it is here }
  - { ids: [F008], title: Later., not-yet: there is no server }
  - { ids: [F009], title: Tested., tests: [\"a.rs#b\"] }
  - { ids: [F010], title: The twin of an open one., same-as: F008 }
";
    let coverage = coverage(claims, CONTRACT).unwrap();
    assert_eq!(
        coverage.tally,
        Tally { ids: 10, gates: 6, tests: 1, not_applicable: 1, not_yet: 2 }
    );
    insta::assert_snapshot!(markdown(&coverage));
}

#[test]
fn contradictions_are_all_told_at_once() {
    let claims = "
  - { ids: [F001], title: Covered and open., not-yet: there is no server }
  - { ids: [F002], title: Neither. }
  - { ids: [F004], title: Both., not-yet: there is no server, not-applicable: nothing like it is here }
  - { ids: [F005], title: The twin of nothing., same-as: F099 }
  - { ids: [F006], title: A twin., same-as: F001 }
  - { ids: [F007], title: The twin of a twin., same-as: F006 }
  - { ids: [F008], title: A twin with a word., same-as: F002, not-yet: there is no server }
";
    insta::assert_snapshot!(coverage(claims, CONTRACT).unwrap_err());
}

#[test]
fn a_test_that_does_not_exist_is_missed() {
    let claims = "
  - { ids: [F001, F003], title: Covered. }
  - { ids: [F002], title: Tested., tests: [\"here.rs#there\", \"here.rs#gone\", here.rs] }
";
    let coverage = coverage(claims, CONTRACT).unwrap();
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("here.rs"), "fn there() {}\n").unwrap();
    assert_eq!(missing_tests(&coverage, root.path()).unwrap(), ["here.rs#gone", "here.rs"]);
}
