//! Every fault by its id.

use std::sync::Arc;

use super::{
    FaultInfo, Plant, engine, executable, file, fixture, generation, harness, process, sampler,
};

/// A fault that can be planted.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it is.
    pub info: FaultInfo,
    /// The seams it overrides.
    pub plant: Arc<dyn Plant>,
}

/// The control: overrides no seam, so every gate must stay as it is.
pub fn nothing() -> Fault {
    engine::nothing()
}

/// The control of gates that measure time: not even a decorator stands in the way, whose own cost would be seen.
pub fn untouched() -> Fault {
    fixture::untouched()
}

/// Every fault, sorted by id.
pub fn all() -> Vec<Fault> {
    let mut faults: Vec<Fault> = file::all()
        .map(|fault| Fault { info: fault.info(), plant: Arc::new(fault) })
        .chain(engine::ALL.iter().map(|fault| Fault::from(*fault)))
        .chain(engine::misread::ALL.iter().map(|fault| Fault::from(*fault)))
        .chain(executable::ALL.iter().map(|fault| Fault::from(*fault)))
        .chain(fixture::ALL.iter().map(|fault| Fault::from(*fault)))
        .chain(sampler::ALL.iter().map(|fault| Fault::from(*fault)))
        .chain(
            generation::ALL
                .iter()
                .map(|fault| Fault { info: fault.info(), plant: Arc::new(*fault) }),
        )
        .chain(harness::ALL.iter().map(|fault| Fault::from(*fault)))
        .collect();
    faults.sort_by_key(|fault| fault.info.id);
    faults
}

/// The fault called `id`.
pub fn by_id(id: &str) -> Option<Fault> {
    all().into_iter().find(|fault| fault.info.id == id)
}

/// The fault called `id`, those of the process included: what a run can plant, but no gate can name.
pub fn plantable(id: &str) -> Option<Fault> {
    let process = process::ALL.iter().map(|fault| Fault::from(*fault));
    by_id(id).or_else(|| process.into_iter().find(|fault| fault.info.id == id))
}

pub(super) const fn info(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
) -> FaultInfo {
    FaultInfo { id, what, incidents, loads: true, op: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_every_fault_retells_an_incident() {
        let faults = all();
        assert!(faults.len() >= 80, "{} faults", faults.len());
        assert!(faults.windows(2).all(|pair| pair[0].info.id < pair[1].info.id));
        for fault in faults {
            assert!(!fault.info.incidents.is_empty(), "{}", fault.info.id);
            assert_eq!(fault.plant.id(), fault.info.id);
        }
    }
}
