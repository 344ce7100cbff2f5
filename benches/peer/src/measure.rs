//! One model on one number of threads: answers first, then the stopwatch.

use std::time::Duration;

use apr_engine::backend::simd::Isa;
use apr_engine::generate::greedy;
use apr_harness::bench::compute::{self, Work};
use apr_harness::bench::{Ratio, bandwidth, script};
use apr_harness::timer::Clock;
use serde::Serialize;

use crate::answers::{self, Answers, Sides, compare};
use crate::failure::{Failure, Result};
use crate::limits::{Compute, Limits, Memory, Round};
use crate::side::{Open, Side};
use crate::turns::{Quartiles, Turn, Turns};

/// What is measured, in the order of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// From opening the file to the token behind a prompt of one.
    Load,
    /// Reading the long prompt.
    Prefill,
    /// From the short prompt to its token.
    FirstToken,
    /// One token after the other behind the short prompt.
    Decode,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Load, Self::Prefill, Self::FirstToken, Self::Decode];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Prefill => "prefill",
            Self::FirstToken => "first token",
            Self::Decode => "decode",
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Options {
    /// Tokens of the long prompt.
    pub prompt: usize,
    /// Tokens of the short prompt.
    pub first: usize,
    /// Tokens that are decoded in a run.
    pub decode: usize,
    /// Rounds of two pairs for each measure.
    pub rounds: usize,
    /// Pause before each run, so that the other side's threads have gone to sleep.
    pub settle: Duration,
}

impl Options {
    /// Positions that the longest run takes.
    pub fn room(&self) -> usize {
        self.prompt.max(self.first) + self.decode + 1
    }
}

/// Who competes with what.
pub struct Contest<'a> {
    /// Opens our side.
    pub ours: &'a Open<'a>,
    /// Opens the other side, once for each of its settings.
    pub theirs: &'a [&'a Open<'a>],
    /// Opens what both should answer like: exact arithmetic.
    pub exact: &'a Open<'a>,
    /// The bytes that a token reads.
    pub weights: &'a [&'a [u8]],
    /// What the long prompt multiplies.
    pub work: Work,
    /// Threads that read and multiply for comparison.
    pub threads: usize,
    /// The instruction set in use.
    pub isa: Isa,
    /// See [`answers::bound`].
    pub bound: f64,
}

impl std::fmt::Debug for Contest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contest").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Both sides at one measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Which.
    pub measure: Measure,
    /// The other side, in the setting that was fastest at this measure in a trial.
    pub peer: String,
    /// Tokens of a run.
    pub tokens: usize,
    /// Milliseconds of our runs.
    pub ours_ms: Quartiles,
    /// Milliseconds of theirs.
    pub theirs_ms: Quartiles,
    /// How many times as fast we are.
    pub ratio: Ratio,
}

/// A setting of the other side in the trial that chose among them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// The side in this setting.
    pub peer: String,
    /// Milliseconds by [`Measure::ALL`], the best of the runs.
    pub ms: [f64; 4],
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Our side.
    pub ours: String,
    /// What both sides answered, for every setting that was measured.
    pub answers: Vec<Answers>,
    /// Why the speeds must not be compared; there are none then.
    pub fault: Option<String>,
    /// The trial, where there was a choice.
    pub trial: Vec<Trial>,
    /// By measure.
    pub compared: Vec<Compared>,
    /// Decoding against memory.
    pub memory: Option<Memory>,
    /// Reading a prompt against multiplying.
    pub compute: Option<Compute>,
}

/// Runs of the trial for each setting and measure.
const TRIALS: usize = 2;

/// Both sides, open, with their prompts.
struct Arena<'a> {
    contest: &'a Contest<'a>,
    options: &'a Options,
    clock: Clock<'a>,
    ids: Vec<u32>,
    ours: Box<dyn Side>,
    peers: Vec<Box<dyn Side>>,
    answers: Vec<Answers>,
    /// The first run that answered otherwise than before.
    changed: Option<String>,
}

/// Compares the answers and then, if they are the same, the speeds.
///
/// # Errors
/// Those of the sides; vocabularies of different sizes, and options that leave nothing to measure.
pub fn measure(contest: &Contest<'_>, options: &Options, clock: Clock<'_>) -> Result<Outcome> {
    let mut arena = Arena::open(contest, options, clock)?;
    let fault = arena.fault();
    let mut outcome = Outcome {
        ours: arena.ours.name(),
        answers: arena.answers.clone(),
        fault,
        trial: Vec::new(),
        compared: Vec::new(),
        memory: None,
        compute: None,
    };
    if outcome.fault.is_some() {
        return Ok(outcome);
    }
    let (trial, chosen) = arena.choose()?;
    outcome.trial = trial;
    let (turns, limits) = arena.rounds(chosen)?;
    outcome.fault = arena.changed.take();
    if outcome.fault.is_none() {
        outcome.compared = arena.compared(&turns, chosen);
        outcome.memory = limits.memory(contest);
        outcome.compute = limits.compute(contest);
    }
    Ok(outcome)
}

impl<'a> Arena<'a> {
    fn open(contest: &'a Contest<'a>, options: &'a Options, clock: Clock<'a>) -> Result<Self> {
        if [options.prompt, options.first, options.decode, options.rounds].contains(&0) {
            let message = "prompts, decoded tokens and rounds must be at least 1";
            return Err(Failure::Usage(message.to_owned()));
        }
        let mut ours = (contest.ours)()?;
        let mut peers = Vec::new();
        let mut answers = Vec::new();
        let ids = script(ours.vocab(), options.prompt.max(options.first));
        let prompts = [&ids[..options.prompt], &ids[..options.first]];
        // Closed again before anything is timed.
        let mut exact = (contest.exact)()?;
        for open in contest.theirs {
            let mut peer = open()?;
            if peer.vocab() != ours.vocab() {
                return Err(Failure::Usage(format!(
                    "{} sees {} tokens and {} {}: nothing to compare",
                    ours.name(),
                    ours.vocab(),
                    peer.name(),
                    peer.vocab()
                )));
            }
            let mut sides = Sides { ours: &mut *ours, theirs: &mut *peer, exact: &mut *exact };
            answers.push(compare(&mut sides, &prompts, options.decode, contest.bound)?);
            peers.push(peer);
        }
        if peers.is_empty() {
            return Err(Failure::Usage("no other side to measure against".to_owned()));
        }
        Ok(Self { contest, options, clock, ids, ours, peers, answers, changed: None })
    }

    /// The first fault of any setting.
    fn fault(&self) -> Option<String> {
        self.answers
            .iter()
            .find_map(|answers| answers.fault().map(|fault| format!("{}: {fault}", answers.peer)))
    }

    /// The fastest setting of the other side for each measure.
    fn choose(&mut self) -> Result<(Vec<Trial>, [usize; 4])> {
        if self.peers.len() < 2 {
            return Ok((Vec::new(), [0; 4]));
        }
        let mut best = vec![[f64::INFINITY; 4]; self.peers.len()];
        for run in 0..TRIALS {
            for turn in 0..self.peers.len() {
                // The order of the settings turns round from run to run.
                let peer = if run % 2 == 0 { turn } else { self.peers.len() - 1 - turn };
                for (best, measure) in best[peer].iter_mut().zip(Measure::ALL) {
                    *best = best.min(self.time(measure, Turn::Theirs, peer)? / 1e6);
                }
            }
        }
        let mut chosen = [0; 4];
        for (measure, chosen) in chosen.iter_mut().enumerate() {
            let times = best.iter().map(|times| times[measure]).enumerate();
            *chosen = times.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(peer, _)| peer);
        }
        let names = self.peers.iter().map(|peer| peer.name());
        let trial = names.zip(best).map(|(peer, ms)| Trial { peer, ms }).collect();
        Ok((trial, chosen))
    }

    /// All rounds, with what limits a measure looked at before, amid and behind it.
    fn rounds(&mut self, chosen: [usize; 4]) -> Result<([Turns; 4], Limits)> {
        let mut turns: [Turns; 4] = std::array::from_fn(|_| Turns::default());
        let mut limits = Limits::default();
        for _ in 0..self.options.rounds {
            let mut round = Round::default();
            for ((measure, turns), peer) in Measure::ALL.into_iter().zip(&mut turns).zip(chosen) {
                let mut runs = 0;
                turns.round(|turn| {
                    if runs % 2 == 0 {
                        self.look(measure, &mut round)?;
                    }
                    runs += 1;
                    self.time(measure, turn, peer)
                })?;
                self.look(measure, &mut round)?;
            }
            let [_, prefill, _, decode] = &turns;
            limits.add(self.contest, &round, prefill, (decode, self.options.decode));
        }
        Ok((turns, limits))
    }

    /// Looks at what limits `measure`.
    fn look(&self, measure: Measure, round: &mut Round) -> Result<()> {
        let Contest { weights, isa, threads, .. } = *self.contest;
        if matches!(measure, Measure::Prefill | Measure::Decode) {
            std::thread::sleep(self.options.settle);
        }
        match measure {
            Measure::Prefill => round.rates.push(compute::rates(isa, threads, self.clock)?),
            Measure::Decode => {
                round.reads.push(bandwidth::read(weights, threads, self.clock) as f64)
            }
            Measure::Load | Measure::FirstToken => {}
        }
        Ok(())
    }

    /// Nanoseconds of one run.
    fn time(&mut self, measure: Measure, turn: Turn, peer: usize) -> Result<f64> {
        std::thread::sleep(self.options.settle);
        if measure == Measure::Load {
            let open =
                if turn == Turn::Ours { self.contest.ours } else { self.contest.theirs[peer] };
            return load(open, self.ids[0], self.clock);
        }
        let side: &mut dyn Side = match turn {
            Turn::Ours => &mut *self.ours,
            Turn::Theirs => &mut *self.peers[peer],
        };
        side.reset();
        let (long, short) = (&self.ids[..self.options.prompt], &self.ids[..self.options.first]);
        let start = (self.clock)();
        let token = greedy(side.feed(if measure == Measure::Prefill { long } else { short })?);
        let behind_prompt = (self.clock)();
        if measure != Measure::Decode {
            return Ok(behind_prompt.saturating_sub(start) as f64);
        }
        let tokens = answers::continue_greedily(side, token, self.options.decode)?;
        let took = (self.clock)().saturating_sub(behind_prompt) as f64;
        let [own, other] = &self.answers[peer].sequences;
        if tokens != *(if turn == Turn::Ours { own } else { other }) {
            let name = side.name();
            self.changed.get_or_insert(format!("{name}: a later run gave other tokens"));
        }
        Ok(took)
    }

    fn compared(&self, turns: &[Turns; 4], chosen: [usize; 4]) -> Vec<Compared> {
        let tokens = [1, self.options.prompt, self.options.first, self.options.decode];
        let all = Measure::ALL.into_iter().zip(turns).zip(chosen).zip(tokens);
        all.filter_map(|(((measure, turns), peer), tokens)| {
            let ms = |times: &[f64]| Quartiles::of(times.iter().map(|time| time / 1e6));
            Some(Compared {
                measure,
                peer: self.peers[peer].name(),
                tokens,
                ours_ms: ms(&turns.ours)?,
                theirs_ms: ms(&turns.theirs)?,
                ratio: turns.ratio()?,
            })
        })
        .collect()
    }
}

/// Nanoseconds from opening to the first token; closing is not timed.
fn load(open: &Open<'_>, token: u32, clock: Clock<'_>) -> Result<f64> {
    let start = clock();
    let mut side = open()?;
    let first = greedy(side.feed(&[token])?);
    let took = clock().saturating_sub(start);
    std::hint::black_box(first);
    Ok(took as f64)
}
