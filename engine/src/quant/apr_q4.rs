//! APR-Q4: 32 consecutive values of the flattened tensor with one f16 scale.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Block, blocks, farthest, narrow, too_short, widen};
use crate::dtype::Dtype;
use crate::error::Result;

/// value = (nibble - 8) * d; value 2 i in the low nibble of byte i, value 2 i + 1 in its high nibble.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct AprQ4 {
    /// f16 step between grid points; what is not a normal number counts as zero.
    pub(crate) d: U16,
    pub(crate) qs: [u8; 16],
}
const _: () = assert!(size_of::<AprQ4>() == Dtype::AprQ4.block_bytes());

/// The smallest normal f16. The format reads smaller scales as zero.
const SCALE_MIN: f32 = 6.103_515_6e-5;

impl Block<32> for AprQ4 {
    const DTYPE: Dtype = Dtype::AprQ4;

    fn dequantize(&self, out: &mut [f32; 32]) {
        let d = self.step();
        for (pair, &byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(&self.qs) {
            *pair = [byte & 0x0F, byte >> 4].map(|quant| f32::from(quant as i8 - 8) * d);
        }
    }

    fn quantize(values: &[f32; 32]) -> Self {
        let max = farthest(values).abs();
        let d = if max == 0.0 { 1.0 } else { max / 7.0 };
        let quant = |value: f32| ((value / d).round().clamp(-8.0, 7.0) as i8 + 8) as u8;
        let qs = std::array::from_fn(|i| quant(values[2 * i]) | quant(values[2 * i + 1]) << 4);
        Self { d: narrow(d), qs }
    }
}

impl AprQ4 {
    /// The step between grid points.
    pub(crate) fn step(&self) -> f32 {
        let d = widen(self.d);
        if d.is_finite() && d.abs() >= SCALE_MIN { d } else { 0.0 }
    }
}

/// Writes values `start..start + out.len()` of the flattened tensor.
pub(super) fn dequantize(bytes: &[u8], start: usize, out: &mut [f32]) -> Result<()> {
    let blocks = blocks::<32, AprQ4>(bytes);
    if (blocks.len() * 32).checked_sub(start).is_none_or(|left| left < out.len()) {
        return Err(too_short(Dtype::AprQ4, start.saturating_add(out.len()), bytes.len()));
    }
    let mut values = [0.0; 32];
    let (mut block, mut from) = (start / 32, start % 32);
    let mut rest = out;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at_mut((32 - from).min(rest.len()));
        blocks[block].dequantize(&mut values);
        part.copy_from_slice(&values[from..from + part.len()]);
        (block, from, rest) = (block + 1, 0, behind);
    }
    Ok(())
}

/// Appends the whole tensor, its last block padded with zeros.
pub(super) fn quantize(values: &[f32], out: &mut Vec<u8>) {
    let (whole, rest) = values.as_chunks::<32>();
    for values in whole {
        out.extend_from_slice(AprQ4::quantize(values).as_bytes());
    }
    if !rest.is_empty() {
        let mut padded = [0.0; 32];
        padded[..rest.len()].copy_from_slice(rest);
        out.extend_from_slice(AprQ4::quantize(&padded).as_bytes());
    }
}
