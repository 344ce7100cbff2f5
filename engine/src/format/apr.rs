//! Reads APR version 2: 64-byte header, JSON metadata, binary tensor index, payloads, checksum footer.
//!
//! Where published writers differ, this reader accepts what they wrote and nothing else: payloads in index order
//! or any other, a missing footer (noted), dtype codes with two meanings (decided by the payload size), K-quant
//! rows padded to whole blocks or blocks over the flattened tensor. Flags that change the meaning of the bytes are
//! refused, and so is metadata that two readers would understand differently.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::cursor::{Cursor, align_up, range};
use super::lenience::Lenience;
use super::{Container, Format, Metadata, Note, TENSORS_MAX, TensorEntry, json};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::tensor::{RANK_MAX, Shape, TensorView};

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"APR\0";
/// Bytes of the header.
pub const HEADER_BYTES: u64 = 64;
/// Alignment of sections and payloads.
pub const ALIGNMENT: u64 = 64;
/// Bytes of the checksum at the end.
pub const FOOTER_BYTES: u64 = 4;
/// The flag that says "row-major", set by all writers but one.
pub const FLAG_ROW_MAJOR: u16 = 0x0400;
/// Longest metadata; a vocabulary of 300,000 tokens with merges takes about 20 MB.
const METADATA_MAX: u64 = 64 << 20;
/// Least bytes of an index entry: name length, dtype, rank, offset, size.
const ENTRY_BYTES_MIN: u64 = 2 + 1 + 1 + 8 + 8;
/// Bits of the header checksum field.
const CHECKSUM_AT: usize = 40;

/// Flags that must be refused, with the reason.
const REFUSED_FLAGS: &[(u16, &str)] = &[
    (0x0001, "LZ4 compressed"),
    (0x0002, "Zstandard compressed"),
    (0x0004, "encrypted"),
    (0x0008, "signed, and the signature cannot be verified"),
    (0x0010, "one shard of several"),
    (0x0800, "column-major"),
];
/// Flags that mean nothing in version 2.
const UNDEFINED_FLAGS: u16 = 0xF000;

/// Other things whose names begin with `APR`.
const OTHER_MAGICS: &[([u8; 4], &str, &str)] = &[
    (*b"APRN", "a version 1 file of a classic model", "only language models in version 2 are read"),
    (*b"APR1", "the historic magic `APR1`", "convert the model again"),
    (*b"APR2", "the historic magic `APR2`", "convert the model again"),
    (*b"APRT", "a dump of one tensor, not a model", "open the model it was made from"),
];

/// Spellings of the same hyper-parameter, canonical one first.
const ALIASES: &[&[&str]] = &[
    &["hidden_size", "hidden_dim", "d_model", "n_embd"],
    &["num_layers", "n_layers", "num_hidden_layers", "n_layer"],
    &["num_heads", "n_heads", "num_attention_heads", "n_head"],
    &["num_kv_heads", "n_kv_heads", "num_key_value_heads"],
    &["vocab_size", "n_vocab"],
    &["intermediate_size", "ffn_dim", "intermediate_dim", "n_inner"],
    &["max_position_embeddings", "max_seq_len", "context_length", "n_ctx"],
    &["rms_norm_eps", "layer_norm_eps", "norm_eps"],
];

/// The value that `metadata` holds under `canonical` or one of its aliases; `null` counts as absent.
pub fn field<'m>(metadata: &'m Map<String, Value>, canonical: &str) -> Option<&'m Value> {
    let spellings = ALIASES.iter().find(|spellings| spellings.first() == Some(&canonical));
    let get = |key: &str| metadata.get(key).filter(|value| !value.is_null());
    match spellings {
        Some(spellings) => spellings.iter().find_map(|key| get(key)),
        None => get(canonical),
    }
}

/// Whether `key` is a spelling of a hyper-parameter that is not the canonical one.
pub(super) fn is_alias(key: &str) -> bool {
    ALIASES.iter().any(|spellings| spellings.iter().skip(1).any(|spelling| *spelling == key))
}

/// Parses a whole APR file and verifies both checksums.
///
/// # Errors
/// The `E03xx` code of the first broken invariant.
pub fn parse(bytes: &[u8]) -> Result<Container<'_>> {
    read(bytes, true, &mut Lenience::none())
}

/// Parses without reading the payloads: everything but the footer checksum is verified.
///
/// # Errors
/// As [`parse`].
pub fn parse_structure(bytes: &[u8]) -> Result<Container<'_>> {
    read(bytes, false, &mut Lenience::none())
}

/// Parses what can be parsed; the checksum over the whole file only when `verify`.
///
/// # Errors
/// As [`parse`], for what `lenience` does not keep.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    verify: bool,
    lenience: &mut Lenience,
) -> Result<Container<'a>> {
    let header = Header::read(bytes, lenience)?;
    let metadata = lenience.pass(read_metadata(bytes, &header))?.unwrap_or_default();
    let tensors = read_index(bytes, &header, lenience)?;
    let mut notes = header.notes();
    check_overlap(&tensors, lenience)?;
    // Of a file that does not end where its tensors do, no four bytes are known to be the footer.
    let end = lenience.pass(check_end(bytes.len() as u64, header.data, &tensors))?;
    if end == Some(None) {
        let text =
            "the file has no checksum footer: a damaged weight would not be noticed".to_owned();
        notes.push(Note { rule: "apr-no-footer", text });
    }
    if verify && end.flatten().is_some() {
        lenience.pass(verify_footer(bytes))?;
    }
    Ok(Container {
        format: Format::Apr,
        version: header.major.into(),
        metadata: Metadata::Apr(metadata),
        tensors,
        notes,
    })
}

/// Compares the footer with the checksum of all bytes before it.
///
/// # Errors
/// [`Code::AprFooterChecksum`].
fn verify_footer(bytes: &[u8]) -> Result<()> {
    let Some((body, footer)) = bytes.split_last_chunk::<4>() else {
        return Ok(());
    };
    let (expected, found) = (crc32fast::hash(body), u32::from_le_bytes(*footer));
    if expected == found {
        return Ok(());
    }
    Err(Error::new(Code::AprFooterChecksum)
        .at(body.len() as u64)
        .expected(format_args!("{expected:08x}"))
        .found(format_args!("{found:08x}"))
        .hint("the file is damaged: fetch or convert it again"))
}

struct Header {
    major: u8,
    minor: u8,
    flags: u16,
    tensors: u32,
    metadata: (u64, u64),
    index: u64,
    data: u64,
}

impl Header {
    fn read(bytes: &[u8], lenience: &mut Lenience) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, Code::AprTruncated);
        let header = cursor.clone().take(HEADER_BYTES)?;
        check_magic(cursor.take(4)?)?;
        let (major, minor) = (cursor.u8()?, cursor.u8()?);
        let flags = cursor.u16()?;
        let tensors = cursor.u32()?;
        let metadata_at = cursor.u64()?;
        let metadata = (metadata_at, cursor.u32()?.into());
        let index = cursor.u64()?;
        let data = cursor.u64()?;
        lenience.pass(check_header_checksum(header, cursor.u32()?))?;
        if major != 2 {
            return Err(Error::new(Code::AprVersion).at(4).expected("version 2").found(major));
        }
        if let Some((_, what)) = REFUSED_FLAGS.iter().find(|(mask, _)| flags & mask != 0) {
            let error = Error::new(Code::AprFlags)
                .at(6)
                .expected("plain row-major tensors in one file")
                .found(format_args!("flags {flags:#06x}: {what}"));
            lenience.pass::<()>(Err(error))?;
        }
        let header = Self { major, minor, flags, tensors, metadata, index, data };
        header.check_sections(bytes.len() as u64)?;
        Ok(header)
    }

    /// Header, metadata, index and data follow each other, and all of them lie in the file.
    fn check_sections(&self, file_len: u64) -> Result<()> {
        let wrong = |at: u64, what: &str, low: u64, found: u64| {
            Error::new(Code::AprOffsets)
                .at(at)
                .expected(format_args!("{what} from {low} to {file_len}"))
                .found(found)
        };
        let (start, len) = self.metadata;
        if start < HEADER_BYTES || start > file_len {
            return Err(wrong(12, "a metadata offset", HEADER_BYTES, start));
        }
        let end = start.saturating_add(len);
        if self.index < end || self.index > file_len {
            return Err(wrong(24, "a tensor index offset", end, self.index));
        }
        if self.data < self.index || self.data > file_len {
            return Err(wrong(32, "a data offset", self.index, self.data));
        }
        Ok(())
    }

    fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.minor != 0 {
            let text = format!("minor version {}, written later than this reader", self.minor);
            notes.push(Note { rule: "apr-minor-version", text });
        }
        if self.flags & UNDEFINED_FLAGS != 0 {
            let text = format!("undefined flags {:#06x}", self.flags & UNDEFINED_FLAGS);
            notes.push(Note { rule: "apr-undefined-flags", text });
        }
        let aligned = |offset: u64| offset.is_multiple_of(ALIGNMENT);
        if !(aligned(self.metadata.0) && aligned(self.index) && aligned(self.data)) {
            let text = "sections do not begin at multiples of 64".to_owned();
            notes.push(Note { rule: "apr-unaligned", text });
        }
        notes
    }
}

fn check_magic(magic: &[u8]) -> Result<()> {
    if magic == MAGIC {
        return Ok(());
    }
    let error = Error::new(Code::AprVersion).at(0).expected("the magic `APR\\0` of version 2");
    Err(match OTHER_MAGICS.iter().find(|(other, _, _)| magic == other) {
        Some((_, what, hint)) => error.found(what).hint(hint),
        None => error.found(format_args!("`{}`", magic.escape_ascii())),
    })
}

/// CRC-32 of the header without its checksum field.
pub(super) fn header_checksum(header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CHECKSUM_AT]);
    hasher.update(&header[CHECKSUM_AT + 4..]);
    hasher.finalize()
}

fn check_header_checksum(header: &[u8], found: u32) -> Result<()> {
    let expected = header_checksum(header);
    if expected == found {
        return Ok(());
    }
    Err(Error::new(Code::AprHeaderChecksum)
        .at(CHECKSUM_AT as u64)
        .expected(format_args!("{expected:08x}"))
        .found(format_args!("{found:08x}"))
        .hint("the header is damaged: fetch or convert the file again"))
}

fn read_metadata(bytes: &[u8], header: &Header) -> Result<Map<String, Value>> {
    let (start, len) = header.metadata;
    if len > METADATA_MAX {
        return Err(Error::new(Code::LimitExceeded)
            .at(20)
            .expected(format_args!("metadata of at most {METADATA_MAX} bytes"))
            .found(len));
    }
    let text = range(bytes, start, len).ok_or_else(|| Error::new(Code::AprTruncated).at(start))?;
    let metadata = json::object(text, Code::AprMetadata)?;
    for spellings in ALIASES {
        let present = |key: &&&str| metadata.get(**key).is_some_and(|value| !value.is_null());
        let mut present = spellings.iter().filter(present);
        if let (Some(first), Some(second)) = (present.next(), present.next()) {
            return Err(Error::new(Code::AprMetadata)
                .field(second)
                .expected("one spelling of each hyper-parameter")
                .found(format_args!("`{first}` and `{second}`")));
        }
    }
    Ok(metadata)
}

fn read_index<'a>(
    bytes: &'a [u8],
    header: &Header,
    lenience: &mut Lenience,
) -> Result<Vec<TensorEntry<'a>>> {
    let data = usize::try_from(header.data).unwrap_or(usize::MAX);
    // The reader of the index must not run into the payloads.
    let section = bytes.get(..data).ok_or_else(|| Error::new(Code::AprOffsets).at(32))?;
    let mut cursor = Cursor::new(section, Code::AprIndex);
    cursor.take(header.index)?;
    let count = u64::from(header.tensors);
    let fitting = cursor.remaining() / ENTRY_BYTES_MIN;
    if count > fitting || count > TENSORS_MAX {
        let code = if count > fitting { Code::AprCount } else { Code::LimitExceeded };
        return Err(Error::new(code)
            .at(8)
            .expected(format_args!("at most {} tensors", fitting.min(TENSORS_MAX)))
            .found(count));
    }
    let mut tensors: Vec<TensorEntry<'a>> = Vec::new();
    let mut last = String::new();
    for _ in 0..count {
        let at = cursor.offset();
        let (name, payload) = read_entry(&mut cursor, bytes, header.data)?;
        let payload = lenience.pass(payload)?;
        lenience.pass(check_order(&last, &name, at))?;
        last.clone_from(&name);
        let entry = |(offset, view)| TensorEntry { name: Cow::Owned(name), offset, view };
        tensors.extend(payload.map(entry));
    }
    lenience.pass(check_index_padding(cursor))?;
    Ok(tensors)
}

/// Names ascend strictly in byte order.
fn check_order(last: &str, name: &str, at: u64) -> Result<()> {
    let code = match last.cmp(name) {
        std::cmp::Ordering::Less => return Ok(()),
        std::cmp::Ordering::Equal => Code::AprDuplicate,
        std::cmp::Ordering::Greater => Code::AprUnsorted,
    };
    Err(Error::new(code).at(at).expected(format_args!("a name behind `{last}`")).found(name))
}

/// Behind the last entry there is nothing but zero padding: a smaller tensor count cannot hide tensors.
fn check_index_padding(mut cursor: Cursor<'_>) -> Result<()> {
    let at = cursor.offset();
    let padding = cursor.take(cursor.remaining())?;
    if padding.len() as u64 >= ALIGNMENT || padding.iter().any(|&byte| byte != 0) {
        return Err(Error::new(Code::AprIndex)
            .at(at)
            .expected("less than 64 zero bytes between index and data")
            .found(format_args!("{} other bytes", padding.len())));
    }
    Ok(())
}

/// An entry of the index: its name, and where its payload lies with what it is.
type Entry<'a> = (String, Result<(u64, TensorView<'a>)>);

/// Reads the next entry.
///
/// # Errors
/// When the entry after it could not be found; what is wrong with the payload is told with the name.
fn read_entry<'a>(cursor: &mut Cursor<'_>, bytes: &'a [u8], data: u64) -> Result<Entry<'a>> {
    let at = cursor.offset();
    let name_len = cursor.u16()?;
    let name = std::str::from_utf8(cursor.take(name_len.into())?)
        .map_err(|_| Error::new(Code::AprIndex).at(at).expected("a UTF-8 name"))?;
    if name.is_empty() {
        return Err(Error::new(Code::AprIndex).at(at).expected("a name").found("none"));
    }
    let code = cursor.u8()?;
    let rank = usize::from(cursor.u8()?);
    if rank > RANK_MAX {
        return Err(Error::new(Code::AprIndex)
            .tensor(name)
            .expected(format_args!("at most {RANK_MAX} dimensions"))
            .found(rank));
    }
    let mut dims = [0; RANK_MAX];
    for dim in &mut dims[..rank] {
        *dim = cursor.u64()?;
    }
    let place = (cursor.u64()?, cursor.u64()?);
    let payload = read_payload(code, &dims[..rank], place, bytes, data);
    Ok((name.to_owned(), payload.map_err(|error| error.tensor(name))))
}

/// Where a payload lies and what it is.
fn read_payload<'a>(
    code: u8,
    dims: &[u64],
    (offset, size): (u64, u64),
    bytes: &'a [u8],
    data: u64,
) -> Result<(u64, TensorView<'a>)> {
    let shape = Shape::new(dims).map_err(|_| {
        Error::new(Code::AprIndex)
            .expected("a number of elements below 2^64")
            .found(format_args!("{dims:?}"))
    })?;
    let place = data.checked_add(offset);
    let payload = place.and_then(|start| range(bytes, start, size)).ok_or_else(|| {
        Error::new(Code::AprTensorRange)
            .expected(format_args!("at most {} bytes of data", bytes.len() as u64 - data))
            .found(format_args!("{size} bytes at {offset}"))
            .hint("the file is damaged or its download was cut short")
    })?;
    Ok((place.unwrap_or(u64::MAX), resolve_dtype(code, shape, payload)?))
}

/// The dtypes that a code has stood for, most plausible first; the payload size decides between them.
const fn meanings(code: u8) -> &'static [Dtype] {
    match code {
        0 => &[Dtype::F32],
        1 => &[Dtype::F16],
        2 => &[Dtype::Q4_0],
        3 => &[Dtype::F64, Dtype::Q4_1],
        4 => &[Dtype::I32],
        5 => &[Dtype::I64],
        6 => &[Dtype::I8, Dtype::Q5_0],
        7 => &[Dtype::U8, Dtype::Q5_1],
        8 => &[Dtype::Q8_0, Dtype::AprQ4],
        9 | 129 => &[Dtype::AprQ8],
        10 => &[Dtype::Q2K],
        11 => &[Dtype::Q3K],
        12 => &[Dtype::Q4K],
        13 => &[Dtype::Q5K],
        14 => &[Dtype::Q6K],
        30 => &[Dtype::BF16],
        128 => &[Dtype::AprQ4],
        _ => &[],
    }
}

fn resolve_dtype(code: u8, shape: Shape, payload: &[u8]) -> Result<TensorView<'_>> {
    let candidates = meanings(code);
    if candidates.is_empty() {
        let error = if matches!(code, 16 | 17) {
            Error::new(Code::DtypeUnsupported).found(format_args!("code {code}: IQ2"))
        } else {
            Error::new(Code::AprDtype).found(format_args!("code {code}"))
        };
        return Err(error.expected("codes 0 to 14, 30, 128 or 129"));
    }
    candidates.iter().find_map(|&dtype| TensorView::new(dtype, shape, payload).ok()).ok_or_else(
        || {
            let names: Vec<_> = candidates.iter().map(|dtype| dtype.name()).collect();
            // With two meanings neither fits: the code is in doubt; with one the size is wrong.
            let wrong = if names.len() > 1 { Code::AprDtype } else { Code::AprTensorRange };
            Error::new(wrong)
                .expected(format_args!("the bytes of {} {shape}", names.join(" or ")))
                .found(format_args!("{} bytes under code {code}", payload.len()))
        },
    )
}

fn check_overlap(tensors: &[TensorEntry<'_>], lenience: &mut Lenience) -> Result<()> {
    let mut order: Vec<_> = tensors.iter().filter(|entry| !entry.view.bytes().is_empty()).collect();
    order.sort_by_key(|entry| entry.offset);
    for pair in order.windows(2) {
        let end = pair[0].offset + pair[0].view.bytes().len() as u64;
        if pair[1].offset < end {
            let overlap = Error::new(Code::AprTensorRange)
                .tensor(&pair[1].name)
                .expected(format_args!("a payload behind `{}`, which ends at {end}", pair[0].name))
                .found(pair[1].offset);
            lenience.pass::<()>(Err(overlap))?;
        }
    }
    Ok(())
}

/// Where the footer stands: `None` when the file ends at the padded end of the last payload.
fn check_end(file_len: u64, data: u64, tensors: &[TensorEntry<'_>]) -> Result<Option<u64>> {
    let overflow = || Error::new(Code::AprTensorRange).expected("a file below 2^64 bytes");
    let mut required = data;
    for entry in tensors {
        // Padding is counted from the start of the payload, which is aligned in every published file.
        let padded = align_up(entry.view.bytes().len() as u64, ALIGNMENT).ok_or_else(overflow)?;
        required = required.max(entry.offset.checked_add(padded).ok_or_else(overflow)?);
    }
    let footer_end = required.checked_add(FOOTER_BYTES).ok_or_else(overflow)?;
    if file_len == footer_end {
        return Ok(Some(required));
    }
    // Only a padded end can do without a footer: otherwise a shifted payload could pass its checksum off as padding.
    if file_len == required && file_len.is_multiple_of(ALIGNMENT) {
        return Ok(None);
    }
    let code = if file_len < footer_end { Code::AprTruncated } else { Code::AprTrailing };
    Err(Error::new(code)
        .at(file_len.min(footer_end))
        .expected(format_args!("a file of {footer_end} bytes"))
        .found(format_args!("{file_len} bytes")))
}

#[cfg(test)]
#[path = "apr_tests.rs"]
mod tests;

#[cfg(test)]
pub(super) use tests::vector as test_vector;
