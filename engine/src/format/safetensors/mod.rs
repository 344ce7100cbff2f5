//! Reads SafeTensors (format description in the safetensors repository), stricter than its reference.
//!
//! The file is a u64 header length, a JSON object and the data. The reference reader keeps the last of two
//! equal names and has no bound on rank or tensor count; here both are refused. The header is walked while it
//! is parsed, so that no structure larger than the limits is ever built.

mod header;
mod shards;

use std::borrow::Cow;
use std::cmp::Ordering;

use super::cursor::Cursor;
use super::lenience::Lenience;
use super::{Container, Format, Metadata};
use crate::error::{Code, Error, Result};

pub use self::shards::ShardIndex;

/// Longest header. The reference allows 100 MB, which costs it up to 18 times that in memory.
pub const HEADER_MAX: u64 = 16 << 20;

/// Parses a whole SafeTensors file.
///
/// # Errors
/// The `E02xx` code of the first broken invariant, [`Code::DtypeUnsupported`] for a dtype of the format that
/// this engine does not have, [`Code::LimitExceeded`] for too many tensors.
pub fn parse(bytes: &[u8]) -> Result<Container<'_>> {
    read(bytes, &mut Lenience::none())
}

/// Parses what can be parsed.
///
/// # Errors
/// As [`parse`], for what `lenience` does not keep.
pub(super) fn read<'a>(bytes: &'a [u8], lenience: &mut Lenience) -> Result<Container<'a>> {
    let (header, data_start) = header_text(bytes)?;
    let walked = header::walk(header, lenience)?;
    let data_len = bytes.len() as u64 - data_start;
    check_layout(&walked.tensors, data_len, lenience)?;
    let mut tensors = Vec::new();
    for (name, raw) in walked.tensors {
        tensors.extend(lenience.pass(raw.resolve(name, bytes, data_start))?.flatten());
    }
    Ok(Container {
        format: Format::SafeTensors,
        version: 1,
        metadata: Metadata::SafeTensors(walked.metadata),
        tensors,
        notes: Vec::new(),
    })
}

/// The text of the header, and where the data begins.
fn header_text(bytes: &[u8]) -> Result<(&str, u64)> {
    let mut cursor = Cursor::new(bytes, Code::StTruncated);
    let len = cursor.u64()?;
    if !(2..=HEADER_MAX).contains(&len) || len > cursor.remaining() {
        return Err(Error::new(Code::StHeaderLength)
            .at(0)
            .expected(format_args!("2 to {} bytes", HEADER_MAX.min(cursor.remaining())))
            .found(format_args!("{len} bytes")));
    }
    let header = cursor.take(len)?;
    if header.first() != Some(&b'{') {
        return Err(Error::new(Code::StHeaderJson)
            .at(8)
            .expected("`{`")
            .found(format_args!("`{}`", header[..1].escape_ascii())));
    }
    let text = std::str::from_utf8(header).map_err(|error| {
        Error::new(Code::StHeaderJson)
            .at(8 + error.valid_up_to() as u64)
            .expected("UTF-8")
            .found("other bytes")
    })?;
    Ok((text, cursor.offset()))
}

/// Payloads must cover the data from its first to its last byte, without overlap or gap, in any order.
fn check_layout(
    tensors: &[(Cow<'_, str>, header::Raw)],
    data_len: u64,
    lenience: &mut Lenience,
) -> Result<()> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, raw)| (raw.begin, raw.end));
    let mut end = 0;
    for (name, raw) in order {
        if raw.begin != end {
            let apart = Error::new(Code::StOffsets)
                .tensor(name)
                .expected(format_args!("data that begins at {end}, where the one before ends"))
                .found(raw.begin);
            lenience.pass::<()>(Err(apart))?;
        }
        end = end.max(raw.end);
    }
    lenience.pass(check_end(end, data_len))?;
    Ok(())
}

/// The data end where the last payload does.
fn check_end(end: u64, data_len: u64) -> Result<()> {
    let (code, hint) = match end.cmp(&data_len) {
        Ordering::Equal => return Ok(()),
        Ordering::Greater => {
            (Code::StTruncated, "the file is damaged or its download was cut short")
        }
        Ordering::Less => (Code::StTrailing, ""),
    };
    let error = Error::new(code).expected(format_args!("{end} bytes of data"));
    Err(error.found(format_args!("{data_len} bytes")).hint(hint))
}

#[cfg(test)]
mod tests;
