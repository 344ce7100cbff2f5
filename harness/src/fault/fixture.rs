//! Faults of recorded fixtures.

use std::path::Path;
use std::sync::Arc;

use super::library::{Fault, info};
use super::{FaultInfo, Plant};

/// A fault of a recorded fixture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixture {
    info: FaultInfo,
    mutate: fn(&Path, &[u8]) -> Option<Vec<u8>>,
}

impl Plant for Fixture {
    fn id(&self) -> &str {
        self.info.id
    }

    fn mutate_fixture(&self, name: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
        (self.mutate)(name, bytes)
    }
}

impl From<Fixture> for Fault {
    fn from(fault: Fixture) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

/// The control of gates that measure time: not even a decorator stands in the way, whose own cost would be seen.
pub(super) fn untouched() -> Fault {
    let info = info("control/untouched", "nothing is wrong", &[]);
    Fixture { info, mutate: |_, _| None }.into()
}

/// Every fault of a fixture.
pub(super) const ALL: &[Fixture] = &[Fixture {
    info: info("fixture/blocks-changed", "a recorded block differs in one bit", &["FI-117"]),
    mutate: |name, bytes| {
        if !name.starts_with("oracle/quant") {
            return None;
        }
        let container = apr_engine::format::safetensors::parse(bytes).ok()?;
        let place = usize::try_from(container.tensor("dequant.expected")?.offset).ok()?;
        let mut changed = bytes.to_vec();
        *changed.get_mut(place)? ^= 0x01;
        Some(changed)
    },
}];
