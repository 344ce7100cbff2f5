//! Shapes, borrowed tensor views and shared tensor handles.
//!
//! A [`TensorView`] can only be made when its bytes match its dtype and shape; everything behind it
//! may rely on that. Shapes are outermost first (row-major, as NumPy writes them), whatever order
//! the file used.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::quant;

/// Largest number of dimensions of any tensor.
pub const RANK_MAX: usize = 8;

/// Dimensions of a tensor, outermost first; at most [`RANK_MAX`] of them. A scalar has none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    dims: [u64; RANK_MAX],
    rank: u8,
}

impl Shape {
    /// A shape of these dimensions, outermost first.
    ///
    /// # Errors
    /// [`Code::TensorShape`] for more than [`RANK_MAX`] dimensions or when their product overflows.
    pub fn new(dims: &[u64]) -> Result<Self> {
        if dims.len() > RANK_MAX {
            return Err(Error::new(Code::TensorShape)
                .expected(format_args!("at most {RANK_MAX} dimensions"))
                .found(dims.len()));
        }
        let mut shape = Self { dims: [0; RANK_MAX], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim)).ok_or_else(|| {
            Error::new(Code::TensorShape)
                .expected("a number of elements below 2^64")
                .found(format_args!("{dims:?}"))
        })?;
        Ok(shape)
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dims().iter().product()
    }

    /// Length of the innermost dimension; 1 for a scalar.
    pub fn cols(&self) -> u64 {
        self.dims().last().copied().unwrap_or(1)
    }

    /// Product of all dimensions but the innermost; 0 when there is no element, so that a file cannot
    /// make anyone walk over 2^60 rows of nothing.
    pub fn rows(&self) -> u64 {
        match self.dims().split_last() {
            None => 1,
            Some((0, _)) => 0,
            Some((_, outer)) => outer.iter().product(),
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// How the blocks of a tensor lie over its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Every row begins on a block boundary; `row_bytes` from row to row (padding included).
    Rows { row_bytes: usize },
    /// Blocks run over the flattened tensor.
    Flat,
}

/// A dtype, a shape and exactly the bytes they call for.
#[derive(Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    dtype: Dtype,
    shape: Shape,
    layout: Layout,
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Checks `bytes` against `dtype` and `shape`.
    ///
    /// Rows of block types must be whole blocks, except that each row may be padded to whole blocks, or the
    /// blocks may run over the flattened tensor, when the byte count says so (APR K-quants).
    ///
    /// # Errors
    /// [`Code::TensorBytes`] or [`Code::TensorRagged`].
    pub fn new(dtype: Dtype, shape: Shape, bytes: &'a [u8]) -> Result<Self> {
        let layout = Self::layout(dtype, shape, bytes.len() as u64)?;
        Ok(Self { dtype, shape, layout, bytes })
    }

    fn layout(dtype: Dtype, shape: Shape, len: u64) -> Result<Layout> {
        let wrong = |expected: String| {
            Error::new(Code::TensorBytes)
                .expected(format_args!("{expected} for {dtype} {shape}"))
                .found(format_args!("{len} bytes"))
        };
        if dtype.is_flat() {
            let expected = flat_bytes(dtype, shape.elements());
            return if expected == Some(len) {
                Ok(Layout::Flat)
            } else {
                Err(wrong(format!("{expected:?} bytes")))
            };
        }
        let blocks = shape.cols().div_ceil(dtype.block_len() as u64);
        let row_bytes = blocks
            .checked_mul(dtype.block_bytes() as u64)
            .ok_or_else(|| wrong("fewer bytes per row".into()))?;
        let total = row_bytes.checked_mul(shape.rows());
        if total == Some(len) {
            return Ok(Layout::Rows { row_bytes: row_bytes as usize });
        }
        // Where both layouts have the same size, rows win: no file with flat K-quants is known.
        if dtype.block_len() > 1 && flat_bytes(dtype, shape.elements()) == Some(len) {
            return Ok(Layout::Flat);
        }
        Err(wrong(format!("{total:?} bytes")))
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Rows: product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.rows() as usize
    }

    /// Length of a row.
    pub fn cols(&self) -> usize {
        self.shape.cols() as usize
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The stored bytes of row `row`, when rows begin on block boundaries.
    pub fn row(&self, row: usize) -> Option<&'a [u8]> {
        match self.layout {
            Layout::Rows { row_bytes } => {
                let start = row.checked_mul(row_bytes)?;
                self.bytes.get(start..start.checked_add(row_bytes)?)
            }
            Layout::Flat => None,
        }
    }

    /// Bytes from one row to the next, when rows begin on block boundaries.
    pub fn row_stride(&self) -> Option<usize> {
        match self.layout {
            Layout::Rows { row_bytes } => Some(row_bytes),
            Layout::Flat => None,
        }
    }

    /// Where, in the stored bytes, the block begins that holds value number `index`, counted row by row.
    pub fn block_start(&self, index: usize) -> usize {
        let (len, size) = (self.dtype.block_len(), self.dtype.block_bytes());
        match self.layout {
            Layout::Rows { row_bytes } => {
                let cols = self.cols().max(1);
                index / cols * row_bytes + index % cols / len * size
            }
            // One step stands in front of all values of this dtype.
            Layout::Flat if self.dtype == Dtype::AprQ8 => quant::apr_q8::STEP_BYTES + index,
            Layout::Flat => index / len * size,
        }
    }

    /// Writes the values of row `row` into `out`, which holds [`TensorView::cols`] values.
    ///
    /// # Errors
    /// [`Code::TensorShape`] when `row` or the length of `out` is wrong,
    /// [`Code::DtypeUnsupported`] for integer tensors.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if row >= self.rows() || out.len() != self.cols() {
            return Err(Error::new(Code::TensorShape)
                .expected(format_args!("row < {} and {} values", self.rows(), self.cols()))
                .found(format_args!("row {row} and {} values", out.len())));
        }
        match self.row(row) {
            Some(bytes) => quant::dequantize_row(self.dtype, bytes, out),
            None if self.dtype.is_flat() => {
                quant::dequantize_flat(self.dtype, self.bytes, row * self.cols(), out)
            }
            None => self.dequantize_span(row * self.cols(), out),
        }
    }

    /// Writes the values from number `start` on, of blocks that run over the flattened tensor.
    fn dequantize_span(&self, start: usize, out: &mut [f32]) -> Result<()> {
        let (len, size) = (self.dtype.block_len(), self.dtype.block_bytes());
        let first = start / len;
        let end = (start + out.len()).div_ceil(len);
        let blocks = self.bytes.get(first * size..end * size).unwrap_or_default();
        let mut values = vec![0.0; (end - first) * len];
        quant::dequantize_row(self.dtype, blocks, &mut values)?;
        let skipped = start - first * len;
        out.copy_from_slice(&values[skipped..skipped + out.len()]);
        Ok(())
    }

    /// All values as f32, row by row.
    ///
    /// # Errors
    /// As [`TensorView::dequantize_row`].
    pub fn dequantize(&self) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.rows() * self.cols()];
        if self.cols() > 0 {
            for (row, values) in out.chunks_exact_mut(self.cols()).enumerate() {
                self.dequantize_row(row, values)?;
            }
        }
        Ok(out)
    }
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorView({} {}, {} bytes)", self.dtype, self.shape, self.bytes.len())
    }
}

/// Bytes of a flat dtype for `elements` values; `None` on overflow.
fn flat_bytes(dtype: Dtype, elements: u64) -> Option<u64> {
    match dtype {
        // An empty APR-Q8 tensor has no scale either.
        Dtype::AprQ8 => {
            if elements == 0 {
                Some(0)
            } else {
                elements.checked_add(4)
            }
        }
        _ => elements.div_ceil(dtype.block_len() as u64).checked_mul(dtype.block_bytes() as u64),
    }
}

/// A cheaply cloned range of bytes that keeps its owner (a mapping or a vector) alive.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        let range = 0..(*owner).as_ref().len();
        Self { owner, range }
    }

    /// A part of these bytes; `None` when `range` leaves them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.get(range.clone())?;
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        Some(Self { owner: Arc::clone(&self.owner), range: start..end })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Arc::new(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.range.len())
    }
}

/// An owned handle on a tensor; the bytes stay where they are (usually in a file mapping).
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: Dtype,
    shape: Shape,
    bytes: Bytes,
}

impl Tensor {
    /// Checks as [`TensorView::new`] does.
    ///
    /// # Errors
    /// As [`TensorView::new`].
    pub fn new(dtype: Dtype, shape: Shape, bytes: Bytes) -> Result<Self> {
        TensorView::new(dtype, shape, &bytes)?;
        Ok(Self { dtype, shape, bytes })
    }

    /// An f32 tensor over freshly owned values.
    ///
    /// # Errors
    /// [`Code::TensorBytes`] when the number of values is not that of `shape`.
    pub fn from_f32(shape: Shape, values: &[f32]) -> Result<Self> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(Dtype::F32, shape, bytes.into())
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The rows `rows` of a matrix as a matrix of their own. Bytes are shared, except under a scale for the whole
    /// tensor, which stands in front of the first row only.
    ///
    /// # Errors
    /// [`Code::TensorShape`] for rows that are not there or of a tensor that is no matrix, [`Code::TensorRagged`]
    /// when they do not begin and end between blocks.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self> {
        let outside = || {
            Error::new(Code::TensorShape)
                .expected(format_args!("rows {rows:?} of a matrix"))
                .found(self.shape)
        };
        let [count, cols] = *self.shape.dims() else { return Err(outside()) };
        if rows.start > rows.end || rows.end as u64 > count {
            return Err(outside());
        }
        let shape = Shape::new(&[rows.len() as u64, cols])?;
        let bytes = match (self.view()?.row_stride(), self.dtype) {
            (Some(stride), _) => self.bytes.slice(rows.start * stride..rows.end * stride),
            (None, Dtype::AprQ8) => {
                let at = |row: usize| 4 + row * cols as usize;
                let codes = self.bytes.get(at(rows.start)..at(rows.end));
                let scale = self.bytes.get(..4).unwrap_or_default();
                codes.map(|codes| [scale, codes].concat().into())
            }
            (None, dtype) => {
                let (len, size) = (dtype.block_len(), dtype.block_bytes());
                let [start, end] = [rows.start, rows.end].map(|row| row * cols as usize);
                if !start.is_multiple_of(len) || !end.is_multiple_of(len) {
                    return Err(Error::new(Code::TensorRagged)
                        .expected(format_args!("rows {rows:?} on the borders of {dtype} blocks"))
                        .found(self.shape));
                }
                self.bytes.slice(start / len * size..end / len * size)
            }
        };
        Self::new(self.dtype, shape, bytes.ok_or_else(outside)?)
    }

    /// Borrowed view of the same tensor.
    ///
    /// # Errors
    /// [`Code::TensorBytes`] when the file behind the bytes shrank since the tensor was checked.
    pub fn view(&self) -> Result<TensorView<'_>> {
        TensorView::new(self.dtype, self.shape, &self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_needs_exactly_the_bytes_of_its_shape() {
        let shape = Shape::new(&[2, 32]).unwrap();
        let bytes = [0u8; 68];
        assert!(TensorView::new(Dtype::Q8_0, shape, &bytes).is_ok());
        let error = TensorView::new(Dtype::Q8_0, shape, &bytes[..67]).unwrap_err();
        assert_eq!(error.code(), Code::TensorBytes);
    }

    #[test]
    fn blocks_over_the_flattened_tensor_give_the_values_of_its_rows() {
        let shape = Shape::new(&[3, 48]).unwrap();
        let values: Vec<f32> = (0..160).map(|value| value as f32 - 64.0).collect();
        let bytes = quant::quantize(Dtype::Q8_0, 160, &values).unwrap();
        // 144 values need 5 blocks flattened and 6 blocks in rows of two.
        let view = TensorView::new(Dtype::Q8_0, shape, &bytes).unwrap();
        assert_eq!(view.row(1), None);
        let mut whole = vec![0.0; 160];
        quant::dequantize_row(Dtype::Q8_0, &bytes, &mut whole).unwrap();
        assert_eq!(view.dequantize().unwrap(), whole[..144]);
    }

    #[test]
    fn a_value_lies_in_its_block() {
        let start = |dtype, dims: &[u64], bytes: usize, index| {
            let bytes = vec![0; bytes];
            TensorView::new(dtype, Shape::new(dims).unwrap(), &bytes).unwrap().block_start(index)
        };
        assert_eq!(start(Dtype::BF16, &[3, 4], 24, 7), 14);
        assert_eq!(start(Dtype::Q4K, &[2, 512], 576, 511), 144);
        assert_eq!(start(Dtype::Q4K, &[2, 512], 576, 512), 288);
        // Rows of 48 values are padded to two blocks of 34 bytes, or run on without padding.
        assert_eq!(start(Dtype::Q8_0, &[3, 48], 204, 48 + 33), 68 + 34);
        assert_eq!(start(Dtype::Q8_0, &[3, 48], 170, 48 + 33), 68);
        assert_eq!(start(Dtype::AprQ8, &[2, 4], 12, 7), 11);
    }

    #[test]
    fn rows_taken_from_a_matrix_keep_their_values_in_every_layout() {
        let values: Vec<f32> = (0..6 * 32).map(|value| (value % 41) as f32 - 20.0).collect();
        let shape = Shape::new(&[6, 32]).unwrap();
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::Q8_0, Dtype::AprQ8, Dtype::AprQ4] {
            let cols = if dtype.is_flat() { values.len() } else { 32 };
            let bytes = quant::quantize(dtype, cols, &values).unwrap();
            let whole = Tensor::new(dtype, shape, bytes.into()).unwrap();
            let part = whole.rows(2..5).unwrap();
            let (part, whole) = (part.view().unwrap(), whole.view().unwrap());
            assert_eq!(part.dequantize().unwrap(), whole.dequantize().unwrap()[2 * 32..5 * 32]);
        }
    }

    #[test]
    fn rows_that_are_not_there_or_cut_a_block_are_refused() {
        let of = |dtype: Dtype, dims: &[u64]| {
            let shape = Shape::new(dims).unwrap();
            let values = vec![1.0; shape.elements() as usize];
            let bytes = quant::quantize(dtype, values.len(), &values).unwrap();
            Tensor::new(dtype, shape, bytes.into()).unwrap()
        };
        let error = |tensor: Tensor, rows| tensor.rows(rows).unwrap_err().code();
        assert_eq!(error(of(Dtype::F32, &[4, 2]), 2..5), Code::TensorShape);
        assert_eq!(error(of(Dtype::F32, &[4]), 0..1), Code::TensorShape);
        assert_eq!(error(of(Dtype::AprQ4, &[4, 48]), 1..2), Code::TensorRagged);
    }

    #[test]
    fn an_overflowing_shape_is_an_error() {
        assert_eq!(Shape::new(&[1 << 32, 1 << 32]).unwrap_err().code(), Code::TensorShape);
        assert_eq!(Shape::new(&[1; 9]).unwrap_err().code(), Code::TensorShape);
    }

    #[test]
    fn a_slice_of_bytes_cannot_leave_its_owner() {
        let bytes = Bytes::from(vec![1, 2, 3, 4]);
        let part = bytes.slice(1..3).unwrap();
        assert_eq!(&*part, [2, 3]);
        assert!(part.slice(0..3).is_none());
    }
}
