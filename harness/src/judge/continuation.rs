//! `continuation`: how a published model goes on behind recorded prompts.
//!
//! Two independent engines continued the same prompts greedily and recorded the likeliest tokens of every step. The
//! subject is led along the recorded tokens, so that one flip does not hide what follows. Nothing that the subject
//! computes widens a bound: limits are numbers of the gate, or multiples of the distance that the recording itself
//! states between the two engines.

use apr_engine::generate::log_softmax;
use apr_engine::model::{Lm, Want};
use apr_engine::probe::NoProbe;
use apr_engine::text::{Message, prepare_raw};
use serde::Deserialize;

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::text::Text;
use crate::compare::lead;
use crate::contract::check::{Continuation, Within};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Findings of a kind that are listed.
const LISTED: usize = 8;

/// A file of recorded continuations.
#[derive(Debug, Deserialize)]
struct Recording {
    noise: Noise,
    prompts: Vec<Prompt>,
    runs: Vec<Run>,
}

/// How far the log-probabilities of the two engines are apart.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Noise {
    rms: f64,
}

#[derive(Debug, Deserialize)]
struct Prompt {
    text: String,
    #[serde(default)]
    messages: Vec<Turn>,
    ids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    role: String,
    content: String,
}

/// What one engine gave.
#[derive(Debug, Deserialize)]
struct Run {
    engine: String,
    outputs: Vec<Output>,
}

/// The greedy tokens behind a prompt, and at each step the likeliest tokens with their log-probabilities.
#[derive(Debug, Deserialize)]
struct Output {
    ids: Vec<u32>,
    top: Vec<Vec<(u32, f64)>>,
}

/// What the walk along the recorded tokens found.
#[derive(Debug, Default)]
struct Found {
    steps: u64,
    values: u64,
    squares: f64,
    worst: f64,
    worst_at: String,
    /// Recorded lead and description of each step that chose another token.
    flips: Vec<(f64, String)>,
    misread: Vec<String>,
}

/// Judges `check` on `case`.
pub(super) fn judge(check: &Continuation, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let broken =
        |what: String| Box::new(Verdict::broken(format!("{}: {what}", check.file.display())));
    // A form that is absent for want of its model says so before its recording is looked for.
    let model = ctx.model(form)?;
    let bytes = ctx.fixture(&check.file, Some(form), "oracle")?;
    let recording: Recording =
        serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    let run = recording
        .runs
        .iter()
        .find(|run| run.engine == check.engine)
        .ok_or_else(|| broken(format!("no run of {}", check.engine)))?;
    let text = ctx.text(form)?;
    let spec = BackendSpec::of(&case.info.cell);
    let mut lm = ctx.lm(&model, &spec, ctx.options_with(check.cache_type))?;
    let mut found = Found::default();
    for (prompt, output) in recording.prompts.iter().zip(&run.outputs) {
        match misread(prompt, &text)? {
            Some(how) => found.misread.push(how),
            None => found.follow(prompt, output, &mut *lm).map_err(|error| match error {
                Stray::Engine(error) => refused(&format!("the prompt {:?}", prompt.text), &error),
                Stray::Recording(what) => broken(what),
            })?,
        }
    }
    Ok(found.verdict(check, recording.noise))
}

/// How the ids of `prompt`, on the way that every user's prompt takes, differ from the recorded ones.
fn misread(prompt: &Prompt, text: &Text) -> Look<Option<String>> {
    let tokens = if prompt.messages.is_empty() {
        prepare_raw(&text.tokenizer, &prompt.text)
            .map_err(|error| refused("a prompt is not encoded", &error))?
    } else {
        let message = |turn: &Turn| Message::new(turn.role.clone(), turn.content.clone());
        let messages: Vec<Message> = prompt.messages.iter().map(message).collect();
        text.conversation(&messages, true)?
    };
    let same = tokens.ids() == prompt.ids;
    Ok((!same).then(|| {
        format!("{:?} is read as {:?} instead of {:?}", prompt.text, tokens.ids(), prompt.ids)
    }))
}

/// Why a walk ended early.
enum Stray {
    Engine(apr_engine::Error),
    Recording(String),
}

impl Found {
    fn follow(&mut self, prompt: &Prompt, output: &Output, lm: &mut dyn Lm) -> Result<(), Stray> {
        lm.reset();
        let mut next = prompt.ids.clone();
        for (step, (&id, top)) in output.ids.iter().zip(&output.top).enumerate() {
            let rows = lm.forward(&next, Want::Last, &mut NoProbe).map_err(Stray::Engine)?;
            let place = || format!("{:?} step {step}", prompt.text);
            self.compare(rows.last(), top, &place)?;
            let chosen = lead(rows.last()).map(|(chosen, _)| chosen as u32);
            if chosen != Some(id) {
                let gap = recorded_lead(top)
                    .ok_or_else(|| Stray::Recording(format!("{}: no second token", place())))?;
                let line = format!("{}: token {chosen:?} instead of {id}, lead {gap:.4}", place());
                self.flips.push((gap, line));
            }
            self.steps += 1;
            next = vec![id];
        }
        Ok(())
    }

    fn compare(
        &mut self,
        logits: &[f32],
        top: &[(u32, f64)],
        place: &dyn Fn() -> String,
    ) -> Result<(), Stray> {
        let logs = log_softmax(logits);
        for &(id, recorded) in top {
            let Some(log) = logs.get(id as usize) else {
                return Err(Stray::Recording(format!("{}: no token {id}", place())));
            };
            let apart = (log - recorded).abs();
            self.values += 1;
            self.squares += apart * apart;
            // A NaN is the worst there is, and stays it.
            if !self.worst.is_nan() && (apart.is_nan() || apart > self.worst) {
                self.worst = apart;
                self.worst_at =
                    format!("{}, token {id}: {log:.5} instead of {recorded:.5}", place());
            }
        }
        Ok(())
    }

    fn verdict(self, check: &Continuation, noise: Noise) -> Verdict {
        let rms = (self.squares / self.values as f64).sqrt();
        let (distance, limit, lead_limit) = match &check.within {
            Within::Absolute(bound) => (self.worst, bound.get(), 2.0 * bound.get()),
            Within::Noises { rms: factor, lead } => {
                (rms, factor.get() * noise.rms, lead.get() * noise.rms)
            }
        };
        let name = match check.within {
            Within::Absolute(_) => "logprob-worst",
            Within::Noises { .. } => "logprob-rms",
        };
        let (wrong, coins): (Vec<_>, Vec<_>) =
            self.flips.into_iter().partition(|(gap, _)| *gap > lead_limit);
        let summary = format!(
            "{name} {distance:.3e} of {limit:.3e} over {} values of {} steps against {}; {} wrong choices, {} more \
             below a lead of {lead_limit:.3e}; {} prompts misread",
            self.values,
            self.steps,
            check.engine,
            wrong.len(),
            coins.len(),
            self.misread.len()
        );
        let mut evidence = Evidence::new(self.values + self.misread.len() as u64, summary)
            .measure(Measure::judged(name, distance, Limit::AtMost(limit)))
            .measure(Measure::judged("wrong-choices", wrong.len() as f64, Limit::Exactly(0.0)))
            .measure(Measure::judged(
                "prompts-misread",
                self.misread.len() as f64,
                Limit::Exactly(0.0),
            ))
            .measure(Measure::noted("recorded-noise-rms", noise.rms))
            .measure(Measure::noted("coin-flips", coins.len() as f64));
        evidence.details = self.misread.into_iter().take(LISTED).collect();
        evidence.details.extend(wrong.into_iter().map(|(_, line)| line).take(LISTED));
        evidence.details.push(format!("worst: {}", self.worst_at));
        evidence.verdict()
    }
}

/// By how much the likeliest token leads.
fn recorded_lead(top: &[(u32, f64)]) -> Option<f64> {
    Some(top.first()?.1 - top.get(1)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::VerdictKind;

    const NOISE: Noise = Noise { rms: 0.1 };

    fn check(within: &str) -> Continuation {
        let text = format!(
            "{{ file: f.json, engine: e, within: {within}, why: \"a reason of some length\" }}"
        );
        serde_yaml::with::singleton_map_recursive::deserialize(serde_yaml::Deserializer::from_str(
            &text,
        ))
        .unwrap()
    }

    /// What is found where the recording says that two tokens are equally likely, and the subject gives `logits`.
    fn found(logits: &[f32]) -> Found {
        let mut found = Found { steps: 1, ..Found::default() };
        let half = 0.5f64.ln();
        let compared = found.compare(logits, &[(0, half), (1, half)], &|| "here".into());
        assert!(compared.is_ok());
        found
    }

    fn kind(found: Found, within: &str) -> VerdictKind {
        found.verdict(&check(within), NOISE).kind()
    }

    #[test]
    fn equal_values_are_green_and_distant_ones_red() {
        for within in ["{ absolute: 2e-3 }", "{ noises: { rms: 2, lead: 10 } }"] {
            assert_eq!(kind(found(&[1.0, 1.0]), within), VerdictKind::Corroborated);
            assert_eq!(kind(found(&[1.0, 2.0]), within), VerdictKind::Falsified);
        }
    }

    #[test]
    fn the_worst_value_counts_where_the_bound_is_absolute() {
        let nearly = || found(&[1.0, 1.01]);
        assert_eq!(kind(nearly(), "{ absolute: 2e-3 }"), VerdictKind::Falsified);
        assert_eq!(kind(nearly(), "{ noises: { rms: 2, lead: 10 } }"), VerdictKind::Corroborated);
    }

    #[test]
    fn a_value_that_is_no_number_is_never_green() {
        for within in ["{ absolute: 2e-3 }", "{ noises: { rms: 2, lead: 10 } }"] {
            assert_ne!(kind(found(&[f32::NAN, 1.0]), within), VerdictKind::Corroborated);
        }
    }

    #[test]
    fn another_choice_is_wrong_above_the_lead_and_a_coin_flip_below() {
        let flipped = |gap| Found { flips: vec![(gap, "step".into())], ..found(&[1.0, 1.0]) };
        let within = "{ noises: { rms: 2, lead: 10 } }";
        assert_eq!(kind(flipped(1.01), within), VerdictKind::Falsified);
        assert_eq!(kind(flipped(0.99), within), VerdictKind::Corroborated);
    }

    #[test]
    fn a_prompt_that_is_read_otherwise_is_red() {
        let found = Found { misread: vec!["a prompt".into()], ..found(&[1.0, 1.0]) };
        assert_eq!(kind(found, "{ absolute: 2e-3 }"), VerdictKind::Falsified);
    }

    #[test]
    fn nothing_compared_is_never_green() {
        assert_ne!(kind(Found::default(), "{ absolute: 2e-3 }"), VerdictKind::Corroborated);
    }
}
