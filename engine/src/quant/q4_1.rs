//! `Q4_1`: 32 values on 16 steps above their minimum.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Block, inverse, narrow, widen};
use crate::dtype::Dtype;

/// value = nibble * d + m; value i in the low nibble of byte i, value 16 + i in its high nibble.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q4_1 {
    /// f16 step between grid points.
    pub(crate) d: U16,
    /// f16 value of quant 0.
    pub(crate) m: U16,
    pub(crate) qs: [u8; 16],
}
const _: () = assert!(size_of::<Q4_1>() == Dtype::Q4_1.block_bytes());

impl Block<32> for Q4_1 {
    const DTYPE: Dtype = Dtype::Q4_1;

    #[inline]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let (d, m) = (widen(self.d), widen(self.m));
        for (i, &byte) in self.qs.iter().enumerate() {
            out[i] = d * f32::from(byte & 0x0F) + m;
            out[i + 16] = d * f32::from(byte >> 4) + m;
        }
    }

    fn quantize(values: &[f32; 32]) -> Self {
        let min = values.iter().copied().fold(f32::INFINITY, f32::min);
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let d = (max - min) / 15.0;
        let inverse = inverse(d);
        let quant = |value: f32| (((value - min) * inverse + 0.5) as u8).min(15);
        let qs = std::array::from_fn(|i| quant(values[i]) | quant(values[i + 16]) << 4);
        Self { d: narrow(d), m: narrow(min), qs }
    }
}
