//! Container to container: SafeTensors to APR and GGUF, and every format to itself, requantised where asked.
//!
//! Stored bytes pass through untouched unless another dtype is asked for. What a target format has no place for
//! (biases of unknown roles, dtypes it cannot say) is an error, not a loss.

use std::io::Write;

use super::write::{Outgoing, write_apr, write_gguf, write_safetensors};
use super::{Container, Format, Metadata, Source};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::tensor::Shape;

mod apr;
mod gguf;
mod tokenizer;

/// The precision of the written weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As stored, bit for bit, where the target format has the dtype.
    #[default]
    Stored,
    /// Matrices in this dtype, vectors (norms and biases) in F32. Rows that are not whole blocks fall back to
    /// [`Dtype::Q8_0`], then to F16.
    Uniform(Dtype),
}

impl Precision {
    /// The dtype a tensor of `shape`, stored as `stored`, is written in.
    fn dtype(self, stored: Dtype, shape: Shape) -> Dtype {
        let is_float = matches!(stored, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
            || stored.is_quantized();
        match self {
            Self::Uniform(wanted) if is_float => match shape.rank() {
                0 | 1 => Dtype::F32,
                _ => [wanted, Dtype::Q8_0]
                    .into_iter()
                    .find(|dtype| dtype.is_flat() || dtype.row_bytes(shape.cols()).is_ok())
                    .unwrap_or(Dtype::F16),
            },
            Self::Uniform(_) | Self::Stored => stored,
        }
    }
}

/// Writes the model `source` in format `to`.
///
/// # Errors
/// [`Code::ConversionUnsupported`], and those of the parser, of the hyper-parameters and of the writer.
pub fn convert<W: Write>(source: &Source, to: Format, precision: Precision, out: W) -> Result<()> {
    let containers = source.containers()?;
    match (source.format(), to) {
        (Format::SafeTensors, Format::Apr) => {
            let (metadata, tensors) = apr::build(source, &containers, precision)?;
            write_apr(out, &metadata, &tensors)
        }
        (Format::SafeTensors, Format::Gguf) => {
            let (pairs, tensors) = gguf::build(source, &containers, precision)?;
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| (key.clone(), value.value())).collect();
            write_gguf(out, &pairs, &tensors)
        }
        (from, to) if from == to => rewrite(source, &containers, precision, out),
        (from, to) => Err(Error::new(Code::ConversionUnsupported)
            .expected("SafeTensors to APR or GGUF, or a format to itself")
            .found(format_args!("{} to {}", from.name(), to.name()))),
    }
}

/// Writes a model in its own format: shards joined, metadata carried.
fn rewrite<W: Write>(
    source: &Source,
    containers: &[Container<'_>],
    precision: Precision,
    out: W,
) -> Result<()> {
    let tensors = handles(source, containers, precision)?;
    let Some(first) = containers.first() else {
        return Err(Error::new(Code::NotAModel));
    };
    match &first.metadata {
        Metadata::SafeTensors(metadata) => write_safetensors(out, metadata, &tensors),
        Metadata::Apr(metadata) => write_apr(out, metadata, &tensors),
        Metadata::Gguf(pairs) => {
            let whole = pairs.iter().filter(|(key, _)| !key.starts_with("split."));
            let pairs: Vec<_> = whole.map(|(key, value)| ((*key).to_owned(), *value)).collect();
            write_gguf(out, &pairs, &tensors)
        }
    }
}

/// All tensors of all shards under their own names.
fn handles(
    source: &Source,
    containers: &[Container<'_>],
    precision: Precision,
) -> Result<Vec<Outgoing>> {
    let mut tensors = Vec::new();
    for (shard, container) in containers.iter().enumerate() {
        for entry in &container.tensors {
            let tensor = source.tensor(shard, entry)?;
            let dtype = precision.dtype(tensor.dtype(), tensor.shape());
            tensors.push(Outgoing { dtype, ..Outgoing::unchanged(entry.name.clone(), tensor) });
        }
    }
    Ok(tensors)
}

/// The name a model goes by: that of its directory, or of its file without the extension.
fn model_name(source: &Source) -> String {
    let path = source.path();
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
