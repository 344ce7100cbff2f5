//! Kernels for x86-64 with AVX2, FMA and F16C.
//!
//! Order of float operations. Plain products: one accumulator of eight lanes, value 8 i + l into lane l, single values that
//! are left into a scalar; the lanes are added, then the scalar. Of two rows of activations: four such accumulators, eight
//! i into accumulator i % 4, whole eights that are left into the first; they are added as (0 + 1) + (2 + 3). Products of
//! 32-value blocks: each block exactly in integers, its sum times its scale, then its offset, into chain b % 4 for block
//! b; the chains are added as (0 + 2) + (1 + 3). Products of super-blocks: each block exactly in integers, its sum times
//! its scale into one chain, block after block, minimums into a chain of their own that is taken away last.

#![expect(unsafe_code, reason = "a kernel may run only where its CPU features were detected")]

mod attention;
pub(super) mod block_panel;
pub(super) mod block_rows;
pub(super) mod blocks;
mod exponential;
pub(super) mod four_rows;
mod peak;
pub(super) mod plain;
mod rounding;
mod statistics;
pub(super) mod sums;
pub(super) mod super_panel;
pub(super) mod supers;
pub(super) mod vector;

use super::kernels::{CacheKernels, Isa, Kernels};
use super::peak::Peak;

/// A table entry: the call is sound because tables are handed out on machines with the features only.
macro_rules! entry {
    ($kernel:path, $($argument:ident),+) => {
        |$($argument),+| {
            // SAFETY: `Kernels::for_isa` hands this table out only where AVX2, FMA and F16C were
            // detected.
            unsafe { $kernel($($argument),+) }
        }
    };
}

/// The table. Only to be handed out where the features are present.
pub(super) const KERNELS: Kernels = Kernels {
    isa: Isa::Avx2,
    dot: entry!(plain::dot, a, b),
    scores: entry!(attention::scores, queries, strips, out),
    f16_cache: CacheKernels {
        axpy: entry!(attention::f16_axpy, scale, x, out),
        turn: entry!(attention::f16_turn, keys, count, len, strips),
        mix: entry!(attention::f16_mix, weights, values, out),
    },
    f32_cache: CacheKernels {
        axpy: entry!(attention::f32_axpy, scale, x, out),
        turn: entry!(attention::f32_turn, keys, count, len, strips),
        mix: entry!(attention::f32_mix, weights, values, out),
    },
    exp_from: entry!(exponential::exp_from, x, shift),
    silu_mul: entry!(exponential::silu_mul, gate, up),
    round_block: entry!(rounding::round_block, values, quants),
    round_super: entry!(rounding::round_super, values, quants, sums),
    f32: entry!(plain::f32_product, bytes, stride, x, out),
    f16: entry!(plain::f16_product, bytes, stride, x, out),
    bf16: entry!(plain::bf16_product, bytes, stride, x, out),
    q4_0: entry!(blocks::q4_0_product, bytes, acts, out),
    q4_1: entry!(blocks::q4_1_product, bytes, acts, out),
    q5_0: entry!(blocks::q5_0_product, bytes, acts, out),
    q5_1: entry!(blocks::q5_1_product, bytes, acts, out),
    q8_0: entry!(blocks::q8_0_product, bytes, acts, out),
    q2_k: entry!(supers::q2_k_product, bytes, acts, out),
    q3_k: entry!(supers::q3_k_product, bytes, acts, out),
    q4_k: entry!(supers::q4_k_product, bytes, acts, out),
    q5_k: entry!(supers::q5_k_product, bytes, acts, out),
    q6_k: entry!(supers::q6_k_product, bytes, acts, out),
    statistics: entry!(statistics::statistics, dtype, bytes),
    peak: Peak { bytes: entry!(peak::bytes, rounds), floats: entry!(peak::floats, rounds) },
};
