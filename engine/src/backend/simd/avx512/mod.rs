//! Kernels for x86-64 with AVX-512 (F, BW, VL), with VNNI and without.
//!
//! Integers are summed up exactly and floats in the order of [`super::avx2`], so that every result has the bits that it has
//! there. What is bound by memory, or done once in a while, is taken from there.

#![expect(unsafe_code, reason = "a kernel may run only where its CPU features were detected")]

mod block_panel;
mod blocks;
mod peak;
mod plain;
mod super_panel;
mod supers;
#[cfg(test)]
mod tests;
mod vector;
mod without_vnni;

use super::avx2;
use super::kernels::{Isa, Kernels};
use super::peak::Peak;

/// A table entry: the call is sound because tables are handed out on machines with the features only.
macro_rules! entry {
    ($kernel:path, $($argument:ident),+) => {
        |$($argument),+| {
            // SAFETY: `Kernels::for_isa` hands a table out only where the features that its kernels name were detected.
            unsafe { $kernel($($argument),+) }
        }
    };
}

/// The table without VNNI. Only to be handed out where AVX-512 F, BW and VL are present.
pub(super) const KERNELS: Kernels = Kernels {
    isa: Isa::Avx512,
    f32: entry!(plain::f32_product, bytes, stride, x, out),
    f16: entry!(plain::f16_product, bytes, stride, x, out),
    bf16: entry!(plain::bf16_product, bytes, stride, x, out),
    q4_0: entry!(without_vnni::q4_0_product, bytes, acts, out),
    q4_1: entry!(without_vnni::q4_1_product, bytes, acts, out),
    q5_0: entry!(without_vnni::q5_0_product, bytes, acts, out),
    q5_1: entry!(without_vnni::q5_1_product, bytes, acts, out),
    q8_0: entry!(without_vnni::q8_0_product, bytes, acts, out),
    q2_k: entry!(without_vnni::q2_k_product, bytes, acts, out),
    q3_k: entry!(without_vnni::q3_k_product, bytes, acts, out),
    q4_k: entry!(without_vnni::q4_k_product, bytes, acts, out),
    q5_k: entry!(without_vnni::q5_k_product, bytes, acts, out),
    q6_k: entry!(without_vnni::q6_k_product, bytes, acts, out),
    peak: Peak { bytes: entry!(peak::bytes, rounds), floats: entry!(peak::floats, rounds) },
    ..avx2::KERNELS
};

/// The table with VNNI. Only to be handed out where AVX-512 F, BW, VL and VNNI are present.
pub(super) const VNNI_KERNELS: Kernels = Kernels {
    isa: Isa::Avx512Vnni,
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
    peak: Peak { bytes: entry!(peak::vnni_bytes, rounds), ..KERNELS.peak },
    ..KERNELS
};
