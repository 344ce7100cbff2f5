//! `apr score`: points with their evidence, and what takes them away.

use serde_json::Value;

use super::program::run;

fn scored(args: &[&str]) -> (i32, Value) {
    let run = run(&[&["score", "fixtures/pygmy/qwen3", "--json"], args].concat());
    let value = serde_json::from_str(&run.out);
    (run.code, value.unwrap_or_else(|error| panic!("{error}: {}{}", run.out, run.err)))
}

#[test]
fn every_point_stands_on_claims_with_evidence() {
    let (code, score) = scored(&[]);
    assert_eq!(code, 0);
    let parts = score["parts"].as_array().expect("parts");
    let sum: u64 = parts.iter().filter_map(|part| part["points"].as_u64()).sum();
    assert_eq!(score["total"].as_u64(), Some(sum));
    for part in parts {
        let of = |name: &str| part[name].as_u64().expect("a number");
        assert_eq!(of("points"), of("holds") * of("points_max") / of("applicable"), "{part}");
        assert_eq!(of("holds") + of("fails") + of("not_measured"), of("applicable"), "{part}");
    }
    let claims = score["claims"].as_array().expect("claims");
    let bare = |claim: &&Value| claim["evidence"].as_array().is_none_or(Vec::is_empty);
    assert_eq!(claims.iter().find(bare), None, "no claim without a word");
}

#[test]
fn a_planted_fault_takes_the_points_of_its_claims_and_makes_the_grade_f() {
    let (_, healthy) = scored(&[]);
    for (fault, claim) in [
        ("file/nan-weight", "F-APR-015"),
        ("engine/token-wrapped", "F-APR-032"),
        ("cli/limit-dropped", "F-APR-066@002"),
    ] {
        let (code, score) = scored(&["--plant", fault]);
        assert_eq!(code, 0, "{fault}");
        let claims = score["claims"].as_array().expect("claims");
        let hit = claims.iter().find(|one| one["id"] == claim).expect(claim);
        assert_eq!(hit["standing"], "fails", "{fault}: {hit}");
        assert!(score["total"].as_u64() < healthy["total"].as_u64(), "{fault}");
    }
    let (_, score) = scored(&["--plant", "file/nan-weight"]);
    assert_eq!(score["grade"], "F", "a blocking gate was falsified");
}

#[test]
fn a_release_is_held_to_the_score_it_is_asked_for() {
    for (least, code) in [("0", 0), ("100", 1)] {
        assert_eq!(scored(&["--check", least]).0, code, "--check {least}");
    }
    assert_eq!(scored(&["--check", "0", "--plant", "file/nan-weight"]).0, 1, "F is never enough");
}

#[test]
fn the_text_fits_eighty_columns_and_names_what_earned_nothing() {
    let run = run(&["score", "fixtures/pygmy/qwen3"]);
    assert_eq!(run.code, 0, "{}", run.err);
    for start in ["format ", "parity ", "memory ", "load ", "total ", "bricks ", "combined "] {
        let line = run.out.lines().find(|line| line.starts_with(start)).expect(start);
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(run.out.contains("F-APR-063@002 not measured"), "{}", run.out);
}
