//! Statistics of stored values in vectors.
//!
//! What is counted: quants as integers, weighted by the integers that scale their group, so that a block costs one
//! product with its step. Extremes are bounded per block by its scales, and only a block that could hold a
//! new one is looked at value by value. Bytes that are out of the ordinary (values or scales that are not finite) are
//! left to the portable version.

mod affine;
mod plain;
mod small;
mod symmetric;
mod values;

use crate::dtype::Dtype;
use crate::quant::statistics::Statistics;

use super::super::statistics::portable_statistics;

/// The statistics of the whole blocks of `bytes`; `None` for dtypes that are never computed with.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn statistics(dtype: Dtype, bytes: &[u8]) -> Option<Statistics> {
    let ordinary = match dtype {
        Dtype::F32 => plain::f32_statistics(bytes),
        Dtype::F16 => plain::f16_statistics(bytes),
        Dtype::BF16 => plain::bf16_statistics(bytes),
        Dtype::Q4_0 => small::q4_0_statistics(bytes),
        Dtype::Q4_1 => small::q4_1_statistics(bytes),
        Dtype::Q5_0 => small::q5_0_statistics(bytes),
        Dtype::Q5_1 => small::q5_1_statistics(bytes),
        Dtype::Q8_0 => small::q8_0_statistics(bytes),
        Dtype::Q2K => affine::q2_k_statistics(bytes),
        Dtype::Q4K => affine::q4_k_statistics(bytes),
        Dtype::Q5K => affine::q5_k_statistics(bytes),
        Dtype::Q3K => symmetric::q3_k_statistics(bytes),
        Dtype::Q6K => symmetric::q6_k_statistics(bytes),
        _ => None,
    };
    ordinary.or_else(|| portable_statistics(dtype, bytes))
}
