//! The bounds-checked little-endian reader: the only code that turns offsets of a file into slices.
//!
//! It knows nothing of formats. Every parser reads through it, so a length that leaves the file is
//! an error value with its byte offset, never a panic and never an allocation.

use crate::error::{Code, Error, Result};

/// Reads forward through the bytes of a file.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The code of an error when the bytes end early.
    truncated: Code,
}

impl<'a> Cursor<'a> {
    /// A reader at the start of `bytes`; running out of them is an error of code `truncated`.
    pub(super) fn new(bytes: &'a [u8], truncated: Code) -> Self {
        Self { bytes, position: 0, truncated }
    }

    /// Offset of the next byte from the start of the file.
    pub(super) fn offset(&self) -> u64 {
        self.position as u64
    }

    /// Number of bytes that are left.
    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// The truncation code, with the offset, when fewer than `len` are left.
    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let taken = range(self.bytes, self.offset(), len).ok_or_else(|| {
            Error::new(self.truncated)
                .at(self.offset())
                .expected(format_args!("{len} more bytes"))
                .found(format_args!("{} bytes", self.remaining()))
                .hint("the file is damaged or its download was cut short")
        })?;
        self.position += taken.len();
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    /// The next byte.
    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next two bytes as a little-endian unsigned integer.
    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes as a little-endian unsigned integer.
    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes as a little-endian unsigned integer.
    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next four bytes as a little-endian IEEE 754 single.
    pub(super) fn f32(&mut self) -> Result<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes as a little-endian IEEE 754 double.
    pub(super) fn f64(&mut self) -> Result<f64> {
        Ok(f64::from_le_bytes(self.array()?))
    }
}

/// The `len` bytes that begin at `start`; `None` when they leave `bytes` or the sum overflows.
pub(super) fn range(bytes: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let end = usize::try_from(start.checked_add(len)?).ok()?;
    bytes.get(usize::try_from(start).ok()?..end)
}

/// The smallest multiple of `alignment` (not 0) that is at least `value`; `None` on overflow.
pub(super) fn align_up(value: u64, alignment: u64) -> Option<u64> {
    value.checked_next_multiple_of(alignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_is_an_error_with_its_offset() {
        let mut cursor = Cursor::new(&[1, 0, 2], Code::GgufTruncated);
        assert_eq!(cursor.u16().unwrap(), 1);
        let error = cursor.u32().unwrap_err();
        assert_eq!(error.code(), Code::GgufTruncated);
        assert_eq!(error.location(), &crate::error::Place::Offset(2));
        assert_eq!(cursor.u8().unwrap(), 2);
    }

    #[test]
    fn a_range_whose_end_overflows_is_none() {
        assert_eq!(range(&[1, 2, 3], 1, 2), Some(&[2, 3][..]));
        assert_eq!(range(&[1, 2, 3], 1, u64::MAX), None);
        assert_eq!(range(&[1, 2, 3], u64::MAX, 1), None);
        assert_eq!(align_up(u64::MAX, 32), None);
    }
}
