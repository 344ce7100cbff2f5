//! Certificates: recorded greedy tokens with the lead of each over the runner-up, against measured noise.
//!
//! The recording comes from an independent implementation in float arithmetic on the very weights that are judged, and
//! its noise is what another engine's rounding made on them. A different token where the lead is below a multiple
//! of the noise is a coin flip and reported; above, it is a wrong answer. The noise is recorded, never taken from the
//! subject: a broken engine must not widen its own tolerance.

use std::path::PathBuf;

use apr_engine::model::{Lm, Want};
use apr_engine::probe::NoProbe;
use serde::Deserialize;

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use crate::case::ModelRef;
use crate::compare::lead;
use crate::contract::check::Golden;
use crate::contract::tolerance::Positive;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Multiple of the noise below which a token decides nothing, when the gate names none. Tokens of healthy engines were
/// seen to part at up to 3.9 times the recorded noise.
const LEAD_ABOVE_NOISE: f64 = 8.0;
/// Least noise: the recorded gaps have four digits.
const NOISE_MIN: f64 = 1e-3;

/// A file of recorded greedy runs.
#[derive(Debug, Deserialize)]
struct Recording {
    prompts: Vec<Prompt>,
    runs: Vec<Run>,
}

#[derive(Debug, Deserialize)]
struct Prompt {
    #[serde(default)]
    asked: String,
    ids: Vec<u32>,
}

/// What one engine gave on one set of weights.
#[derive(Debug, Deserialize)]
struct Run {
    engine: String,
    weights: String,
    noise: f64,
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    ids: Vec<u32>,
    gaps: Vec<f64>,
}

/// The recorded run that speaks of a form.
#[derive(Debug)]
struct Certificate {
    prompts: Vec<(String, Vec<u32>)>,
    outputs: Vec<Output>,
    noise: f64,
}

/// Where greedy runs are recorded.
const FILE: &str = "oracle/greedy/{model}.json";

fn certificate(form: &ModelRef, ctx: &JudgeContext) -> Look<Certificate> {
    let bytes = ctx.fixture(&PathBuf::from(FILE), Some(form), "golden")?;
    let recording: Recording = serde_json::from_slice(&bytes)
        .map_err(|error| Box::new(Verdict::broken(format!("{FILE}: {error}"))))?;
    let weights = ctx.weights_of(form);
    let same = |run: &&Run| {
        PathBuf::from(&run.weights).file_name().map(|name| name.to_string_lossy().into_owned())
            == Some(weights.clone())
    };
    let noise = recording.runs.iter().filter(same).map(|run| run.noise).fold(NOISE_MIN, f64::max);
    let names: Vec<String> = recording.prompts.iter().map(|prompt| prompt.asked.clone()).collect();
    let position = recording.runs.iter().position(|run| run.engine == "transformers" && same(&run));
    let mut runs = recording.runs;
    let Some(position) = position else {
        let why = format!("no greedy run on {weights} was recorded");
        return Err(Box::new(Verdict::skipped("golden", why)));
    };
    let run = runs.swap_remove(position);
    let mut certificate = Certificate { prompts: Vec::new(), outputs: Vec::new(), noise };
    for ((name, prompt), output) in names.into_iter().zip(recording.prompts).zip(run.outputs) {
        certificate.prompts.push((name, prompt.ids));
        certificate.outputs.push(output);
    }
    Ok(certificate)
}

/// Whether an answer that left the recorded one did so on a coin flip: the first token that differs stands where the
/// recorded lead is below the noise. In words, if so.
pub(super) fn coin_flip(
    check: &Golden,
    form: &ModelRef,
    ctx: &JudgeContext,
    id: &str,
    tokens: &[u32],
) -> Option<String> {
    // Without a recording there is no excuse.
    let certificate = certificate(form, ctx).ok()?;
    let limit = factor(check) * certificate.noise;
    let at = certificate.prompts.iter().position(|(name, _)| name == id)?;
    let output = certificate.outputs.get(at)?;
    let step =
        output.ids.iter().zip(0..).find(|(recorded, step)| tokens.get(*step) != Some(recorded));
    let (_, step) = step?;
    let gap = *output.gaps.get(step)?;
    (gap <= limit)
        .then(|| format!("{id}: coin flip at step {step}, lead {gap} of {limit:.3} noise"))
}

fn factor(check: &Golden) -> f64 {
    check.lead_above_noise.map_or(LEAD_ABOVE_NOISE, Positive::get)
}

/// Leads and choices of the subject along a recorded run, teacher-forced, so that one flip does not hide the rest.
#[derive(Clone, Debug)]
struct Step {
    prompt: String,
    index: usize,
    recorded: (u32, f64),
    chosen: u32,
    lead: f64,
}

impl Step {
    fn place(&self) -> String {
        format!("{} step {}", self.prompt, self.index)
    }
}

fn steps(certificate: &Certificate, lm: &mut dyn Lm) -> Look<Vec<Step>> {
    let mut steps = Vec::new();
    for ((name, prompt), output) in certificate.prompts.iter().zip(&certificate.outputs) {
        let failed = |error| refused(&format!("golden prompt {name}"), &error);
        lm.reset();
        let mut next = prompt.clone();
        for (index, (&id, &gap)) in output.ids.iter().zip(&output.gaps).enumerate() {
            let rows = lm.forward(&next, Want::Last, &mut NoProbe).map_err(failed)?;
            let (chosen, lead) = lead(rows.last()).unwrap_or((usize::MAX, f64::NAN));
            let recorded = (id, gap);
            let prompt = name.clone();
            steps.push(Step { prompt, index, recorded, chosen: chosen as u32, lead });
            next = vec![id];
        }
    }
    Ok(steps)
}

/// The noise of the recording and the wanted steps of the subject, walked once for all gates of a cell.
fn walk(check: &Golden, case: &Planned, ctx: &JudgeContext) -> Look<(f64, Vec<Step>)> {
    let form = ctx.form(case)?;
    let spec = BackendSpec::of(&case.info.cell);
    let options = ctx.options_with(check.cache_type);
    let walked = ctx.remember(&format!("greedy walk {spec:?} {options:?}"), form, || {
        let certificate = certificate(form, ctx)?;
        let model = ctx.model(form)?;
        let mut lm = ctx.lm(&model, &spec, options)?;
        Ok((certificate.noise, steps(&certificate, &mut *lm)?))
    })?;
    let (noise, all) = &*walked;
    let wanted = |step: &&Step| check.prompts.is_empty() || check.prompts.contains(&step.prompt);
    let steps: Vec<Step> = all.iter().filter(wanted).cloned().collect();
    let lost = check.prompts.iter().find(|id| !steps.iter().any(|step| step.prompt == **id));
    match lost {
        Some(lost) => Err(Box::new(Verdict::broken(format!("no run of {lost} was recorded")))),
        None => Ok((*noise, steps)),
    }
}

/// Each decisive step chooses the recorded token.
pub(super) fn tokens(check: &Golden, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let (noise, steps) = walk(check, case, ctx)?;
    let limit = factor(check) * noise;
    let flips = steps.iter().filter(|step| step.chosen != step.recorded.0);
    let (wrong, coins): (Vec<_>, Vec<_>) = flips.partition(|step| step.recorded.1 > limit);
    let decisive = steps.iter().filter(|step| step.recorded.1 > limit).count();
    let line = |step: &&Step| {
        let (id, gap) = step.recorded;
        format!("{}: token {} instead of {id}, recorded lead {gap}", step.place(), step.chosen)
    };
    let summary = format!(
        "{} of {decisive} decisive steps wrong, {} coin flips in the other {} (lead below {limit:.3})",
        wrong.len(),
        coins.len(),
        steps.len() - decisive
    );
    let mut evidence = Evidence::new(decisive as u64, summary)
        .measure(Measure::judged("wrong-tokens", wrong.len() as f64, Limit::Exactly(0.0)))
        .measure(Measure::noted("coin-flips", coins.len() as f64))
        .measure(Measure::noted("noise", noise));
    evidence.details = wrong.iter().take(8).map(line).collect();
    Ok(evidence.verdict())
}

/// Each step leads by what was recorded, within a multiple of the noise.
pub(super) fn leads(check: &Golden, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let (noise, steps) = walk(check, case, ctx)?;
    let limit = factor(check) * noise;
    let mut worst = (0.0f64, String::new());
    for step in &steps {
        let (id, gap) = step.recorded;
        // Where the token is another one, the recorded token's lead is not positive at all.
        let lead = if step.chosen == id { step.lead } else { -step.lead };
        let error = (lead - gap).abs();
        if error.partial_cmp(&worst.0) != Some(std::cmp::Ordering::Less) {
            let place = format!("{}: lead {lead:.4} instead of {gap}", step.place());
            worst = (error, place);
        }
        if error.is_nan() {
            break;
        }
    }
    let least = steps.iter().map(|step| step.recorded.1).fold(f64::INFINITY, f64::min);
    Ok(Evidence::new(
        steps.len() as u64,
        format!(
            "worst lead off by {:.4} of {limit:.4} over {} steps, least recorded lead {least}",
            worst.0,
            steps.len()
        ),
    )
    .measure(Measure::judged("lead-error", worst.0, Limit::AtMost(limit)).unit("logits"))
    .measure(Measure::noted("least-lead", least).unit("logits"))
    .measure(Measure::noted("noise", noise).unit("logits"))
    .detail(worst.1)
    .verdict())
}
