//! `Q8_K`: 256 values with one f32 scale and the sums of each 16; made for the activation side of products.

use zerocopy::little_endian::{F32, I16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::search::nearest;
use super::{Block, SUPER, farthest};
use crate::dtype::Dtype;

/// value = quant * d; `bsums[j]` is the sum of quants 16 j to 16 j + 15.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q8K {
    pub(crate) d: F32,
    pub(crate) qs: [i8; SUPER],
    pub(crate) bsums: [I16; SUPER / 16],
}
const _: () = assert!(size_of::<Q8K>() == Dtype::Q8K.block_bytes());

impl Block<SUPER> for Q8K {
    const DTYPE: Dtype = Dtype::Q8K;

    #[inline]
    fn dequantize(&self, out: &mut [f32; SUPER]) {
        let d = self.d.get();
        for (value, &quant) in out.iter_mut().zip(&self.qs) {
            *value = d * f32::from(quant);
        }
    }

    /// The value farthest from zero lands on -127; rounds half to even.
    fn quantize(values: &[f32; SUPER]) -> Self {
        let max = farthest(values);
        if max == 0.0 {
            return Self { d: F32::ZERO, qs: [0; SUPER], bsums: [I16::ZERO; SUPER / 16] };
        }
        let inverse = -127.0 / max;
        let qs = values.map(|value| nearest(inverse * value).min(127) as i8);
        let bsums = std::array::from_fn(|j| {
            I16::new(qs[16 * j..16 * j + 16].iter().map(|&quant| i16::from(quant)).sum())
        });
        Self { d: F32::new(1.0 / inverse), qs, bsums }
    }
}
