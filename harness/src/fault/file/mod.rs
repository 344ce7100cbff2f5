//! File faults: damage to model files and their side files, each retelling a defect that shipped somewhere.

#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "names of carried fixtures and of tensors, spelled in one way only"
)]

mod metadata;
mod structure;
mod text;
mod values;

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::surgery::{self, Found};
use super::{FaultInfo, Plant};
use crate::case::ModelRef;

/// Changes the bytes of a file called so; `None` when the fault does not concern this file.
type Mutation = fn(name: &str, bytes: &[u8]) -> Option<Vec<u8>>;

/// A planted damage of files.
#[derive(Clone, Copy)]
pub struct FileFault {
    info: FaultInfo,
    mutate: Mutation,
}

impl std::fmt::Debug for FileFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileFault").field("id", &self.info.id).finish_non_exhaustive()
    }
}

impl Plant for FileFault {
    fn id(&self) -> &str {
        self.info.id
    }

    fn mutate_file(&self, _: &ModelRef, name: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
        (self.mutate)(name.file_name()?.to_str()?, bytes)
    }
}

impl FileFault {
    /// What the fault is.
    pub fn info(&self) -> FaultInfo {
        self.info
    }
}

const fn fault(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    mutate: Mutation,
) -> FileFault {
    FileFault { info: super::library::info(id, what, incidents), mutate }
}

/// Every file fault.
pub(super) fn all() -> impl Iterator<Item = FileFault> {
    [structure::ALL, values::ALL, metadata::ALL, text::ALL].into_iter().flatten().copied()
}

fn changed(bytes: &[u8], edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    edit(&mut copy);
    copy
}

/// Whether a file holds weights.
fn weights(name: &str) -> bool {
    [".gguf", ".safetensors", ".apr"].iter().any(|extension| name.ends_with(extension))
}

fn has(found: &Found, endings: &[&str]) -> bool {
    endings.iter().any(|ending| found.name.ends_with(ending))
}

fn is_embedding(found: &Found) -> bool {
    has(found, &["embed_tokens.weight", "token_embd.weight"])
}

fn is_down(found: &Found, layer: usize) -> bool {
    let hugging_face = format!("layers.{layer}.mlp.down_proj.weight");
    let gguf = format!("blk.{layer}.ffn_down.weight");
    has(found, &[&hugging_face, &gguf])
}

fn rename_either(
    name: &str,
    bytes: &[u8],
    hugging_face: (&str, &str),
    gguf: (&str, &str),
) -> Option<Vec<u8>> {
    if !weights(name) {
        return None;
    }
    surgery::rename(bytes, hugging_face.0, hugging_face.1)
        .or_else(|| surgery::rename(bytes, gguf.0, gguf.1))
}

/// Replaces the first occurrence of `from` by `to` of the same length.
fn replace_bytes(bytes: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    if from.len() != to.len() {
        return None;
    }
    let place = bytes.windows(from.len()).position(|window| window == from)?;
    Some(changed(bytes, |bytes| bytes[place..place + to.len()].copy_from_slice(to)))
}

fn apr_text(
    name: &str,
    bytes: &[u8],
    edit: impl FnOnce(&mut Map<String, Json>),
) -> Option<Vec<u8>> {
    if name.ends_with(".apr") { surgery::edit_apr_metadata(bytes, edit) } else { None }
}
