//! Faults of the harness itself.

use std::sync::Arc;

use super::library::{Fault, info};
use super::{FaultInfo, HarnessFault, Plant};

/// A fault of the harness itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Harness {
    info: FaultInfo,
    fault: HarnessFault,
}

impl Plant for Harness {
    fn id(&self) -> &str {
        self.info.id
    }

    fn harness(&self) -> Option<HarnessFault> {
        Some(self.fault)
    }
}

impl From<Harness> for Fault {
    fn from(fault: Harness) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

const fn harness(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    fault: HarnessFault,
) -> Harness {
    Harness { info: info(id, what, incidents), fault }
}

/// Every fault of the harness.
pub(super) const ALL: &[Harness] = &[
    harness(
        "harness/empty-comparison",
        "every comparison sees no rows",
        &["FI-122", "FI-104"],
        HarnessFault::EmptyComparison,
    ),
    harness(
        "harness/shifted-comparison",
        "rows are compared one apart",
        &["FI-107", "FI-108"],
        HarnessFault::ShiftedComparison,
    ),
    harness(
        "harness/nan-comparison",
        "the tested side is NaN",
        &["FI-21"],
        HarnessFault::NanComparison,
    ),
    harness(
        "harness/unparsed-observation",
        "an observation that cannot be read is empty",
        &["FI-121", "FI-125"],
        HarnessFault::UnparsedObservation,
    ),
];
