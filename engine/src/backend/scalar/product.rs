//! Matrix products of the oracle: every weight row is dequantised once and multiplied with all tokens.
//!
//! Rows of the weight are shared out over the processors and tokens are taken several at a time. Each
//! output is still one sum in f64, in the order of the row, so neither changes a bit of it.

use rayon::prelude::*;

use super::rounding::rounded;
use crate::backend::arithmetic::Rounding;
use crate::error::Result;
use crate::tensor::TensorView;

/// Outputs of one task.
const OUTPUTS: usize = 64;
/// Weight rows that are multiplied at the same time: their sums do not wait for one another.
const ROWS: usize = 4;

/// `dst[t, o] = sum(weight[o, i] * x[t, i])`, with `x` rounded first. `dst` is `[tokens, outputs]`, `x` is
/// `[tokens, inputs]`.
///
/// # Errors
/// As [`TensorView::dequantize_row`].
pub(super) fn matmul(
    dst: &mut [f32],
    weight: &TensorView<'_>,
    x: &[f32],
    rounding: Rounding,
) -> Result<()> {
    let (outputs, inputs) = (weight.rows(), weight.cols());
    if outputs == 0 || inputs == 0 || x.is_empty() {
        dst.fill(0.0);
        return Ok(());
    }
    let x: Vec<Vec<f64>> = x.chunks_exact(inputs).map(|row| rounded(row, rounding)).collect();
    let blocks = blocks(&x);
    let tokens = x.len();
    // By output, `[outputs, tokens]`: each task has values of its own to write to.
    let mut by_output = vec![0.0f32; outputs * tokens];
    by_output.par_chunks_mut(OUTPUTS * tokens).enumerate().try_for_each(|(task, dst)| {
        let mut rows: [Vec<f32>; ROWS] = std::array::from_fn(|_| vec![0.0; inputs]);
        for (group, dst) in dst.chunks_mut(ROWS * tokens).enumerate() {
            let first = task * OUTPUTS + group * ROWS;
            let count = dst.len() / tokens;
            for (index, row) in rows[..count].iter_mut().enumerate() {
                weight.dequantize_row(first + index, row)?;
            }
            for block in &blocks {
                block.multiply(&rows, dst, tokens);
            }
        }
        Ok(())
    })?;
    for (output, values) in by_output.chunks_exact(tokens).enumerate() {
        for (token, value) in values.iter().enumerate() {
            dst[token * outputs + output] = *value;
        }
    }
    Ok(())
}

/// The tokens, several at a time.
fn blocks(x: &[Vec<f64>]) -> Vec<Block> {
    let mut first = 0;
    let mut blocks = Vec::new();
    while first < x.len() {
        let rest = &x[first..];
        let block = match rest.len() {
            1 => Block::of(first, rest, Lanes::One),
            2..=4 => Block::of(first, rest, Lanes::Four),
            _ => Block::of(first, rest, Lanes::Twelve),
        };
        first += block.count;
        blocks.push(block);
    }
    blocks
}

/// How many tokens are multiplied at once.
#[derive(Clone, Copy)]
enum Lanes {
    One = 1,
    Four = 4,
    Twelve = 12,
}

/// Some tokens side by side.
struct Block {
    /// First token.
    first: usize,
    /// Tokens, at most as many as lanes.
    count: usize,
    lanes: Lanes,
    /// `[inputs, lanes]`; lanes without a token are zero.
    values: Vec<f64>,
}

impl Block {
    fn of(first: usize, x: &[Vec<f64>], lanes: Lanes) -> Self {
        let width = lanes as usize;
        let count = x.len().min(width);
        let inputs = x.first().map_or(0, Vec::len);
        let mut values = vec![0.0; inputs * width];
        for (lane, row) in x[..count].iter().enumerate() {
            for (input, value) in row.iter().enumerate() {
                values[input * width + lane] = *value;
            }
        }
        Self { first, count, lanes, values }
    }

    /// Products of weight rows with the tokens of this block. `dst` is `[rows, tokens]`.
    fn multiply(&self, rows: &[Vec<f32>; ROWS], dst: &mut [f32], tokens: usize) {
        match self.lanes {
            Lanes::One => self.together::<1>(rows, dst, tokens),
            Lanes::Four => self.one_by_one::<4>(rows, dst, tokens),
            Lanes::Twelve => self.one_by_one::<12>(rows, dst, tokens),
        }
    }

    /// Several rows at once, which one token alone needs to keep the processor busy.
    fn together<const LANES: usize>(
        &self,
        rows: &[Vec<f32>; ROWS],
        dst: &mut [f32],
        tokens: usize,
    ) {
        let x = self.values.as_chunks::<LANES>().0;
        let [a, b, c, d] = rows;
        let mut sums = [[0.0f64; LANES]; ROWS];
        for ((((x, a), b), c), d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
            for (sums, weight) in sums.iter_mut().zip([a, b, c, d]) {
                let weight = f64::from(*weight);
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum += x * weight;
                }
            }
        }
        for (dst, sums) in dst.chunks_exact_mut(tokens).zip(&sums) {
            self.keep(dst, sums);
        }
    }

    /// Row after row, the tokens side by side.
    fn one_by_one<const LANES: usize>(
        &self,
        rows: &[Vec<f32>; ROWS],
        dst: &mut [f32],
        tokens: usize,
    ) {
        let x = self.values.as_chunks::<LANES>().0;
        for (dst, row) in dst.chunks_exact_mut(tokens).zip(rows) {
            let mut sums = [0.0f64; LANES];
            for (x, weight) in x.iter().zip(row) {
                let weight = f64::from(*weight);
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum += x * weight;
                }
            }
            self.keep(dst, &sums);
        }
    }

    fn keep(&self, dst: &mut [f32], sums: &[f64]) {
        for (dst, sum) in dst[self.first..self.first + self.count].iter_mut().zip(sums) {
            *dst = *sum as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::tensor::Shape;

    /// The one-line loops that the oracle stands for.
    fn naive(weight: &TensorView<'_>, x: &[f32], rounding: Rounding) -> Vec<f32> {
        let mut dst = Vec::new();
        for x in x.chunks_exact(weight.cols()) {
            let x = rounded(x, rounding);
            for output in 0..weight.rows() {
                let mut row = vec![0.0; weight.cols()];
                weight.dequantize_row(output, &mut row).unwrap();
                let mut sum = 0.0;
                for (x, weight) in x.iter().zip(&row) {
                    sum += x * f64::from(*weight);
                }
                dst.push(sum as f32);
            }
        }
        dst
    }

    #[test]
    fn blocks_of_tokens_and_tasks_of_rows_change_no_bit_of_the_naive_loops() {
        let values = |len: usize, phase: f32| -> Vec<f32> {
            (0..len).map(|i| (i as f32 * 0.7 + phase).sin() * 10f32.powi(i as i32 % 7)).collect()
        };
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::Q8_0, Dtype::Q4K, Dtype::Q6K, Dtype::AprQ4] {
            for outputs in [1, 3, 4, 65, 131] {
                let cols = 512;
                let bytes =
                    crate::quant::quantize(dtype, cols, &values(outputs * cols, 0.1)).unwrap();
                let shape = Shape::new(&[outputs as u64, cols as u64]).unwrap();
                let weight = TensorView::new(dtype, shape, &bytes).unwrap();
                for tokens in [1, 2, 5, 12, 13, 24, 29] {
                    let x = values(tokens * cols, 1.3);
                    for rounding in [Rounding::None, Rounding::Bytes { block: 32 }] {
                        let mut dst = vec![f32::NAN; tokens * outputs];
                        matmul(&mut dst, &weight, &x, rounding).unwrap();
                        let expected = naive(&weight, &x, rounding);
                        assert!(
                            dst.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                            "{dtype} [{outputs}, {cols}] with {tokens} tokens"
                        );
                    }
                }
            }
        }
    }
}
