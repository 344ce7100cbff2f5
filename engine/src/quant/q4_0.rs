//! `Q4_0`: 32 values on a symmetric grid of 16 steps.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Block, farthest, inverse, narrow, widen};
use crate::dtype::Dtype;

/// value = (nibble - 8) * d; value i in the low nibble of byte i, value 16 + i in its high nibble.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q4_0 {
    /// f16 step between grid points.
    pub(crate) d: U16,
    pub(crate) qs: [u8; 16],
}
const _: () = assert!(size_of::<Q4_0>() == Dtype::Q4_0.block_bytes());

impl Block<32> for Q4_0 {
    const DTYPE: Dtype = Dtype::Q4_0;

    #[inline]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let d = widen(self.d);
        for (i, &byte) in self.qs.iter().enumerate() {
            out[i] = d * f32::from(((byte & 0x0F) as i8).wrapping_sub(8));
            out[i + 16] = d * f32::from(((byte >> 4) as i8).wrapping_sub(8));
        }
    }

    /// The value farthest from zero lands on -8, so the grid reaches it whatever its sign.
    fn quantize(values: &[f32; 32]) -> Self {
        let d = farthest(values) / -8.0;
        let inverse = inverse(d);
        let quant = |value: f32| ((value * inverse + 8.5) as u8).min(15);
        let qs = std::array::from_fn(|i| quant(values[i]) | quant(values[i + 16]) << 4);
        Self { d: narrow(d), qs }
    }
}
