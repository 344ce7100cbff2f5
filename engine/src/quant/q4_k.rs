//! `Q4_K`: 256 values in 8 sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::search::{Affine, Ladder, Loss, affine, largest, nearest};
use super::{Block, SUPER, fill, k_scales, narrow, widen};
use crate::dtype::Dtype;

/// value = d * scale\[j\] * nibble - dmin * minimum\[j\]. Sub-blocks 2 k and 2 k + 1 share bytes
/// 32 k to 32 k + 31: the first has the low nibbles.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Q4K {
    /// f16 step of the scales.
    pub(crate) d: U16,
    /// f16 step of the minimums.
    pub(crate) dmin: U16,
    pub(crate) scales: [u8; 12],
    pub(crate) qs: [u8; SUPER / 2],
}
const _: () = assert!(size_of::<Q4K>() == Dtype::Q4K.block_bytes());

const LADDER: Ladder = Ladder { first: -1.0, step: 0.1, steps: 20 };

impl Block<SUPER> for Q4K {
    const DTYPE: Dtype = Dtype::Q4K;

    #[inline]
    fn dequantize(&self, out: &mut [f32; SUPER]) {
        Grids::unpack(self.d, self.dmin, &self.scales).values(&self.quants(), out);
    }

    fn quantize(values: &[f32; SUPER]) -> Self {
        let (grids, quants) = Grids::search(values, 15, &LADDER);
        let qs = std::array::from_fn(|i| {
            let first = 64 * (i / 32) + i % 32;
            quants[first] | quants[first + 32] << 4
        });
        Self { d: grids.d, dmin: grids.dmin, scales: grids.packed, qs }
    }
}

impl Q4K {
    /// The quants.
    pub(crate) fn quants(&self) -> [u8; SUPER] {
        unpack_nibbles(&self.qs)
    }
}

/// The nibbles of a `Q4_K` or `Q5_K` block in the order of its values.
pub(super) fn unpack_nibbles(qs: &[u8; SUPER / 2]) -> [u8; SUPER] {
    let mut quants = [0; SUPER];
    for (pair, bytes) in quants.as_chunks_mut::<64>().0.iter_mut().zip(qs.as_chunks::<32>().0) {
        let (low, high) = pair.split_at_mut(32);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            *low = byte & 0x0F;
            *high = byte >> 4;
        }
    }
    quants
}

/// The grids of the eight sub-blocks of a `Q4_K` or `Q5_K` block.
pub(super) struct Grids {
    pub(super) d: U16,
    pub(super) dmin: U16,
    pub(super) packed: [u8; 12],
    steps: [f32; 8],
    minimums: [f32; 8],
}

impl Grids {
    pub(super) fn unpack(d: U16, dmin: U16, packed: &[u8; 12]) -> Self {
        let (scales, minimums) = k_scales::unpack(packed);
        let (step, minimum_step) = (widen(d), widen(dmin));
        Self {
            d,
            dmin,
            packed: *packed,
            steps: scales.map(|scale| step * f32::from(scale)),
            minimums: minimums.map(|minimum| minimum_step * f32::from(minimum)),
        }
    }

    /// The values of all quants.
    pub(super) fn values(&self, quants: &[u8; SUPER], out: &mut [f32; SUPER]) {
        for (j, (values, quants)) in
            out.as_chunks_mut::<32>().0.iter_mut().zip(quants.as_chunks::<32>().0).enumerate()
        {
            let (step, minimum) = (self.steps[j], self.minimums[j]);
            fill(values, quants, |quant| step * f32::from(quant) - minimum);
        }
    }

    /// Best grids for `values` and the quants in `0..=top` on them.
    pub(super) fn search(values: &[f32; SUPER], top: u8, ladder: &Ladder) -> (Self, [u8; SUPER]) {
        let mut quants = [0u8; SUPER];
        let mut fits = [Affine::default(); 8];
        for ((x, quants), fit) in
            values.as_chunks::<32>().0.iter().zip(quants.as_chunks_mut::<32>().0).zip(&mut fits)
        {
            let square: f32 = x.iter().fold(0.0, |sum, x| sum + x * x);
            let mean = (square / 32.0).sqrt();
            let weights = x.map(|x| mean + x.abs());
            *fit = affine(x, &weights, top, ladder, Loss::Square, quants);
        }
        let max_scale = largest(fits.iter().map(|fit| fit.scale));
        let max_minimum = largest(fits.iter().map(|fit| fit.minimum));
        let (per_scale, per_minimum) = (per_step(max_scale), per_step(max_minimum));
        // Wrapped to eight bits before the limit, as the reference does.
        let scales = fits.map(|fit| (nearest(per_scale * fit.scale) as u8).min(63));
        let minimums = fits.map(|fit| (nearest(per_minimum * fit.minimum) as u8).min(63));
        let packed = k_scales::pack(scales, minimums);
        let grids = Self::unpack(narrow(max_scale / 63.0), narrow(max_minimum / 63.0), &packed);
        for (j, (x, quants)) in
            values.as_chunks::<32>().0.iter().zip(quants.as_chunks_mut::<32>().0).enumerate()
        {
            let step = grids.steps[j];
            if step != 0.0 {
                *quants = x.map(|x| {
                    nearest((x + grids.minimums[j]) / step).clamp(0, i32::from(top)) as u8
                });
            }
        }
        (grids, quants)
    }
}

fn per_step(max: f32) -> f32 {
    if max > 0.0 { 63.0 / max } else { 0.0 }
}
