//! One tensor on its way out: another dtype, another order of rows, some rows at a time.
//!
//! Rows are converted in parallel, a few megabytes of them at a time, so that memory does not grow with the tensor.
//! Only the flat APR dtypes, whose blocks run over the whole tensor, are converted whole.

use half::f16;
use rayon::prelude::*;

use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::quant;
use crate::tensor::{Shape, Tensor, TensorView};

/// Bytes handed on at a time, and values converted at a time.
const PIECE: usize = 1 << 20;
/// Magnitude from which on a finite value may become infinite in an f16, or in the f16 scale of a block.
const F16_CAREFUL: f32 = 32_768.0;

/// In which order the rows of a tensor are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// As they are stored.
    #[default]
    Stored,
    /// Each head from `[x0 … xn y0 … yn]` to `[x0 y0 x1 y1 …]`, as llama-type GGUF files keep queries and keys.
    Paired {
        /// Attention heads; the outermost dimension is `heads * head_dim`.
        heads: usize,
    },
    /// Each head from `[x0 y0 x1 y1 …]` to `[x0 … xn y0 … yn]`, as Hugging Face files keep them.
    Halved {
        /// As for `Paired`.
        heads: usize,
    },
}

impl RowOrder {
    /// Which of `rows` stored rows stands at `row`.
    fn source(self, row: usize, rows: usize) -> usize {
        let (Self::Paired { heads } | Self::Halved { heads }) = self else { return row };
        let (size, half) = (rows / heads, rows / heads / 2);
        let (head, place) = (row / size * size, row % size);
        match self {
            Self::Paired { .. } => head + place % 2 * half + place / 2,
            _ => head + place % half * 2 + place / half,
        }
    }

    /// Refuses rows that are not whole heads of even size.
    fn check(self, shape: Shape) -> Result<()> {
        let (Self::Paired { heads } | Self::Halved { heads }) = self else { return Ok(()) };
        let rows = shape.dims().first().copied().unwrap_or(0) as usize;
        if heads > 0 && rows > 0 && rows.is_multiple_of(heads * 2) && shape.rank() <= 2 {
            return Ok(());
        }
        Err(Error::new(Code::TensorShape)
            .expected(format_args!("rows of {heads} heads of even size"))
            .found(shape))
    }
}

/// A tensor on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its name in the written file.
    pub name: String,
    /// The dtype it is written in; its stored bytes pass through when that is the dtype it has.
    pub dtype: Dtype,
    /// Where its values come from.
    pub tensor: Tensor,
    /// The order its rows are written in.
    pub order: RowOrder,
    /// Whether a value that is NaN or infinite is an error, also where bytes pass through.
    pub finite: bool,
}

impl Outgoing {
    /// `tensor` as it is, whatever its values.
    pub fn unchanged(name: impl Into<String>, tensor: Tensor) -> Self {
        let (dtype, order) = (tensor.dtype(), RowOrder::Stored);
        Self { name: name.into(), dtype, tensor, order, finite: false }
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> Shape {
        self.tensor.shape()
    }

    /// Whether the stored bytes are the ones that are written, in whatever order of rows.
    pub fn passes_through(&self) -> bool {
        self.dtype == self.tensor.dtype()
    }

    /// Bytes that will be written.
    ///
    /// # Errors
    /// [`Code::TensorRagged`] when the rows are not whole blocks of the dtype.
    pub fn size(&self) -> Result<u64> {
        if self.passes_through() {
            return Ok(self.tensor.bytes().len() as u64);
        }
        let shape = self.shape();
        match self.dtype {
            // One scale in front, unless there is nothing to scale.
            Dtype::AprQ8 if shape.elements() == 0 => Ok(0),
            Dtype::AprQ8 => Ok(shape.elements() + 4),
            Dtype::AprQ4 => Ok(shape.elements().div_ceil(32) * 18),
            dtype => {
                let row =
                    dtype.row_bytes(shape.cols()).map_err(|error| error.tensor(&self.name))?;
                Ok(row * shape.rows())
            }
        }
    }

    /// Hands the bytes to write to `sink`, piece by piece.
    ///
    /// # Errors
    /// [`Code::NonFinite`] for a value that is not finite, or that the dtype cannot hold, [`Code::TensorShape`] when rows
    /// cannot be reordered, [`Code::DtypeUnsupported`], and those of `sink`.
    pub(super) fn pour(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let poured = self.order.check(self.shape()).and_then(|()| match self.tensor.view()? {
            view if view.bytes().is_empty() => Ok(()),
            view if self.is_whole(&view) => self.pour_whole(&view, sink),
            view => self.pour_rows(&view, sink),
        });
        poured.map_err(|error| match error.location() {
            crate::error::Place::Whole => error.tensor(&self.name),
            _ => error,
        })
    }

    /// Whether rows cannot be taken one by one: a vector whose elements are reordered, or blocks over several rows.
    fn is_whole(&self, view: &TensorView<'_>) -> bool {
        let by_element = self.order != RowOrder::Stored && self.shape().rank() < 2;
        let flat = view.row_stride().is_none() || self.dtype.is_flat();
        by_element || (flat && !(self.passes_through() && self.order == RowOrder::Stored))
    }

    fn pour_whole(
        &self,
        view: &TensorView<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let stored = view.dequantize()?;
        let outer = self.shape().dims().first().map_or(1, |dim| *dim as usize);
        let unit = stored.len() / outer.max(1);
        let source = |row| self.order.source(row, outer) * unit;
        let values: Vec<f32> =
            (0..outer).flat_map(|row| &stored[source(row)..source(row) + unit]).copied().collect();
        self.check_finite(&values)?;
        // Blocks of the flat dtypes run over the whole tensor: to them it is one row.
        let cols = if self.dtype.is_flat() { values.len() } else { view.cols() };
        let bytes = quant::quantize(self.dtype, cols, &values)?;
        bytes.chunks(PIECE).try_for_each(sink)
    }

    fn pour_rows(
        &self,
        view: &TensorView<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (rows, cols) = (view.rows(), view.cols());
        let Some(stride) = view.row_stride() else {
            // Blocks over several rows pass through as they lie.
            self.check_rows(view, 0..rows)?;
            return view.bytes().chunks(PIECE).try_for_each(sink);
        };
        let width = if self.passes_through() {
            stride
        } else {
            self.dtype.row_bytes(cols as u64)? as usize
        };
        let most = (PIECE / cols.max(1)).clamp(1, rows.max(1));
        let mut piece = vec![0; most * width];
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let piece = &mut piece[..count * width];
            let each = |scratch: &mut Scratch, (offset, out): (usize, &mut [u8])| {
                self.fill_row(view, self.order.source(first + offset, rows), scratch, out)
            };
            piece
                .par_chunks_mut(width.max(1))
                .enumerate()
                .map_init(Scratch::default, each)
                .collect::<Result<()>>()?;
            sink(piece)?;
        }
        Ok(())
    }

    /// Writes stored row `row` into `out`, in the new dtype.
    fn fill_row(
        &self,
        view: &TensorView<'_>,
        row: usize,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<()> {
        let passes = self.passes_through();
        if passes {
            out.copy_from_slice(view.row(row).unwrap_or_default());
        }
        if passes && !(self.finite && is_number(self.dtype)) {
            return Ok(());
        }
        scratch.values.resize(view.cols(), 0.0);
        view.dequantize_row(row, &mut scratch.values)?;
        self.check_finite(&scratch.values)?;
        if passes {
            return Ok(());
        }
        scratch.bytes.clear();
        quant::quantize_row(self.dtype, &scratch.values, &mut scratch.bytes)?;
        self.check_representable(&mut scratch.values, &scratch.bytes)?;
        out.copy_from_slice(&scratch.bytes);
        Ok(())
    }

    fn check_rows(&self, view: &TensorView<'_>, rows: std::ops::Range<usize>) -> Result<()> {
        if !(self.finite && is_number(self.dtype)) {
            return Ok(());
        }
        let mut values = vec![0.0; view.cols()];
        rows.into_iter().try_for_each(|row| {
            view.dequantize_row(row, &mut values)?;
            self.check_finite(&values)
        })
    }

    fn check_finite(&self, values: &[f32]) -> Result<()> {
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) if self.finite => {
                Err(Error::new(Code::NonFinite).expected("finite weights").found(value))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a finite value that became infinite; `values` are overwritten by what the written bytes mean.
    fn check_representable(&self, values: &mut [f32], bytes: &[u8]) -> Result<()> {
        let farthest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        if !self.finite || farthest < F16_CAREFUL {
            return Ok(());
        }
        quant::dequantize_row(self.dtype, bytes, values)?;
        if values.iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(Error::new(Code::NonFinite)
            .expected(format_args!("values that {} can hold, up to {}", self.dtype, f16::MAX))
            .found(farthest))
    }
}

/// What a thread needs for one row.
#[derive(Default)]
struct Scratch {
    values: Vec<f32>,
    bytes: Vec<u8>,
}

/// Whether values of the dtype can be NaN or infinite.
fn is_number(dtype: Dtype) -> bool {
    let is_integer = matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8);
    !is_integer
}
