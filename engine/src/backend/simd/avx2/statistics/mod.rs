//! Statistics of stored values in vectors.
//!
//! Blocks are counted as quants, eight groups at a time (see [`lanes`]), in units of a few blocks. Units in which
//! something is in doubt are looked at value by value (see [`look`]); bytes that are out of the ordinary (values or scales
//! that are not finite) are left to the portable version.

mod lanes;
mod look;
mod plain;
mod small;
mod supers;

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::IntoBytes as _;

use self::lanes::{AffineLanes, SymmetricLanes};
use self::look::{Range, Seen, look};
use super::super::statistics::portable_statistics;
use super::vector::{load_u8, prefetch};
use crate::dtype::Dtype;
use crate::quant::statistics::Statistics;
use crate::quant::{self, Block, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

/// The statistics of the whole blocks of `bytes`; `None` for dtypes that are never computed with.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn statistics(dtype: Dtype, bytes: &[u8]) -> Option<Statistics> {
    let ordinary = match dtype {
        Dtype::F32 => plain::f32_statistics(bytes),
        Dtype::F16 => plain::f16_statistics(bytes),
        Dtype::BF16 => plain::bf16_statistics(bytes),
        Dtype::Q4_0 => q4_0_statistics(bytes),
        Dtype::Q4_1 => q4_1_statistics(bytes),
        Dtype::Q5_0 => q5_0_statistics(bytes),
        Dtype::Q5_1 => q5_1_statistics(bytes),
        Dtype::Q8_0 => q8_0_statistics(bytes),
        Dtype::Q2K => q2_k_statistics(bytes),
        Dtype::Q3K => q3_k_statistics(bytes),
        Dtype::Q4K => q4_k_statistics(bytes),
        Dtype::Q5K => q5_k_statistics(bytes),
        Dtype::Q6K => q6_k_statistics(bytes),
        _ => None,
    };
    ordinary.or_else(|| portable_statistics(dtype, bytes))
}

/// Units between two emptyings of the lanes; few enough for the rounding of sums in f32 not to show.
const UNITS: usize = 30;

/// The doubts of each unit, not zero where there are any.
///
/// The alignment makes the compiler align everything that it puts on the stack: vectors that it has no register for
/// would lie across cache lines in two of three runs of the program, at three quarters of the speed.
#[repr(align(32))]
struct Doubts([u8; 32]);

impl Doubts {
    /// A bit for each unit in doubt.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn bits(&self) -> u32 {
        let none = _mm256_cmpeq_epi8(load_u8(&self.0), _mm256_setzero_si256());
        !(_mm256_movemask_epi8(none) as u32)
    }
}

/// Two functions over units of blocks. `$add` takes a unit into the lanes.
macro_rules! block_statistics {
    ($name:ident, $count:ident, $block:ty, $len:literal, units of $unit:literal,
     $lanes:ty, top $top:literal, $add:path) => {
        /// The lanes of up to [`UNITS`] units, behind values of `range`, and what is in doubt.
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $count(units: &[[$block; $unit]], range: Range) -> ($lanes, Doubts) {
            let (mut lanes, mut doubts) = (<$lanes>::new(range, $top), Doubts([0; 32]));
            for (unit, in_doubt) in units.iter().zip(&mut doubts.0) {
                prefetch(unit);
                let (settled, doubt) = $add(unit, lanes).settle();
                lanes = settled;
                *in_doubt = doubt;
            }
            (lanes, doubts)
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name(bytes: &[u8]) -> Option<Statistics> {
            let blocks: &[$block] = quant::blocks::<$len, _>(bytes);
            let (units, rest) = blocks.as_chunks::<$unit>();
            let mut total = portable_statistics(<$block>::DTYPE, rest.as_bytes())?;
            total.values += units.len() as u64 * ($unit * $len);
            let mut range = Range { low: total.min, high: total.max };
            // Everything is a new extreme at first.
            let (first, others) = units.split_at(units.len().min(1));
            for units in std::iter::once(first).chain(others.chunks(UNITS)) {
                let (lanes, doubts) = $count(units, range);
                lanes.write(&mut total);
                let mut doubts = doubts.bits();
                while doubts != 0 {
                    let unit = &units[doubts.trailing_zeros() as usize];
                    doubts &= doubts - 1;
                    // The range may have grown since.
                    let (counted, Doubts([doubt, ..])) = $count(std::slice::from_ref(unit), range);
                    if doubt != 0 {
                        let in_doubt = <$lanes>::uncertain(doubt);
                        let Seen { zeros, range: seen } = look::<$len, _>(unit, in_doubt, range)?;
                        range = seen;
                        // Instead of those that were counted as quants.
                        let mut of_quants = Statistics::default();
                        counted.write(&mut of_quants);
                        total.zeros = total.zeros + zeros - of_quants.zeros;
                    }
                }
            }
            (total.min, total.max) = (range.low, range.high);
            Some(total)
        }
    };
}

block_statistics!(q4_0_statistics, q4_0_count, Q4_0, 32, units of 8, SymmetricLanes, top 8.0, small::q4_0_add);
block_statistics!(q4_1_statistics, q4_1_count, Q4_1, 32, units of 8, AffineLanes<32>, top 15.0, small::q4_1_add);
block_statistics!(q5_0_statistics, q5_0_count, Q5_0, 32, units of 8, SymmetricLanes, top 16.0, small::q5_0_add);
block_statistics!(q5_1_statistics, q5_1_count, Q5_1, 32, units of 8, AffineLanes<32>, top 31.0, small::q5_1_add);
block_statistics!(q8_0_statistics, q8_0_count, Q8_0, 32, units of 8, SymmetricLanes, top 128.0, small::q8_0_add);
block_statistics!(q2_k_statistics, q2_k_count, Q2K, 256, units of 1, AffineLanes<16>, top 3.0, supers::q2_k_add);
block_statistics!(q3_k_statistics, q3_k_count, Q3K, 256, units of 1, SymmetricLanes, top 4.0, supers::q3_k_add);
block_statistics!(q4_k_statistics, q4_k_count, Q4K, 256, units of 2, AffineLanes<32>, top 15.0, supers::q4_k_add);
block_statistics!(q5_k_statistics, q5_k_count, Q5K, 256, units of 2, AffineLanes<32>, top 31.0, supers::q5_k_add);
block_statistics!(q6_k_statistics, q6_k_count, Q6K, 256, units of 1, SymmetricLanes, top 32.0, supers::q6_k_add);
