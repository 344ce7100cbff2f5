//! Container to container, in every direction, requantised where asked.
//!
//! Stored bytes pass through untouched unless another dtype is asked for. A model is first taken out of its container
//! (`portable`), then written in the words of the other one; what that one has no words for is carried along
//! (`carried`). What cannot be said at all (biases of unknown roles, a pre-tokenizer without a name) is an error, not
//! a loss, and so is a weight that is not finite.

use std::io::Write;

use super::write::{Checksums, Outgoing, write_apr, write_gguf, write_safetensors};
use super::{Container, Format, Metadata, Source, Typed};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::model::{Model, Slot};
use crate::text::Tokenizer;

mod apr;
mod carried;
mod file;
mod gguf;
mod portable;
mod precision;
mod safetensors;
mod verify;
mod words;

pub use file::{Progress, Summary, convert_file};
pub use precision::{Precision, Recipe};

use carried::OwnedPair;
use portable::Portable;

/// Writes the weight file of `model` in format `to`. The side files of a Hugging Face directory are not written:
/// [`convert_file`] does that.
///
/// # Errors
/// [`Code::ConversionUnsupported`], [`Code::ConversionMismatch`], [`Code::NonFinite`], and those of the parsers and of
/// the writer.
pub fn convert<W: Write>(
    model: &Model,
    to: Format,
    precision: Precision,
    out: W,
) -> Result<Checksums> {
    Plan::new(model, to, precision)?.write(out)
}

/// Writes a model in its own format, as it is: shards joined, metadata carried, values unchecked.
///
/// # Errors
/// Those of the parser and of the writer.
pub fn rewrite<W: Write>(source: &Source, out: W) -> Result<Checksums> {
    let containers = source.containers()?;
    let mut tensors = Vec::new();
    for (shard, container) in containers.iter().enumerate() {
        for entry in &container.tensors {
            let tensor = source.tensor(shard, entry)?;
            tensors.push(Outgoing::unchanged(entry.name.clone(), tensor));
        }
    }
    Plan::in_place(source, &containers, tensors, Precision::Stored)?.write(out)
}

/// The dtype that each tensor of `model` gets in format `to` and `precision`, by slot. Nothing is written and no
/// weight is read.
///
/// # Errors
/// Those of the parser.
pub fn dtypes(
    model: &Model,
    to: Format,
    precision: Precision,
) -> Result<Vec<(Option<Slot>, Dtype)>> {
    let (config, tied) = (model.config(), portable::is_tied(model)?);
    let mut dtypes = Vec::new();
    for container in model.source().containers()? {
        for entry in &container.tensors {
            let slot = Slot::parse_in(&entry.name, config.family.dialect()).map(|(slot, _)| slot);
            dtypes.push((slot, precision.dtype(to, slot, &entry.view, config, tied)));
        }
    }
    Ok(dtypes)
}

/// Metadata and tensors of a weight file that is to be written.
enum Plan {
    SafeTensors {
        metadata: std::collections::BTreeMap<String, String>,
        tensors: Vec<Outgoing>,
        side_files: std::collections::BTreeMap<String, Vec<u8>>,
    },
    Gguf {
        pairs: Vec<OwnedPair>,
        tensors: Vec<Outgoing>,
    },
    Apr {
        metadata: serde_json::Map<String, serde_json::Value>,
        tensors: Vec<Outgoing>,
    },
}

impl Plan {
    fn new(model: &Model, to: Format, precision: Precision) -> Result<Self> {
        check_vocabulary(model)?;
        let same = model.format() == to && to != Format::SafeTensors;
        if same {
            let containers = model.source().containers()?;
            let tensors = own_tensors(model, &containers, precision)?;
            let mut plan = Self::in_place(model.source(), &containers, tensors, precision)?;
            if let Self::Apr { metadata, .. } = &mut plan {
                apr::take_in_side_files(model, metadata)?;
            }
            return Ok(plan);
        }
        let portable = Portable::new(model)?;
        Ok(match to {
            Format::SafeTensors => {
                let (metadata, tensors) = safetensors::build(&portable, precision)?;
                let side_files = safetensors::side_files(&portable, &tensors)?;
                Self::SafeTensors { metadata, tensors, side_files }
            }
            Format::Gguf => {
                let (pairs, tensors) = gguf::build(&portable, precision)?;
                Self::Gguf { pairs, tensors }
            }
            Format::Apr => {
                let (metadata, tensors) = apr::build(&portable, precision)?;
                Self::Apr { metadata, tensors }
            }
        })
    }

    /// The same container with `tensors` in it.
    fn in_place(
        source: &Source,
        containers: &[Container<'_>],
        tensors: Vec<Outgoing>,
        precision: Precision,
    ) -> Result<Self> {
        let missing = || Error::new(Code::NotAModel);
        Ok(match &containers.first().ok_or_else(missing)?.metadata {
            Metadata::SafeTensors(metadata) => Self::SafeTensors {
                metadata: metadata.clone(),
                tensors,
                side_files: std::collections::BTreeMap::new(),
            },
            Metadata::Apr(metadata) => {
                let metadata = apr::restored(metadata.clone(), &tensors, precision)?;
                Self::Apr { metadata, tensors }
            }
            Metadata::Gguf(_) => {
                let bytes = source.files().first().ok_or_else(missing)?.bytes();
                let pairs = super::gguf::typed_pairs(bytes)?;
                let pairs = pairs.into_iter().map(|(key, Typed { id, value })| OwnedPair {
                    key: key.to_owned(),
                    id,
                    value: value.into(),
                });
                let pairs = gguf::restored(pairs.collect(), &tensors, precision);
                Self::Gguf { pairs, tensors }
            }
        })
    }

    fn tensors(&self) -> &[Outgoing] {
        match self {
            Self::SafeTensors { tensors, .. }
            | Self::Gguf { tensors, .. }
            | Self::Apr { tensors, .. } => tensors,
        }
    }

    fn write<W: Write>(&self, out: W) -> Result<Checksums> {
        match self {
            Self::SafeTensors { metadata, tensors, .. } => {
                write_safetensors(out, metadata, tensors)
            }
            Self::Apr { metadata, tensors } => write_apr(out, metadata, tensors),
            Self::Gguf { pairs, tensors } => {
                let pairs: Vec<_> =
                    pairs.iter().map(|pair| (pair.key.clone(), pair.typed())).collect();
                write_gguf(out, &pairs, tensors)
            }
        }
    }
}

/// Refuses a broken tokenizer, and one with more tokens than the embedding has rows. One of a kind that this engine does
/// not know is carried along.
fn check_vocabulary(model: &Model) -> Result<()> {
    let rows = model.config().vocab;
    let is_unknown = |code| matches!(code, Code::TokenizerMissing | Code::TokenizerUnsupported);
    let tokens = match model.tokenizer() {
        Err(error) if is_unknown(error.code()) => return Ok(()),
        tokenizer => tokenizer.map(Tokenizer::vocab_size)?,
    };
    if tokens <= rows {
        return Ok(());
    }
    Err(Error::new(Code::TokenizerInvalid)
        .field("vocabulary")
        .expected(format_args!("at most {rows} tokens, one for each row of the embedding"))
        .found(tokens))
}

/// All tensors of all shards under their own names, in the order they are in, checked.
fn own_tensors(
    model: &Model,
    containers: &[Container<'_>],
    precision: Precision,
) -> Result<Vec<Outgoing>> {
    let (config, tied) = (model.config(), portable::is_tied(model)?);
    let mut tensors = Vec::new();
    for (shard, container) in containers.iter().enumerate() {
        for entry in &container.tensors {
            let tensor = model.source().tensor(shard, entry)?;
            let slot = Slot::parse_in(&entry.name, config.family.dialect()).map(|(slot, _)| slot);
            let dtype = match precision {
                Precision::Stored => tensor.dtype(),
                _ => precision.dtype(model.format(), slot, &entry.view, config, tied),
            };
            let tensor = Outgoing::unchanged(entry.name.clone(), tensor);
            tensors.push(Outgoing { dtype, finite: true, ..tensor });
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests;
