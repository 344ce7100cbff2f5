//! Faults that end or stop the process that they are in: what a worker is for.
//!
//! They stand apart from the library, because a gate that named one could only be proved in a process of its own.

use std::sync::Arc;

use apr_engine::Result;
use apr_engine::model::{Lm, LmOptions, Model};

use super::library::{Fault, info};
use super::{FaultInfo, Plant};
use crate::judge::BackendSpec;

/// A fault of the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    info: FaultInfo,
    /// Whether it strikes where `spec` computes.
    strikes: fn(&BackendSpec) -> bool,
    act: fn() -> !,
}

impl Plant for Process {
    fn id(&self) -> &str {
        self.info.id
    }

    fn lm(&self, _: &Model, spec: &BackendSpec, _: LmOptions) -> Option<Result<Box<dyn Lm>>> {
        if (self.strikes)(spec) {
            (self.act)();
        }
        None
    }
}

impl From<Process> for Fault {
    fn from(fault: Process) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

/// Every fault of the process.
pub(super) const ALL: &[Process] = &[
    Process {
        info: info("process/endless-loop", "the engine never ends on two threads", &["FI-137"]),
        strikes: |spec| spec.threads == Some(2),
        act: || loop {
            std::hint::spin_loop();
        },
    },
    Process {
        info: info("process/abort", "the engine dies on two threads", &["FI-36"]),
        strikes: |spec| spec.threads == Some(2),
        act: || std::process::abort(),
    },
];
