//! The table of kernels: one set of functions per instruction set, chosen at run time.
//!
//! [`Kernels::available`] is the only source of tables, so holding one proves that the machine can run
//! it. A kernel computes whole outputs: each output value is the work of one call in a fixed order of
//! operations, whatever the number of threads or of activation rows.

use std::fmt;
use std::ops::Range;

use half::f16;

use super::activations::{Activations, Form, Q8, Q8Super};
use super::peak::{Multiplied, Peak};
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::quant::{SUPER, Statistics};
use crate::tensor::TensorView;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust; runs everywhere.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, VL).
    Avx512,
    /// x86-64 with AVX-512 (F, BW, VL) and its VNNI.
    Avx512Vnni,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: &'static [Self] = &[Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Vnni];

    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }

    /// The instruction set called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|isa| isa.name() == name)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Avx512Vnni => false,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Products of weight rows with f32 rows: `(weight rows, bytes per row, activations, out)`.
/// `activations` is `[n, cols]`, `out` is `[n, weight rows]`.
pub(super) type PlainProduct = fn(&[u8], usize, Columns<'_>, &mut [f32]);
/// Products of weight rows of 32-value blocks: `(weight rows, activations, out)`; `out` as above.
pub(super) type BlockProduct = fn(&[u8], &Q8, &mut [f32]);
/// Products of weight rows of K-quants: `(weight rows, activations, out)`; `out` as above.
pub(super) type SuperProduct = fn(&[u8], &Q8Super, &mut [f32]);
/// Rounds 32 values: quants; returns the scale and the sum of the quants.
pub(super) type RoundBlock = fn(&[f32; 32], &mut [i8; 32]) -> (f32, i32);
/// Rounds 256 values: quants, sums of 16 quants; returns the scale.
pub(super) type RoundSuper = fn(&[f32; SUPER], &mut [i8; SUPER], &mut [i16; SUPER / 16]) -> f32;
/// Statistics of whole blocks of a dtype; `None` for dtypes that are never computed with.
pub(super) type BlockStatistics = fn(Dtype, &[u8]) -> Option<Statistics>;

/// Rows of f32 activations, `cols` each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns<'a> {
    pub(super) values: &'a [f32],
    pub(super) cols: usize,
}

/// Rows that lie `stride` values apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strided<'a, T> {
    pub(super) values: &'a [T],
    pub(super) stride: usize,
}

impl<'a, T> Strided<'a, T> {
    /// The first `len` values of row `row`.
    #[inline]
    pub(super) fn row(&self, row: usize, len: usize) -> &'a [T] {
        &self.values[row * self.stride..][..len]
    }

    /// The rows from row `row`.
    pub(super) fn from(&self, row: usize) -> Self {
        Self { values: &self.values[row * self.stride..], stride: self.stride }
    }
}

/// Most queries that attend to the same keys in one call.
pub(super) const QUERIES: usize = 4;
/// Keys of a strip, a lane each.
pub(super) const KEYS: usize = 8;
/// Turns as many keys of `len` values as `strips`, `[strips][len]`, has room for; the last strip is filled up with the last of
/// `count` keys: `(keys, count, len, strips)`.
pub(super) type Turn<T> = fn(Strided<'_, T>, usize, usize, &mut [[f32; KEYS]]);
/// Products of up to [`QUERIES`] queries with as many of the turned keys as there is room for in each output, a chain
/// each: `(queries, strips, out)`.
pub(super) type Scores = fn(&[&[f32]], &[[f32; KEYS]], &mut [&mut [f32]]);
/// Adds rows of values by their weights to each of up to [`QUERIES`] outputs, row after row: `(weights, values, out)`.
pub(super) type Mix<T> = fn(&[&[f32]], Strided<'_, T>, &mut [&mut [f32]]);

/// Kernels of attention over keys and values stored as `T`. Equal numbers give equal bits, whatever they are stored as.
#[derive(Clone, Copy)]
pub(super) struct CacheKernels<T> {
    /// Adds a multiple of a row of values to an output of its length.
    pub(super) axpy: fn(f32, &[T], &mut [f32]),
    pub(super) turn: Turn<T>,
    pub(super) mix: Mix<T>,
}

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub struct Kernels {
    pub(super) isa: Isa,
    pub(super) dot: fn(&[f32], &[f32]) -> f32,
    pub(super) scores: Scores,
    pub(super) f16_cache: CacheKernels<f16>,
    pub(super) f32_cache: CacheKernels<f32>,
    /// `x = exp(x - shift)`: `(x, shift)`.
    pub(super) exp_from: fn(&mut [f32], f32),
    /// `gate = gate / (1 + exp(-gate)) * up`: `(gate, up)`.
    pub(super) silu_mul: fn(&mut [f32], &[f32]),
    pub(super) round_block: RoundBlock,
    pub(super) round_super: RoundSuper,
    pub(super) f32: PlainProduct,
    pub(super) f16: PlainProduct,
    pub(super) bf16: PlainProduct,
    pub(super) q4_0: BlockProduct,
    pub(super) q4_1: BlockProduct,
    pub(super) q5_0: BlockProduct,
    pub(super) q5_1: BlockProduct,
    pub(super) q8_0: BlockProduct,
    pub(super) q2_k: SuperProduct,
    pub(super) q3_k: SuperProduct,
    pub(super) q4_k: SuperProduct,
    pub(super) q5_k: SuperProduct,
    pub(super) q6_k: SuperProduct,
    pub(super) statistics: BlockStatistics,
    pub(super) peak: Peak,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels({})", self.isa)
    }
}

impl Kernels {
    /// The tables that this machine can run, slowest first; never empty.
    pub fn available() -> Vec<Self> {
        Isa::ALL.iter().filter_map(|&isa| Self::for_isa(isa).ok()).collect()
    }

    /// The table of `isa`.
    ///
    /// # Errors
    /// [`Code::IsaUnavailable`] when this machine lacks it.
    pub fn for_isa(isa: Isa) -> Result<Self> {
        if !isa.is_available() {
            let available: Vec<_> =
                Isa::ALL.iter().filter(|isa| isa.is_available()).map(|isa| isa.name()).collect();
            return Err(Error::new(Code::IsaUnavailable)
                .expected(format_args!("one of {}", available.join(", ")))
                .found(isa));
        }
        Ok(match isa {
            Isa::Portable => portable::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::VNNI_KERNELS,
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::Avx512Vnni => {
                return Err(Error::new(Code::IsaUnavailable).found(isa));
            }
        })
    }

    /// The table of the fastest available instruction set.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(portable::KERNELS)
    }

    /// The instruction set of this table.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Sum of products over the shorter of `a` and `b`.
    pub fn dot(&self, a: &[f32], b: &[f32]) -> f32 {
        let len = a.len().min(b.len());
        (self.dot)(&a[..len], &b[..len])
    }

    /// Multiplies bytes for so many rounds, with nothing around it: what kernels of packed weights are held against.
    pub fn multiply_bytes(&self, rounds: usize) -> Multiplied {
        (self.peak.bytes)(rounds)
    }

    /// Multiplies f32 for so many rounds, with nothing around it: what kernels of plain weights are held against.
    pub fn multiply_floats(&self, rounds: usize) -> Multiplied {
        (self.peak.floats)(rounds)
    }

    /// Prepares `values`, `[rows, cols]`, for products with weights of the dtypes in `weights`.
    ///
    /// # Errors
    /// [`Code::BackendShape`] when `values` is not a whole number of rows.
    pub fn activations<'a>(
        &self,
        values: &'a [f32],
        cols: usize,
        weights: &[Dtype],
    ) -> Result<Activations<'a>> {
        if cols == 0 || !values.len().is_multiple_of(cols) {
            return Err(Error::new(Code::BackendShape)
                .expected(format_args!("rows of {cols} activations"))
                .found(values.len()));
        }
        let wants = |form| weights.iter().any(|&dtype| Form::of(dtype) == form);
        Ok(Activations {
            values,
            cols,
            q8: wants(Form::Q8).then(|| self.round_blocks(values, cols)),
            q8_super: wants(Form::Q8Super).then(|| self.round_supers(values, cols)),
        })
    }

    fn round_blocks(&self, values: &[f32], cols: usize) -> Q8 {
        let blocks = cols.div_ceil(32);
        let total = values.len() / cols * blocks;
        let mut q8 = Q8 { blocks, quants: vec![[0; 32]; total], ..Q8::default() };
        q8.scales.reserve_exact(total);
        q8.sums.reserve_exact(total);
        let mut quants = q8.quants.iter_mut();
        for row in values.chunks_exact(cols) {
            let (whole, rest) = row.as_chunks::<32>();
            let mut padded = [0.0; 32];
            padded[..rest.len()].copy_from_slice(rest);
            let last = (!rest.is_empty()).then_some(&padded);
            for (values, quants) in whole.iter().chain(last).zip(&mut quants) {
                let (scale, sum) = (self.round_block)(values, quants);
                q8.scales.push(scale);
                q8.sums.push(sum);
            }
        }
        q8
    }

    fn round_supers(&self, values: &[f32], cols: usize) -> Q8Super {
        let blocks = cols.div_ceil(SUPER);
        let total = values.len() / cols * blocks;
        let mut q8 = Q8Super {
            blocks,
            quants: vec![[0; SUPER]; total],
            scales: Vec::with_capacity(total),
            sums: vec![[0; SUPER / 16]; total],
        };
        let mut slots = q8.quants.iter_mut().zip(&mut q8.sums);
        for row in values.chunks_exact(cols) {
            let (whole, rest) = row.as_chunks::<SUPER>();
            let mut padded = [0.0; SUPER];
            padded[..rest.len()].copy_from_slice(rest);
            let last = (!rest.is_empty()).then_some(&padded);
            for (values, (quants, sums)) in whole.iter().chain(last).zip(&mut slots) {
                q8.scales.push((self.round_super)(values, quants, sums));
            }
        }
        q8
    }

    /// Products of weight rows `rows` with every activation row: `out[t * rows.len() + w]` is the product
    /// of weight row `rows.start + w` and activation row `t`.
    ///
    /// # Errors
    /// [`Code::BackendShape`] when the sizes do not fit or `activations` was not prepared for the dtype
    /// of `weight`, [`Code::DtypeUnsupported`] for integer weights.
    pub fn product(
        &self,
        weight: &TensorView<'_>,
        rows: Range<usize>,
        activations: &Activations<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        let wrong = |expected: fmt::Arguments<'_>, found: usize| {
            Err(Error::new(Code::BackendShape).expected(expected).found(found))
        };
        if activations.cols != weight.cols() {
            return wrong(format_args!("{} activations per row", weight.cols()), activations.cols);
        }
        if rows.end > weight.rows() || rows.start > rows.end {
            return wrong(format_args!("at most {} weight rows", weight.rows()), rows.end);
        }
        let outputs = rows.len() * activations.rows();
        if out.len() != outputs {
            return wrong(format_args!("{outputs} outputs"), out.len());
        }
        if outputs == 0 {
            return Ok(());
        }
        let Some(stride) = weight.row_stride() else {
            return self.product_by_rows(weight, rows, activations, out);
        };
        let bytes = &weight.bytes()[rows.start * stride..rows.end * stride];
        let columns = Columns { values: activations.values, cols: activations.cols };
        match (weight.dtype(), &activations.q8, &activations.q8_super) {
            (Dtype::F32, ..) => (self.f32)(bytes, stride, columns, out),
            (Dtype::F16, ..) => (self.f16)(bytes, stride, columns, out),
            (Dtype::BF16, ..) => (self.bf16)(bytes, stride, columns, out),
            (Dtype::Q4_0, Some(q8), _) => (self.q4_0)(bytes, q8, out),
            (Dtype::Q4_1, Some(q8), _) => (self.q4_1)(bytes, q8, out),
            (Dtype::Q5_0, Some(q8), _) => (self.q5_0)(bytes, q8, out),
            (Dtype::Q5_1, Some(q8), _) => (self.q5_1)(bytes, q8, out),
            (Dtype::Q8_0, Some(q8), _) => (self.q8_0)(bytes, q8, out),
            (Dtype::Q2K, _, Some(q8)) => (self.q2_k)(bytes, q8, out),
            (Dtype::Q3K, _, Some(q8)) => (self.q3_k)(bytes, q8, out),
            (Dtype::Q4K, _, Some(q8)) => (self.q4_k)(bytes, q8, out),
            (Dtype::Q5K, _, Some(q8)) => (self.q5_k)(bytes, q8, out),
            (Dtype::Q6K, _, Some(q8)) => (self.q6_k)(bytes, q8, out),
            (dtype, ..) if Form::of(dtype) != Form::F32 => {
                return Err(Error::new(Code::BackendShape)
                    .expected(format_args!("activations prepared for {dtype}")));
            }
            _ => return self.product_by_rows(weight, rows, activations, out),
        }
        Ok(())
    }

    /// The way for dtypes without a kernel: widens one weight row at a time.
    fn product_by_rows(
        &self,
        weight: &TensorView<'_>,
        rows: Range<usize>,
        activations: &Activations<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        let mut values = vec![0.0; weight.cols()];
        let width = rows.len();
        for (w, row) in rows.enumerate() {
            weight.dequantize_row(row, &mut values)?;
            let inputs = activations.values.chunks_exact(activations.cols);
            for (out, x) in out.chunks_exact_mut(width).zip(inputs) {
                out[w] = (self.dot)(&values, x);
            }
        }
        Ok(())
    }
}
