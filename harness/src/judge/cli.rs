//! `cli`: the executable does what its command line promises.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::Planned;
use super::context::{JudgeContext, Look};
use super::pattern::Pattern;
use crate::contract::check::{Cli, CliExpect, JsonExpect, JsonTest, PrivateMemory};
use crate::fault::HarnessFault;
use crate::subject::{Call, CommandOutput};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Characters of foreign output that a counterexample shows.
const SHOWN: usize = 400;

/// Judges `check` on `case`.
pub(super) fn judge(check: &Cli, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let scratch = ctx.scratch(case)?;
    let eyes = Eyes {
        expect: &check.expect,
        places: Places::new(case, ctx, &scratch)?,
        fault: ctx.harness_fault(),
    };
    let args: Vec<String> = check.args.iter().map(|arg| eyes.places.fill(arg)).collect();
    let command = format!("apr {}", args.join(" "));
    let mut call = Call::new(args, &scratch, Duration::from_secs(check.time_limit_s));
    call.stdin = check.stdin.clone().unwrap_or_default().into_bytes();
    call.interrupt = check.interrupt;
    if let Some(memory) = &check.memory {
        call.limits.memory = Some(private_bytes(memory, case, ctx)?);
    }
    if let Some(blind) = eyes.blindness() {
        return Ok(Verdict::broken(blind));
    }
    let output = ctx.run_apr(call)?;
    Ok(eyes.look(&output).verdict(&command, &output))
}

/// What a call may take of private memory, in bytes.
fn private_bytes(memory: &PrivateMemory, case: &Planned, ctx: &JudgeContext) -> Look<u64> {
    let path = ctx.path(ctx.form(case)?)?;
    let bytes = bytes_below(&path)
        .map_err(|error| Box::new(Verdict::broken(format!("{}: {error}", path.display()))))?;
    let share = (bytes as f64 * memory.share_of_files.get()) as u64;
    Ok((memory.fixed_mib << 20).saturating_add(share))
}

/// Bytes of a file, or of the files of a directory.
fn bytes_below(path: &Path) -> std::io::Result<u64> {
    if !path.is_dir() {
        return Ok(std::fs::metadata(path)?.len());
    }
    let entries = std::fs::read_dir(path)?;
    entries.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// What was looked at, and what does not hold.
#[derive(Debug, Default)]
struct Seen {
    /// Expectations.
    count: u64,
    /// What was looked at → how many of its expectations fail.
    failures: BTreeMap<&'static str, u64>,
    /// Each failure in words.
    wrong: Vec<String>,
}

impl Seen {
    /// One expectation of `what`, and how it fails if it does.
    fn expect(&mut self, what: &'static str, failure: Option<String>) {
        self.count += 1;
        *self.failures.entry(what).or_default() += u64::from(failure.is_some());
        self.wrong.extend(failure);
    }

    fn verdict(self, command: &str, output: &CommandOutput) -> Verdict {
        let summary = match self.wrong.first() {
            None => format!("all of {} expectations of `{command}`", self.count),
            Some(first) => format!("{} of {} expectations: {first}", self.wrong.len(), self.count),
        };
        let mut evidence = Evidence::new(self.count, summary);
        for (what, failures) in &self.failures {
            evidence =
                evidence.measure(Measure::judged(*what, *failures as f64, Limit::Exactly(0.0)));
        }
        evidence = evidence.measure(Measure::noted("wall", output.waited.as_secs_f64()).unit("s"));
        if !self.wrong.is_empty() {
            evidence.details = self.wrong;
            evidence.details.push(format!("command: {command}"));
            evidence.details.push(format!("stdout: {}", shown(&output.stdout_text())));
            evidence.details.push(format!("stderr: {}", shown(&output.stderr_text())));
        }
        evidence.verdict()
    }
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
pub(super) fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.to_string_lossy().into_owned()
}

/// Expectations with everything that is needed to hold an output against them.
struct Eyes<'a> {
    expect: &'a CliExpect,
    places: Places,
    /// A planted defect of these eyes.
    fault: Option<HarnessFault>,
}

impl Eyes<'_> {
    fn look(&self, output: &CommandOutput) -> Seen {
        let mut seen = Seen::default();
        if self.fault == Some(HarnessFault::EmptyComparison) {
            return seen;
        }
        let exit = self.expect.exit;
        let other = format!("{} instead of exit code {exit}", output.ending());
        seen.expect("exit-code", (output.code != Some(exit)).then_some(other));
        let (stdout, stderr) = (output.stdout_text(), output.stderr_text());
        let panic = stderr.contains("panicked at").then(|| "a panic on standard error".to_owned());
        seen.expect("panics", panic);
        self.patterns(&mut seen, "stdout", &stdout, &self.expect.stdout, true);
        self.patterns(&mut seen, "stdout", &stdout, &self.expect.stdout_not, false);
        self.patterns(&mut seen, "stderr", &stderr, &self.expect.stderr, true);
        self.patterns(&mut seen, "stderr", &stderr, &self.expect.stderr_not, false);
        self.json(&mut seen, &stdout);
        for file in &self.expect.files {
            let path = PathBuf::from(self.places.fill(file));
            let there = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0);
            let missing = format!("{} is missing or empty", path.display());
            seen.expect("files", (!there).then_some(missing));
        }
        seen
    }

    fn patterns(
        &self,
        seen: &mut Seen,
        stream: &'static str,
        text: &str,
        patterns: &[String],
        wanted: bool,
    ) {
        for pattern in patterns {
            let failure = match Pattern::new(&self.places.fill(pattern)) {
                Ok(pattern) if pattern.is_in(text) == wanted => None,
                Ok(pattern) => {
                    let has = if wanted { "has no" } else { "has" };
                    Some(format!("{stream} {has} {:?}", pattern.source()))
                }
                Err(error) => Some(error),
            };
            seen.expect(stream, failure);
        }
    }

    /// Standard output as one JSON value.
    fn json(&self, seen: &mut Seen, stdout: &str) {
        if self.expect.json.is_empty() {
            return;
        }
        match serde_json::from_str::<Value>(stdout) {
            Ok(value) => {
                for test in &self.expect.json {
                    seen.expect("json", mismatch(test, &value, &self.places));
                }
            }
            // Planted: what cannot be read is taken for nothing to be said.
            Err(_) if self.fault == Some(HarnessFault::UnparsedPasses) => seen.expect("json", None),
            Err(error) => {
                let failure = format!("standard output is not one JSON value: {error}");
                seen.expect("json", Some(failure));
            }
        }
    }

    /// The positive control: a call that was killed after a torn line must fail what is expected. Eyes that do not see it
    /// cannot clear anybody.
    fn blindness(&self) -> Option<String> {
        let torn = CommandOutput { stdout: b"{\"torn".to_vec(), ..CommandOutput::default() };
        let seen = self.look(&torn);
        let mut expected = vec!["exit-code"];
        expected.extend((!self.expect.json.is_empty()).then_some("json"));
        let caught = |what: &&str| seen.failures.get(what).is_some_and(|count| *count > 0);
        let missed = expected.into_iter().find(|what| !caught(what));
        missed.map(|what| {
            format!("the judge is blind: a killed call with torn output has no wrong {what}")
        })
    }
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
        look(yaml, None, output).wrong.len()
    }

    fn look(yaml: &str, fault: Option<HarnessFault>, output: &CommandOutput) -> Seen {
        Eyes { expect: &expect(yaml), places: nowhere(), fault }.look(output)
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
    fn each_stream_fails_by_its_own_measure() {
        let yaml =
            "{ exit: 0, stdout: [yes], stderr-not: [no], json: [{ at: /a, is: not-empty }] }";
        let mut output = output(0, "{\"a\":\"yes\"}");
        assert!(look(yaml, None, &output).wrong.is_empty());
        output.stderr = b"no".to_vec();
        let seen = look(yaml, None, &output);
        let broken: Vec<_> = seen.failures.iter().filter(|(_, n)| **n > 0).collect();
        assert_eq!(broken, [(&"stderr", &1)], "{seen:?}");
    }

    #[test]
    fn eyes_that_see_nothing_or_read_nothing_are_blind() {
        let expect = expect("{ exit: 0, json: [{ at: /a, is: not-empty }] }");
        let blind = |fault| Eyes { expect: &expect, places: nowhere(), fault }.blindness();
        assert_eq!(blind(None), None);
        assert!(blind(Some(HarnessFault::EmptyComparison)).unwrap().contains("exit-code"));
        assert!(blind(Some(HarnessFault::UnparsedPasses)).unwrap().contains("json"));
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
