//! `convert-run`: a converted model generates what its source generates.
//!
//! Two steps of a person's: `apr convert`, then `apr run` on the result. The source is asked as it really is; a planted fault
//! sits in the converter, that is in the files it leaves behind, and in every call that follows.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Planned;
use super::cli::absolute;
use super::context::{JudgeContext, Look};
use crate::contract::check::ConvertRun;
use crate::subject::{Call, CommandOutput};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Lines that a counterexample lists.
const LISTED: usize = 8;

/// Judges `check` on `case`.
pub(super) fn judge(check: &ConvertRun, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let honest = ctx.unplanted();
    let source = absolute(&honest.path(form)?);
    let scratch = absolute(&ctx.scratch(case)?);
    let target = Path::new(&scratch).join("converted");
    std::fs::create_dir_all(&target)
        .map_err(|error| Box::new(Verdict::broken(format!("{}: {error}", target.display()))))?;
    let file = target.join(check.to.file_name());
    let file = file.to_string_lossy().into_owned();
    let steps = Steps { check, scratch: Path::new(&scratch) };
    let mut seen = Seen::default();
    let args = ["convert", &source, "--output", &file, "--quiet"];
    let converted = ctx.run_apr(steps.call(&args))?;
    if converted.code == Some(0) {
        ctx.damage(form, &target)?;
        for prompt in &check.prompts {
            let expected = steps.answer(&honest, &source, prompt)?.map_err(|why| {
                Box::new(Verdict::broken(format!("the source does not answer: {why}")))
            })?;
            seen.add(prompt, &expected, steps.answer(ctx, &file, prompt)?);
        }
    } else {
        seen.failed_calls.push(format!("apr convert: {}", ending(&converted)));
    }
    Ok(seen.verdict(check))
}

fn ending(output: &CommandOutput) -> String {
    let stderr = output.stderr_text();
    format!("{}: {}", output.ending(), stderr.lines().next().unwrap_or("nothing was printed"))
}

/// Ids of a prompt and of its greedy answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    prompt: Vec<u64>,
    tokens: Vec<u64>,
}

/// Why a call gave no answer.
type NoAnswer = String;

struct Steps<'a> {
    check: &'a ConvertRun,
    scratch: &'a Path,
}

impl Steps<'_> {
    fn call(&self, args: &[&str]) -> Call {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Call::new(args, self.scratch, Duration::from_secs(self.check.time_limit_s))
    }

    /// What `apr run` answers on the model at `path`.
    fn answer(
        &self,
        ctx: &JudgeContext,
        path: &str,
        prompt: &str,
    ) -> Look<Result<Answer, NoAnswer>> {
        let limit = self.check.max_tokens.to_string();
        let output = ctx.run_apr(self.call(&["run", path, "--json", "-n", &limit, prompt]))?;
        Ok(if output.code == Some(0) { read(&output.stdout_text()) } else { Err(ending(&output)) })
    }
}

/// The ids in the JSON of `apr run`.
fn read(stdout: &str) -> Result<Answer, NoAnswer> {
    let value: Value = serde_json::from_str(stdout).map_err(|error| error.to_string())?;
    let ids = |name: &str| -> Result<Vec<u64>, NoAnswer> {
        let ids = value[name].as_array().ok_or_else(|| format!("no {name}"))?;
        ids.iter().map(|id| id.as_u64().ok_or_else(|| format!("{name}: {id} is no id"))).collect()
    };
    Ok(Answer { prompt: ids("prompt_tokens")?, tokens: ids("tokens")? })
}

/// What the two steps showed.
#[derive(Debug, Default)]
struct Seen {
    /// Answered tokens that were compared.
    tokens: u64,
    failed_calls: Vec<String>,
    other_prompts: Vec<String>,
    other_answers: Vec<String>,
}

impl Seen {
    fn add(&mut self, prompt: &str, expected: &Answer, found: Result<Answer, NoAnswer>) {
        let found = match found {
            Ok(found) => found,
            Err(why) => {
                self.failed_calls
                    .push(format!("apr run on the converted model, {prompt:?}: {why}"));
                return;
            }
        };
        if found.prompt != expected.prompt {
            self.other_prompts.push(format!(
                "{prompt:?} is read as {:?} instead of {:?}",
                found.prompt, expected.prompt
            ));
        }
        self.tokens += expected.tokens.len() as u64;
        if found.tokens != expected.tokens {
            self.other_answers.push(format!(
                "{prompt:?} is answered with {:?} instead of {:?}",
                found.tokens, expected.tokens
            ));
        }
    }

    fn verdict(self, check: &ConvertRun) -> Verdict {
        let wrong: Vec<&String> = [&self.failed_calls, &self.other_prompts, &self.other_answers]
            .into_iter()
            .flatten()
            .collect();
        let (prompts, to) = (check.prompts.len(), check.to.name());
        let summary = match wrong.first() {
            None => format!(
                "{} greedy tokens of {prompts} prompts are the source's in {to}",
                self.tokens
            ),
            Some(first) => {
                format!("{} differences over {prompts} prompts in {to}: {first}", wrong.len())
            }
        };
        // A conversion that fails was looked at, though no token was.
        let looked_at = self.tokens + self.failed_calls.len() as u64;
        let judged = |name, list: &Vec<String>| {
            Measure::judged(name, list.len() as f64, Limit::Exactly(0.0))
        };
        let mut evidence = Evidence::new(looked_at, summary)
            .measure(judged("failed-calls", &self.failed_calls))
            .measure(judged("other-prompts", &self.other_prompts))
            .measure(judged("other-answers", &self.other_answers));
        evidence.details = wrong.into_iter().take(LISTED).cloned().collect();
        evidence.verdict()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::check::Target;
    use crate::verdict::VerdictKind;

    fn check() -> ConvertRun {
        ConvertRun {
            to: Target::Apr,
            prompts: vec!["2+2=".into()],
            max_tokens: 4,
            time_limit_s: 60,
        }
    }

    fn verdict(stdout: &str) -> Verdict {
        let expected = Answer { prompt: vec![1, 2], tokens: vec![3, 4] };
        let mut seen = Seen::default();
        seen.add("2+2=", &expected, read(stdout));
        seen.verdict(&check())
    }

    fn red(verdict: &Verdict) -> Vec<&str> {
        let measures = verdict.evidence().into_iter().flat_map(|evidence| &evidence.measures);
        measures.filter(|measure| !measure.holds()).map(|measure| measure.name.as_str()).collect()
    }

    #[test]
    fn equal_ids_are_corroborated_with_their_number() {
        let found = verdict(r#"{"prompt_tokens":[1,2],"tokens":[3,4]}"#);
        assert_eq!(found.kind(), VerdictKind::Corroborated);
        assert_eq!(found.evidence().map(|evidence| evidence.comparisons), Some(2));
    }

    #[test]
    fn each_difference_is_red_by_its_own_measure() {
        for (stdout, measure) in [
            (r#"{"prompt_tokens":[1,9],"tokens":[3,4]}"#, "other-prompts"),
            (r#"{"prompt_tokens":[1,2],"tokens":[3]}"#, "other-answers"),
            (r#"{"prompt_tokens":[1,2]}"#, "failed-calls"),
            (r#"{"prompt_tokens":[1,2],"tok"#, "failed-calls"),
            (r#"{"prompt_tokens":[1,2],"tokens":["3"]}"#, "failed-calls"),
        ] {
            assert_eq!(red(&verdict(stdout)), [measure], "{stdout}");
        }
    }

    #[test]
    fn no_token_at_all_is_broken_not_green() {
        let seen = Seen::default();
        assert_eq!(seen.verdict(&check()).kind(), VerdictKind::Broken);
    }
}
