//! `cli`: the executable does what its command line promises.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::Planned;
use super::context::{JudgeContext, Look};
use super::pattern::Pattern;
use crate::contract::check::{Cli, CliExpect, JsonExpect, JsonTest};
use crate::subject::CommandOutput;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Characters of foreign output that a counterexample shows.
const SHOWN: usize = 400;

/// Judges `check` on `case`.
pub(super) fn judge(check: &Cli, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let scratch = ctx.scratch(case)?;
    let places = Places::new(case, ctx, &scratch)?;
    let args: Vec<String> = check.args.iter().map(|arg| places.fill(arg)).collect();
    let stdin = check.stdin.as_deref().unwrap_or_default().as_bytes();
    let limit = Duration::from_secs(check.time_limit_s);
    let output = ctx.run_apr(&args, stdin, &scratch, limit)?;
    let (count, wrong) = look(&check.expect, &output, &places);
    let summary = match wrong.first() {
        None => format!("all of {count} expectations of `apr {}`", args.join(" ")),
        Some(first) => format!("{} of {count} expectations: {first}", wrong.len()),
    };
    let mut evidence = Evidence::new(count, summary)
        .measure(Measure::judged("violations", wrong.len() as f64, Limit::Exactly(0.0)))
        .measure(Measure::noted("wall", output.waited.as_secs_f64()).unit("s"));
    if !wrong.is_empty() {
        evidence.details.clone_from(&wrong);
        evidence.details.push(format!("command: apr {}", args.join(" ")));
        evidence.details.push(format!("stdout: {}", shown(&output.stdout_text())));
        evidence.details.push(format!("stderr: {}", shown(&output.stderr_text())));
    }
    Ok(evidence.verdict())
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}

/// What the placeholders of arguments stand for.
struct Places {
    values: Vec<(&'static str, String)>,
}

impl Places {
    fn new(case: &Planned, ctx: &JudgeContext, scratch: &Path) -> Look<Self> {
        let mut values =
            vec![("{work}", absolute(scratch)), ("{fixtures}", absolute(&ctx.fixtures))];
        if let Some(form) = &case.info.cell.model {
            values.push(("{model}", absolute(&ctx.path(form)?)));
        }
        if let Some(backend) = &case.info.cell.backend {
            values.push(("{backend}", backend.clone()));
        }
        Ok(Self { values })
    }

    fn fill(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// The command runs in another directory, so relative paths would not survive.
fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.to_string_lossy().into_owned()
}

/// How many expectations there are, and which fail.
fn look(expect: &CliExpect, output: &CommandOutput, places: &Places) -> (u64, Vec<String>) {
    let mut wrong = Vec::new();
    let mut count = 1;
    if output.code != Some(expect.exit) {
        wrong.push(format!("{} instead of exit code {}", output.ending(), expect.exit));
    }
    let (stdout, stderr) = (output.stdout_text(), output.stderr_text());
    count += 1;
    if stderr.contains("panicked at") {
        wrong.push("a panic on standard error".into());
    }
    let patterns = [
        ("standard output", &stdout, &expect.stdout, true),
        ("standard output", &stdout, &expect.stdout_not, false),
        ("standard error", &stderr, &expect.stderr, true),
        ("standard error", &stderr, &expect.stderr_not, false),
    ];
    for (stream, text, list, wanted) in patterns {
        for pattern in list {
            count += 1;
            match Pattern::new(&places.fill(pattern)) {
                Ok(pattern) if pattern.is_in(text) == wanted => {}
                Ok(pattern) => {
                    let has = if wanted { "has no" } else { "has" };
                    wrong.push(format!("{stream} {has} {:?}", pattern.source()));
                }
                Err(error) => wrong.push(error),
            }
        }
    }
    if !expect.json.is_empty() {
        count += expect.json.len() as u64;
        match serde_json::from_str::<Value>(&stdout) {
            Ok(value) => {
                wrong.extend(expect.json.iter().filter_map(|test| mismatch(test, &value, places)));
            }
            Err(error) => wrong.push(format!("standard output is not one JSON value: {error}")),
        }
    }
    for file in &expect.files {
        count += 1;
        let path = PathBuf::from(places.fill(file));
        if !std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) {
            wrong.push(format!("{} is missing or empty", path.display()));
        }
    }
    (count, wrong)
}

/// How `value` misses `expect`, if it does.
fn mismatch(expect: &JsonExpect, value: &Value, places: &Places) -> Option<String> {
    let found = value.pointer(&expect.at).unwrap_or(&Value::Null);
    let length = || match found {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(items) => Some(items.len()),
        Value::Object(map) => Some(map.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    };
    let holds = match &expect.is {
        JsonTest::Text(text) => found.as_str() == Some(places.fill(text).as_str()),
        JsonTest::Matches(pattern) => Pattern::new(&places.fill(pattern))
            .is_ok_and(|pattern| found.as_str().is_some_and(|text| pattern.is_in(text))),
        JsonTest::Number(number) => found.as_f64() == Some(*number),
        JsonTest::AtLeast(least) => found.as_f64().is_some_and(|number| number >= *least),
        JsonTest::AtMost(most) => found.as_f64().is_some_and(|number| number <= *most),
        JsonTest::Bool(truth) => found.as_bool() == Some(*truth),
        JsonTest::Length(wanted) => length() == Some(*wanted),
        JsonTest::NotEmpty => length().is_some_and(|length| length > 0),
        JsonTest::Absent => found.is_null(),
    };
    (!holds).then(|| format!("{}: {} is not {:?}", expect.at, shown(&found.to_string()), expect.is))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(code: i32, stdout: &str) -> CommandOutput {
        CommandOutput { code: Some(code), stdout: stdout.into(), ..CommandOutput::default() }
    }

    fn expect(yaml: &str) -> CliExpect {
        crate::contract::load::parse(yaml, Path::new("expect.yaml")).unwrap()
    }

    fn nowhere() -> Places {
        Places { values: Vec::new() }
    }

    fn wrong(yaml: &str, output: &CommandOutput) -> usize {
        look(&expect(yaml), output, &nowhere()).1.len()
    }

    #[test]
    fn exit_code_patterns_and_panics_are_judged() {
        assert_eq!(wrong("{ exit: 0, stdout: ['/^4$/'] }", &output(0, "4\n")), 0);
        assert_eq!(wrong("{ exit: 0, stdout: ['/^4$/'] }", &output(0, "14\n")), 1);
        assert_eq!(wrong("{ exit: 3 }", &output(0, "")), 1);
        let mut crashed = output(101, "");
        crashed.stderr = b"thread 'main' panicked at src/main.rs".to_vec();
        assert_eq!(wrong("{ exit: 101 }", &crashed), 1);
    }

    #[test]
    fn json_is_one_value_and_each_place_is_judged() {
        let found = output(0, r#"{"text":"4","tokens":[1,2],"ok":true,"n":2.5}"#);
        let expect: Vec<JsonTest> = vec![
            JsonTest::Text("4".into()),
            JsonTest::Length(2),
            JsonTest::Bool(true),
            JsonTest::AtLeast(2.0),
            JsonTest::Absent,
        ];
        let value: Value = serde_json::from_slice(&found.stdout).unwrap();
        for (at, is) in ["/text", "/tokens", "/ok", "/n", "/x"].into_iter().zip(expect) {
            assert_eq!(mismatch(&JsonExpect { at: at.into(), is }, &value, &nowhere()), None);
        }
        let nan = JsonExpect { at: "/n".into(), is: JsonTest::AtMost(f64::NAN) };
        assert!(mismatch(&nan, &value, &nowhere()).is_some());
        let text = JsonExpect { at: "/n".into(), is: JsonTest::Number(2.0) };
        assert!(mismatch(&text, &value, &nowhere()).is_some());
    }

    #[test]
    fn placeholders_are_filled_in_expected_texts() {
        let places = Places { values: vec![("{backend}", "simd".into())] };
        let value = serde_json::json!({ "backend": "simd" });
        let is = JsonTest::Text("{backend}".into());
        assert_eq!(mismatch(&JsonExpect { at: "/backend".into(), is }, &value, &places), None);
    }
}
