//! Writes models in the three formats, to any [`Write`]; [`super::atomic`] makes files of them.
//!
//! A writer takes metadata in the shape of its format and tensors as handles, and holds at most one converted
//! tensor in memory. It refuses what its format cannot say instead of saying something else.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Write;

use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::quant;
use crate::tensor::{Shape, Tensor, TensorView};

mod apr;
mod gguf;
mod safetensors;

pub use apr::write_apr;
pub use gguf::{ArrayBuf, ValueBuf, write_gguf};
pub use safetensors::write_safetensors;

/// A tensor on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its name in the written file.
    pub name: String,
    /// The dtype it is written in; its stored bytes pass through when that is the dtype it has.
    pub dtype: Dtype,
    /// Where its values come from.
    pub tensor: Tensor,
    /// Number of attention heads whose rows are reordered from halves to adjacent pairs, as llama-type GGUF
    /// files store queries and keys; `None` keeps the order.
    pub interleaved_heads: Option<usize>,
}

impl Outgoing {
    /// `tensor` as it is.
    pub fn unchanged(name: impl Into<String>, tensor: Tensor) -> Self {
        Self { name: name.into(), dtype: tensor.dtype(), tensor, interleaved_heads: None }
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> Shape {
        self.tensor.shape()
    }

    /// Bytes that will be written.
    ///
    /// # Errors
    /// [`Code::TensorRagged`] when the rows are not whole blocks of the dtype.
    pub fn size(&self) -> Result<u64> {
        if self.dtype == self.tensor.dtype() {
            return Ok(self.tensor.bytes().len() as u64);
        }
        let shape = self.shape();
        match self.dtype {
            // One scale in front, unless there is nothing to scale.
            Dtype::AprQ8 if shape.elements() == 0 => Ok(0),
            Dtype::AprQ8 => Ok(shape.elements() + 4),
            Dtype::AprQ4 => Ok(shape.elements().div_ceil(32) * 18),
            dtype => {
                let row =
                    dtype.row_bytes(shape.cols()).map_err(|error| error.tensor(&self.name))?;
                Ok(row * shape.rows())
            }
        }
    }

    /// The bytes to write.
    ///
    /// # Errors
    /// [`Code::NonFinite`] when a value cannot be quantised, [`Code::TensorShape`] when rows cannot be reordered,
    /// [`Code::DtypeUnsupported`].
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        self.converted().map_err(|error| error.tensor(&self.name))
    }

    fn converted(&self) -> Result<Cow<'_, [u8]>> {
        let stored = self.tensor.bytes();
        let ordered = match self.interleaved_heads {
            Some(heads) => Cow::Owned(interleave(stored, self.shape(), heads)?),
            None => Cow::Borrowed(&**stored),
        };
        if self.dtype == self.tensor.dtype() {
            return Ok(ordered);
        }
        let view = TensorView::new(self.tensor.dtype(), self.shape(), &ordered)?;
        let values = view.dequantize()?;
        // Blocks of the flat dtypes run over the whole tensor: to them it is one row.
        let cols = if self.dtype.is_flat() { values.len() } else { view.cols() };
        quant::quantize(self.dtype, cols, &values).map(Cow::Owned)
    }
}

/// Reorders the rows of each head from `[x0 … xn y0 … yn]` to `[x0 y0 x1 y1 …]`.
///
/// The outermost dimension is `heads * head_dim`; what one step along it holds moves as a whole.
fn interleave(bytes: &[u8], shape: Shape, heads: usize) -> Result<Vec<u8>> {
    let rows = shape.dims().first().copied().unwrap_or(0) as usize;
    let whole_heads = heads > 0 && rows > 0 && rows.is_multiple_of(heads * 2);
    if !whole_heads || !bytes.len().is_multiple_of(rows) {
        return Err(Error::new(Code::TensorShape)
            .expected(format_args!("rows of {heads} heads of even size"))
            .found(shape));
    }
    let (row, half) = (bytes.len() / rows, rows / heads / 2);
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(row * half * 2) {
        let (first, second) = head.split_at(row * half);
        for (x, y) in first.chunks_exact(row).zip(second.chunks_exact(row)) {
            out.extend_from_slice(x);
            out.extend_from_slice(y);
        }
    }
    Ok(out)
}

/// Writes, counts and sums up, so that padding and footers can be computed.
struct Counted<W> {
    inner: W,
    written: u64,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Counted<W> {
    fn new(inner: W) -> Self {
        Self { inner, written: 0, checksum: crc32fast::Hasher::new() }
    }

    /// Writes all of `bytes`.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).map_err(|error| Error::new(Code::Io).found(error))?;
        self.written += bytes.len() as u64;
        self.checksum.update(bytes);
        Ok(())
    }

    /// Writes zeros up to the next multiple of `alignment`.
    fn pad(&mut self, alignment: u64) -> Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        self.put(&vec![0; missing as usize])
    }
}

/// Writes the payload of `tensor`, making sure that it has the size that the index announced.
fn put_payload<W: Write>(out: &mut Counted<W>, tensor: &Outgoing) -> Result<()> {
    let (bytes, size) = (tensor.bytes()?, tensor.size()?);
    if bytes.len() as u64 != size {
        return Err(Error::new(Code::TensorBytes)
            .tensor(&tensor.name)
            .expected(format_args!("{size} bytes"))
            .found(format_args!("{} bytes", bytes.len())));
    }
    out.put(&bytes)
}

/// Refuses a name that is given twice.
fn check_unique(tensors: &[Outgoing], code: Code) -> Result<()> {
    let mut names = BTreeSet::new();
    match tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        None => Ok(()),
        Some(tensor) => Err(Error::new(code).tensor(&tensor.name).expected("unique names")),
    }
}

#[cfg(test)]
mod tests;
