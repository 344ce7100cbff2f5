//! Writes GGUF version 3.

use std::collections::BTreeSet;
use std::io::Write;

use super::{Checksums, Counted, Outgoing, check_unique, put_payload};
use crate::error::{Code, Error, Result};
use crate::format::gguf::{ALIGNMENT_DEFAULT, ALIGNMENT_MAX, MAGIC, NAME_MAX, RANK_MAX};
use crate::format::value::{Array, Typed, Value, fixed_size, type_id, type_name};

/// An owned GGUF array, built element by element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayBuf {
    element_type: u32,
    len: usize,
    bytes: Vec<u8>,
}

impl ArrayBuf {
    fn build<T>(
        element_type: u32,
        items: impl IntoIterator<Item = T>,
        put: impl Fn(&mut Vec<u8>, T),
    ) -> Self {
        let mut array = Self { element_type, len: 0, bytes: Vec::new() };
        for item in items {
            put(&mut array.bytes, item);
            array.len += 1;
        }
        array
    }

    /// An array of booleans.
    pub fn bools(items: impl IntoIterator<Item = bool>) -> Self {
        let bytes: Vec<u8> = items.into_iter().map(u8::from).collect();
        Self { element_type: type_id::BOOL, len: bytes.len(), bytes }
    }

    /// An array of strings.
    pub fn strings<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Self {
        Self::build(type_id::STRING, items, |bytes, item| put_string(bytes, item.as_ref()))
    }

    /// An array of 32-bit signed integers.
    pub fn i32s(items: impl IntoIterator<Item = i32>) -> Self {
        Self::build(type_id::I32, items, |bytes, item| bytes.extend(item.to_le_bytes()))
    }

    /// An array of 32-bit floats.
    pub fn f32s(items: impl IntoIterator<Item = f32>) -> Self {
        Self::build(type_id::F32, items, |bytes, item| bytes.extend(item.to_le_bytes()))
    }

    /// A copy of an array of any element type.
    pub fn copy_of(array: Array<'_>) -> Self {
        Self { element_type: array.element_type, len: array.len, bytes: array.bytes.to_vec() }
    }

    /// The array as a metadata value.
    pub fn value(&self) -> Value<'_> {
        let Self { element_type, len, bytes } = self;
        Value::Array(Array { element_type: *element_type, len: *len, bytes })
    }
}

/// An owned metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueBuf {
    /// Unsigned integer.
    Unsigned(u64),
    /// Signed integer.
    Signed(i64),
    /// Float.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// String.
    Str(String),
    /// Array.
    Array(ArrayBuf),
}

impl From<Value<'_>> for ValueBuf {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Unsigned(number) => Self::Unsigned(number),
            Value::Signed(number) => Self::Signed(number),
            Value::Float(number) => Self::Float(number),
            Value::Bool(flag) => Self::Bool(flag),
            Value::Str(text) => Self::Str(text.to_owned()),
            Value::Array(array) => Self::Array(ArrayBuf::copy_of(array)),
        }
    }
}

impl ValueBuf {
    /// The value, borrowed.
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Unsigned(number) => Value::Unsigned(*number),
            Self::Signed(number) => Value::Signed(*number),
            Self::Float(number) => Value::Float(*number),
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Str(text) => Value::Str(text),
            Self::Array(array) => array.value(),
        }
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Writes a value with its type id; a number that does not fit its type is refused.
fn put_value(out: &mut Vec<u8>, typed: Typed<'_>) -> Result<()> {
    let Typed { id, value } = typed;
    let wrong = || {
        Error::new(Code::GgufValueType)
            .expected(format_args!("a value of type {}", type_name(id)))
            .found(format_args!("{value:?}"))
    };
    out.extend(id.to_le_bytes());
    let size = || fixed_size(id).filter(|_| id != type_id::BOOL).ok_or_else(wrong);
    match value {
        Value::Unsigned(number) => {
            let size = size()? as usize;
            let bytes = number.to_le_bytes();
            if bytes[size..].iter().any(|byte| *byte != 0) {
                return Err(wrong());
            }
            out.extend(&bytes[..size]);
        }
        Value::Signed(number) => {
            let size = size()? as usize;
            let bytes = number.to_le_bytes();
            let sign = if number < 0 { 0xFF } else { 0 };
            let negative = bytes[size - 1] & 0x80 != 0;
            if bytes[size..].iter().any(|byte| *byte != sign) || negative != (number < 0) {
                return Err(wrong());
            }
            out.extend(&bytes[..size]);
        }
        Value::Float(number) if id == type_id::F32 => out.extend((number as f32).to_le_bytes()),
        Value::Float(number) if id == type_id::F64 => out.extend(number.to_le_bytes()),
        Value::Bool(flag) if id == type_id::BOOL => out.push(flag.into()),
        Value::Str(text) if id == type_id::STRING => put_string(out, text),
        Value::Array(array) if id == type_id::ARRAY => {
            out.extend(array.element_type.to_le_bytes());
            out.extend((array.len as u64).to_le_bytes());
            out.extend(array.bytes);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// Writes a GGUF file: `pairs` and `tensors` in the given order, aligned to `general.alignment` or 32 bytes.
///
/// # Errors
/// [`Code::DtypeUnsupported`] for a dtype without a GGUF id, [`Code::GgufTensorRank`], [`Code::GgufTensorSize`] for
/// rows that are not whole blocks, [`Code::GgufTensorName`], [`Code::GgufDuplicateKey`],
/// [`Code::GgufValueType`] for a number outside its type, [`Code::GgufAlignment`], [`Code::Io`].
pub fn write_gguf<'v, W: Write, V: Into<Typed<'v>> + Copy>(
    out: W,
    pairs: &[(String, V)],
    tensors: &[Outgoing],
) -> Result<Checksums> {
    check_unique(tensors, Code::GgufTensorName)?;
    let typed = || pairs.iter().map(|(key, value)| (key, Into::<Typed<'v>>::into(*value)));
    let alignment = alignment(typed())?;
    let mut head = Vec::new();
    head.extend(MAGIC);
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((pairs.len() as u64).to_le_bytes());
    let mut keys = BTreeSet::new();
    for (key, value) in typed() {
        if !keys.insert(key) {
            return Err(Error::new(Code::GgufDuplicateKey).field(key));
        }
        put_string(&mut head, key);
        put_value(&mut head, value).map_err(|error| error.field(key))?;
    }
    let mut offset = 0u64;
    for tensor in tensors {
        put_info(&mut head, tensor, offset)?;
        offset = (offset + tensor.size()?).next_multiple_of(alignment);
    }
    let mut out = Counted::new(out);
    out.put(&head)?;
    out.pad(alignment)?;
    let mut checksums = Checksums::new();
    for tensor in tensors {
        put_payload(&mut out, tensor, &mut checksums)?;
        out.pad(alignment)?;
    }
    Ok(checksums)
}

fn alignment<'p, 'v>(mut pairs: impl Iterator<Item = (&'p String, Typed<'v>)>) -> Result<u64> {
    match pairs.find(|(key, _)| *key == "general.alignment").map(|(_, typed)| typed) {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(Typed { id: type_id::U32, value: Value::Unsigned(alignment) })
            if alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX =>
        {
            Ok(alignment)
        }
        Some(value) => Err(Error::new(Code::GgufAlignment).found(format_args!("{value:?}"))),
    }
}

fn put_info(head: &mut Vec<u8>, tensor: &Outgoing, offset: u64) -> Result<()> {
    let place = |code| Error::new(code).tensor(&tensor.name);
    let shape = tensor.shape();
    if tensor.name.is_empty() || tensor.name.len() > NAME_MAX {
        return Err(place(Code::GgufTensorName)
            .expected(format_args!("1 to {NAME_MAX} bytes"))
            .found(tensor.name.len()));
    }
    if shape.rank() > RANK_MAX as usize {
        return Err(place(Code::GgufTensorRank).expected("at most 4 dimensions").found(shape));
    }
    let id = tensor.dtype.gguf_id().ok_or_else(|| {
        place(Code::DtypeUnsupported).expected("a dtype of the GGUF format").found(tensor.dtype)
    })?;
    let whole = tensor.dtype.row_bytes(shape.cols()).ok().map(|row| row * shape.rows());
    if whole != Some(tensor.size()?) {
        return Err(place(Code::GgufTensorSize)
            .expected(format_args!("rows of whole blocks of {} values", tensor.dtype.block_len()))
            .found(format_args!("{} {shape}", tensor.dtype)));
    }
    put_string(head, &tensor.name);
    head.extend((shape.rank() as u32).to_le_bytes());
    for dim in shape.dims().iter().rev() {
        head.extend(dim.to_le_bytes());
    }
    head.extend(id.to_le_bytes());
    head.extend(offset.to_le_bytes());
    Ok(())
}
