//! Where the time of a forward pass goes, operation by operation: measured by a clock at every site of real passes, each of
//! which also runs without that clock beside it, so that what measuring costs is measured too.

mod brick;
#[cfg(test)]
mod tests;

use std::path::Path;

use apr_engine::Result;
use apr_engine::generate::greedy;
use apr_engine::model::{Lm, Want};
use apr_engine::probe::{NoProbe, Probe};
use schemars::JsonSchema;
use serde::Serialize;

use crate::bench::{Step, WARM_UP, Watch, script};
use crate::contract::CatalogueError;
use crate::contract::check::CacheTypeName;
pub use crate::contract::check::Phase;
use crate::sheet::Sheet;
use crate::sheet::brick::Brick as Group;
use crate::stats::{SplitMix, bootstrap_median};
use crate::timer::Timer;
pub use brick::Brick;
use brick::{Elements, Tally};

/// Error probability of each bound of the overhead: together they make an interval of 95 %.
const TAIL: f64 = 0.025;
/// Neighbours that are drawn together, and resamples of the interval.
const BLOCK: usize = 4;
const RESAMPLES: usize = 2000;
/// The least share of a pass that its operations may add up to.
const COVERS_AT_LEAST: f64 = 0.9;

/// The bricks of the format sheet that this build carries.
///
/// # Errors
/// When that sheet is broken.
pub fn groups() -> std::result::Result<Vec<Group>, CatalogueError> {
    let text = include_str!("../../../contracts/sheets/apr.yaml");
    Ok(Sheet::from_text(text, Path::new("apr.yaml"))?.bricks.bricks)
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A prompt at once, or token by token.
    pub phase: Phase,
    /// Tokens of the prompt: of each pass, or before the first token.
    pub prompt: usize,
    /// Passes with a clock; each has one without beside it.
    pub passes: usize,
}

impl Options {
    /// Positions that the longest run takes.
    pub fn positions(&self) -> usize {
        match self.phase {
            Phase::Prefill => self.prompt,
            Phase::Decode => self.prompt + WARM_UP + self.passes,
        }
    }
}

/// What clocks at every site cost, as a share of a pass without them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Overhead {
    /// Median over the pairs.
    pub share: f64,
    /// Bounds of the median, together 95 %.
    pub lower: f64,
    /// See `lower`.
    pub upper: f64,
    /// Pairs of passes in turns.
    pub pairs: usize,
}

/// The operations of one layer, or of one place outside the layers.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Layer {
    /// The layer; absent outside of them.
    pub layer: Option<usize>,
    /// Of all passes.
    pub total_ns: u64,
    /// In the order of computation.
    pub bricks: Vec<LayerBrick>,
}

/// An operation in its layer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LayerBrick {
    /// The brick.
    pub name: String,
    /// The first site of it.
    pub site: String,
    /// Of all passes.
    pub total_ns: u64,
}

impl Layer {
    fn add(&mut self, name: &str, site: &str, took: u64) {
        self.total_ns += took;
        match self.bricks.iter_mut().find(|brick| brick.site == site) {
            Some(brick) => brick.total_ns += took,
            None => self.bricks.push(LayerBrick {
                name: name.to_owned(),
                site: site.to_owned(),
                total_ns: took,
            }),
        }
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Profile {
    /// The backend, with its instruction set.
    pub backend: String,
    /// What keys and values are cached as.
    pub cache_type: CacheTypeName,
    /// A prompt at once, or token by token.
    pub phase: Phase,
    /// Passes with a clock at every site.
    pub passes: usize,
    /// Tokens of all of them.
    pub total_tokens: u64,
    /// Tokens before the first of them.
    pub position: usize,
    /// Time of all of them, by the same clock around each pass.
    pub total_ns: u64,
    /// The operations, longest first.
    pub bricks: Vec<Brick>,
    /// The same by layer, in the order of computation.
    pub layers: Vec<Layer>,
    /// What the operations add up to, as a share of `total_ns`.
    pub covers: f64,
    /// What measuring costs.
    pub overhead: Option<Overhead>,
}

impl Profile {
    /// Why these figures do not tell where the time went; none when they do.
    pub fn flaw(&self) -> Option<String> {
        if self.bricks.is_empty() || self.total_ns == 0 {
            return Some("nothing was measured: the backend passed no site".to_owned());
        }
        let known = self.covers >= COVERS_AT_LEAST && self.covers <= 1.0;
        let (covers, least) = (100.0 * self.covers, 100.0 * COVERS_AT_LEAST);
        let why =
            format!("operations add up to {covers:.1} % of the time, not {least:.0} to 100 %");
        (!known).then_some(why)
    }
}

/// Measures passes of `lm`, told by the bricks of `groups`.
///
/// # Errors
/// Those of the forward pass; [`apr_engine::Code::Cancelled`] when the caller wants no more of it.
pub fn measure(
    lm: &mut dyn Lm,
    groups: &[Group],
    options: &Options,
    watch: &Watch<'_>,
) -> Result<Profile> {
    let (mut position, mut ids) = warm(lm, options)?;
    let (start, tokens) = (position, ids.len() * options.passes);
    let mut elements = Elements::default();
    lm.truncate(position);
    forward(lm, &ids, &mut elements)?;
    let mut tally = Tally::new(groups, elements);
    let (mut slowdowns, mut total) = (Vec::new(), 0);
    for pass in 0..options.passes {
        (watch.tell)(Step::one("pass").at(pass + 1, options.passes));
        let (mut plain, mut timed, mut next) = (0.0, 0.0, 0);
        // A B B A: drift between neighbours cancels out.
        for with_clock in [pass % 2 == 0, pass % 2 == 1] {
            lm.truncate(position);
            if with_clock {
                let mut times = Vec::new();
                timed = watch.time(|| {
                    let mut timer = Timer::start(watch.clock);
                    next = forward(lm, &ids, &mut timer)?;
                    times = timer.spans();
                    Ok(())
                })?;
                tally.add(&times);
            } else {
                plain = watch.time(|| forward(lm, &ids, &mut NoProbe).map(drop))?;
            }
        }
        total += timed as u64;
        slowdowns.push((timed / plain).ln());
        if options.phase == Phase::Decode {
            (position, ids) = (position + 1, vec![next]);
        }
    }
    let (bricks, layers) = tally.told();
    let sum: u64 = bricks.iter().map(|brick| brick.total_ns).sum();
    Ok(Profile {
        backend: lm.backend_name(),
        cache_type: CacheTypeName(lm.cache_type()),
        phase: options.phase,
        passes: options.passes,
        total_tokens: tokens as u64,
        position: start,
        total_ns: total,
        covers: sum as f64 / total.max(1) as f64,
        bricks,
        layers,
        overhead: overhead(&slowdowns),
    })
}

/// Runs what is not measured; then the position of the first pass, and what it reads.
fn warm(lm: &mut dyn Lm, options: &Options) -> Result<(usize, Vec<u32>)> {
    lm.reset();
    let prompt = script(lm.config().vocab, options.prompt);
    let mut next = forward(lm, &prompt, &mut NoProbe)?;
    if options.phase == Phase::Prefill {
        return Ok((0, prompt));
    }
    for _ in 0..WARM_UP {
        next = forward(lm, &[next], &mut NoProbe)?;
    }
    Ok((options.prompt + WARM_UP, vec![next]))
}

/// The greedy token behind `ids`.
fn forward(lm: &mut dyn Lm, ids: &[u32], probe: &mut dyn Probe) -> Result<u32> {
    Ok(greedy(lm.forward(ids, Want::Last, probe)?.last()))
}

fn overhead(slowdowns: &[f64]) -> Option<Overhead> {
    let block = if slowdowns.len() < BLOCK * BLOCK { 1 } else { BLOCK };
    let bounds = bootstrap_median(slowdowns, block, RESAMPLES, TAIL, &mut SplitMix::new(0))?;
    let share = |slowdown: f64| slowdown.exp() - 1.0;
    Some(Overhead {
        share: share(bounds.median),
        lower: share(bounds.lower),
        upper: share(bounds.upper),
        pairs: slowdowns.len(),
    })
}
