//! Writes a single SafeTensors file.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value, json};

use super::{Checksums, Counted, Outgoing, check_unique, put_payload};
use crate::error::{Code, Error, Result};
use crate::format::safetensors::HEADER_MAX;

/// The header is padded so that the data begins at a multiple of this.
const HEADER_ALIGNMENT: usize = 8;

/// Writes a SafeTensors file with `metadata` as `__metadata__` (left out when empty).
///
/// Tensors are ordered by falling element size, then by name, as the reference writer does: so all are aligned.
///
/// # Errors
/// [`Code::DtypeUnsupported`] for block dtypes, [`Code::StDuplicate`], [`Code::StHeaderLength`], [`Code::Io`].
pub fn write_safetensors<W: Write>(
    out: W,
    metadata: &BTreeMap<String, String>,
    tensors: &[Outgoing],
) -> Result<Checksums> {
    check_unique(tensors, Code::StDuplicate)?;
    let mut order: Vec<&Outgoing> = tensors.iter().collect();
    order.sort_by(|a, b| {
        let sizes = b.dtype.block_bytes().cmp(&a.dtype.block_bytes());
        sizes.then_with(|| a.name.cmp(&b.name))
    });
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut begin = 0;
    for tensor in &order {
        let end = begin + tensor.size()?;
        header.insert(tensor.name.clone(), describe(tensor, begin, end)?);
        begin = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    if header.len() as u64 > HEADER_MAX {
        return Err(Error::new(Code::StHeaderLength)
            .expected(format_args!("at most {HEADER_MAX} bytes"))
            .found(header.len()));
    }
    let mut out = Counted::new(out);
    out.put(&(header.len() as u64).to_le_bytes())?;
    out.put(&header)?;
    let mut checksums = Checksums::new();
    for tensor in order {
        put_payload(&mut out, tensor, &mut checksums)?;
    }
    Ok(checksums)
}

fn describe(tensor: &Outgoing, begin: u64, end: u64) -> Result<Value> {
    let dtype = tensor.dtype.safetensors_name().ok_or_else(|| {
        Error::new(Code::DtypeUnsupported)
            .tensor(&tensor.name)
            .expected("a dtype of the SafeTensors format")
            .found(tensor.dtype)
    })?;
    Ok(json!({ "dtype": dtype, "shape": tensor.shape().dims(), "data_offsets": [begin, end] }))
}
