//! `Q2_K`: 256 values in 16 sub-blocks of 16, each with a 4-bit scale and a 4-bit minimum.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::search::{Affine, Ladder, Loss, affine, largest, nearest};
use super::{Block, SUPER, fill, narrow, widen};
use crate::dtype::Dtype;

/// value = d * (scales\[j\] & 15) * quant - dmin * (scales\[j\] >> 4). Value 32 g + i of each half of 128
/// is bits 2 g and 2 g + 1 of byte i of the half's 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q2K {
    pub(crate) scales: [u8; SUPER / 16],
    pub(crate) qs: [u8; SUPER / 4],
    /// f16 step of the scales.
    pub(crate) d: U16,
    /// f16 step of the minimums.
    pub(crate) dmin: U16,
}
const _: () = assert!(size_of::<Q2K>() == Dtype::Q2K.block_bytes());

const LADDER: Ladder = Ladder { first: -0.5, step: 0.1, steps: 15 };

impl Block<SUPER> for Q2K {
    const DTYPE: Dtype = Dtype::Q2K;

    #[inline]
    fn dequantize(&self, out: &mut [f32; SUPER]) {
        let (d, dmin) = (widen(self.d), widen(self.dmin));
        let quants = unpack_pairs(&self.qs);
        for (j, (values, quants)) in
            out.as_chunks_mut::<16>().0.iter_mut().zip(quants.as_chunks::<16>().0).enumerate()
        {
            let step = d * f32::from(self.scales[j] & 0x0F);
            let minimum = dmin * f32::from(self.scales[j] >> 4);
            fill(values, quants, |quant| step * f32::from(quant) - minimum);
        }
    }

    fn quantize(values: &[f32; SUPER]) -> Self {
        let mut quants = [0u8; SUPER];
        let mut fits = [Affine::default(); 16];
        for ((x, quants), fit) in
            values.as_chunks::<16>().0.iter().zip(quants.as_chunks_mut::<16>().0).zip(&mut fits)
        {
            *fit = affine(x, &x.map(f32::abs), 3, &LADDER, Loss::Absolute, quants);
        }
        let max_scale = largest(fits.iter().map(|fit| fit.scale));
        let max_minimum = largest(fits.iter().map(|fit| fit.minimum));
        let scales = fits.map(|fit| {
            fifteenths(fit.scale, max_scale) | fifteenths(fit.minimum, max_minimum) << 4
        });
        let (d, dmin) = (narrow(max_scale / 15.0), narrow(max_minimum / 15.0));
        for (j, (x, quants)) in
            values.as_chunks::<16>().0.iter().zip(quants.as_chunks_mut::<16>().0).enumerate()
        {
            let step = widen(d) * f32::from(scales[j] & 0x0F);
            let minimum = widen(dmin) * f32::from(scales[j] >> 4);
            if step != 0.0 {
                *quants = x.map(|x| nearest((x + minimum) / step).clamp(0, 3) as u8);
            }
        }
        Self { scales, qs: pairs(&quants), d, dmin }
    }
}

/// `value` in fifteenths of `max`.
fn fifteenths(value: f32, max: f32) -> u8 {
    if max > 0.0 { nearest(15.0 / max * value) as u8 & 0x0F } else { 0 }
}

/// The two low bits of every value of a `Q2_K` or `Q3_K` block.
pub(crate) fn unpack_pairs(qs: &[u8; SUPER / 4]) -> [u8; SUPER] {
    let mut quants = [0; SUPER];
    for (quants, bytes) in quants.as_chunks_mut::<128>().0.iter_mut().zip(qs.as_chunks::<32>().0) {
        for (g, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            fill(quants, bytes, |byte| byte >> (2 * g) & 3);
        }
    }
    quants
}

/// The inverse of [`unpack_pairs`]; bits above the second are dropped.
pub(super) fn pairs(quants: &[u8; SUPER]) -> [u8; SUPER / 4] {
    std::array::from_fn(|byte| {
        let first = 128 * (byte / 32) + byte % 32;
        (0..4).fold(0, |bits, g| bits | (quants[first + 32 * g] & 3) << (2 * g))
    })
}
