//! From what files hold to what the forward pass takes: fused matrices apart.

use std::collections::BTreeMap;
use std::ops::Range;

use super::config::Config;
use super::slots::{Role, Slot};
use super::weights::NamedTensor;
use crate::error::{Error, Result};

/// The weights of a file, rewritten; those that cannot be are left out and give an error each.
pub(super) fn canonical(
    config: &Config,
    stored: BTreeMap<Slot, NamedTensor>,
) -> (BTreeMap<Slot, NamedTensor>, Vec<Error>) {
    let mut slots = BTreeMap::new();
    let mut errors = Vec::new();
    for (slot, entry) in stored {
        let parts = parts(config, slot.role);
        if parts.is_empty() {
            slots.insert(slot, entry);
            continue;
        }
        for (role, rows) in parts {
            match taken(&entry, rows) {
                Ok(part) => {
                    slots.insert(Slot { role, ..slot }, part);
                }
                Err(error) => errors.push(error),
            }
        }
    }
    (slots, errors)
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

fn taken(entry: &NamedTensor, rows: Range<usize>) -> Result<NamedTensor> {
    let tensor = entry.tensor.rows(rows).map_err(|error| error.tensor(&entry.name))?;
    Ok(NamedTensor { name: entry.name.clone(), tensor })
}
