//! The index of a model in several files.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Container, json};
use crate::error::{Code, Error, Result};

/// Most shards of one model.
const SHARDS_MAX: usize = 1024;

/// `model.safetensors.index.json`: which shard holds which tensor.
#[derive(Debug)]
pub struct ShardIndex {
    /// Tensor name to shard file name.
    pub weight_map: BTreeMap<String, String>,
    /// Shard file names, sorted, each once.
    pub shards: Vec<String>,
    /// `metadata.total_size`, when given: bytes of all tensors.
    pub total_size: Option<u64>,
}

impl ShardIndex {
    /// Parses the index. Shard names are plain file names: they cannot lead out of the directory.
    ///
    /// # Errors
    /// [`Code::StIndex`], or [`Code::LimitExceeded`] for too many shards.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let index = json::object(bytes, Code::StIndex)?;
        let map =
            index.get("weight_map").and_then(serde_json::Value::as_object).ok_or_else(|| {
                Error::new(Code::StIndex).field("weight_map").expected("an object").found("none")
            })?;
        let mut weight_map = BTreeMap::new();
        let mut shards = BTreeSet::new();
        for (name, shard) in map {
            let shard =
                shard.as_str().filter(|shard| is_plain_file_name(shard)).ok_or_else(|| {
                    Error::new(Code::StIndex)
                        .field(format!("weight_map.{name}"))
                        .expected("a file name ending in .safetensors, without a path")
                        .found(shard)
                })?;
            shards.insert(shard);
            if shards.len() > SHARDS_MAX {
                return Err(Error::new(Code::LimitExceeded)
                    .field("weight_map")
                    .expected(format_args!("at most {SHARDS_MAX} shards"))
                    .found("more"));
            }
            weight_map.insert(name.clone(), shard.to_owned());
        }
        if shards.is_empty() {
            return Err(Error::new(Code::StIndex).field("weight_map").expected("a tensor"));
        }
        let shards = shards.into_iter().map(str::to_owned).collect();
        let total_size =
            index.get("metadata").and_then(|metadata| metadata.get("total_size")).and_then(as_size);
        Ok(Self { weight_map, shards, total_size })
    }

    /// Checks that the shards, parsed in the order of [`ShardIndex::shards`], hold exactly the tensors that
    /// the index gives them.
    ///
    /// # Errors
    /// [`Code::StIndex`] with the tensor that is missing, misplaced or unlisted.
    pub fn check(&self, containers: &[Container<'_>]) -> Result<()> {
        let wrong = |name: &str| Error::new(Code::StIndex).tensor(name);
        let mut seen = BTreeSet::new();
        for (shard, container) in self.shards.iter().zip(containers) {
            for entry in &container.tensors {
                match self.weight_map.get(&*entry.name) {
                    Some(expected) if expected == shard => {
                        seen.insert(&*entry.name);
                    }
                    Some(expected) => {
                        return Err(wrong(&entry.name).expected(expected).found(shard));
                    }
                    None => {
                        return Err(wrong(&entry.name).expected("an index entry").found("none"));
                    }
                }
            }
        }
        match self.weight_map.iter().find(|(name, _)| !seen.contains(name.as_str())) {
            None => Ok(()),
            Some((name, shard)) => {
                Err(wrong(name).expected(format_args!("the tensor in {shard}")).found("none"))
            }
        }
    }
}

/// A byte count; some writers store it as a float.
fn as_size(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|size| *size >= 0.0).map(|size| size as u64))
}

/// Whether `name` is a SafeTensors file name that stays in its directory on every system.
fn is_plain_file_name(name: &str) -> bool {
    let plain =
        |character: char| !character.is_control() && !matches!(character, '/' | '\\' | ':' | '\0');
    name.ends_with(".safetensors")
        && name.len() <= 255
        && !name.starts_with('.')
        && name.chars().all(plain)
}
