//! `Q5_0`: 32 values on a symmetric grid of 32 steps.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Block, farthest, inverse, narrow, widen};
use crate::dtype::Dtype;

/// value = (quant - 16) * d; low four bits as in `Q4_0`, the fifth bit of value i is bit i of `qh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q5_0 {
    /// f16 step between grid points.
    pub(crate) d: U16,
    pub(crate) qh: U32,
    pub(crate) qs: [u8; 16],
}
const _: () = assert!(size_of::<Q5_0>() == Dtype::Q5_0.block_bytes());

impl Block<32> for Q5_0 {
    const DTYPE: Dtype = Dtype::Q5_0;

    #[inline]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let d = widen(self.d);
        for (value, quant) in out.iter_mut().zip(join(self.qh, &self.qs)) {
            *value = d * f32::from((quant as i8).wrapping_sub(16));
        }
    }

    /// The value farthest from zero lands on -16, so the grid reaches it whatever its sign.
    fn quantize(values: &[f32; 32]) -> Self {
        let d = farthest(values) / -16.0;
        let inverse = inverse(d);
        let (qh, qs) = split(&values.map(|value| ((value * inverse + 16.5) as u8).min(31)));
        Self { d: narrow(d), qh, qs }
    }
}

/// The 5-bit quants of a `Q5_0` or `Q5_1` block.
pub(crate) fn join(qh: U32, qs: &[u8; 16]) -> [u8; 32] {
    let mut quants = [0; 32];
    let (low, high) = quants.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(qs) {
        *low = byte & 0x0F;
        *high = byte >> 4;
    }
    for (quants, bits) in quants.as_chunks_mut::<8>().0.iter_mut().zip(qh.to_bytes()) {
        for (quant, bit) in quants.iter_mut().zip([1u8, 2, 4, 8, 16, 32, 64, 128]) {
            *quant |= if bits & bit == 0 { 0 } else { 16 };
        }
    }
    quants
}

/// Fifth bits and low bits of 5-bit quants.
pub(super) fn split(quants: &[u8; 32]) -> (U32, [u8; 16]) {
    let bit = |i: usize| u32::from(quants[i] >> 4) << i;
    let qh = (0..32).fold(0, |bits, i| bits | bit(i));
    (U32::new(qh), std::array::from_fn(|i| quants[i] & 0x0F | quants[i + 16] << 4))
}
