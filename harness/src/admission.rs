//! Whether a model keeps its contract, asked in front of every command that acts on one.
//!
//! The question must cost next to nothing beside loading, so it is asked of the loading itself: what a load checks (structure,
//! hyper-parameters, every shape) is the greater part of the contract. On top come three rows of every tensor. One that holds
//! a NaN, an infinity or nothing but zeros puts its tensor under suspicion, and a suspect is judged by every rule on values:
//! only a model that looks damaged pays for the whole look. What hides between the rows is found by `validate --quality`.

use std::collections::BTreeSet;
use std::path::Path;

use apr_engine::format::Source;
use apr_engine::model::{Model, Role};
use apr_engine::{Code, Tensor};

use crate::validate::{Options, Violation, look, refused, validate};

/// Where a tensor is looked at, as shares of its height (data-quality contract).
const SPOTS: [f64; 3] = [0.1, 0.5, 0.9];
/// The sign of an f32.
const SIGN: u32 = 1 << 31;
/// The bits of infinity.
const INFINITY: u32 = f32::INFINITY.to_bits();

/// What is wrong with a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Everything that was found.
    pub violations: Vec<Violation>,
    /// Tensors of the model; 0 when the files do not parse.
    pub tensors: u64,
}

impl Breach {
    /// Tensors of which something is wrong.
    pub fn violated(&self) -> usize {
        let places = self.violations.iter().map(|one| one.place.as_str());
        places.filter(|place| place.starts_with("tensor ")).collect::<BTreeSet<_>>().len()
    }
}

/// Why a model was not admitted.
#[derive(Debug)]
pub enum Refusal {
    /// It violates its contract.
    Breach(Breach),
    /// The system refused.
    Error(apr_engine::Error),
}

/// Loads the model at `path`, if it keeps its contract.
///
/// # Errors
/// [`Refusal::Error`] for what the operating system refuses, [`Refusal::Breach`] with every violation for the rest.
pub fn admit(path: &Path) -> Result<Model, Refusal> {
    let model = match Source::open(path).and_then(Model::from_source) {
        Ok(model) => model,
        Err(error) => return Err(refusal(path, error)),
    };
    let mut rows = Vec::new();
    let suspects: BTreeSet<String> = model
        .weights()
        .iter()
        .filter(|(slot, weight)| suspect(slot.role, &weight.tensor, &mut rows))
        .map(|(_, weight)| weight.name.clone())
        .collect();
    if suspects.is_empty() {
        return Ok(model);
    }
    let breach = judged(&model, &suspects).map_err(Refusal::Error)?;
    if breach.violations.is_empty() { Ok(model) } else { Err(Refusal::Breach(breach)) }
}

/// Every rule on the values of the suspects.
fn judged(model: &Model, suspects: &BTreeSet<String>) -> apr_engine::Result<Breach> {
    let containers = model.source().containers()?;
    let mut entries: Vec<_> = containers.iter().flat_map(|container| &container.tensors).collect();
    let tensors = entries.len() as u64;
    entries.retain(|entry| suspects.contains(entry.name.as_ref()));
    let (_, violations) = look(&entries)?;
    Ok(Breach { violations, tensors })
}

/// What is said of a model that did not load for `error`. Of weights there may be more to say; what does not parse ends at the
/// first mistake, and reading it again would only take time.
fn refusal(path: &Path, error: apr_engine::Error) -> Refusal {
    match error.code() {
        Code::Io | Code::FileChanged | Code::OutOfMemory => Refusal::Error(error),
        Code::WeightMissing | Code::WeightShape | Code::WeightUnexpected => {
            match validate(path, Options::default()) {
                Ok(found) => {
                    let tensors = found.checked.tensors;
                    Refusal::Breach(Breach { violations: found.violations, tensors })
                }
                Err(error) => Refusal::Error(error),
            }
        }
        _ => Refusal::Breach(Breach { violations: vec![refused(&error, path)], tensors: 0 }),
    }
}

/// Whether one of three rows of a weight is not what a row should be; `row` is room for one.
fn suspect(role: Role, weight: &Tensor, row: &mut Vec<f32>) -> bool {
    // A bias of zeros is what no bias would be.
    let may_be_zero = matches!(role, Role::QBias | Role::KBias | Role::VBias | Role::OBias);
    let Ok(view) = weight.view() else { return true };
    let last = view.rows().saturating_sub(1);
    let spots: BTreeSet<usize> =
        SPOTS.iter().map(|share| (share * last as f64).round() as usize).collect();
    row.resize(view.cols(), 0.0);
    spots.into_iter().any(|index| match view.dequantize_row(index, row) {
        Ok(()) => {
            // Magnitudes order as their bits do: zero is the least, what is not finite lies above all that is.
            let most = row.iter().map(|value| value.to_bits() & !SIGN).max().unwrap_or(0);
            most >= INFINITY || (most == 0 && !may_be_zero)
        }
        // Integer tensors are stored but never computed with: nothing is claimed of their values.
        Err(error) => error.code() != Code::DtypeUnsupported,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
    }

    #[test]
    fn a_healthy_model_is_admitted_and_a_file_that_is_none_is_not() {
        assert!(admit(&fixture("golden")).is_ok());
        match admit(&fixture("manifest.yaml")).unwrap_err() {
            Refusal::Breach(breach) => assert_eq!(breach.violations[0].rule, "E0002"),
            Refusal::Error(error) => panic!("{error}"),
        }
        assert!(matches!(admit(&fixture("none")).unwrap_err(), Refusal::Error(_)));
    }
}
