//! Reads GGUF versions 2 and 3, little-endian (GGUF specification in the ggml repository, `docs/gguf.md`).
//!
//! Structure only: what a key means is the business of `model` and `text`. Where the specification leaves a
//! choice: gaps between tensors and bytes after the last one are legal and noted, payloads may lie in any
//! order, overlaps are refused, a tensor of rank 0 is a scalar, a dimension of 0 is an empty tensor.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::cursor::{Cursor, align_up, range};
use super::lenience::Lenience;
use super::value::{Array, Typed, Value, fixed_size, type_id};
use super::{Container, Format, Metadata, Note, TENSORS_MAX, TensorEntry};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::tensor::{Shape, TensorView};

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Most metadata pairs; files seen in the wild stay below a thousand.
const PAIRS_MAX: u64 = 65_536;
/// Longest string; the largest real ones are chat templates of some ten thousand bytes.
const STRING_MAX: u64 = 16 << 20;
/// Longest key (GGUF specification).
const KEY_MAX: usize = 65_535;
/// Most strings in an array; the largest real vocabularies hold about 300,000. Arrays of numbers are not
/// walked or copied, so the file bounds them.
const ARRAY_STRINGS_MAX: u64 = 1 << 24;
/// Longest tensor name: 64 bytes with the terminator that C readers add (`GGML_MAX_NAME`).
pub(super) const NAME_MAX: usize = 63;
/// Most dimensions (`GGML_MAX_DIMS`).
pub(super) const RANK_MAX: u32 = 4;
/// Largest alignment; the default is 32.
pub(super) const ALIGNMENT_MAX: u64 = 1 << 20;
/// Alignment of a file that does not say.
pub const ALIGNMENT_DEFAULT: u64 = 32;
/// Least bytes of a pair: key length, one byte of key, type, one byte of value.
const PAIR_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
/// Least bytes of a tensor description: name length, one byte of name, rank, type, offset.
const TENSOR_BYTES_MIN: u64 = 8 + 1 + 4 + 4 + 8;

/// Parses a whole GGUF file.
///
/// # Errors
/// The `E01xx` code of the first broken invariant, with its byte offset, key or tensor.
pub fn parse(bytes: &[u8]) -> Result<Container<'_>> {
    read(bytes, &mut Lenience::none())
}

/// Parses what can be parsed.
///
/// # Errors
/// As [`parse`], for what `lenience` does not keep.
pub(super) fn read<'a>(bytes: &'a [u8], lenience: &mut Lenience) -> Result<Container<'a>> {
    let mut cursor = Cursor::new(bytes, Code::GgufTruncated);
    let header = Header::read(&mut cursor)?;
    let (pairs, alignment) = read_pairs(&mut cursor, header.pairs, lenience)?;
    let pairs = pairs.into_iter().map(|(key, typed)| (key, typed.value)).collect();
    let tensors_at = cursor.offset();
    check_count("tensors", header.tensors, &cursor, TENSOR_BYTES_MIN, TENSORS_MAX)?;
    let mut names = BTreeSet::new();
    let mut infos = Vec::new();
    for _ in 0..header.tensors {
        infos.extend(Info::read(&mut cursor, &mut names, lenience)?);
    }
    let data = align_up(cursor.offset(), alignment)
        .ok_or_else(|| Error::new(Code::GgufAlignment).at(tensors_at).found(alignment))?;
    let mut tensors = Vec::new();
    for info in infos {
        tensors.extend(lenience.pass(info.resolve(bytes, data, alignment))?);
    }
    let notes = check_layout(&tensors, data, alignment, bytes.len() as u64, lenience)?;
    Ok(Container {
        format: Format::Gguf,
        version: header.version,
        metadata: Metadata::Gguf(pairs),
        tensors,
        notes,
    })
}

/// The metadata pairs in file order, with the types that the values are stored in.
///
/// # Errors
/// As [`parse`]; what follows the pairs is not looked at.
pub fn typed_pairs(bytes: &[u8]) -> Result<Vec<(&str, Typed<'_>)>> {
    let mut cursor = Cursor::new(bytes, Code::GgufTruncated);
    let header = Header::read(&mut cursor)?;
    Ok(read_pairs(&mut cursor, header.pairs, &mut Lenience::none())?.0)
}

struct Header {
    version: u32,
    tensors: u64,
    pairs: u64,
}

impl Header {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        let magic = cursor.take(4)?;
        if magic != MAGIC {
            return Err(Error::new(Code::NotAModel)
                .at(0)
                .expected("the magic `GGUF`")
                .found(format_args!("`{}`", magic.escape_ascii())));
        }
        let version = cursor.u32()?;
        match version {
            2 | 3 => {}
            _ if (1..=3).contains(&version.swap_bytes()) => {
                return Err(Error::new(Code::GgufBigEndian)
                    .at(4)
                    .expected("version 2 or 3, little-endian")
                    .found(format_args!("big-endian version {}", version.swap_bytes()))
                    .hint("convert the model again for a little-endian machine"));
            }
            _ => {
                return Err(Error::new(Code::GgufVersion)
                    .at(4)
                    .expected("version 2 or 3")
                    .found(version)
                    .hint("convert the model again with a current converter"));
            }
        }
        let tensors = cursor.u64()?;
        let pairs = cursor.u64()?;
        check_count("metadata pairs", pairs, cursor, PAIR_BYTES_MIN, PAIRS_MAX)?;
        // The pairs come first, so this bound is loose; it is checked again behind them.
        check_count("tensors", tensors, cursor, TENSOR_BYTES_MIN, TENSORS_MAX)?;
        Ok(Self { version, tensors, pairs })
    }
}

/// Refuses a count whose items cannot fit into what is left, or that is above `limit`.
fn check_count(what: &str, count: u64, cursor: &Cursor<'_>, least: u64, limit: u64) -> Result<()> {
    if count > cursor.remaining() / least {
        return Err(Error::new(Code::GgufCount)
            .at(cursor.offset())
            .expected(format_args!("at most {} {what} in the rest", cursor.remaining() / least))
            .found(count));
    }
    if count > limit {
        return Err(Error::new(Code::LimitExceeded)
            .at(cursor.offset())
            .expected(format_args!("at most {limit} {what}"))
            .found(count));
    }
    Ok(())
}

/// A string with its u64 length in front.
fn read_string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    let at = cursor.offset();
    let len = cursor.u64()?;
    if len > cursor.remaining() {
        return Err(Error::new(Code::GgufString)
            .at(at)
            .expected(format_args!("at most {} bytes", cursor.remaining()))
            .found(format_args!("{len} bytes")));
    }
    if len > STRING_MAX {
        return Err(Error::new(Code::LimitExceeded)
            .at(at)
            .expected(format_args!("a string of at most {STRING_MAX} bytes"))
            .found(format_args!("{len} bytes")));
    }
    std::str::from_utf8(cursor.take(len)?)
        .map_err(|_| Error::new(Code::GgufString).at(at).expected("UTF-8").found("other bytes"))
}

type Pairs<'a> = Vec<(&'a str, Typed<'a>)>;

/// The metadata pairs, and the alignment among them.
fn read_pairs<'a>(
    cursor: &mut Cursor<'a>,
    count: u64,
    lenience: &mut Lenience,
) -> Result<(Pairs<'a>, u64)> {
    let mut pairs = Vec::new();
    let mut keys = BTreeSet::new();
    let mut alignment = ALIGNMENT_DEFAULT;
    for _ in 0..count {
        let at = cursor.offset();
        let key = read_string(cursor)?;
        let known = lenience.pass(check_key(key, &mut keys, at))?;
        let type_at = cursor.offset();
        let id = cursor.u32()?;
        let value = read_value(cursor, id, type_at)?;
        if key == "general.alignment" {
            alignment = check_alignment(id, &value, type_at)?;
        }
        pairs.extend(known.map(|()| (key, Typed { id, value })));
    }
    Ok((pairs, alignment))
}

/// Refuses keys that no writer writes, and one that was there before.
fn check_key<'a>(key: &'a str, keys: &mut BTreeSet<&'a str>, at: u64) -> Result<()> {
    if key.is_empty() || key.len() > KEY_MAX || key.chars().any(char::is_control) {
        return Err(Error::new(Code::GgufKey)
            .at(at)
            .expected(format_args!("1 to {KEY_MAX} bytes without control characters"))
            .found(format_args!("{} bytes `{key}`", key.len())));
    }
    if keys.insert(key) {
        return Ok(());
    }
    Err(Error::new(Code::GgufDuplicateKey).at(at).found(key))
}

fn check_alignment(id: u32, value: &Value<'_>, at: u64) -> Result<u64> {
    match value.as_u64() {
        Some(alignment)
            if id == type_id::U32 && alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX =>
        {
            Ok(alignment)
        }
        _ => Err(Error::new(Code::GgufAlignment)
            .at(at)
            .expected("a u32 power of two between 1 and 1048576")
            .found(format_args!("{} {value:?}", super::value::type_name(id)))),
    }
}

fn read_value<'a>(cursor: &mut Cursor<'a>, id: u32, at: u64) -> Result<Value<'a>> {
    Ok(match id {
        type_id::U8 => Value::Unsigned(cursor.u8()?.into()),
        type_id::I8 => Value::Signed((cursor.u8()? as i8).into()),
        type_id::U16 => Value::Unsigned(cursor.u16()?.into()),
        type_id::I16 => Value::Signed((cursor.u16()? as i16).into()),
        type_id::U32 => Value::Unsigned(cursor.u32()?.into()),
        type_id::I32 => Value::Signed((cursor.u32()? as i32).into()),
        type_id::U64 => Value::Unsigned(cursor.u64()?),
        type_id::I64 => Value::Signed(cursor.u64()? as i64),
        type_id::F32 => Value::Float(cursor.f32()?.into()),
        type_id::F64 => Value::Float(cursor.f64()?),
        type_id::BOOL => {
            let at = cursor.offset();
            let byte = cursor.u8()?;
            check_bools(&[byte], at)?;
            Value::Bool(byte == 1)
        }
        type_id::STRING => Value::Str(read_string(cursor)?),
        type_id::ARRAY => Value::Array(read_array(cursor)?),
        _ => {
            return Err(Error::new(Code::GgufValueType)
                .at(at)
                .expected("a value type from 0 to 12")
                .found(id));
        }
    })
}

fn check_bools(bytes: &[u8], at: u64) -> Result<()> {
    match bytes.iter().position(|&byte| byte > 1) {
        None => Ok(()),
        Some(position) => Err(Error::new(Code::GgufBool)
            .at(at + position as u64)
            .expected("0 or 1")
            .found(bytes[position])),
    }
}

fn read_array<'a>(cursor: &mut Cursor<'a>) -> Result<Array<'a>> {
    let at = cursor.offset();
    let element_type = cursor.u32()?;
    let count = cursor.u64()?;
    let wrong = |expected: &str| Error::new(Code::GgufArray).at(at).expected(expected);
    if element_type == type_id::ARRAY {
        return Err(wrong("elements that are not arrays").found("a nested array"));
    }
    // A string needs at least its length field.
    let least = match element_type {
        type_id::STRING => 8,
        other => fixed_size(other)
            .ok_or_else(|| wrong("an element type from 0 to 12").found(element_type))?,
    };
    if count > cursor.remaining() / least {
        return Err(Error::new(Code::GgufArray)
            .at(at)
            .expected(format_args!("at most {} elements in the rest", cursor.remaining() / least))
            .found(count));
    }
    let start = cursor.clone();
    if element_type == type_id::STRING {
        if count > ARRAY_STRINGS_MAX {
            return Err(Error::new(Code::LimitExceeded)
                .at(at)
                .expected(format_args!("at most {ARRAY_STRINGS_MAX} strings"))
                .found(count));
        }
        for _ in 0..count {
            read_string(cursor)?;
        }
    } else {
        // Cannot overflow: the product is at most the bytes that remain.
        let elements = cursor.take(count * least)?;
        if element_type == type_id::BOOL {
            check_bools(elements, start.offset())?;
        }
    }
    let bytes = start.clone().take(cursor.offset() - start.offset())?;
    Ok(Array { element_type, len: count as usize, bytes })
}

/// A tensor description, before its bytes are looked for.
struct Info<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: Shape,
    size: u64,
    offset: u64,
}

impl<'a> Info<'a> {
    /// The next description; `None` when something is wrong with it that `lenience` keeps.
    fn read(
        cursor: &mut Cursor<'a>,
        names: &mut BTreeSet<&'a str>,
        lenience: &mut Lenience,
    ) -> Result<Option<Self>> {
        let at = cursor.offset();
        let name = read_string(cursor)?;
        let named = lenience.pass(Self::check_name(name, names, at))?;
        let rank = cursor.u32()?;
        if rank > RANK_MAX {
            return Err(Error::new(Code::GgufTensorRank)
                .tensor(name)
                .expected(format_args!("at most {RANK_MAX} dimensions"))
                .found(rank));
        }
        let mut dims = [0; RANK_MAX as usize];
        let dims = &mut dims[..rank as usize];
        // The file counts from the innermost dimension, a shape from the outermost.
        for dim in dims.iter_mut().rev() {
            *dim = cursor.u64()?;
        }
        let id = cursor.u32()?;
        let sized = lenience.pass(check_size(name, id, dims))?;
        let offset = cursor.u64()?;
        Ok(named.and(sized).map(|(dtype, shape, size)| Self { name, dtype, shape, size, offset }))
    }

    fn check_name(name: &'a str, names: &mut BTreeSet<&'a str>, at: u64) -> Result<()> {
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(Error::new(Code::GgufTensorName)
                .at(at)
                .expected(format_args!("1 to {NAME_MAX} bytes without control characters"))
                .found(format_args!("{} bytes `{name}`", name.len())));
        }
        if !names.insert(name) {
            return Err(Error::new(Code::GgufTensorName)
                .at(at)
                .expected("unique names")
                .found(format_args!("`{name}` twice")));
        }
        Ok(())
    }

    fn resolve(self, bytes: &'a [u8], data: u64, alignment: u64) -> Result<TensorEntry<'a>> {
        let place = |code| Error::new(code).tensor(self.name);
        if !self.offset.is_multiple_of(alignment) {
            return Err(place(Code::GgufTensorOffset)
                .expected(format_args!("a multiple of the alignment {alignment}"))
                .found(self.offset));
        }
        let len = bytes.len() as u64;
        let offset = data
            .checked_add(self.offset)
            .filter(|&offset| offset <= len || self.offset == 0)
            .ok_or_else(|| {
                place(Code::GgufTensorOffset)
                    .expected(format_args!("at most {} bytes of data", len.saturating_sub(data)))
                    .found(format_args!("offset {}", self.offset))
            })?;
        // An empty tensor may stand where the padding behind the descriptions was left out.
        let payload = if self.size == 0 { Some(&[][..]) } else { range(bytes, offset, self.size) };
        let payload = payload.ok_or_else(|| {
            place(Code::GgufTruncated)
                .expected(format_args!("{} bytes at byte {offset}", self.size))
                .found(format_args!("{} bytes", len.saturating_sub(offset)))
                .hint("the file is damaged or its download was cut short")
        })?;
        let view = TensorView::new(self.dtype, self.shape, payload)
            .map_err(|error| error.tensor(self.name))?;
        Ok(TensorEntry { name: Cow::Borrowed(self.name), offset, view })
    }
}

/// Dtype, shape and byte size of a described tensor.
fn check_size(name: &str, id: u32, dims: &[u64]) -> Result<(Dtype, Shape, u64)> {
    let dtype = Dtype::from_gguf_id(id).ok_or_else(|| {
        let error = match unsupported_type(id) {
            Some(known) => Error::new(Code::GgufTensorUnsupported).found(known),
            None => Error::new(Code::GgufTensorType).found(id),
        };
        error.tensor(name).expected("F32, F16, BF16, F64, integers, Q4_0 to Q8_0 or Q2_K to Q8_K")
    })?;
    let wrong = || Error::new(Code::GgufTensorSize).tensor(name);
    let signed = |&dim: &u64| i64::try_from(dim).is_ok();
    if !dims.iter().all(signed) {
        return Err(wrong().expected("dimensions below 2^63").found(format_args!("{dims:?}")));
    }
    let shape = Shape::new(dims).map_err(|_| {
        wrong().expected("a number of elements below 2^64").found(format_args!("{dims:?}"))
    })?;
    let size = dtype
        .row_bytes(shape.cols())
        .ok()
        .and_then(|row| row.checked_mul(shape.rows()))
        .ok_or_else(|| {
            wrong()
                .expected(format_args!("rows of whole blocks of {} values", dtype.block_len()))
                .found(format_args!("{dims:?} {dtype}"))
        })?;
    Ok((dtype, shape, size))
}

/// Names of `ggml_type` ids that exist but are not computed with here.
const fn unsupported_type(id: u32) -> Option<&'static str> {
    Some(match id {
        9 => "Q8_1",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return None,
    })
}

/// Refuses overlapping payloads and notes gaps and trailing bytes.
fn check_layout(
    tensors: &[TensorEntry<'_>],
    data: u64,
    alignment: u64,
    file_len: u64,
    lenience: &mut Lenience,
) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    let mut order: Vec<_> = tensors.iter().filter(|entry| !entry.view.bytes().is_empty()).collect();
    order.sort_by_key(|entry| entry.offset);
    let mut end = data;
    let mut gaps = 0;
    for entry in order {
        if entry.offset < end {
            let overlap = Error::new(Code::GgufTensorOverlap)
                .tensor(&entry.name)
                .expected(format_args!("an offset of at least {end}"))
                .found(entry.offset);
            lenience.pass::<()>(Err(overlap))?;
        }
        gaps += entry.offset.saturating_sub(end);
        let unpadded = entry.offset + entry.view.bytes().len() as u64;
        end = end.max(align_up(unpadded, alignment).unwrap_or(unpadded));
    }
    if gaps > 0 {
        let text = format!("{gaps} bytes between tensors belong to none");
        notes.push(Note { rule: "gguf-gap", text });
    }
    if file_len > end {
        let text = format!("{} bytes follow the last tensor", file_len - end);
        notes.push(Note { rule: "gguf-trailing-bytes", text });
    }
    Ok(notes)
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
