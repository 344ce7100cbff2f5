//! `Q5_K`: 256 values in 8 sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::q4_k::{Grids, unpack_nibbles};
use super::search::Ladder;
use super::{Block, SUPER};
use crate::dtype::Dtype;

/// As [`super::Q4K`] with a fifth bit: bit j of `qh[i]` belongs to value i of sub-block j.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q5K {
    /// f16 step of the scales.
    pub(crate) d: U16,
    /// f16 step of the minimums.
    pub(crate) dmin: U16,
    pub(crate) scales: [u8; 12],
    pub(crate) qh: [u8; 32],
    pub(crate) qs: [u8; SUPER / 2],
}
const _: () = assert!(size_of::<Q5K>() == Dtype::Q5K.block_bytes());

const LADDER: Ladder = Ladder { first: -0.5, step: 0.1, steps: 15 };

impl Block<SUPER> for Q5K {
    const DTYPE: Dtype = Dtype::Q5K;

    #[inline]
    fn dequantize(&self, out: &mut [f32; SUPER]) {
        Grids::unpack(self.d, self.dmin, &self.scales).values(&self.quants(), out);
    }

    fn quantize(values: &[f32; SUPER]) -> Self {
        let (grids, quants) = Grids::search(values, 31, &LADDER);
        let qs = std::array::from_fn(|i| {
            let first = 64 * (i / 32) + i % 32;
            quants[first] & 0x0F | quants[first + 32] << 4
        });
        let qh = std::array::from_fn(|i| {
            (0..8).fold(0, |bits, j| bits | (quants[32 * j + i] >> 4) << j)
        });
        Self { d: grids.d, dmin: grids.dmin, scales: grids.packed, qh, qs }
    }
}

impl Q5K {
    /// The quants.
    pub(crate) fn quants(&self) -> [u8; SUPER] {
        let mut quants = unpack_nibbles(&self.qs);
        for (j, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (quant, bits) in quants.iter_mut().zip(&self.qh) {
                *quant |= (bits >> j & 1) << 4;
            }
        }
        quants
    }
}
