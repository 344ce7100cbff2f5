//! `Q3_K`: 256 values in 16 sub-blocks of 16, each with a signed 6-bit scale.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::q2_k::{pairs, unpack_pairs};
use super::search::{coordinate_descent, nearest};
use super::{Block, SUPER, farthest, fill, narrow, widen};
use crate::dtype::Dtype;

/// value = d * (scale\[j\] - 32) * (quant - 4). Two low bits as in [`super::Q2K`]; the third bit of value
/// i is bit i / 32 of `hmask[i % 32]`. Scale j has its low nibble in byte j % 8 (low half for j < 8) and
/// its two high bits in byte 8 + j % 4 at bit 2 (j / 4).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q3K {
    pub(crate) hmask: [u8; SUPER / 8],
    pub(crate) qs: [u8; SUPER / 4],
    pub(crate) scales: [u8; 12],
    /// f16 step of the scales.
    pub(crate) d: U16,
}
const _: () = assert!(size_of::<Q3K>() == Dtype::Q3K.block_bytes());

impl Block<SUPER> for Q3K {
    const DTYPE: Dtype = Dtype::Q3K;

    #[inline]
    fn dequantize(&self, out: &mut [f32; SUPER]) {
        let d = widen(self.d);
        let scales = unpack_scales(&self.scales);
        let quants = self.quants();
        for ((values, quants), scale) in
            out.as_chunks_mut::<16>().0.iter_mut().zip(quants.as_chunks::<16>().0).zip(scales)
        {
            let step = d * f32::from(scale);
            fill(values, quants, |quant| step * f32::from(quant));
        }
    }

    fn quantize(values: &[f32; SUPER]) -> Self {
        let mut fits = [(0.0f32, [0i8; 16]); 16];
        for (fit, x) in fits.iter_mut().zip(values.as_chunks::<16>().0) {
            *fit = coordinate_descent(x, 4);
        }
        let max = farthest(&fits.map(|(scale, _)| scale));
        // Without any scale the packed scales are all zero bits, which reads as -32.
        let (scales, d) = if max == 0.0 {
            ([-32i8; 16], U16::ZERO)
        } else {
            let inverse = -32.0 / max;
            let scales = fits.map(|(scale, _)| nearest(inverse * scale).clamp(-32, 31) as i8);
            (scales, narrow(1.0 / inverse))
        };
        let mut quants = [0u8; SUPER];
        for (j, (x, quants)) in
            values.as_chunks::<16>().0.iter().zip(quants.as_chunks_mut::<16>().0).enumerate()
        {
            let step = widen(d) * f32::from(scales[j]);
            for (i, quant) in quants.iter_mut().enumerate() {
                // On a grid that rounded to nothing the quants of the search stay.
                let centred = match step {
                    0.0 => i32::from(fits[j].1[i]),
                    _ => nearest(x[i] / step).clamp(-4, 3),
                };
                *quant = (centred + 4) as u8;
            }
        }
        let hmask = std::array::from_fn(|i| {
            (0..8).fold(0, |bits, j| bits | (quants[32 * j + i] >> 2) << j)
        });
        Self { hmask, qs: pairs(&quants), scales: pack_scales(&scales), d }
    }
}

impl Q3K {
    /// The quants, 4 already taken off.
    pub(crate) fn quants(&self) -> [i8; SUPER] {
        let mut quants = unpack_pairs(&self.qs);
        for (c, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (quant, bits) in quants.iter_mut().zip(&self.hmask) {
                *quant |= (bits >> c & 1) << 2;
            }
        }
        let mut centred = [0; SUPER];
        fill(&mut centred, &quants, |quant| (quant as i8).wrapping_sub(4));
        centred
    }
}

/// The sixteen scales, 32 already taken off.
pub(crate) fn unpack_scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|j| {
        let low = packed[j % 8] >> (4 * (j / 8)) & 0x0F;
        let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
        (low | high << 4) as i8 - 32
    })
}

fn pack_scales(scales: &[i8; 16]) -> [u8; 12] {
    let mut packed = [0u8; 12];
    for (j, &scale) in scales.iter().enumerate() {
        let scale = (scale + 32) as u8;
        packed[j % 8] |= (scale & 0x0F) << (4 * (j / 8));
        packed[8 + j % 4] |= (scale >> 4) << (2 * (j / 4));
    }
    packed
}
