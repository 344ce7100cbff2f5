//! From what files hold to what the forward pass takes: fused matrices apart, gains of norms whole.

use std::collections::BTreeMap;
use std::ops::Range;

use super::config::Config;
use super::slots::{Role, Slot};
use super::weights::NamedTensor;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The weights of a file, rewritten; those that cannot be are left out and give an error each.
pub(super) fn canonical(
    config: &Config,
    stored: BTreeMap<Slot, NamedTensor>,
) -> (BTreeMap<Slot, NamedTensor>, Vec<Error>) {
    let mut slots = BTreeMap::new();
    let mut errors = Vec::new();
    for (slot, entry) in stored {
        for (role, rewritten) in rewritten(config, slot.role, &entry.tensor) {
            match rewritten {
                Ok(tensor) => {
                    let part = NamedTensor { name: entry.name.clone(), tensor };
                    slots.insert(Slot { role, ..slot }, part);
                }
                Err(error) => errors.push(error.tensor(&entry.name)),
            }
        }
    }
    (slots, errors)
}

/// The weights that one tensor of a file holds, by role.
fn rewritten(config: &Config, role: Role, tensor: &Tensor) -> Vec<(Role, Result<Tensor>)> {
    if role.is_gain() {
        return vec![(role, whole_gain(tensor, config.gain_offset))];
    }
    match parts(config, role) {
        parts if parts.is_empty() => vec![(role, Ok(tensor.clone()))],
        parts => parts.into_iter().map(|(role, rows)| (role, tensor.rows(rows))).collect(),
    }
}

/// The gain of a norm that is stored less `offset`, in single precision as everyone adds it.
pub(crate) fn whole_gain(stored: &Tensor, offset: f32) -> Result<Tensor> {
    if offset == 0.0 {
        return Ok(stored.clone());
    }
    let gains: Vec<f32> =
        stored.view()?.dequantize()?.into_iter().map(|value| value + offset).collect();
    Tensor::from_f32(stored.shape(), &gains)
}

/// The rows of a fused matrix that belong to each role; none for matrices that are not fused.
fn parts(config: &Config, role: Role) -> Vec<(Role, Range<usize>)> {
    let heights: &[(Role, usize)] = match role {
        Role::Qkv => &[
            (Role::Q, config.q_width()),
            (Role::K, config.kv_width()),
            (Role::V, config.kv_width()),
        ],
        Role::GateUp => &[(Role::Gate, config.intermediate), (Role::Up, config.intermediate)],
        _ => &[],
    };
    let mut start = 0;
    let mut parts = Vec::new();
    for (role, height) in heights {
        parts.push((*role, start..start + height));
        start += height;
    }
    parts
}
