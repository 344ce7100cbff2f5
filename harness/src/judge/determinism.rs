//! `determinism`: the same call gives the same result again.

use apr_engine::generate::{Sampler, Sampling};
use apr_engine::model::{Lm, Model, Want};
use apr_engine::probe::NoProbe;

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::look::{all_of, logits, token_sets};
use super::path_equal::bitwise;
use crate::compare::RowPlace;
use crate::contract::check::{Determinism, Repeated};
use crate::verdict::Verdict;

/// Tokens generated in each run.
const STEPS: usize = 24;
/// Temperature of sampled runs: high enough that two seeds part.
const TEMPERATURE: f32 = 1.5;

/// Judges `check` on `case`.
pub(super) fn judge(check: &Determinism, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let spec = BackendSpec::of(&case.info.cell);
    let sets = token_sets(ctx, form, &model, &[])?;
    match check.of {
        Repeated::Logits | Repeated::Load => {
            let mut tally = ctx.tally();
            let mut lm = ctx.lm(&model, &spec, ctx.options())?;
            for set in &sets {
                let first = logits(&mut *lm, &set.ids)?;
                for run in 1..check.runs {
                    if check.of == Repeated::Load {
                        let reopened = load_again(ctx, form)?;
                        lm = ctx.lm(&reopened, &spec, ctx.options())?;
                    }
                    let again = logits(&mut *lm, &set.ids)?;
                    let at = RowPlace { label: format!("{} run {run}", set.label), position: 0 };
                    tally.add_matrix(&at, model.config().vocab, &first, &again);
                }
            }
            Ok(bitwise(ctx, &tally, "the first run"))
        }
        Repeated::Greedy => {
            let sampling = Sampling::default();
            tokens_repeat(ctx, &model, &spec, &sets[0].ids, sampling, check.runs)
        }
        Repeated::Sampled => {
            let sampling =
                Sampling { temperature: TEMPERATURE, seed: ctx.seed, ..Sampling::default() };
            let repeated = tokens_repeat(ctx, &model, &spec, &sets[0].ids, sampling, check.runs)?;
            seeds_matter(ctx, &model, &spec, &sets[0].ids, sampling, repeated)
        }
    }
}

/// Loads the files once more, past every cache.
fn load_again(ctx: &JudgeContext, form: &crate::case::ModelRef) -> Look<Model> {
    Model::load(&ctx.path(form)?).map_err(|error| refused("the model does not load again", &error))
}

/// Every run must choose the tokens of the first.
fn tokens_repeat(
    ctx: &JudgeContext,
    model: &Model,
    spec: &BackendSpec,
    prompt: &[u32],
    sampling: Sampling,
    runs: usize,
) -> Look<Verdict> {
    let mut lm = ctx.lm(model, spec, ctx.options())?;
    let first = generate(&mut *lm, prompt, sampling)?;
    let mut wrong = Vec::new();
    for run in 1..runs {
        let again = generate(&mut *lm, prompt, sampling)?;
        if let Some(step) =
            (0..first.len().max(again.len())).find(|&i| first.get(i) != again.get(i))
        {
            wrong.push(format!(
                "run {run} step {step}: {:?} instead of {:?}",
                again.get(step),
                first.get(step)
            ));
        }
    }
    let count = (runs.saturating_sub(1) * first.len()) as u64;
    Ok(all_of(count, "tokens repeated", wrong))
}

/// Two seeds must part somewhere: a sampler that ignores its seed repeats itself perfectly.
fn seeds_matter(
    ctx: &JudgeContext,
    model: &Model,
    spec: &BackendSpec,
    prompt: &[u32],
    sampling: Sampling,
    repeated: Verdict,
) -> Look<Verdict> {
    let Verdict::Corroborated(evidence) = repeated else { return Ok(repeated) };
    let mut lm = ctx.lm(model, spec, ctx.options())?;
    let first = generate(&mut *lm, prompt, sampling)?;
    let mut same = 0;
    for offset in 1..=4 {
        let other = Sampling { seed: sampling.seed.wrapping_add(offset), ..sampling };
        same += u32::from(generate(&mut *lm, prompt, other)? == first);
    }
    let verdict = evidence
        .measure(crate::verdict::Measure::judged(
            "other-seeds-that-agree",
            f64::from(same),
            crate::verdict::Limit::AtMost(3.0),
        ))
        .verdict();
    Ok(verdict)
}

/// Tokens after `prompt`, until [`STEPS`] or the end of the context.
pub(super) fn generate(lm: &mut dyn Lm, prompt: &[u32], sampling: Sampling) -> Look<Vec<u32>> {
    let failed = |error| refused("generation fails", &error);
    let mut sampler = Sampler::new(sampling).map_err(failed)?;
    let mut history = prompt.to_vec();
    lm.reset();
    let steps = STEPS.min(lm.context().saturating_sub(prompt.len()));
    let mut next = prompt.to_vec();
    for _ in 0..steps {
        let rows = lm.forward(&next, Want::Last, &mut NoProbe).map_err(failed)?;
        let token = sampler.pick(rows.last(), &history).map_err(failed)?;
        history.push(token);
        next = vec![token];
    }
    Ok(history.split_off(prompt.len()))
}
