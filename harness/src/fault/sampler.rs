//! Faults of the sampler.

use std::sync::Arc;

use super::library::{Fault, info};
use super::{FaultInfo, Plant, SamplerFault};

/// A fault of the sampler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    info: FaultInfo,
    fault: SamplerFault,
}

impl Plant for Sampling {
    fn id(&self) -> &str {
        self.info.id
    }

    fn sampler(&self) -> Option<SamplerFault> {
        Some(self.fault)
    }
}

impl From<Sampling> for Fault {
    fn from(fault: Sampling) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

const fn sampling(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    fault: SamplerFault,
) -> Sampling {
    Sampling { info: info(id, what, incidents), fault }
}

/// Every fault of the sampler.
pub(super) const ALL: &[Sampling] = &[
    sampling(
        "sampler/second-best",
        "the best token is dropped",
        &["FI-66"],
        SamplerFault::SecondBest,
    ),
    sampling("sampler/unfiltered", "filters are ignored", &["FI-87"], SamplerFault::Unfiltered),
    sampling("sampler/unseeded", "the seed is ignored", &["FI-72"], SamplerFault::Unseeded),
    sampling(
        "sampler/penalty-inverted",
        "the penalty rewards",
        &["FI-25"],
        SamplerFault::PenaltyInverted,
    ),
    sampling(
        "sampler/nan-ignored",
        "a NaN logit counts as zero",
        &["FI-21"],
        SamplerFault::NanIgnored,
    ),
    sampling(
        "sampler/softmax-unnormalised",
        "probabilities sum to more than one",
        &["FI-21"],
        SamplerFault::SoftmaxUnnormalised,
    ),
];
