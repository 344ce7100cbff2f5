use std::fmt::Write as _;

use super::super::parameter::{ParameterValue, Scalar, Setting};
use super::super::{Catalogue, CatalogueError, Check};

const SPEED: &str = "\
contract: speed
title: Nothing is slower.
parameters:
  tokens: { type: integer, default: 16, why: enough for a stable median }
  ratio: { type: number, default: 2.0, why: eight lanes against one }
  phase: { type: text, default: decode, why: what users wait for }
gates:
  - id: faster
    claim: SIMD is at least $ratio times as fast over $tokens tokens.
    severity: major
    check: { throughput: { phase: $phase, against: itself, tokens: $tokens, ratio-at-least: \"$ratio\", why: measured above five } }
";

fn catalogue(text: &str, words: &[&str]) -> Result<Catalogue, CatalogueError> {
    let settings: Result<Vec<Setting>, _> =
        words.iter().map(|words| Setting::from_words("--set", words)).collect();
    let settings = settings?;
    Catalogue::from_texts(&[("speed", text)])?.with(&settings)
}

fn throughput(catalogue: &Catalogue) -> (String, usize, f64) {
    let gate = &catalogue.contracts["speed"].gates[0];
    match &gate.check {
        Check::Throughput(check) => (gate.claim.clone(), check.tokens, check.ratio_at_least.get()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_check_gets_the_defaults() {
    let loaded = catalogue(SPEED, &[]).unwrap();
    let (claim, tokens, ratio) = throughput(&loaded);
    assert_eq!((tokens, ratio), (16, 2.0));
    assert_eq!(claim, "SIMD is at least 2 times as fast over 16 tokens.");
    assert!(!loaded.parameters.iter().any(ParameterValue::is_changed));
}

#[test]
fn a_setting_reaches_the_check_the_claim_and_the_hash() {
    let (before, after) =
        (catalogue(SPEED, &[]).unwrap(), catalogue(SPEED, &["speed.ratio=1.5"]).unwrap());
    let (claim, tokens, ratio) = throughput(&after);
    assert_eq!((tokens, ratio), (16, 1.5));
    assert_eq!(claim, "SIMD is at least 1.5 times as fast over 16 tokens.");
    assert_ne!(before.sha256, after.sha256, "another bound is another catalogue");
    let changed: Vec<String> = after
        .parameters
        .iter()
        .filter(|value| value.is_changed())
        .map(ToString::to_string)
        .collect();
    assert_eq!(changed, ["speed.ratio = 1.5 instead of 2 (command line)"]);
}

#[test]
fn a_default_set_again_changes_nothing() {
    let again = catalogue(SPEED, &["speed.tokens=16", "speed.ratio=2"]).unwrap();
    assert_eq!(again.sha256, catalogue(SPEED, &[]).unwrap().sha256);
    assert!(!again.parameters.iter().any(ParameterValue::is_changed));
}

#[test]
fn of_two_settings_the_later_speaks() {
    let loaded = catalogue(SPEED, &["speed.tokens=8", "speed.tokens=9"]).unwrap();
    assert_eq!(throughput(&loaded).1, 9);
}

#[test]
fn two_dollars_are_the_text_itself() {
    let text = "\
contract: speed
title: Texts with a dollar.
gates:
  - id: dollar
    claim: A dollar costs $5 or is a word.
    severity: major
    check: { cli: { args: [run, $$home, 'a $b', $], expect: { exit: 0 } } }
";
    let loaded = catalogue(text, &[]).unwrap();
    let Check::Cli(cli) = &loaded.contracts["speed"].gates[0].check else { panic!("no cli") };
    assert_eq!(cli.args, ["run", "$home", "a $b", "$"]);
}

#[test]
fn a_reference_behind_an_alias_is_replaced_once() {
    let text = SPEED.replace("tokens: $tokens", "tokens: &n $tokens")
        + "  - id: again
    claim: The same once more.
    severity: major
    check: { throughput: { phase: prefill, against: itself, tokens: *n, ratio-at-least: 0.5, why: measured above five } }
";
    let loaded = catalogue(&text, &["speed.tokens=32"]).unwrap();
    for gate in &loaded.contracts["speed"].gates {
        let Check::Throughput(check) = &gate.check else { panic!("no throughput") };
        assert_eq!(check.tokens, 32, "{}", gate.id);
    }
}

#[test]
fn a_contract_without_a_value_waits_and_says_for_what() {
    let text = SPEED.replace("type: integer, default: 16", "type: integer");
    let loaded = catalogue(&text, &[]).unwrap();
    assert!(loaded.contracts.is_empty() && loaded.waiting.contains_key("speed"));
    let told = catalogue(&text, &["speed.tokens=8"]).unwrap();
    assert_eq!(throughput(&told).1, 8);
    let tokens = told.parameters.iter().find(|value| value.parameter == "speed.tokens");
    assert!(tokens.is_some_and(ParameterValue::is_changed), "what somebody chose is told");
}

#[test]
fn a_mistake_behind_a_reference_is_reported_where_it_stands_in_the_file() {
    let longer = "speed.phase=decode_and_much_more_than_that";
    let error = catalogue(SPEED, &[longer]).unwrap_err();
    let column = SPEED.lines().nth(10).and_then(|line| line.find("$phase")).map(|at| at + 1);
    assert_eq!(error.position, column.map(|column| (11, column)), "{error}");
    // What follows on the line has not moved either.
    let text = SPEED.replace("why: measured", "wyh: measured");
    let error = catalogue(&text, &["speed.tokens=1600000"]).unwrap_err();
    let column = text.lines().nth(10).and_then(|line| line.find("wyh")).map(|at| at + 1);
    assert_eq!(error.position, column.map(|column| (11, column)), "{error}");
}

#[test]
fn what_the_messages_say() {
    let mistakes: &[(&str, &str, &str, &[&str])] = &[
        ("an unknown reference", "tokens: $tokens", "tokens: $tokes", &[]),
        ("nothing declared", "parameters:\n  tokens", "x-parameters:\n  tokens", &[]),
        ("an unused parameter", "tokens: $tokens", "tokens: 16", &[]),
        ("a claim that mentions an unknown one", "over $tokens", "over $tokes", &[]),
        ("a default of the wrong type", "default: 16", "default: sixteen", &[]),
        ("a default that is no number", "default: 2.0", "default: .nan", &[]),
        ("an unknown type", "type: integer", "type: count", &[]),
        ("no reason", ", why: enough for a stable median", "", &[]),
        ("a name that is no word", "  tokens: {", "  Tokens: {", &[]),
        ("no default and no value", "type: integer, default: 16", "type: integer", &[]),
        ("a tagged scalar", "phase: $phase,", "phase: !x $phase,", &[]),
        ("an unknown contract", "", "", &["sped.tokens=1"]),
        ("an unknown parameter", "", "", &["speed.token=1"]),
        ("words of another form", "", "", &["tokens=1"]),
        ("a word of the wrong type", "", "", &["speed.tokens=many"]),
        ("a fraction for a whole number", "", "", &["speed.tokens=1.5"]),
        ("an infinite number", "", "", &["speed.ratio=inf"]),
        ("a value that the check refuses", "", "", &["speed.ratio=-1"]),
        ("a value that contradicts the check", "", "", &["speed.tokens=0"]),
        ("a word that the check does not know", "", "", &["speed.phase=warmup"]),
        (
            "a parameter of a type that the check does not take",
            "type: integer, default: 16",
            "type: number, default: 16",
            &[],
        ),
        ("a share beyond one", "type: number, default: 2.0", "type: share, default: 2.0", &[]),
    ];
    let mut told = String::new();
    for (what, from, to, words) in mistakes {
        assert!(from.is_empty() || SPEED.contains(from), "{what}: nothing to replace");
        let text = if from.is_empty() { SPEED.to_owned() } else { SPEED.replacen(from, to, 1) };
        let error = match catalogue(&text, words) {
            Err(error) => error,
            Ok(loaded) => loaded.waiting.get("speed").cloned().unwrap_or_else(|| panic!("{what}")),
        };
        writeln!(told, "{what}\n  {error}").unwrap();
    }
    insta::assert_snapshot!(told);
}

#[test]
fn values_are_shown_as_they_are_written() {
    for (value, shown) in [
        (Scalar::Number(1e-9), "1e-9"),
        (Scalar::Number(0.5), "0.5"),
        (Scalar::Number(-3.0), "-3"),
        (Scalar::Integer(16), "16"),
        (Scalar::Text("a \"b\"".into()), r#""a \"b\"""#),
        (Scalar::Flag(true), "true"),
    ] {
        assert_eq!(value.to_string(), shown);
        let read: Scalar = serde_yaml::from_str(&value.yaml()).unwrap();
        assert_eq!(read, value, "{}", value.yaml());
    }
}
