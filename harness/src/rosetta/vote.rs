//! Who is wrong where two sides part: the scalar oracle computes the same operation from the same inputs, once with the weights
//! of each side.

use std::collections::{BTreeMap, BTreeSet};

use apr_engine::backend::{CacheType, Device};
use apr_engine::model::{LmOptions, Model, NamedTensor, Role, Slot};
use apr_engine::probe::Site;
use schemars::JsonSchema;
use serde::Serialize;

use super::allowance::weights;
use super::sites::{Distance, distance};
use crate::compare::RowError;
use crate::recording::{self, Recording};

/// Who is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// The source: the oracle computes what the target computes.
    Source,
    /// The target: the oracle computes what the source computes.
    Target,
    /// Both: the oracle computes something else than either.
    Both,
    /// Neither computes wrongly: what they compute with differs.
    Weights,
    /// The oracle cannot tell.
    Undecided,
}

impl Wrong {
    /// The sentence of the table.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Source => "the source computes it wrongly, the oracle agrees with the target",
            Self::Target => "the target computes it wrongly, the oracle agrees with the source",
            Self::Both => "both compute it wrongly, the oracle agrees with neither",
            Self::Weights => {
                "neither computes it wrongly, their weights or hyper-parameters differ"
            }
            Self::Undecided => "the oracle cannot tell",
        }
    }
}

/// The oracle's vote at a site.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Vote {
    /// Who is wrong.
    pub wrong: Wrong,
    /// The source against the oracle with the source's weights; absent for recorded values.
    pub source: Option<Distance>,
    /// The target's operation against the oracle with the target's weights.
    pub target: Option<Distance>,
    /// The oracle with the source's weights against the oracle with the target's.
    pub weights: Option<Distance>,
    /// The weights of the operation that are not the same numbers on both sides, with their errors.
    pub differing: Vec<Differing>,
}

/// A weight that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Differing {
    /// Slot.
    pub slot: String,
    /// Dtype of the source; absent when it has no such weight.
    pub source: Option<String>,
    /// Dtype of the target.
    pub target: Option<String>,
    /// Normalised mean squared error of the target's values; absent where the shapes differ, one is missing, or the rows
    /// stand in different orders.
    pub nmse: Option<f64>,
}

/// What the oracle makes of the source's inputs with the weights of `model`. Nothing when it cannot be started.
pub(super) fn oracle(
    model: &Model,
    cache_type: CacheType,
    parts: &[&[u32]],
    given: &Recording,
) -> Option<Recording> {
    let tokens: usize = parts.iter().map(|part| part.len()).sum();
    let options = LmOptions { context: Some(tokens), cache_type, ..LmOptions::default() };
    let mut scalar = model.lm_on(&Device::Scalar, options).ok()?;
    Some(recording::record_given(&mut *scalar, parts, given))
}

/// One side at the vote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voter<'a> {
    /// Its model; `None` for recorded values.
    pub(super) model: Option<&'a Model>,
    /// Its own operation on the source's inputs.
    pub(super) seen: &'a Recording,
    /// The oracle with its weights on the same inputs.
    pub(super) oracle: Option<&'a Recording>,
    /// How far it may lie from the oracle.
    pub(super) allowed: f64,
}

/// The vote at `site`.
pub(super) fn vote(site: Site, source: Voter<'_>, target: Voter<'_>) -> Vote {
    let against = |voter: Voter<'_>| {
        let (tally, _) = distance(site, voter.oracle?, voter.seen, None);
        Some(Distance::from(&tally))
    };
    let (ours, theirs) = (against(source), against(target));
    let between = source.oracle.zip(target.oracle);
    let weights = between.map(|(a, b)| Distance::from(&distance(site, a, b, None).0));
    // A recording has no weights to compute with: the oracle with the target's is held against it as well.
    let recorded =
        target.oracle.map(|oracle| Distance::from(&distance(site, oracle, source.seen, None).0));
    let right = |distance: Option<&Distance>, allowed: f64| distance.map(|d| d.worst() <= allowed);
    let source_right = right(ours.as_ref().or(recorded.as_ref()), source.allowed);
    let target_right = right(theirs.as_ref(), target.allowed);
    let wrong = match (source_right, target_right) {
        (Some(false), Some(false)) => Wrong::Both,
        (Some(true) | None, Some(false)) => Wrong::Target,
        // The target computes what its weights say, and the recording says something else: they are not of one model.
        (Some(false), Some(true)) if ours.is_none() => Wrong::Weights,
        (Some(false), Some(true) | None) => Wrong::Source,
        (Some(true), Some(true)) if weights.as_ref().is_some_and(|found| !found.is_zero()) => {
            Wrong::Weights
        }
        _ => Wrong::Undecided,
    };
    let differing = match (source.model, target.model) {
        (Some(ours), Some(theirs)) => differing(site, ours, theirs),
        _ => Vec::new(),
    };
    Vote { wrong, source: ours, target: theirs, weights, differing }
}

/// A weight of one side: its dtype and its values, where they can be read.
type Stored = (String, Option<Vec<f32>>);

/// The weights behind `site` that are not the same numbers.
fn differing(site: Site, source: &Model, target: &Model) -> Vec<Differing> {
    let stored = |model: &Model| -> BTreeMap<Slot, Stored> {
        let read =
            |entry: &NamedTensor| entry.tensor.view().and_then(|view| view.dequantize()).ok();
        let weights = weights(model, site).into_iter();
        weights
            .map(|(slot, entry)| (slot, (entry.tensor.dtype().name().to_owned(), read(entry))))
            .collect()
    };
    let (ours, theirs) = (stored(source), stored(target));
    let slots: BTreeSet<Slot> = ours.keys().chain(theirs.keys()).copied().collect();
    let mut found = Vec::new();
    for slot in slots {
        let (ours, theirs) = (ours.get(&slot), theirs.get(&slot));
        let values = |side: Option<&Stored>| side.and_then(|(_, values)| values.clone());
        // Files that rotate in different orders hold the same rows in different orders.
        let comparable = source.config().rope.style == target.config().rope.style
            || !matches!(
                slot.role,
                Role::Q | Role::K | Role::QBias | Role::KBias | Role::QNorm | Role::KNorm
            );
        let pair = values(ours).zip(values(theirs)).filter(|_| comparable);
        let error = pair.and_then(|(a, b)| RowError::new(&a, &b));
        if error.is_some_and(|error| error.bits_differ == 0) {
            continue;
        }
        let dtype = |side: Option<&Stored>| side.map(|(dtype, _)| dtype.clone());
        found.push(Differing {
            slot: slot.to_string(),
            source: dtype(ours),
            target: dtype(theirs),
            nmse: error.map(|error| error.nmse).filter(|nmse| nmse.is_finite()),
        });
    }
    found
}
