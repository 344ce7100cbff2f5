//! GGUF metadata values: scalars by value, arrays as borrowed bytes with typed, checked access.
//!
//! An array of a hundred thousand strings stays where it lies in the file; nothing is allocated per element.

use crate::error::{Code, Error, Result};

/// GGUF value type ids (GGUF specification, `gguf_metadata_value_type`).
pub mod type_id {
    #![expect(missing_docs, reason = "the names are those of the specification")]
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// The specification's name of a value type id.
pub const fn type_name(id: u32) -> &'static str {
    match id {
        type_id::U8 => "u8",
        type_id::I8 => "i8",
        type_id::U16 => "u16",
        type_id::I16 => "i16",
        type_id::U32 => "u32",
        type_id::I32 => "i32",
        type_id::F32 => "f32",
        type_id::BOOL => "bool",
        type_id::STRING => "string",
        type_id::ARRAY => "array",
        type_id::U64 => "u64",
        type_id::I64 => "i64",
        type_id::F64 => "f64",
        _ => "unknown",
    }
}

/// Bytes of one element of a fixed-size value type; `None` for strings, arrays and unknown ids.
pub(super) const fn fixed_size(id: u32) -> Option<u64> {
    match id {
        type_id::U8 | type_id::I8 | type_id::BOOL => Some(1),
        type_id::U16 | type_id::I16 => Some(2),
        type_id::U32 | type_id::I32 | type_id::F32 => Some(4),
        type_id::U64 | type_id::I64 | type_id::F64 => Some(8),
        _ => None,
    }
}

/// A GGUF metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Unsigned integer of 8, 16, 32 or 64 bits.
    Unsigned(u64),
    /// Signed integer of 8, 16, 32 or 64 bits.
    Signed(i64),
    /// Float of 32 or 64 bits.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// UTF-8 string.
    Str(&'a str),
    /// Array of one element type.
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// The integer, when it is one and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The integer, when it is one and fits.
    pub fn as_u32(&self) -> Option<u32> {
        self.as_u64().and_then(|value| u32::try_from(value).ok())
    }

    /// The integer, when it is one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Unsigned(value) => i64::try_from(value).ok(),
            Self::Signed(value) => Some(value),
            _ => None,
        }
    }

    /// The float, when it is one; integers are not converted.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float(value) => Some(value),
            _ => None,
        }
    }

    /// The float rounded to single precision, when it is one.
    pub fn as_f32(&self) -> Option<f32> {
        self.as_f64().map(|value| value as f32)
    }

    /// The boolean, when it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The string, when it is one.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Self::Str(value) => Some(value),
            _ => None,
        }
    }

    /// The array, when it is one.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    /// Name of the kind of value, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "an unsigned integer",
            Self::Signed(_) => "a signed integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Str(_) => "a string",
            Self::Array(_) => "an array",
        }
    }
}

/// A value and the type it is stored in, which readers of standard keys insist on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Typed<'a> {
    /// Value type id, 0 to 12.
    pub id: u32,
    /// The value.
    pub value: Value<'a>,
}

impl<'a> From<Value<'a>> for Typed<'a> {
    /// The type that the standard keys have: 32 bits where a scalar fits without loss, else 64.
    fn from(value: Value<'a>) -> Self {
        let id = match value {
            Value::Unsigned(number) if u32::try_from(number).is_ok() => type_id::U32,
            Value::Unsigned(_) => type_id::U64,
            Value::Signed(number) if i32::try_from(number).is_ok() => type_id::I32,
            Value::Signed(_) => type_id::I64,
            // Bits, not values: a NaN keeps its place too.
            Value::Float(number) if f64::from(number as f32).to_bits() == number.to_bits() => {
                type_id::F32
            }
            Value::Float(_) => type_id::F64,
            Value::Bool(_) => type_id::BOOL,
            Value::Str(_) => type_id::STRING,
            Value::Array(_) => type_id::ARRAY,
        };
        Self { id, value }
    }
}

/// A GGUF array, still in its stored bytes: typed access goes through checked accessors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    /// GGUF value type id of the elements (0..=12 without 9: arrays do not nest).
    pub element_type: u32,
    /// Number of elements.
    pub len: usize,
    /// Exactly the stored elements; for strings each is a u64 length and its bytes, already validated as UTF-8.
    pub bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The elements of an array of strings, in order.
    ///
    /// # Errors
    /// [`Code::GgufArray`] when the elements are of another type.
    pub fn strings(&self) -> Result<Strings<'a>> {
        self.demand(self.element_type == type_id::STRING, "string")?;
        Ok(Strings { rest: self.bytes, left: self.len })
    }

    /// The elements of an array of 32-bit floats, in order.
    ///
    /// # Errors
    /// [`Code::GgufArray`] when the elements are of another type.
    pub fn f32s(&self) -> Result<impl ExactSizeIterator<Item = f32> + Clone + use<'a>> {
        self.demand(self.element_type == type_id::F32, "f32")?;
        Ok(self.bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)))
    }

    /// The elements of an array of 32-bit integers, in order; unsigned ones keep their bits.
    ///
    /// # Errors
    /// [`Code::GgufArray`] when the elements are of another type.
    pub fn i32s(&self) -> Result<impl ExactSizeIterator<Item = i32> + Clone + use<'a>> {
        let is_32 = matches!(self.element_type, type_id::I32 | type_id::U32);
        self.demand(is_32, "i32")?;
        Ok(self.bytes.as_chunks::<4>().0.iter().map(|&bytes| i32::from_le_bytes(bytes)))
    }

    /// The elements of an array of booleans, in order.
    ///
    /// # Errors
    /// [`Code::GgufArray`] when the elements are of another type.
    pub fn bools(&self) -> Result<impl ExactSizeIterator<Item = bool> + Clone + use<'a>> {
        self.demand(self.element_type == type_id::BOOL, "bool")?;
        Ok(self.bytes.iter().map(|&byte| byte != 0))
    }

    /// The elements of an array of any integer type, in order.
    ///
    /// # Errors
    /// [`Code::GgufArray`] when the elements are of another type; [`Code::GgufArray`] too when a 64-bit
    /// unsigned element does not fit an `i64`.
    pub fn integers(&self) -> Result<Vec<i64>> {
        let Some(size) = fixed_size(self.element_type) else {
            return Err(self.wrong_type("integer"));
        };
        self.bytes.chunks_exact(size as usize).map(|bytes| self.integer(bytes)).collect()
    }

    fn integer(&self, bytes: &[u8]) -> Result<i64> {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u64::from_le_bytes(wide);
        Ok(match self.element_type {
            type_id::U8 | type_id::U16 | type_id::U32 | type_id::I64 => unsigned as i64,
            type_id::I8 => i64::from(unsigned as i8),
            type_id::I16 => i64::from(unsigned as i16),
            type_id::I32 => i64::from(unsigned as i32),
            type_id::U64 => i64::try_from(unsigned).map_err(|_| {
                Error::new(Code::GgufArray).expected("elements below 2^63").found(unsigned)
            })?,
            _ => return Err(self.wrong_type("integer")),
        })
    }

    fn demand(&self, condition: bool, expected: &str) -> Result<()> {
        if condition { Ok(()) } else { Err(self.wrong_type(expected)) }
    }

    fn wrong_type(&self, expected: &str) -> Error {
        Error::new(Code::GgufArray)
            .expected(format_args!("an array of {expected}"))
            .found(format_args!("an array of {}", type_name(self.element_type)))
    }
}

/// Iterates over the strings of an [`Array`].
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.left == 0 {
            return None;
        }
        let (length, rest) = self.rest.split_first_chunk::<8>()?;
        let (string, rest) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        self.left -= 1;
        // The parser validated every element; an array built by hand ends at its first invalid one.
        std::str::from_utf8(string).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_only_read_as_what_it_is() {
        let array =
            Array { element_type: type_id::I32, len: 2, bytes: &[1, 0, 0, 0, 255, 255, 255, 255] };
        assert_eq!(array.i32s().unwrap().collect::<Vec<_>>(), [1, -1]);
        assert_eq!(array.integers().unwrap(), [1, -1]);
        let error = array.f32s().err().unwrap();
        assert_eq!((error.code(), error.found_text()), (Code::GgufArray, "an array of i32"));
        assert!(array.strings().is_err());
    }

    #[test]
    fn integers_of_every_width_keep_their_sign() {
        let read = |element_type, bytes| Array { element_type, len: 1, bytes }.integers();
        assert_eq!(read(type_id::I8, &[0xFE]).unwrap(), [-2]);
        assert_eq!(read(type_id::U8, &[0xFE]).unwrap(), [254]);
        assert_eq!(read(type_id::I16, &[0xFE, 0xFF]).unwrap(), [-2]);
        assert_eq!(read(type_id::U64, &[0xFF; 8]).unwrap_err().code(), Code::GgufArray);
        assert!(read(type_id::F32, &[0; 4]).is_err());
    }
}
