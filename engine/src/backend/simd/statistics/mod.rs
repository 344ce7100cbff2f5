//! One pass over stored weights: the statistics of every tensor, read once, block by block, on all threads.
//!
//! Tensors are cut into spans of a few mebibytes; each is read by one thread, and what the spans of a tensor gave is
//! merged in the order of the file, so neither the number of threads nor their timing shows in the numbers. No
//! value is written out and nothing but a record per span is allocated.

mod portable;
#[cfg(test)]
mod tests;

use zerocopy::IntoBytes as _;

use super::kernels::Kernels;
use super::pool::Pool;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::quant::statistics::Statistics;
use crate::quant::{self, apr_q8};
use crate::tensor::TensorView;

pub(super) use portable::statistics as portable_statistics;

/// Bytes of a span: short enough to be shared out evenly, and long enough for the extremes to be found in a small part of
/// it: until then many blocks could hold a new one.
const SPAN_BYTES: usize = 8 << 20;
/// Most values of a block.
const BLOCK_LEN_MAX: usize = quant::SUPER;

/// A run of stored blocks and how many of the values in them belong to the tensor.
#[derive(Clone, Copy)]
struct Span<'a> {
    dtype: Dtype,
    /// The one step of an APR-Q8 tensor, whose bytes are quants; otherwise unused.
    step: f32,
    bytes: &'a [u8],
    values: usize,
}

impl Kernels {
    /// The statistics of `values`.
    pub fn statistics(&self, values: &[f32]) -> Statistics {
        // Stored values are little-endian.
        #[cfg(target_endian = "little")]
        let known = (self.statistics)(Dtype::F32, values.as_bytes());
        #[cfg(target_endian = "big")]
        let known = None;
        known.unwrap_or_else(|| {
            let mut statistics = Statistics::default();
            statistics.add(values);
            statistics
        })
    }

    /// The statistics of each of `views`, in their order, read by `threads` threads; `None` for dtypes that are stored
    /// but never computed with.
    ///
    /// # Errors
    /// [`crate::Code::DeviceUnavailable`] when the threads cannot be started.
    pub fn survey(
        &self,
        views: &[TensorView<'_>],
        threads: usize,
    ) -> Result<Vec<Option<Statistics>>> {
        let mut spans = Vec::new();
        for (tensor, view) in views.iter().enumerate() {
            cut(view, &mut |span| spans.push((tensor, span)));
        }
        let work = views.iter().map(|view| view.bytes().len()).fold(0, usize::saturating_add);
        let mut read = vec![None; spans.len()];
        let tasks: Vec<_> = spans.iter().map(|(_, span)| *span).zip(&mut read).collect();
        Pool::new(threads)?.each(tasks, work, |(span, read)| {
            *read = self.span(span);
            Ok(())
        })?;
        let computed = |view: &TensorView<'_>| self.statistics_known(view.dtype());
        let mut surveyed: Vec<Option<Statistics>> =
            views.iter().map(|view| computed(view).then(Statistics::default)).collect();
        for ((tensor, _), read) in spans.iter().zip(&read) {
            if let (Some(total), Some(read)) = (&mut surveyed[*tensor], read) {
                total.merge(read);
            }
        }
        Ok(surveyed)
    }

    /// Whether tensors of `dtype` have statistics.
    fn statistics_known(&self, dtype: Dtype) -> bool {
        dtype == Dtype::AprQ8 || (self.statistics)(dtype, &[]).is_some()
    }

    fn span(&self, span: Span<'_>) -> Option<Statistics> {
        if span.dtype == Dtype::AprQ8 {
            return Some(portable::scaled(span.step, span.bytes));
        }
        let len = span.dtype.block_len();
        let whole = span.values / len;
        let (blocks, last) = span.bytes.split_at(whole * span.dtype.block_bytes());
        let mut total = (self.statistics)(span.dtype, blocks)?;
        // Of a block that is not full only the values in front count.
        let mut values = [0.0; BLOCK_LEN_MAX];
        let values = &mut values[..span.values - whole * len];
        let written = if span.dtype.is_flat() {
            quant::dequantize_flat(span.dtype, last, 0, values)
        } else {
            quant::dequantize_row(span.dtype, last, values)
        };
        written.ok()?;
        total.add(values);
        Some(total)
    }
}

/// Hands the spans of `view` to `take`, in the order of the file.
fn cut<'a>(view: &TensorView<'a>, take: &mut dyn FnMut(Span<'a>)) {
    let (dtype, bytes) = (view.dtype(), view.bytes());
    if dtype == Dtype::AprQ8 {
        let Some((step, quants)) = apr_q8::split(bytes) else { return };
        for bytes in quants.chunks(SPAN_BYTES) {
            take(Span { dtype, step, bytes, values: bytes.len() });
        }
        return;
    }
    let (len, cols) = (dtype.block_len(), view.cols());
    if view.row_stride().is_some() && !cols.is_multiple_of(len) {
        // Each row ends in a block that is not full.
        for bytes in (0..view.rows()).filter_map(|row| view.row(row)) {
            take(Span { dtype, step: 0.0, bytes, values: cols });
        }
        return;
    }
    let mut left = view.rows() * cols;
    for bytes in bytes.chunks(SPAN_BYTES / dtype.block_bytes() * dtype.block_bytes()) {
        let values = (bytes.len() / dtype.block_bytes() * len).min(left);
        left -= values;
        take(Span { dtype, step: 0.0, bytes, values });
    }
}
