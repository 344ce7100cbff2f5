//! Kernels in plain Rust, for any machine; the compiler vectorises what it can.
//!
//! Order of float operations: plain products sum 16 lanes, element i into lane i % 16, and then the
//! lanes pairwise; packed products sum block by block, each block exactly in integers first.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use super::activations::{Q8, Q8Row, Q8Super, Q8SuperRow, per_step};
use super::kernels::{CacheKernels, Columns, Isa, KEYS, Kernels, Strided};
use super::parts::{Small, Super};
use super::peak;
use super::statistics::portable_statistics;
use crate::quant::{self, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, SUPER};

/// The table.
pub(super) const KERNELS: Kernels = Kernels {
    isa: Isa::Portable,
    dot,
    scores,
    f16_cache: CacheKernels { axpy, turn, mix },
    f32_cache: CacheKernels { axpy, turn, mix },
    exp_from,
    silu_mul,
    round_block,
    round_super,
    f32: |bytes, stride, x, out| plain(bytes, stride, x, out, f32::from_le_bytes),
    f16: |bytes, stride, x, out| {
        plain(bytes, stride, x, out, |raw| f16::from_le_bytes(raw).to_f32());
    },
    bf16: |bytes, stride, x, out| {
        plain(bytes, stride, x, out, |raw| bf16::from_le_bytes(raw).to_f32());
    },
    q4_0: product::<Q4_0>,
    q4_1: product::<Q4_1>,
    q5_0: product::<Q5_0>,
    q5_1: product::<Q5_1>,
    q8_0: product::<Q8_0>,
    q2_k: super_product::<Q2K>,
    q3_k: super_product::<Q3K>,
    q4_k: super_product::<Q4K>,
    q5_k: super_product::<Q5K>,
    q6_k: super_product::<Q6K>,
    statistics: portable_statistics,
    peak: peak::PORTABLE,
};

const LANES: usize = 16;

/// Adds the lanes pairwise: distance 8, 4, 2, 1.
fn reduce(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// A type of cached keys and values.
trait Stored: Copy + Into<f32> {
    fn widen(values: &[Self; LANES]) -> [f32; LANES];
}

impl Stored for f32 {
    fn widen(values: &[Self; LANES]) -> [f32; LANES] {
        *values
    }
}

impl Stored for f16 {
    fn widen(values: &[Self; LANES]) -> [f32; LANES] {
        let mut wide = [0.0; LANES];
        values.convert_to_f32_slice(&mut wide);
        wide
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += a * b;
    }
    reduce(lanes)
}

fn axpy<T: Stored>(scale: f32, x: &[T], out: &mut [f32]) {
    let ((x, x_rest), (out, out_rest)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (x, out) in x.iter().zip(out) {
        for (out, x) in out.iter_mut().zip(T::widen(x)) {
            *out += scale * x;
        }
    }
    for (&x, out) in x_rest.iter().zip(out_rest) {
        *out += scale * x.into();
    }
}

fn turn<T: Stored>(keys: Strided<'_, T>, count: usize, len: usize, strips: &mut [[f32; KEYS]]) {
    for (index, strip) in strips.chunks_exact_mut(len).enumerate() {
        for lane in 0..KEYS {
            let key = keys.row((index * KEYS + lane).min(count - 1), len);
            for (lanes, &value) in strip.iter_mut().zip(key) {
                lanes[lane] = value.into();
            }
        }
    }
}

fn scores(queries: &[&[f32]], strips: &[[f32; KEYS]], out: &mut [&mut [f32]]) {
    for (query, out) in queries.iter().zip(out) {
        for (out, strip) in out.chunks_mut(KEYS).zip(strips.chunks_exact(query.len())) {
            let mut sums = [0.0f32; KEYS];
            for (&value, lanes) in query.iter().zip(strip) {
                for (sum, lane) in sums.iter_mut().zip(lanes) {
                    *sum += value * lane;
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

fn mix<T: Stored>(weights: &[&[f32]], values: Strided<'_, T>, out: &mut [&mut [f32]]) {
    for (weights, out) in weights.iter().zip(out) {
        for (j, weight) in weights.iter().enumerate() {
            axpy(*weight, values.row(j, out.len()), out);
        }
    }
}

fn exp_from(x: &mut [f32], shift: f32) {
    for x in x {
        *x = (*x - shift).exp();
    }
}

fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + (-*gate).exp()) * up;
    }
}

fn plain<const N: usize>(
    bytes: &[u8],
    stride: usize,
    x: Columns<'_>,
    out: &mut [f32],
    widen: impl Fn([u8; N]) -> f32,
) {
    let mut values = vec![0.0f32; x.cols];
    let width = bytes.len() / stride;
    for (w, row) in bytes.chunks_exact(stride).enumerate() {
        for (value, &raw) in values.iter_mut().zip(row.as_chunks::<N>().0) {
            *value = widen(raw);
        }
        for (out, x) in out.chunks_exact_mut(width).zip(x.values.chunks_exact(x.cols)) {
            out[w] = dot(&values, x);
        }
    }
}

/// The largest magnitude, NaN above all: as integers, magnitudes order like that.
fn largest(values: &[f32]) -> f32 {
    f32::from_bits(values.iter().fold(0, |max, value| max.max(value.to_bits() & 0x7FFF_FFFF)))
}

/// Rounds to nearest, ties to even, without a library call: adds and takes away 1.5 * 2^23.
fn round(value: f32) -> i8 {
    const MAGIC: f32 = 12_582_912.0;
    ((value + MAGIC) - MAGIC) as i8
}

fn round_block(values: &[f32; 32], quants: &mut [i8; 32]) -> (f32, i32) {
    let max = largest(values);
    let inverse = per_step(max);
    *quants = values.map(|value| round(value * inverse));
    (max / 127.0, quants.iter().map(|&quant| i32::from(quant)).sum())
}

fn round_super(
    values: &[f32; SUPER],
    quants: &mut [i8; SUPER],
    sums: &mut [i16; SUPER / 16],
) -> f32 {
    let max = largest(values);
    let inverse = per_step(max);
    *quants = values.map(|value| round(value * inverse));
    for (sum, quants) in sums.iter_mut().zip(quants.as_chunks::<16>().0) {
        *sum = quants.iter().map(|&quant| i16::from(quant)).sum();
    }
    max / 127.0
}

fn product<B: Small>(bytes: &[u8], acts: &Q8, out: &mut [f32]) {
    let stride = acts.blocks * size_of::<B>();
    let width = bytes.len() / stride;
    for (w, row) in bytes.chunks_exact(stride).enumerate() {
        let blocks = quant::blocks::<32, B>(row);
        for (t, out) in out.chunks_exact_mut(width).enumerate() {
            out[w] = block_dot(blocks, acts.row(t));
        }
    }
}

fn block_dot<B: Small>(blocks: &[B], acts: Q8Row<'_>) -> f32 {
    let mut total = 0.0f32;
    for (b, block) in blocks.iter().enumerate() {
        let parts = block.parts();
        let dot = dot_i8(&parts.quants, &acts.quants[b]);
        let x_sum = acts.scales[b] * acts.sums[b] as f32;
        total += parts.scale * acts.scales[b] * dot as f32 + parts.offset * x_sum;
    }
    total
}

/// Far from overflow; said so, because checks would keep the compiler from vectorising.
fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).fold(0i32, |sum, (&a, &b)| {
        sum.wrapping_add(i32::from(i16::from(a).wrapping_mul(i16::from(b))))
    })
}

fn super_product<B: Super>(bytes: &[u8], acts: &Q8Super, out: &mut [f32]) {
    let stride = acts.blocks * size_of::<B>();
    let width = bytes.len() / stride;
    for (w, row) in bytes.chunks_exact(stride).enumerate() {
        let blocks = quant::blocks::<SUPER, B>(row);
        for (t, out) in out.chunks_exact_mut(width).enumerate() {
            out[w] = super_dot(blocks, acts.row(t));
        }
    }
}

fn super_dot<B: Super>(blocks: &[B], acts: Q8SuperRow<'_>) -> f32 {
    let mut total = 0.0f32;
    for (b, block) in blocks.iter().enumerate() {
        let parts = block.parts();
        let (mut dots, mut minimums) = (0i32, 0i32);
        for j in 0..16 {
            let range = 16 * j..16 * j + 16;
            dots += i32::from(parts.scales[j])
                * dot_i8(&parts.quants[range.clone()], &acts.quants[b][range]);
            minimums += i32::from(parts.minimums[j]) * i32::from(acts.sums[b][j]);
        }
        let weighted = parts.d * dots as f32 - parts.dmin * minimums as f32;
        total += acts.scales[b] * weighted;
    }
    total
}
