//! Isolation: cases that run the engine are judged in a process of their own, under a time limit.
//!
//! One worker process serves all jobs of a run, so that cases share what they have loaded and computed. The parent
//! writes a [`Setup`] and then cases to its input, one JSON value a line, and reads verdicts. A worker that hangs or
//! crashes is an observation of the subject: it falsifies the claim that was being judged, its process group is killed,
//! and a new worker goes on with the cases that were beside it. What only starts programs has limits of its own and is
//! judged in place.

mod pool;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::{CaseInfo, ModelRef};
use crate::contract::check::CacheTypeName;
use crate::contract::{Check, Gate};
use crate::judge::{JudgeContext, Planned};
use crate::suite::Build;
use crate::verdict::Verdict;

pub use pool::Pool;
pub use worker::serve;

/// Time limit of a case that runs no model, or a small one.
const LIMIT: Duration = Duration::from_mins(5);
/// What a model of a billion parameters adds: the oracle takes minutes for what gates repeat on it.
const LIMIT_PER_BILLION: Duration = Duration::from_mins(30);

/// How a worker is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The `apr` executable.
    pub program: PathBuf,
    /// Its arguments: the hidden subcommand that ends in [`serve`].
    pub args: Vec<String>,
}

/// What a worker needs to build the same context as its parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Directory of the carried fixtures.
    pub fixtures: PathBuf,
    /// Scratch directory of the run.
    pub work: PathBuf,
    /// Directory of the published models.
    pub published: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
    /// What keys and values are cached as, where a gate does not say.
    pub cache_type: CacheTypeName,
    /// Forms that are built on demand: path → recipe and path of the source form.
    pub builds: BTreeMap<PathBuf, (Build, PathBuf)>,
    /// Every judged form, for comparisons between forms.
    pub forms: Vec<ModelRef>,
    /// Id of the planted fault, when one is.
    pub plant: Option<String>,
}

impl Setup {
    /// What a worker needs to judge as `ctx` does.
    pub fn of(ctx: &JudgeContext) -> Self {
        Self {
            fixtures: ctx.fixtures.clone(),
            work: ctx.work.clone(),
            published: ctx.published.clone(),
            seed: ctx.seed,
            cache_type: CacheTypeName(ctx.cache_type),
            builds: ctx.builds.clone(),
            forms: ctx.forms.clone(),
            plant: ctx.plant.as_ref().map(|plant| plant.id().to_owned()),
        }
    }
}

/// A case on its way to a worker.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    id: u64,
    case: CaseInfo,
    gate: Gate,
}

/// What a worker says: that it is ready, then verdicts in any order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// The context is built.
    Ready,
    /// The verdict on the case of this id.
    Judged(u64, Verdict),
}

/// Whether a case of this kind can hang or crash the process that judges it. The other kinds only start programs, each
/// with a limit of its own.
pub fn wants_worker(check: &Check) -> bool {
    !matches!(check, Check::Cli(_) | Check::ConvertRun(_) | Check::Hostile(_))
}

/// The time limit of `case`: that of its gate, else the one that is `given`, else one that grows with the model.
pub fn limit(case: &Planned, given: Option<Duration>) -> Duration {
    let parameters = case.facts.as_ref().and_then(|facts| facts.number("params"));
    let usual = || LIMIT + LIMIT_PER_BILLION.mul_f64(parameters.unwrap_or_default() / 1e9);
    case.gate.timeout_s.map(Duration::from_secs).or(given).unwrap_or_else(usual)
}

#[cfg(all(test, unix))]
mod tests;
