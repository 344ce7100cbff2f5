//! Writes models in the three formats, to any [`Write`]; [`super::atomic`] makes files of them.
//!
//! A writer takes metadata in the shape of its format and tensors as handles, and holds at most a few
//! megabytes of converted values in memory. It refuses what its format cannot say instead of saying something else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use crate::error::{Code, Error, Result};

mod apr;
mod gguf;
mod payload;
mod safetensors;

pub use apr::write_apr;
pub use gguf::{ArrayBuf, ValueBuf, write_gguf};
pub use payload::{Outgoing, RowOrder};
pub use safetensors::write_safetensors;

/// CRC-32 of the payload of each written tensor, by name: what a reader of the file must find.
pub type Checksums = BTreeMap<String, u32>;

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

/// Writes the payload of `tensor`, making sure that it has the size that the index announced, and notes its checksum.
fn put_payload<W: Write>(
    out: &mut Counted<W>,
    tensor: &Outgoing,
    checksums: &mut Checksums,
) -> Result<()> {
    let (start, size) = (out.written, tensor.size()?);
    let mut checksum = crc32fast::Hasher::new();
    tensor.pour(&mut |bytes| {
        checksum.update(bytes);
        out.put(bytes)
    })?;
    checksums.insert(tensor.name.clone(), checksum.finalize());
    if out.written - start == size {
        return Ok(());
    }
    Err(Error::new(Code::TensorBytes)
        .tensor(&tensor.name)
        .expected(format_args!("{size} bytes"))
        .found(format_args!("{} bytes", out.written - start)))
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
