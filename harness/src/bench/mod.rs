//! How fast a model runs here and now.
//!
//! Loading, reading a prompt, the first token and decoding are measured as a user would meet them: the forward pass through
//! the same door, greedily, nothing shortened. What decoding takes is told by operation, and held against the bytes that a
//! token has to read. A series that varies too much is measured again and otherwise said to be rejected (see [`series`]).

pub mod bandwidth;
pub mod compute;
mod likeness;
mod pairs;
pub mod series;
mod step;
#[cfg(test)]
mod tests;
mod together;

use std::collections::BTreeMap;
use std::fmt;

use apr_engine::backend::simd::Isa;
use apr_engine::generate::greedy;
use apr_engine::model::{Lm, Model, Want};
use apr_engine::probe::{NoProbe, Op};
use apr_engine::{Code, Error, Result};
use schemars::JsonSchema;
use serde::Serialize;

use crate::contract::check::CacheTypeName;
use crate::stats::{Plan, SplitMix};
use crate::timer::{Clock, Timer};

pub use bandwidth::Roofline;
pub use compute::ComputeRoof;
pub use likeness::{Likeness, likeness};
pub use pairs::{Outcome, Ratio, against, programs};
pub use series::Series;
pub use step::Step;
pub use together::Together;

/// Tokens that are decoded before any is timed.
pub const WARM_UP: usize = 10;
/// Readings of memory beside a round of decoding, and of multiplying on either side of the long prompt.
const READS: usize = 5;
/// Tokens whose operations are timed.
const TIMED: usize = 32;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Tokens of the long prompt.
    pub prompt: usize,
    /// Tokens of the prompt before the first token.
    pub first: usize,
    /// Decoded tokens of a round.
    pub tokens: usize,
    /// Loads, long prompts and first tokens of a round.
    pub samples: usize,
    /// Sequences that are decoded together; 1 leaves that out.
    pub sequences: usize,
    /// What reads memory and multiplies for comparison; none for a device with memory of its own.
    pub processor: Option<Processor>,
}

/// The share of the processor that the model runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Threads.
    pub threads: usize,
    /// The instruction set in use.
    pub isa: Isa,
}

impl Options {
    /// Positions that the longest run takes.
    pub fn positions(&self) -> usize {
        self.prompt.max(self.first + WARM_UP + self.tokens.max(TIMED))
    }
}

/// A pass over several tokens at once, or over one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Phase {
    /// Tokens of a pass.
    pub tokens: usize,
    /// Tokens before it.
    pub position: usize,
    /// Of one pass.
    pub time: Series,
    /// By the median.
    pub tokens_per_second: f64,
}

/// What the operations at one kind of site take of a decoded token. Products of one input are computed together and
/// stand with the first of them: `q` for all three, `gate` for both.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SiteTime {
    /// The op.
    pub site: String,
    /// Passes of it in a token.
    pub passes: usize,
    /// Of all of them, mean over the tokens.
    pub mean_us: f64,
    /// Share of the sum over all sites.
    pub share: f64,
}

/// Decoding, operation by operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Breakdown {
    /// Longest first.
    pub sites: Vec<SiteTime>,
    /// Their sum, as a share of a token's time measured by the same clock around it.
    pub covers: f64,
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Bench {
    /// The backend, with its instruction set.
    pub backend: String,
    /// From opening the file to the logits of one token.
    pub load: Series,
    /// Reading a long prompt.
    pub prefill: Phase,
    /// From a shorter prompt to its logits: the wait for the first token.
    pub first_token: Phase,
    /// One token after the other.
    pub decode: Phase,
    /// Several sequences decoded together, when more than one was asked for.
    pub together: Option<Together>,
    /// Decoding against memory.
    pub roofline: Option<Roofline>,
    /// The long prompt against multiplying.
    pub compute: Option<ComputeRoof>,
    /// Decoding by operation.
    pub breakdown: Breakdown,
    /// The smallest slowdown of decoding that the noise of this run lets one find, as a share; see
    /// [`Plan::smallest_detectable`].
    pub smallest_detectable: Option<f64>,
    /// What keys and values are cached as.
    pub cache_type: CacheTypeName,
    /// Bytes of the key-value caches of all sequences when full.
    pub cache_bytes: u64,
}

impl Bench {
    /// Whether every series was accepted.
    pub fn accepted(&self) -> bool {
        let series = [&self.load, &self.prefill.time, &self.first_token.time, &self.decode.time];
        series.iter().all(|series| series.accepted)
    }
}

/// A model that was opened, and its instance on a device.
pub type Opened = (Model, Box<dyn Lm>);

/// What measurements look at beside the model.
#[derive(Clone, Copy)]
pub struct Watch<'c> {
    /// The time.
    pub clock: Clock<'c>,
    /// Whether the caller wants no more of it.
    pub stopped: &'c dyn Fn() -> bool,
    /// Is told what comes next, while no time is taken.
    pub tell: &'c dyn Fn(Step),
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("stopped", &(self.stopped)()).finish_non_exhaustive()
    }
}

impl Watch<'_> {
    /// Nanoseconds that `work` takes.
    pub(crate) fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        if (self.stopped)() {
            return Err(Error::new(Code::Cancelled));
        }
        let start = (self.clock)();
        work()?;
        Ok((self.clock)().saturating_sub(start) as f64)
    }
}

/// Measures what `open` opens.
///
/// # Errors
/// Those of opening and of the forward pass; [`Code::ContextExceeded`] when the context is too short for what is to be
/// measured, [`Code::EmptyPrompt`] when nothing is, [`Code::Cancelled`] when the caller wants no more of it.
pub fn measure(
    open: &dyn Fn() -> Result<Opened>,
    options: &Options,
    watch: &Watch<'_>,
) -> Result<Bench> {
    let (load, _) = series(|round| {
        let step = Step::one("load").in_round(round);
        repeat(options.samples, step, watch, || watch.time(|| first_logits(open)))
    })?;
    let (model, mut lm) = open()?;
    let lm = &mut *lm;
    let longest = options.prompt.max(options.first) + WARM_UP + options.tokens + 1;
    let ids = script(lm.config().vocab, longest);
    let (prompt, first) = (&ids[..options.prompt], &ids[..options.first]);
    let (prefill, compute) = prefill(&model, lm, prompt, options, watch)?;
    let first_token = passes(lm, first, options.samples, Step::one("first token"), watch)?;
    let tensors = options.processor.map(|it| (bandwidth::weights(&model), it.threads));
    let mut reads = Vec::new();
    let (time, samples) = series(|round| {
        (watch.tell)(Step::one("decode").in_round(round));
        if let Some((tensors, threads)) = &tensors {
            let read = |_| bandwidth::read(tensors, *threads, watch.clock) as f64;
            reads.extend((0..READS).map(read));
        }
        decode(lm, first, options.tokens, watch)
    })?;
    let decode = phase(1, options.first + WARM_UP, time);
    let roofline = tensors.and_then(|(tensors, _)| {
        let bytes: usize = tensors.iter().map(|bytes| bytes.len()).sum();
        let middle = decode.position + options.tokens / 2;
        let per_token = bytes as u64 + bandwidth::cache_bytes(lm, middle);
        roofline(bytes as u64, per_token, &reads, decode.tokens_per_second)
    });
    let together = match options.sequences {
        0 | 1 => None,
        _ => Some(together::measure(lm, options, watch)?),
    };
    let caches = lm.sequences() as u64;
    (watch.tell)(Step::one("decode by operation"));
    Ok(Bench {
        backend: lm.backend_name(),
        load,
        prefill,
        first_token,
        together,
        roofline,
        compute,
        breakdown: breakdown(lm, first, watch.clock)?,
        smallest_detectable: detectable(&samples),
        cache_type: CacheTypeName(lm.cache_type()),
        cache_bytes: caches * bandwidth::cache_bytes(lm, lm.context()),
        decode,
    })
}

/// One round after the other until one is accepted: that one, and its samples.
fn series(round: impl FnMut(usize) -> Result<Vec<f64>>) -> Result<(Series, Vec<f64>)> {
    let nothing = || Error::new(Code::EmptyPrompt).expected("at least one sample");
    series::measured(round)?.ok_or_else(nothing)
}

/// `count` samples, each told before.
fn repeat(
    count: usize,
    step: Step,
    watch: &Watch<'_>,
    mut one: impl FnMut() -> Result<f64>,
) -> Result<Vec<f64>> {
    let told = |sample| {
        (watch.tell)(step.at(sample, count));
        one()
    };
    (1..=count).map(told).collect()
}

fn first_logits(open: &dyn Fn() -> Result<Opened>) -> Result<()> {
    let (_model, mut lm) = open()?;
    lm.forward(&[0], Want::Last, &mut NoProbe)?;
    Ok(())
}

/// Tokens that mean nothing, the same in every run: what they are does not change the work.
pub fn script(vocab: usize, len: usize) -> Vec<u32> {
    let mut rng = SplitMix::new(0);
    (0..len).map(|_| rng.below(vocab) as u32).collect()
}

/// Reads the long prompt, with multiplying alone on either side of it.
fn prefill(
    model: &Model,
    lm: &mut dyn Lm,
    prompt: &[u32],
    options: &Options,
    watch: &Watch<'_>,
) -> Result<(Phase, Option<ComputeRoof>)> {
    let readings = || match options.processor {
        Some(it) => (0..READS).map(|_| compute::rates(it.isa, it.threads, watch.clock)).collect(),
        None => Ok(Vec::new()),
    };
    let mut rates: Vec<compute::Rates> = readings()?;
    let phase = passes(lm, prompt, options.samples, Step::one("prompt"), watch)?;
    rates.extend(readings()?);
    let work = compute::Work::of_prompt(model, prompt.len());
    let roof = ComputeRoof::of(work, &rates, phase.time.median_ms);
    Ok((phase, roof))
}

/// Passes over all of `ids` at once.
fn passes(
    lm: &mut dyn Lm,
    ids: &[u32],
    samples: usize,
    step: Step,
    watch: &Watch<'_>,
) -> Result<Phase> {
    let mut pass = || {
        lm.reset();
        watch.time(|| lm.forward(ids, Want::Last, &mut NoProbe).map(drop))
    };
    pass()?;
    let (time, _) = series(|round| repeat(samples, step.in_round(round), watch, &mut pass))?;
    Ok(phase(ids.len(), 0, time))
}

/// Greedy tokens behind `prompt`, each with its nanoseconds; the first few are not told.
fn decode(lm: &mut dyn Lm, prompt: &[u32], tokens: usize, watch: &Watch<'_>) -> Result<Vec<f64>> {
    lm.reset();
    let mut token = greedy(lm.forward(prompt, Want::Last, &mut NoProbe)?.last());
    let mut one = || {
        watch.time(|| {
            token = greedy(lm.forward(&[token], Want::Last, &mut NoProbe)?.last());
            Ok(())
        })
    };
    let mut samples: Vec<f64> = (0..WARM_UP + tokens).map(|_| one()).collect::<Result<_>>()?;
    samples.drain(..WARM_UP);
    Ok(samples)
}

fn phase(tokens: usize, position: usize, time: Series) -> Phase {
    let tokens_per_second = tokens as f64 / (time.median_ms / 1e3);
    Phase { tokens, position, time, tokens_per_second }
}

fn roofline(bytes: u64, per_token: u64, reads: &[f64], tokens_per_second: f64) -> Option<Roofline> {
    let seconds = crate::stats::median(reads)? / 1e9;
    let (read, decode) = (bytes as f64 / seconds, per_token as f64 * tokens_per_second);
    Some(Roofline {
        bytes_per_token: per_token,
        read_bytes_per_second: read,
        decode_bytes_per_second: decode,
        fraction: decode / read,
    })
}

/// Tokens behind `prompt` with a clock at every site.
fn breakdown(lm: &mut dyn Lm, prompt: &[u32], clock: Clock<'_>) -> Result<Breakdown> {
    lm.reset();
    lm.forward(prompt, Want::Last, &mut NoProbe)?;
    let mut sites: BTreeMap<Op, (usize, u64)> = BTreeMap::new();
    let mut around = 0;
    for _ in 0..TIMED {
        let start = clock();
        let mut timer = Timer::start(clock);
        lm.forward(&[0], Want::Last, &mut timer)?;
        around += clock().saturating_sub(start);
        for (site, took) in timer.spans() {
            let (passes, total) = sites.entry(site.op).or_default();
            *passes += 1;
            *total += took;
        }
    }
    let sum: u64 = sites.values().map(|(_, total)| total).sum();
    let told = |(op, (passes, total)): (Op, (usize, u64))| SiteTime {
        site: op.name().to_owned(),
        passes: passes / TIMED,
        mean_us: total as f64 / TIMED as f64 / 1e3,
        share: total as f64 / sum.max(1) as f64,
    };
    let mut sites: Vec<SiteTime> = sites.into_iter().map(told).collect();
    sites.sort_by(|a, b| b.mean_us.total_cmp(&a.mean_us));
    Ok(Breakdown { sites, covers: sum as f64 / around.max(1) as f64 })
}

/// From how neighbouring tokens differ, that should not.
fn detectable(samples: &[f64]) -> Option<f64> {
    let differences: Vec<f64> = samples.windows(2).map(|two| (two[0] / two[1]).ln()).collect();
    let plan = Plan::default();
    let noise = plan.bounds(&differences, &mut SplitMix::new(0))?;
    Some(plan.smallest_detectable(noise))
}
