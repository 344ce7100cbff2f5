//! Statistics of stored values in plain Rust: the reference of the kernels, and what they leave aside.
//!
//! Packed values are counted as quants: in every block type the values of a group are `step * quant + offset`, so
//! sums of quants and of their squares are integers, all zeros have the same quant, and the extremes belong to the
//! extreme quants. No value is written out.

use half::{bf16, f16};

use super::super::parts::{Parts, Small, Super, SuperParts};
use crate::dtype::Dtype;
use crate::quant::statistics::Statistics;
use crate::quant::{
    self, AprQ4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Q8K, SUPER,
};

/// Values that are widened at a time.
const CHUNK: usize = 256;
/// Partial sums that are kept side by side.
const LANES: usize = 8;

/// The statistics of the whole blocks of `bytes`; `None` for dtypes that are never computed with.
pub(in super::super) fn statistics(dtype: Dtype, bytes: &[u8]) -> Option<Statistics> {
    Some(match dtype {
        Dtype::F32 => plain(bytes, f32::from_le_bytes),
        Dtype::F16 => plain(bytes, |raw| f16::from_le_bytes(raw).to_f32()),
        Dtype::BF16 => plain(bytes, |raw| bf16::from_le_bytes(raw).to_f32()),
        Dtype::F64 => plain(bytes, |raw| f64::from_le_bytes(raw) as f32),
        Dtype::Q4_0 => small::<Q4_0>(bytes),
        Dtype::Q4_1 => small::<Q4_1>(bytes),
        Dtype::Q5_0 => small::<Q5_0>(bytes),
        Dtype::Q5_1 => small::<Q5_1>(bytes),
        Dtype::Q8_0 => small::<Q8_0>(bytes),
        Dtype::AprQ4 => small::<AprQ4>(bytes),
        Dtype::Q2K => large::<Q2K>(bytes),
        Dtype::Q3K => large::<Q3K>(bytes),
        Dtype::Q4K => large::<Q4K>(bytes),
        Dtype::Q5K => large::<Q5K>(bytes),
        Dtype::Q6K => large::<Q6K>(bytes),
        Dtype::Q8K => {
            let mut total = Statistics::default();
            for block in quant::blocks::<SUPER, Q8K>(bytes) {
                add_group(&block.qs, Grid::symmetric(block.d.get()), &mut total);
            }
            total
        }
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8 | Dtype::AprQ8 => return None,
    })
}

/// The statistics of signed bytes that share one `step`.
pub(super) fn scaled(step: f32, quants: &[u8]) -> Statistics {
    let mut total = Statistics::default();
    let mut group = [0i8; CHUNK];
    for quants in quants.chunks(CHUNK) {
        for (signed, &quant) in group.iter_mut().zip(quants) {
            *signed = quant as i8;
        }
        add_group(&group[..quants.len()], Grid::symmetric(step), &mut total);
    }
    total
}

fn plain<const N: usize>(bytes: &[u8], widen: impl Fn([u8; N]) -> f32) -> Statistics {
    let mut total = Statistics::default();
    let mut values = [0.0f32; CHUNK];
    for raw in bytes.as_chunks::<N>().0.chunks(CHUNK) {
        for (value, &raw) in values.iter_mut().zip(raw) {
            *value = widen(raw);
        }
        add_values(&values[..raw.len()], &mut total);
    }
    total
}

/// Takes values in by lanes, where all of them are finite.
fn add_values(values: &[f32], total: &mut Statistics) {
    let (lanes, rest) = values.as_chunks::<LANES>();
    let (mut sums, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let mut zeros = [0u32; LANES];
    let mut finite = true;
    for values in lanes {
        for lane in 0..LANES {
            let value = values[lane];
            let wide = f64::from(value);
            finite &= value.abs() < f32::INFINITY;
            zeros[lane] = zeros[lane].wrapping_add(u32::from(value == 0.0));
            sums[lane] += wide;
            squares[lane] += wide * wide;
            low[lane] = if value < low[lane] { value } else { low[lane] };
            high[lane] = if value > high[lane] { value } else { high[lane] };
        }
    }
    if !finite {
        return total.add(values);
    }
    total.values += (lanes.len() * LANES) as u64;
    total.zeros += zeros.iter().copied().map(u64::from).sum::<u64>();
    total.sum += sums.iter().sum::<f64>();
    total.squares += squares.iter().sum::<f64>();
    total.min = low.into_iter().fold(total.min, f32::min);
    total.max = high.into_iter().fold(total.max, f32::max);
    total.add(rest);
}

fn small<B: Small>(bytes: &[u8]) -> Statistics {
    let mut total = Statistics::default();
    for block in quant::blocks::<32, B>(bytes) {
        let Parts { quants, scale, offset } = block.parts();
        add_group(&quants, Grid { step: scale, offset }, &mut total);
    }
    total
}

fn large<B: Super>(bytes: &[u8]) -> Statistics {
    let mut total = Statistics::default();
    for block in quant::blocks::<SUPER, B>(bytes) {
        let SuperParts { quants, scales, d, minimums, dmin } = block.parts();
        for (quants, (scale, minimum)) in
            quants.as_chunks::<16>().0.iter().zip(scales.into_iter().zip(minimums))
        {
            // A block without minimums has a `dmin` of 0 and never an offset of NaN.
            let grid = Grid { step: d * f32::from(scale), offset: -(dmin * f32::from(minimum)) };
            add_group(quants, grid, &mut total);
        }
    }
    total
}

/// Where the values of a group lie: `step * quant + offset`.
#[derive(Clone, Copy)]
struct Grid {
    step: f32,
    offset: f32,
}

impl Grid {
    fn symmetric(step: f32) -> Self {
        Self { step, offset: 0.0 }
    }

    fn value(self, quant: i8) -> f32 {
        self.step * f32::from(quant) + self.offset
    }

    /// The quant whose value is zero, when there is one. Products of steps and quants are exact.
    fn zero(self) -> Option<i8> {
        let quant = (-self.offset / self.step).round_ties_even();
        // Infinite or NaN for a step of 0, and then nothing fits.
        let fits = (-128.0..=127.0).contains(&quant) && self.value(quant as i8) == 0.0;
        fits.then_some(quant as i8)
    }
}

/// Takes in the values of `quants` on `grid`.
fn add_group(quants: &[i8], grid: Grid, total: &mut Statistics) {
    // Quants reach up to 128 away from zero: with this finite, every value is.
    if (grid.step * 128.0).abs() + grid.offset.abs() < f32::INFINITY {
        return add_finite(quants, grid, total);
    }
    for &quant in quants {
        total.add(&[grid.value(quant)]);
    }
}

fn add_finite(quants: &[i8], grid: Grid, total: &mut Statistics) {
    let (mut sum, mut squares) = (0i32, 0i32);
    let (mut low, mut high) = (i8::MAX, i8::MIN);
    // Far from overflow; said so, because checks would keep the compiler from vectorising.
    for &quant in quants {
        let wide = i32::from(quant);
        sum = sum.wrapping_add(wide);
        squares = squares.wrapping_add(wide.wrapping_mul(wide));
        low = low.min(quant);
        high = high.max(quant);
    }
    total.values += quants.len() as u64;
    total.zeros += zeros(quants, grid);
    let (one, other) = (grid.value(low), grid.value(high));
    total.min = total.min.min(one.min(other));
    total.max = total.max.max(one.max(other));
    let (step, offset) = (f64::from(grid.step), f64::from(grid.offset));
    let (count, sum) = (quants.len() as f64, f64::from(sum));
    total.sum += step * sum + count * offset;
    let terms =
        [step * step * f64::from(squares), 2.0 * step * offset * sum, count * offset * offset];
    // Where the terms cancel, rounding could leave less than nothing.
    total.squares += terms.iter().sum::<f64>().max(0.0);
}

fn zeros(quants: &[i8], grid: Grid) -> u64 {
    if grid.step == 0.0 {
        return if grid.offset == 0.0 { quants.len() as u64 } else { 0 };
    }
    let Some(zero) = grid.zero() else { return 0 };
    let equal = |count: u32, &quant: &i8| count.wrapping_add(u32::from(quant == zero));
    quants.iter().fold(0, equal).into()
}
