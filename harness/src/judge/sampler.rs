//! `sampler`: properties of the sampler on synthetic logits.
//!
//! Properties run under proptest, so a counterexample is the smallest one that could be found.

use apr_engine::Code;
use apr_engine::generate::{Sampler as Engine, Sampling, log_softmax};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::context::JudgeContext;
use crate::contract::check::{Sampler, SamplerProperty};
use crate::fault::SamplerFault;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Draws of each case that must obey a filter.
const DRAWS: usize = 8;
/// Draws behind one chi-square statistic.
const DRAWS_COUNTED: usize = 4000;
/// Largest chi-square statistic of four outcomes: exceeded once in a million honest samplers.
const CHI_SQUARE_MAX: f64 = 30.7;
/// Rounding that separates f32 from f64 probabilities at the edge of a set.
const EDGE: f64 = 1e-5;

/// Runs `params.cases` cases of the property.
pub(super) fn judge(params: &Sampler, ctx: &JudgeContext) -> Verdict {
    let config = Config { cases: params.cases, failure_persistence: None, ..Config::default() };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&ctx.seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let property = property(params.property);
    // Quarter steps make ties common, which is where samplers go wrong.
    let logits =
        proptest::collection::vec((-40i8..40).prop_map(|step| f32::from(step) / 4.0), 4..48);
    let result = runner.run(&(logits, 0u64..1 << 32), |(logits, seed)| {
        property(&Subject::new(ctx, seed), &logits).map_err(TestCaseError::fail)
    });
    let cases = u64::from(params.cases);
    let (failures, summary, details) = match result {
        Ok(()) => (0.0, format!("held in all of {cases} cases"), Vec::new()),
        Err(TestError::Fail(reason, (logits, seed))) => {
            let smallest = format!("smallest counterexample: seed {seed}, logits {logits:?}");
            (1.0, format!("refuted: {reason}"), vec![smallest])
        }
        Err(TestError::Abort(reason)) => return Verdict::broken(format!("aborted: {reason}")),
    };
    let mut evidence = Evidence::new(cases, summary).measure(Measure::judged(
        "refutations",
        failures,
        Limit::Exactly(0.0),
    ));
    evidence.details = details;
    evidence.verdict()
}

type Property = fn(&Subject, &[f32]) -> Result<(), String>;

fn property(property: SamplerProperty) -> Property {
    match property {
        SamplerProperty::Greedy => greedy,
        SamplerProperty::TopK => top_k,
        SamplerProperty::TopP => top_p,
        SamplerProperty::MinP => min_p,
        SamplerProperty::Seeded => seeded,
        SamplerProperty::Penalty => penalty,
        SamplerProperty::Distribution => distribution,
        SamplerProperty::Nan => nan,
        SamplerProperty::KeepsBest => keeps_best,
    }
}

/// The engine's sampler, with a planted defect in front.
pub(super) struct Subject {
    fault: Option<SamplerFault>,
    seed: u64,
}

impl Subject {
    /// The sampler as `ctx` gives it to judges.
    pub(super) fn new(ctx: &JudgeContext, seed: u64) -> Self {
        Self { fault: ctx.plant.as_ref().and_then(|plant| plant.sampler()), seed }
    }

    /// Natural logarithms of the probabilities.
    pub(super) fn log_softmax(&self, logits: &[f32]) -> Vec<f64> {
        let mut logs = log_softmax(logits);
        if self.fault == Some(SamplerFault::SoftmaxUnnormalised) {
            for log in &mut logs {
                *log += 0.1;
            }
        }
        logs
    }

    /// `draws` tokens after `history`.
    pub(super) fn draw(
        &self,
        mut sampling: Sampling,
        logits: &[f32],
        history: &[u32],
        draws: usize,
    ) -> Result<Vec<u32>, apr_engine::Error> {
        sampling.seed = self.seed;
        let mut logits = logits.to_vec();
        match self.fault {
            Some(SamplerFault::SecondBest) => {
                let best = best(&logits);
                logits[best] = f32::MIN;
            }
            Some(SamplerFault::NanIgnored) => {
                logits.iter_mut().filter(|logit| logit.is_nan()).for_each(|logit| *logit = 0.0);
            }
            Some(SamplerFault::Unfiltered) => {
                (sampling.top_k, sampling.top_p, sampling.min_p) = (0, 1.0, 0.0);
            }
            Some(SamplerFault::PenaltyInverted) => {
                sampling.repeat_penalty = 1.0 / sampling.repeat_penalty;
            }
            Some(SamplerFault::Unseeded) => {
                use std::sync::atomic::{AtomicU64, Ordering};
                static CALLS: AtomicU64 = AtomicU64::new(0);
                sampling.seed ^= CALLS.fetch_add(1, Ordering::Relaxed);
            }
            Some(SamplerFault::SoftmaxUnnormalised) | None => {}
        }
        let mut sampler = Engine::new(sampling)?;
        (0..draws).map(|_| sampler.pick(&logits, history)).collect()
    }

    fn all(&self, sampling: Sampling, logits: &[f32], draws: usize) -> Result<Vec<u32>, String> {
        self.draw(sampling, logits, &[], draws).map_err(|error| error.to_string())
    }
}

fn warm() -> Sampling {
    Sampling { temperature: 1.0, ..Sampling::default() }
}

/// Index of the largest logit, the lowest one on ties.
fn best(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let top = f64::from(logits[best(logits)]);
    let weights: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// Token ids from the most to the least likely, lower ids first on ties.
fn ranked(logits: &[f32]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    ids
}

fn inside(drawn: &[u32], allowed: &[usize], filter: &str) -> Result<(), String> {
    match drawn.iter().find(|token| !allowed.contains(&(**token as usize))) {
        Some(token) => {
            Err(format!("token {token} is outside the {} that {filter} keeps", allowed.len()))
        }
        None => Ok(()),
    }
}

fn greedy(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    let drawn = subject.all(Sampling::default(), logits, 1)?;
    let expected = best(logits);
    if drawn == [expected as u32] {
        Ok(())
    } else {
        Err(format!("expected token {expected}, found {drawn:?}"))
    }
}

fn top_k(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    let drawn = subject.all(Sampling { top_k: 3, temperature: 5.0, ..warm() }, logits, DRAWS)?;
    inside(&drawn, &ranked(logits)[..3], "top-k 3")
}

fn top_p(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    const P: f32 = 0.6;
    let probabilities = softmax(logits);
    let mut mass = 0.0;
    let mut allowed = Vec::new();
    for id in ranked(logits) {
        if mass > f64::from(P) + EDGE {
            break;
        }
        mass += probabilities[id];
        allowed.push(id);
    }
    let drawn = subject.all(Sampling { top_p: P, ..warm() }, logits, DRAWS * 4)?;
    inside(&drawn, &allowed, "top-p 0.6")
}

fn min_p(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    const SHARE: f32 = 0.2;
    let probabilities = softmax(logits);
    let floor = probabilities[best(logits)] * (f64::from(SHARE) - EDGE);
    let allowed: Vec<usize> = (0..logits.len()).filter(|&id| probabilities[id] >= floor).collect();
    let drawn = subject.all(Sampling { min_p: SHARE, ..warm() }, logits, DRAWS * 4)?;
    inside(&drawn, &allowed, "min-p 0.2")
}

fn seeded(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    let sampling = Sampling { temperature: 5.0, ..warm() };
    let first = subject.all(sampling, logits, DRAWS * 4)?;
    let second = subject.all(sampling, logits, DRAWS * 4)?;
    if first == second { Ok(()) } else { Err(format!("{first:?} became {second:?}")) }
}

fn penalty(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    let seen = best(logits);
    let sampling = Sampling { repeat_penalty: 1.5, ..Sampling::default() };
    let history = [seen as u32];
    let drawn = subject.draw(sampling, logits, &history, 1).map_err(|error| error.to_string())?;
    let mut lowered = logits.to_vec();
    let factor = if lowered[seen] > 0.0 { 1.0 / 1.5 } else { 1.5 };
    lowered[seen] *= factor;
    let expected = best(&lowered);
    if drawn == [expected as u32] {
        Ok(())
    } else {
        Err(format!("after {seen} the penalty should lead to {expected}, not {drawn:?}"))
    }
}

fn distribution(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    // Four outcomes, none rare: every expected count stays above five.
    let four: Vec<f32> =
        logits.iter().take(4).map(|logit| (logit / 10.0).clamp(-1.0, 1.0)).collect();
    let probabilities = softmax(&four);
    let drawn = subject.all(warm(), &four, DRAWS_COUNTED)?;
    let statistic: f64 = (0..4u32)
        .map(|token| {
            let seen = drawn.iter().filter(|drawn| **drawn == token).count() as f64;
            let expected = probabilities[token as usize] * DRAWS_COUNTED as f64;
            (seen - expected).powi(2) / expected
        })
        .sum();
    if statistic <= CHI_SQUARE_MAX {
        Ok(())
    } else {
        Err(format!("chi-square {statistic:.1} of at most {CHI_SQUARE_MAX}"))
    }
}

fn nan(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    for poison in [f32::NAN, f32::INFINITY] {
        let mut poisoned = logits.to_vec();
        let middle = poisoned.len() / 2;
        poisoned[middle] = poison;
        for sampling in [Sampling::default(), warm()] {
            match subject.draw(sampling, &poisoned, &[], 1) {
                Err(error) if error.code() == Code::NonFinite => {}
                other => return Err(format!("a logit of {poison} gave {other:?}")),
            }
        }
    }
    Ok(())
}

fn keeps_best(subject: &Subject, logits: &[f32]) -> Result<(), String> {
    // So narrow that only the best token can be left; ties go to the lowest id.
    for sampling in [
        Sampling { top_k: 1, ..warm() },
        Sampling { top_p: 1e-6, ..warm() },
        Sampling { top_k: 1, top_p: 0.5, min_p: 1.0, ..warm() },
    ] {
        let drawn = subject.all(sampling, logits, 1)?;
        if drawn != [best(logits) as u32] {
            return Err(format!("the best token is {}, drawn was {drawn:?}", best(logits)));
        }
    }
    Ok(())
}
