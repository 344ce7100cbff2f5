//! Faults of the harness itself. Each comes with something wrong in the subject that it hides: a harness that looks away from
//! a subject without fault has done no harm yet.

use std::sync::Arc;

use apr_engine::model::{LmOptions, Model};

use super::engine::{EngineFault, faulty_lm};
use super::library::{Fault, info};
use super::{FaultInfo, HarnessFault, Plant};
use crate::judge::BackendSpec;
use crate::subject::{CommandOutput, Lm};

/// A fault of the harness, and of the subject behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Harness {
    info: FaultInfo,
    /// `None` shows what is hidden.
    fault: Option<HarnessFault>,
    /// What is wrong with the engine.
    engine: EngineFault,
}

impl Plant for Harness {
    fn id(&self) -> &str {
        self.info.id
    }

    fn lm(
        &self,
        model: &Model,
        spec: &BackendSpec,
        options: LmOptions,
    ) -> Option<apr_engine::Result<Box<dyn Lm>>> {
        Some(faulty_lm(self.engine, None, model, spec, options))
    }

    /// What is wrong with the executable: its output ends in the middle.
    fn mutate_output(&self, output: &mut CommandOutput) {
        output.stdout.truncate(output.stdout.len() / 2);
    }

    fn harness(&self) -> Option<HarnessFault> {
        self.fault
    }

    fn hidden(&self) -> Option<Arc<dyn Plant>> {
        self.fault.is_some().then(|| Arc::new(Self { fault: None, ..*self }) as Arc<dyn Plant>)
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
    engine: EngineFault,
) -> Harness {
    Harness { info: info(id, what, incidents), fault: Some(fault), engine }
}

/// Every fault of the harness.
pub(super) const ALL: &[Harness] = &[
    harness(
        "harness/compares-nothing",
        "every comparison sees no rows, every command no expectations",
        &["FI-122", "FI-104"],
        HarnessFault::EmptyComparison,
        EngineFault::LayerNorm,
    ),
    harness(
        "harness/compares-itself",
        "the reference is compared with itself",
        &["FI-118"],
        HarnessFault::SelfComparison,
        EngineFault::LayerNorm,
    ),
    harness(
        "harness/compares-neighbours",
        "rows are compared one apart",
        &["FI-107", "FI-108"],
        HarnessFault::ShiftedComparison,
        EngineFault::LayerNorm,
    ),
    harness(
        "harness/nan-passes",
        "values that are not finite are left out of the comparison",
        &["FI-21"],
        HarnessFault::NanPasses,
        EngineFault::NanReported,
    ),
    harness(
        "harness/unparsed-passes",
        "an output that cannot be read is taken for one that says nothing",
        &["FI-121", "FI-125"],
        HarnessFault::UnparsedPasses,
        EngineFault::Nothing,
    ),
    harness(
        "harness/error-skipped",
        "what stops a judge is returned as a skip",
        &["FI-104", "FI-120"],
        HarnessFault::ErrorSkipped,
        EngineFault::NanAtLayer { layer: 1 },
    ),
    harness(
        "harness/falsified-swallowed",
        "a falsification is returned as a corroboration",
        &["FI-106", "FI-119"],
        HarnessFault::FalsifiedSwallowed,
        EngineFault::LayerNorm,
    ),
];
