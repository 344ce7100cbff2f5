//! Model files as borrowed views over bytes.
//!
//! Each container format is parsed by one file and turned into the same [`Container`]: metadata as the
//! format wrote it, and tensors whose bytes were checked against their dtype and shape. Parsers take
//! `&[u8]`, do no I/O and cannot panic; `source` opens files, `mmap` maps them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::tensor::TensorView;

pub mod apr;
pub mod atomic;
pub mod convert;
pub mod gguf;
pub mod json;
pub mod mmap;
pub mod safetensors;
pub mod sniff;
pub mod source;
pub mod value;
pub mod write;

mod cursor;
mod lenience;

pub use source::{Sidecars, Source};
pub use value::{Array, Typed, Value};

/// Most tensors of one file; 2,131 is the largest count seen in the wild (security limits of this reader).
pub const TENSORS_MAX: u64 = 65_536;

/// A container format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// GGUF version 2 or 3.
    Gguf,
    /// SafeTensors, single or sharded.
    SafeTensors,
    /// APR version 2.
    Apr,
}

impl Format {
    /// Every format.
    pub const ALL: &'static [Self] = &[Self::Gguf, Self::SafeTensors, Self::Apr];

    /// Lower-case name used in case ids and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::SafeTensors => "safetensors",
            Self::Apr => "apr",
        }
    }
}

/// A parsed file: metadata and tensors, borrowed from its bytes.
#[derive(Debug)]
pub struct Container<'a> {
    /// Which format.
    pub format: Format,
    /// Format version: 2 or 3 for GGUF, 2 for APR, 1 for SafeTensors (which has none).
    pub version: u32,
    /// Metadata, as the format wrote it.
    pub metadata: Metadata<'a>,
    /// Tensors in file-index order; names are unique.
    pub tensors: Vec<TensorEntry<'a>>,
    /// What is legal but worth knowing (no footer, trailing bytes, gaps).
    pub notes: Vec<Note>,
}

impl<'a> Container<'a> {
    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry<'a>> {
        self.tensors.iter().find(|entry| entry.name == name)
    }
}

/// A named tensor inside a container.
#[derive(Clone, Debug)]
pub struct TensorEntry<'a> {
    /// The name in the file.
    pub name: Cow<'a, str>,
    /// Offset of the first byte from the start of the file.
    pub offset: u64,
    /// Dtype, shape and bytes, already checked against each other.
    pub view: TensorView<'a>,
}

/// Something legal that a careful reader wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Stable short name, for example `apr-no-footer`.
    pub rule: &'static str,
    /// One sentence.
    pub text: String,
}

/// Metadata in the shape its format gives it.
#[derive(Debug)]
pub enum Metadata<'a> {
    /// GGUF key-value pairs in file order, keys unique.
    Gguf(Vec<(&'a str, Value<'a>)>),
    /// SafeTensors `__metadata__`: strings only.
    SafeTensors(BTreeMap<String, String>),
    /// APR metadata: one JSON object.
    Apr(serde_json::Map<String, serde_json::Value>),
}

impl<'a> Metadata<'a> {
    /// The GGUF value under `key`; `None` for other formats.
    pub fn gguf(&self, key: &str) -> Option<&Value<'a>> {
        match self {
            Self::Gguf(pairs) => {
                pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
            }
            Self::SafeTensors(_) | Self::Apr(_) => None,
        }
    }

    /// The APR value under `key` or, for hyper-parameters, under one of its aliases; `null` counts as absent.
    /// `None` for other formats.
    pub fn apr(&self, key: &str) -> Option<&serde_json::Value> {
        match self {
            Self::Apr(map) => apr::field(map, key),
            Self::Gguf(_) | Self::SafeTensors(_) => None,
        }
    }
}
