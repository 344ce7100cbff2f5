//! Writes APR version 2, byte for byte as the published writers do.

use std::io::Write;

use serde_json::{Map, Value};

use super::{Checksums, Counted, Outgoing, check_unique, put_payload};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::format::apr::{ALIGNMENT, FLAG_ROW_MAJOR, HEADER_BYTES, MAGIC, header_checksum};

/// Longest name that the published writers keep.
const NAME_MAX: usize = 256;

/// Writes an APR file: metadata as given, tensors sorted by name, both checksums.
///
/// # Errors
/// [`Code::DtypeUnsupported`] for a dtype without an APR code, [`Code::AprDuplicate`], [`Code::AprIndex`] for a
/// name that is empty or too long, [`Code::LimitExceeded`] for metadata of 4 GiB, [`Code::Io`].
pub fn write_apr<W: Write>(
    out: W,
    metadata: &Map<String, Value>,
    tensors: &[Outgoing],
) -> Result<Checksums> {
    check_unique(tensors, Code::AprDuplicate)?;
    let mut order: Vec<&Outgoing> = tensors.iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    let metadata =
        serde_json::to_vec(metadata).map_err(|error| Error::new(Code::AprMetadata).found(error))?;
    let index = index(&order)?;
    let mut out = Counted::new(out);
    out.put(&header(metadata.len() as u64, index.len() as u64, order.len())?)?;
    out.put(&metadata)?;
    out.pad(ALIGNMENT)?;
    out.put(&index)?;
    out.pad(ALIGNMENT)?;
    let mut checksums = Checksums::new();
    for tensor in order {
        put_payload(&mut out, tensor, &mut checksums)?;
        out.pad(ALIGNMENT)?;
    }
    let footer = out.checksum.clone().finalize();
    out.put(&footer.to_le_bytes())?;
    Ok(checksums)
}

fn header(metadata_len: u64, index_len: u64, tensors: usize) -> Result<Vec<u8>> {
    let too_large = |_| Error::new(Code::LimitExceeded).expected("sizes below 2^32");
    let index_at = HEADER_BYTES + metadata_len.next_multiple_of(ALIGNMENT);
    let data_at = index_at + index_len.next_multiple_of(ALIGNMENT);
    let mut header = MAGIC.to_vec();
    header.extend([2, 0]);
    header.extend(FLAG_ROW_MAJOR.to_le_bytes());
    header.extend(u32::try_from(tensors).map_err(too_large)?.to_le_bytes());
    header.extend(HEADER_BYTES.to_le_bytes());
    header.extend(u32::try_from(metadata_len).map_err(too_large)?.to_le_bytes());
    header.extend(index_at.to_le_bytes());
    header.extend(data_at.to_le_bytes());
    let checksum_at = header.len();
    header.resize(HEADER_BYTES as usize, 0);
    let checksum = header_checksum(&header);
    header[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_le_bytes());
    Ok(header)
}

fn index(order: &[&Outgoing]) -> Result<Vec<u8>> {
    let mut index = Vec::new();
    let mut offset = 0u64;
    for tensor in order {
        let name = tensor.name.as_bytes();
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Error::new(Code::AprIndex)
                .tensor(&tensor.name)
                .expected(format_args!("a name of 1 to {NAME_MAX} bytes"))
                .found(name.len()));
        }
        let (shape, size) = (tensor.shape(), tensor.size()?);
        index.extend((name.len() as u16).to_le_bytes());
        index.extend(name);
        index.push(code(tensor)?);
        index.push(shape.rank() as u8);
        for dim in shape.dims() {
            index.extend(dim.to_le_bytes());
        }
        index.extend(offset.to_le_bytes());
        index.extend(size.to_le_bytes());
        offset = (offset + size).next_multiple_of(ALIGNMENT);
    }
    Ok(index)
}

/// The code of a dtype: that of the container writers where they have one, else the `ggml_type` id.
fn code(tensor: &Outgoing) -> Result<u8> {
    Ok(match tensor.dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Q4_0 => 2,
        Dtype::F64 | Dtype::Q4_1 => 3,
        Dtype::I32 => 4,
        Dtype::I64 => 5,
        Dtype::I8 | Dtype::Q5_0 => 6,
        Dtype::U8 | Dtype::Q5_1 => 7,
        Dtype::Q8_0 => 8,
        Dtype::Q2K => 10,
        Dtype::Q3K => 11,
        Dtype::Q4K => 12,
        Dtype::Q5K => 13,
        Dtype::Q6K => 14,
        Dtype::BF16 => 30,
        Dtype::AprQ4 => 128,
        Dtype::AprQ8 => 129,
        Dtype::I16 | Dtype::Q8K => {
            return Err(Error::new(Code::DtypeUnsupported)
                .tensor(&tensor.name)
                .expected("a dtype of the APR format")
                .found(tensor.dtype));
        }
    })
}
