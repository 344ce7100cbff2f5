//! The bricks of a token: how long each kind of operation takes when a token is decoded, and what that is worth.
//!
//! One token is decoded at one position over and over, so that no sample has more to read than another. Samples whose
//! spread is too large are measured again, and never averaged with others.

use std::collections::BTreeMap;

use apr_engine::model::{Lm, Want};
use apr_engine::probe::{NoProbe, Op, Probe, Site, Tap};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::tolerance::{Positive, Share};
use crate::stats::median;
use crate::timer::{Clock, Timer};

/// How bricks are timed and scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    /// Tokens in the cache when the timed one is decoded; fewer where the context is shorter.
    pub position: usize,
    /// Tokens that are decoded before any is timed.
    pub warm_up: usize,
    /// Fewest samples of each brick in a round.
    pub samples: usize,
    /// Most rounds.
    pub rounds: usize,
    /// Largest coefficient of variation of a round that is accepted: population deviation over mean.
    pub cv_at_most: Share,
    /// Values per second above which a brick uses its backend.
    pub elements_per_second: Positive,
    /// Points of the four dimensions.
    pub points: Points,
    /// The bricks.
    pub bricks: Vec<Brick>,
}

/// Points of the four dimensions of the brick score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Points {
    /// For the mean over the bricks of `min(1, budget / mean time)`.
    pub performance: u32,
    /// For the share of bricks above the values per second.
    pub efficiency: u32,
    /// For the share of bricks that ran.
    pub correctness: u32,
    /// For the share of bricks with an accepted spread.
    pub stability: u32,
}

impl Points {
    /// All four.
    pub const fn sum(self) -> u32 {
        self.performance + self.efficiency + self.correctness + self.stability
    }
}

/// A kind of operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Brick {
    /// Name.
    pub brick: String,
    /// Microseconds that one pass may take.
    pub budget_us: Positive,
    /// Its passes: sites that are computed one behind the other and timed together.
    pub passes: Vec<Vec<String>>,
}

impl Plan {
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        let least = |name: &str, value: usize, least: usize| {
            let wrong = format!("bricks: {name}: at least {least}, found {value}");
            if value < least { Err(wrong) } else { Ok(()) }
        };
        least("samples", self.samples, 2)?;
        least("rounds", self.rounds, 1)?;
        least("bricks", self.bricks.len(), 1)?;
        for brick in &self.bricks {
            for name in brick.passes.iter().flatten() {
                if Op::from_name(name).is_none() {
                    return Err(format!("bricks: {}: no site is called {name}", brick.brick));
                }
            }
            if brick.passes.is_empty() || brick.passes.iter().any(Vec::is_empty) {
                return Err(format!("bricks: {}: a pass without sites", brick.brick));
            }
        }
        Ok(())
    }
}

/// What was measured of a brick, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct BrickTime {
    /// Name.
    pub brick: String,
    /// Tokens whose passes were timed: the samples.
    pub samples: usize,
    /// Mean of a pass.
    pub mean_us: Option<f64>,
    /// Median over the samples.
    pub median_us: Option<f64>,
    /// What a pass may take.
    pub budget_us: f64,
    /// Values per second.
    pub elements_per_second: Option<f64>,
    /// Population deviation over mean of the round that is reported.
    pub cv: Option<f64>,
    /// Whether that is accepted.
    pub accepted: bool,
    /// Spreads of the rounds that were rejected.
    pub rejected: Vec<f64>,
    /// `clamp(floor((2 - mean / budget) * 100), 0, 100)`: 100 within the budget, 0 at twice of it.
    pub score: u32,
}

/// The brick score of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct BrickScore {
    /// From 0 to 100; absent when nothing was timed.
    pub total: Option<u32>,
    /// Why nothing was timed.
    pub why_not: Option<String>,
    /// Points of the four dimensions, truncated only in the total.
    pub performance: f64,
    /// Efficiency.
    pub efficiency: f64,
    /// Correctness.
    pub correctness: f64,
    /// Stability.
    pub stability: f64,
    /// Mean of the bricks' own scores, truncated.
    pub mean_score: u32,
    /// The bricks.
    pub bricks: Vec<BrickTime>,
}

impl BrickScore {
    /// Nothing was timed.
    pub fn none(why: impl Into<String>) -> Self {
        Self { why_not: Some(why.into()), ..Self::default() }
    }
}

/// Mean nanoseconds of a pass, by brick and token: passes of one token may be of different sizes, tokens are not.
type Round = Vec<Vec<f64>>;

/// Decodes a token on `lm` and times its bricks by `clock`, which tells nanoseconds.
///
/// # Errors
/// Those of the forward pass.
pub fn time(plan: &Plan, lm: &mut dyn Lm, clock: Clock<'_>) -> apr_engine::Result<BrickScore> {
    let position = plan.position.min(lm.context().saturating_sub(1)).max(1);
    lm.reset();
    lm.forward(&vec![0; position], Want::Last, &mut NoProbe)?;
    let mut widths = Widths::default();
    decode(lm, position, &mut widths)?;
    let passes = Passes::new(plan, &widths.0);
    for _ in 0..plan.warm_up {
        decode(lm, position, &mut NoProbe)?;
    }
    let mut rounds: Vec<Round> = Vec::new();
    while rounds.len() < plan.rounds {
        let mut round: Round = vec![Vec::new(); plan.bricks.len()];
        for _ in 0..plan.samples {
            let mut timer = Timer::start(clock);
            decode(lm, position, &mut timer)?;
            passes.sort(&timer.spans(), &mut round);
        }
        let steady = |times: &Vec<f64>| spread(times).is_none_or(|cv| cv <= plan.cv_at_most.get());
        let done = round.iter().all(steady);
        rounds.push(round);
        if done {
            break;
        }
    }
    let values = passes.values;
    let bricks = plan.bricks.iter().enumerate();
    Ok(total(
        plan,
        bricks.map(|(at, brick)| brick_time(plan, brick, at, &rounds, values[at])).collect(),
    ))
}

/// One token at `position`, which is forgotten again.
fn decode(lm: &mut dyn Lm, position: usize, probe: &mut dyn Probe) -> apr_engine::Result<()> {
    lm.forward(&[0], Want::Last, probe)?;
    lm.truncate(position);
    Ok(())
}

/// Values of each site.
#[derive(Default)]
struct Widths(BTreeMap<Op, usize>);

impl Probe for Widths {
    fn wants(&self, site: Site) -> bool {
        site.op != Op::AttnScores
    }

    fn tap(&mut self, tap: Tap<'_>) {
        self.0.insert(tap.site.op, tap.values.len());
    }
}

/// Which site belongs to which brick, in this model.
struct Passes {
    /// Op → brick, and whether a pass of it ends there.
    of: BTreeMap<Op, (usize, bool)>,
    /// Mean values of a pass, by brick; none where no site of it is there.
    values: Vec<Option<f64>>,
}

impl Passes {
    fn new(plan: &Plan, widths: &BTreeMap<Op, usize>) -> Self {
        let mut of = BTreeMap::new();
        let mut values = Vec::new();
        for (at, brick) in plan.bricks.iter().enumerate() {
            let mut sizes = Vec::new();
            for pass in &brick.passes {
                let there = pass.iter().filter_map(|name| Op::from_name(name));
                let there: Vec<Op> = there.filter(|op| widths.contains_key(op)).collect();
                if let Some(last) = there.last() {
                    of.extend(there.iter().map(|op| (*op, (at, op == last))));
                    sizes.push(there.iter().map(|op| widths[op]).sum::<usize>() as f64);
                }
            }
            let count = sizes.len() as f64;
            values.push((!sizes.is_empty()).then(|| sizes.iter().sum::<f64>() / count));
        }
        Self { of, values }
    }

    /// Adds one token to `round`.
    fn sort(&self, spans: &[(Site, u64)], round: &mut Round) {
        let mut of_token = vec![(0, 0u32); round.len()];
        for (site, took) in spans {
            if let Some((brick, ends)) = self.of.get(&site.op) {
                of_token[*brick].0 += took;
                of_token[*brick].1 += u32::from(*ends);
            }
        }
        for ((took, passes), samples) in of_token.into_iter().zip(round) {
            if passes > 0 {
                samples.push(took as f64 / f64::from(passes));
            }
        }
    }
}

fn mean(times: &[f64]) -> Option<f64> {
    (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64)
}

/// Population deviation over mean.
pub(crate) fn spread(times: &[f64]) -> Option<f64> {
    let mean = mean(times)?;
    let squares: f64 = times.iter().map(|&time| (time - mean).powi(2)).sum();
    let deviation = (squares / times.len() as f64).sqrt();
    (mean > 0.0).then(|| deviation / mean)
}

/// The fastest round that is accepted, else the steadiest one.
fn brick_time(
    plan: &Plan,
    brick: &Brick,
    at: usize,
    rounds: &[Round],
    values: Option<f64>,
) -> BrickTime {
    let measured: Vec<(f64, f64, &Vec<f64>)> = rounds
        .iter()
        .map(|round| &round[at])
        .filter_map(|times| Some((spread(times)?, mean(times)?, times)))
        .collect();
    let is_accepted = |cv: f64| cv <= plan.cv_at_most.get();
    let accepted =
        measured.iter().filter(|one| is_accepted(one.0)).min_by(|a, b| a.1.total_cmp(&b.1));
    let chosen = accepted.or_else(|| measured.iter().min_by(|a, b| a.0.total_cmp(&b.0)));
    let budget_us = brick.budget_us.get();
    let mean_us = chosen.map(|one| one.1 / 1e3);
    BrickTime {
        brick: brick.brick.clone(),
        samples: chosen.map_or(0, |one| one.2.len()),
        mean_us,
        median_us: chosen.and_then(|one| median(one.2)).map(|median| median / 1e3),
        budget_us,
        elements_per_second: mean_us.zip(values).map(|(mean, values)| values / (mean / 1e6)),
        cv: chosen.map(|one| one.0),
        accepted: accepted.is_some(),
        rejected: measured.iter().map(|one| one.0).filter(|cv| !is_accepted(*cv)).collect(),
        score: mean_us.map_or(0, |mean| own_score(mean / budget_us)),
    }
}

/// 100 at or below the budget, 0 at twice of it.
fn own_score(gap: f64) -> u32 {
    ((2.0 - gap) * 100.0).floor().clamp(0.0, 100.0) as u32
}

/// The four dimensions and their sum.
fn total(plan: &Plan, bricks: Vec<BrickTime>) -> BrickScore {
    let count = bricks.len().max(1) as f64;
    let share = |holds: &dyn Fn(&BrickTime) -> bool| {
        bricks.iter().filter(|brick| holds(brick)).count() as f64 / count
    };
    let within =
        |brick: &BrickTime| brick.mean_us.map_or(0.0, |mean| (brick.budget_us / mean).min(1.0));
    let points = plan.points;
    let performance =
        bricks.iter().map(within).sum::<f64>() / count * f64::from(points.performance);
    let fast = |brick: &BrickTime| {
        brick.elements_per_second.is_some_and(|speed| speed > plan.elements_per_second.get())
    };
    let efficiency = share(&fast) * f64::from(points.efficiency);
    let correctness = share(&|brick| brick.samples > 0) * f64::from(points.correctness);
    let stability = share(&|brick| brick.accepted) * f64::from(points.stability);
    let mean_score =
        bricks.iter().map(|brick| brick.score).sum::<u32>() / bricks.len().max(1) as u32;
    let sum = performance + efficiency + correctness + stability;
    BrickScore {
        total: Some(sum.floor().clamp(0.0, 100.0) as u32),
        why_not: None,
        performance,
        efficiency,
        correctness,
        stability,
        mean_score,
        bricks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brick_scores_all_within_its_budget_and_nothing_at_twice_of_it() {
        let gaps = [0.2, 1.0, 1.433, 1.714, 1.842, 2.0, 7.628];
        assert_eq!(gaps.map(own_score), [100, 100, 56, 28, 15, 0, 0]);
    }

    #[test]
    fn the_spread_is_the_population_deviation_over_the_mean() {
        assert_eq!(spread(&[5.0, 5.0, 5.0]), Some(0.0));
        assert_eq!(spread(&[2.0, 4.0]), Some(1.0 / 3.0));
        assert_eq!((spread(&[]), spread(&[0.0, 0.0])), (None, None));
    }

    fn plan() -> Plan {
        let text = include_str!("../../../contracts/sheets/apr.yaml");
        super::super::Sheet::from_text(text, std::path::Path::new("apr.yaml")).unwrap().bricks
    }

    #[test]
    fn a_steady_slower_round_is_chosen_before_a_shaky_fast_one() {
        let plan = plan();
        let shaky = vec![vec![1_000.0, 9_000.0]; plan.bricks.len()];
        let slow = vec![vec![8_000.0, 8_100.0]; plan.bricks.len()];
        let fast = vec![vec![6_000.0, 6_100.0]; plan.bricks.len()];
        let time = brick_time(&plan, &plan.bricks[0], 0, &[shaky.clone(), slow, fast], Some(256.0));
        assert_eq!((time.mean_us, time.accepted, time.rejected.len()), (Some(6.05), true, 1));
        let time = brick_time(&plan, &plan.bricks[0], 0, &[shaky], Some(256.0));
        assert_eq!((time.mean_us, time.accepted), (Some(5.0), false), "reported, and not accepted");
    }

    #[test]
    fn a_brick_that_never_ran_earns_nothing() {
        let plan = plan();
        let none = plan.bricks.iter().map(|brick| brick_time(&plan, brick, 0, &[], None)).collect();
        let score = total(&plan, none);
        assert_eq!((score.total, score.mean_score), (Some(0), 0));
        let mut half: Vec<BrickTime> =
            plan.bricks.iter().map(|brick| brick_time(&plan, brick, 0, &[], None)).collect();
        let rounds = [vec![vec![1_000.0, 1_000.0]]];
        half[0] = brick_time(&plan, &plan.bricks[0], 0, &rounds, Some(256.0));
        let score = total(&plan, half);
        assert_eq!(score.total, Some(100 / 9));
        assert_eq!(score.mean_score, 100 / 9);
    }

    #[test]
    fn every_brick_of_a_token_is_timed_on_a_real_model_by_the_clock_given() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/pygmy/gemma2");
        let model = apr_engine::model::Model::load(&path).unwrap();
        let spec = crate::judge::BackendSpec::scalar();
        let ctx =
            crate::judge::JudgeContext::new("".into(), "".into(), 0, crate::need::Needs::probe());
        let mut lm = ctx.lm(&model, &spec, apr_engine::model::LmOptions::default()).unwrap();
        // A clock that ticks a microsecond whenever it is asked: every pass takes one for each of its sites.
        let ticks = std::cell::Cell::new(0);
        let clock = || {
            ticks.set(ticks.get() + 1_000);
            ticks.get()
        };
        let score = time(&plan(), &mut *lm, &clock).unwrap();
        let means: Vec<f64> = score.bricks.iter().filter_map(|brick| brick.mean_us).collect();
        assert_eq!(means, [1.0, 3.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]);
        assert!(score.bricks.iter().all(|brick| brick.samples == 100 && brick.cv == Some(0.0)));
        assert_eq!(score.total, Some(100));
    }
}
