//! `Q8_0`: 32 values on a symmetric grid of 255 steps.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Block, farthest, inverse, narrow, widen};
use crate::dtype::Dtype;

/// value = quant * d.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q8_0 {
    /// f16 step between grid points.
    pub(crate) d: U16,
    pub(crate) qs: [i8; 32],
}
const _: () = assert!(size_of::<Q8_0>() == Dtype::Q8_0.block_bytes());

impl Block<32> for Q8_0 {
    const DTYPE: Dtype = Dtype::Q8_0;

    #[inline]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let d = widen(self.d);
        for (value, &quant) in out.iter_mut().zip(&self.qs) {
            *value = f32::from(quant) * d;
        }
    }

    /// Rounds half away from zero.
    fn quantize(values: &[f32; 32]) -> Self {
        let d = farthest(values).abs() / 127.0;
        let inverse = inverse(d);
        Self { d: narrow(d), qs: values.map(|value| (value * inverse).round() as i8) }
    }
}
