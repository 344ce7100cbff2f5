//! Activation rows in the forms that the weight kernels want.
//!
//! A product with packed weights runs in integers: the activations are rounded to signed bytes with one
//! scale per 32 or per 256 values. That happens once per operation; products with several weights (Q, K
//! and V) share it. Rows are padded with zeros to whole blocks, so padded weight rows need no care.
//! The rounded bytes are the same on every instruction set; only sums of floats differ.

use crate::backend::arithmetic::{Arithmetic, ProductArithmetic, Rounding, Sum};
use crate::dtype::Dtype;
use crate::quant::SUPER;

/// Activation blocks that go with 32-value weight blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Q8 {
    /// Blocks per row.
    pub(super) blocks: usize,
    /// `[rows, blocks]` of 32 quants in -127..=127.
    pub(super) quants: Vec<[i8; 32]>,
    /// `[rows, blocks]`; a block that held NaN or infinity has a scale that is not finite.
    pub(super) scales: Vec<f32>,
    /// `[rows, blocks]`: sums of the quants; they multiply the offset of a weight block.
    pub(super) sums: Vec<i32>,
}

/// Activation blocks that go with K-quants.
#[derive(Clone, Debug, Default)]
pub(super) struct Q8Super {
    /// Blocks per row.
    pub(super) blocks: usize,
    /// `[rows, blocks]` of 256 quants in -127..=127.
    pub(super) quants: Vec<[i8; SUPER]>,
    /// `[rows, blocks]`; a block that held NaN or infinity has a scale that is not finite.
    pub(super) scales: Vec<f32>,
    /// `[rows, blocks]`: sums of each 16 quants.
    pub(super) sums: Vec<[i16; SUPER / 16]>,
}

/// One row of [`Q8`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Q8Row<'a> {
    pub(super) quants: &'a [[i8; 32]],
    pub(super) scales: &'a [f32],
    pub(super) sums: &'a [i32],
}

/// One row of [`Q8Super`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Q8SuperRow<'a> {
    pub(super) quants: &'a [[i8; SUPER]],
    pub(super) scales: &'a [f32],
    pub(super) sums: &'a [[i16; SUPER / 16]],
}

impl Q8Row<'_> {
    /// The first `blocks` blocks.
    #[inline]
    pub(super) fn first(&self, blocks: usize) -> Self {
        Self {
            quants: &self.quants[..blocks],
            scales: &self.scales[..blocks],
            sums: &self.sums[..blocks],
        }
    }
}

impl Q8SuperRow<'_> {
    /// The first `blocks` blocks.
    #[inline]
    pub(super) fn first(&self, blocks: usize) -> Self {
        Self {
            quants: &self.quants[..blocks],
            scales: &self.scales[..blocks],
            sums: &self.sums[..blocks],
        }
    }
}

impl Q8 {
    /// Row `row`.
    #[inline]
    pub(super) fn row(&self, row: usize) -> Q8Row<'_> {
        let range = row * self.blocks..(row + 1) * self.blocks;
        Q8Row {
            quants: &self.quants[range.clone()],
            scales: &self.scales[range.clone()],
            sums: &self.sums[range],
        }
    }

    /// Rows.
    pub(super) fn rows(&self) -> usize {
        self.quants.len().checked_div(self.blocks).unwrap_or(0)
    }
}

impl Q8Super {
    /// Row `row`.
    #[inline]
    pub(super) fn row(&self, row: usize) -> Q8SuperRow<'_> {
        let range = row * self.blocks..(row + 1) * self.blocks;
        Q8SuperRow {
            quants: &self.quants[range.clone()],
            scales: &self.scales[range.clone()],
            sums: &self.sums[range],
        }
    }

    /// Rows.
    pub(super) fn rows(&self) -> usize {
        self.quants.len().checked_div(self.blocks).unwrap_or(0)
    }
}

/// Quants per unit of a block whose largest magnitude is `max`. A block so small that this would
/// overflow rounds to zeros; for NaN the result is NaN.
pub(super) fn per_step(max: f32) -> f32 {
    if max < 1e-36 { 0.0 } else { 127.0 / max }
}

/// What a weight dtype is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    F32,
    Q8,
    Q8Super,
}

impl Form {
    pub(super) fn of(weight: Dtype) -> Self {
        match weight {
            Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q8_0 => Self::Q8,
            Dtype::Q2K | Dtype::Q3K | Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => Self::Q8Super,
            _ => Self::F32,
        }
    }
}

/// What the kernels declare: bytes in front of blocks, by the length that goes with them, and sums in f32.
pub(super) fn arithmetic() -> Arithmetic {
    let rounded = |block| ProductArithmetic { rounding: Rounding::Bytes { block }, sum: Sum::F32 };
    let plain = ProductArithmetic { rounding: Rounding::None, sum: Sum::F32 };
    Dtype::ALL.iter().fold(Arithmetic::new(plain), |arithmetic, dtype| match Form::of(*dtype) {
        Form::F32 => arithmetic,
        Form::Q8 => arithmetic.with(&[*dtype], rounded(32)),
        Form::Q8Super => arithmetic.with(&[*dtype], rounded(SUPER)),
    })
}

/// Activation rows with the rounded forms that were asked for.
#[derive(Clone, Debug)]
pub struct Activations<'a> {
    /// `[rows, cols]`.
    pub(super) values: &'a [f32],
    pub(super) cols: usize,
    pub(super) q8: Option<Q8>,
    pub(super) q8_super: Option<Q8Super>,
}

impl Activations<'_> {
    /// Rows (tokens).
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.cols).unwrap_or(0)
    }

    /// Values per row.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::rounding::rounded;
    use crate::backend::simd::kernels::Kernels;

    /// What the kernels multiply in place of `values`, one row.
    fn seen(kernels: &Kernels, dtype: Dtype, values: &[f32]) -> Vec<f64> {
        let activations = kernels.activations(values, values.len(), &[dtype]).unwrap();
        let value = |(quant, scale): (i8, f32)| f64::from(quant) * f64::from(scale);
        let all: Vec<f64> = match (&activations.q8, &activations.q8_super) {
            (Some(q8), None) => {
                let blocks = q8.quants.iter().zip(&q8.scales);
                blocks
                    .flat_map(|(quants, &scale)| quants.map(|quant| value((quant, scale))))
                    .collect()
            }
            (None, Some(q8)) => {
                let blocks = q8.quants.iter().zip(&q8.scales);
                blocks
                    .flat_map(|(quants, &scale)| quants.map(|quant| value((quant, scale))))
                    .collect()
            }
            _ => panic!("one rounding was asked for"),
        };
        all[..values.len()].to_vec()
    }

    #[test]
    fn what_is_declared_is_what_the_kernels_round_on_every_instruction_set() {
        let wave: Vec<f32> = (0..608).map(|at| (at as f32 * 0.37).sin() * 3.0).collect();
        let mut massive = wave.clone();
        (massive[7], massive[300], massive[599]) = (1e4, -3e38, 1e-30);
        // Values between two steps: the largest is 127, so a step is one.
        let ties: Vec<f32> =
            (0..608).map(|at| if at % 32 == 0 { 127.0 } else { at as f32 % 64.0 - 31.5 }).collect();
        let mut small = vec![1e-37; 608];
        small[256..].fill(-0.0);
        let declared = arithmetic();
        for kernels in Kernels::available() {
            for &dtype in Dtype::ALL.iter().filter(|&&dtype| declared.rounds(dtype)) {
                for values in [&wave, &massive, &ties, &small] {
                    let rounding = declared.product(dtype).rounding;
                    assert_eq!(seen(&kernels, dtype, values), rounded(values, rounding), "{dtype}");
                }
            }
        }
    }
}
