//! `Q6_K`: 256 values in 16 sub-blocks of 16, each with a signed 8-bit scale.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::search::{GROUP_MAX_EPS, nearest, symmetric};
use super::{Block, SUPER, farthest, fill, narrow, widen};
use crate::dtype::Dtype;

/// value = d * scale\[j\] * (quant - 32). Each half of 128 values takes 64 bytes of `ql` and 32 of `qh`:
/// value 32 g + i of a half has its low nibble in `ql[32 (g % 2) + i]` (low half of the byte for g < 2)
/// and its two high bits in `qh[i]` at bit 2 g.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q6K {
    pub(crate) ql: [u8; SUPER / 2],
    pub(crate) qh: [u8; SUPER / 4],
    pub(crate) scales: [i8; SUPER / 16],
    /// f16 step of the scales.
    pub(crate) d: U16,
}
const _: () = assert!(size_of::<Q6K>() == Dtype::Q6K.block_bytes());

impl Block<SUPER> for Q6K {
    const DTYPE: Dtype = Dtype::Q6K;

    #[inline]
    fn dequantize(&self, out: &mut [f32; SUPER]) {
        let d = widen(self.d);
        let quants = self.quants();
        for ((values, quants), scale) in
            out.as_chunks_mut::<16>().0.iter_mut().zip(quants.as_chunks::<16>().0).zip(self.scales)
        {
            let step = d * f32::from(scale);
            fill(values, quants, |quant| step * f32::from(quant));
        }
    }

    fn quantize(values: &[f32; SUPER]) -> Self {
        let zero = Self { ql: [0; 128], qh: [0; 64], scales: [0; 16], d: U16::ZERO };
        let mut fits = [(0.0f32, [0i8; 16]); 16];
        for (fit, x) in fits.iter_mut().zip(values.as_chunks::<16>().0) {
            *fit = symmetric(x, 32);
        }
        let max = farthest(&fits.map(|(scale, _)| scale));
        if max.abs() < GROUP_MAX_EPS {
            return zero;
        }
        let inverse = -128.0 / max;
        let scales = fits.map(|(scale, _)| nearest(inverse * scale).min(127) as i8);
        let mut block = Self { scales, d: narrow(1.0 / inverse), ..zero };
        let d = widen(block.d);
        for (j, x) in values.as_chunks::<16>().0.iter().enumerate() {
            let step = d * f32::from(scales[j]);
            for (i, &x) in x.iter().enumerate() {
                // On a grid that rounded to nothing the quants of the search stay.
                let quant = match step {
                    0.0 => i32::from(fits[j].1[i]),
                    _ => nearest(x / step).clamp(-32, 31),
                };
                block.set(16 * j + i, (quant + 32) as u8);
            }
        }
        block
    }
}

impl Q6K {
    /// Byte of `ql`, its shift, byte of `qh`, its shift, of value `index`.
    fn place(index: usize) -> (usize, usize, usize, usize) {
        let (half, group, i) = (index / 128, index % 128 / 32, index % 32);
        (64 * half + 32 * (group % 2) + i, 4 * (group / 2), 32 * half + i, 2 * group)
    }

    /// The quants, 32 already taken off.
    pub(crate) fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        let halves = quants.as_chunks_mut::<128>().0.iter_mut();
        for (half, (low, high)) in
            halves.zip(self.ql.as_chunks::<64>().0.iter().zip(self.qh.as_chunks::<32>().0))
        {
            for (group, quants) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let low = low.as_chunks::<32>().0[group % 2];
                for ((quant, low), high) in quants.iter_mut().zip(low).zip(high) {
                    let low = low >> (4 * (group / 2)) & 0x0F;
                    *quant = ((low | (high >> (2 * group) & 3) << 4) as i8).wrapping_sub(32);
                }
            }
        }
        quants
    }

    /// Sets a quant that was zero.
    fn set(&mut self, index: usize, quant: u8) {
        let (low, low_shift, high, high_shift) = Self::place(index);
        self.ql[low] |= (quant & 0x0F) << low_shift;
        self.qh[high] |= (quant >> 4) << high_shift;
    }
}
