//! One model against another, in turns.

use apr_engine::model::{Lm, Want};
use apr_engine::probe::NoProbe;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Options, Step, Watch, decode, script};
use crate::stats::{Decision, Plan, SplitMix};

/// Nanoseconds after which no further look is waited for: slow models are left open rather than run for an hour.
const PATIENCE: u64 = 60_000_000_000;
/// Decoded tokens of one run of a pair.
const TOKENS: usize = 16;

/// Pairs of processes: each loads the model and measures itself, which takes its time.
const PROGRAM_PAIRS: usize = 15;

/// What the pairs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The first is slower, by at least the margin.
    Slower,
    /// The first is faster, by at least the margin.
    Faster,
    /// They differ by less than the effect that had to be found.
    Equal,
    /// The noise was too large to tell.
    Open,
}

/// How many times as fast the first is as the second.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Ratio {
    /// Pairs of runs, in turns.
    pub pairs: usize,
    /// Median over the pairs.
    pub ratio: f64,
    /// Bounds of the median, one per cent of error in all.
    pub lower: f64,
    /// See `lower`.
    pub upper: f64,
    /// What follows.
    pub outcome: Outcome,
    /// The smallest slowdown that this much noise lets one find, as a share.
    pub smallest_detectable: f64,
}

impl Ratio {
    /// Of slowdowns, natural logarithms of the first's time over the second's, one per pair of runs in turns, that are looked
    /// at once. `None` without any, or when one is not finite.
    ///
    /// Below seven pairs nothing follows: that all of them lie on one side is then no rarer than the error that is allowed.
    pub fn of(slowdowns: &[f64]) -> Option<Self> {
        let plan = Plan { looks: vec![slowdowns.len()], ..Plan::default() };
        let mut ratio = told(&plan, slowdowns, &mut SplitMix::new(0))?;
        if 0.5_f64.powi(slowdowns.len() as i32) > plan.alpha {
            ratio.outcome = Outcome::Open;
        }
        Some(ratio)
    }
}

/// How fast `first` reads the prompt and decodes, in times of `second`: prefill, decode.
///
/// # Errors
/// Those of the forward pass; [`apr_engine::Code::Cancelled`] when the caller wants no more of it.
pub fn against(
    first: &mut dyn Lm,
    second: &mut dyn Lm,
    options: &Options,
    watch: &Watch<'_>,
) -> apr_engine::Result<[Option<Ratio>; 2]> {
    let vocab = |lm: &dyn Lm| lm.config().vocab;
    let fewer = vocab(first).min(vocab(second));
    let ids = script(fewer, options.prompt.max(options.first));
    let prompt = &ids[..options.prompt];
    let read = |lm: &mut dyn Lm| {
        lm.reset();
        watch.time(|| lm.forward(prompt, Want::Last, &mut NoProbe).map(drop))
    };
    let step = Step::one("prompt, in turns");
    let prefill = turns(step, watch, |own| if own { read(first) } else { read(second) })?;
    let before = &ids[..options.first];
    let tokens = |lm: &mut dyn Lm| Ok(decode(lm, before, TOKENS, watch)?.iter().sum());
    let step = Step::one("decode, in turns");
    let decoded = turns(step, watch, |own| if own { tokens(first) } else { tokens(second) })?;
    Ok([prefill, decoded])
}

/// As [`against`], of programs that measure themselves: `run(step, true)` tells what the first needs for the prompt and for a
/// token, `run(step, false)` what the second needs. Fifteen pairs.
///
/// # Errors
/// Those of `run`.
pub fn programs<E>(
    mut run: impl FnMut(Step, bool) -> Result<[f64; 2], E>,
) -> Result<[Option<Ratio>; 2], E> {
    let mut slowdowns = [Vec::new(), Vec::new()];
    for pair in 0..PROGRAM_PAIRS {
        let step = Step::one("the other build, in turns").at(pair + 1, PROGRAM_PAIRS);
        let first = run(step, pair % 2 == 0)?;
        let second = run(step, pair % 2 == 1)?;
        let (own, other) = if pair % 2 == 0 { (first, second) } else { (second, first) };
        for ((slowdowns, own), other) in slowdowns.iter_mut().zip(own).zip(other) {
            slowdowns.push((own / other).ln());
        }
    }
    let (plan, mut rng) = (Plan::default().at_most(PROGRAM_PAIRS), SplitMix::new(0));
    Ok(slowdowns.map(|slowdowns| told(&plan, &slowdowns, &mut rng)))
}

/// Runs both sides in the order A B B A until the plan can tell, has no looks left, or patience ends: `run(true)` tells what
/// the first needs, `run(false)` what the second needs.
pub(super) fn turns(
    step: Step,
    watch: &Watch<'_>,
    mut run: impl FnMut(bool) -> apr_engine::Result<f64>,
) -> apr_engine::Result<Option<Ratio>> {
    let (plan, mut rng) = (Plan::default(), SplitMix::new(0));
    let mut slowdowns = Vec::new();
    let most = plan.looks.iter().copied().max().unwrap_or(0);
    let start = (watch.clock)();
    run(true)?;
    run(false)?;
    let mut found = None;
    for &look in &plan.looks {
        while slowdowns.len() < look {
            (watch.tell)(step.at(slowdowns.len() + 1, most));
            let (own, other) = if slowdowns.len().is_multiple_of(2) {
                let own = run(true)?;
                (own, run(false)?)
            } else {
                let other = run(false)?;
                (run(true)?, other)
            };
            slowdowns.push((own / other).ln());
        }
        found = told(&plan, &slowdowns, &mut rng);
        let told = found.as_ref().is_some_and(|ratio| ratio.outcome != Outcome::Open);
        if told || (watch.clock)().saturating_sub(start) > PATIENCE {
            break;
        }
    }
    Ok(found)
}

fn told(plan: &Plan, slowdowns: &[f64], rng: &mut SplitMix) -> Option<Ratio> {
    let (decision, bounds) = plan.decide(slowdowns, rng)?;
    let outcome = match decision {
        Decision::Slower => Outcome::Slower,
        _ if bounds.upper < -plan.margin && bounds.median <= -plan.effect => Outcome::Faster,
        Decision::Kept if bounds.lower > -plan.effect => Outcome::Equal,
        _ => Outcome::Open,
    };
    let speed = |slowdown: f64| (-slowdown).exp();
    Some(Ratio {
        pairs: slowdowns.len(),
        ratio: speed(bounds.median),
        lower: speed(bounds.upper),
        upper: speed(bounds.lower),
        outcome,
        smallest_detectable: plan.smallest_detectable(bounds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(slowdown: f64, noise: f64) -> Outcome {
        let mut rng = SplitMix::new(3);
        let unit = |rng: &mut SplitMix| (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let slowdowns: Vec<f64> =
            (0..60).map(|_| slowdown + noise * (unit(&mut rng) - 0.5)).collect();
        told(&Plan::default(), &slowdowns, &mut rng).unwrap().outcome
    }

    #[test]
    fn what_is_slower_faster_equal_or_lost_in_noise_is_called_so() {
        assert_eq!(outcome(0.05, 0.02), Outcome::Slower);
        assert_eq!(outcome(-0.05, 0.02), Outcome::Faster);
        assert_eq!(outcome(0.0, 0.02), Outcome::Equal);
        assert_eq!(outcome(0.0, 2.0), Outcome::Open);
        // Not slower, and perhaps faster: that is not equal.
        assert_eq!(outcome(-0.02, 0.12), Outcome::Open);
    }

    #[test]
    fn a_number_of_pairs_that_was_chosen_before_is_looked_at_once() {
        let slowdowns: Vec<f64> = (0..40).map(|n| 0.05 + 0.001 * f64::from(n % 5)).collect();
        let ratio = Ratio::of(&slowdowns).unwrap();
        assert_eq!((ratio.pairs, ratio.outcome), (40, Outcome::Slower));
        assert!(ratio.lower <= ratio.ratio && ratio.ratio <= ratio.upper && ratio.upper < 0.96);
        assert_eq!(Ratio::of(&slowdowns[..7]).unwrap().outcome, Outcome::Slower);
        assert_eq!(Ratio::of(&slowdowns[..6]).unwrap().outcome, Outcome::Open);
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[0.1, f64::NAN]), None);
    }
}
