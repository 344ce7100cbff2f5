//! `Q5_1`: 32 values on 32 steps above their minimum.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::q5_0::{join, split};
use super::{Block, inverse, narrow, widen};
use crate::dtype::Dtype;

/// value = quant * d + m; bits as in [`super::Q5_0`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q5_1 {
    /// f16 step between grid points.
    pub(crate) d: U16,
    /// f16 value of quant 0.
    pub(crate) m: U16,
    pub(crate) qh: U32,
    pub(crate) qs: [u8; 16],
}
const _: () = assert!(size_of::<Q5_1>() == Dtype::Q5_1.block_bytes());

impl Block<32> for Q5_1 {
    const DTYPE: Dtype = Dtype::Q5_1;

    #[inline]
    fn dequantize(&self, out: &mut [f32; 32]) {
        let (d, m) = (widen(self.d), widen(self.m));
        for (value, quant) in out.iter_mut().zip(join(self.qh, &self.qs)) {
            *value = d * f32::from(quant) + m;
        }
    }

    fn quantize(values: &[f32; 32]) -> Self {
        let min = values.iter().copied().fold(f32::INFINITY, f32::min);
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let d = (max - min) / 31.0;
        let inverse = inverse(d);
        let (qh, qs) = split(&values.map(|value| (((value - min) * inverse + 0.5) as u8).min(31)));
        Self { d: narrow(d), m: narrow(min), qh, qs }
    }
}
