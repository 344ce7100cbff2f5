//! Blocks taken apart into quants and the numbers that turn them into values.

use crate::quant::{
    self, AprQ4, Block, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, SUPER, widen,
};

/// A 32-value block taken apart: value = scale * quant + offset.
pub(super) struct Parts {
    pub(super) quants: [i8; 32],
    pub(super) scale: f32,
    pub(super) offset: f32,
}

pub(super) trait Small: Block<32> {
    fn parts(&self) -> Parts;
}

impl Small for Q4_0 {
    fn parts(&self) -> Parts {
        let quants = nibbles(&self.qs).map(|quant| quant.wrapping_sub(8));
        Parts { quants, scale: widen(self.d), offset: 0.0 }
    }
}

impl Small for Q4_1 {
    fn parts(&self) -> Parts {
        Parts { quants: nibbles(&self.qs), scale: widen(self.d), offset: widen(self.m) }
    }
}

impl Small for Q5_0 {
    fn parts(&self) -> Parts {
        let quants =
            quant::q5_0::join(self.qh, &self.qs).map(|quant| (quant as i8).wrapping_sub(16));
        Parts { quants, scale: widen(self.d), offset: 0.0 }
    }
}

impl Small for Q5_1 {
    fn parts(&self) -> Parts {
        let quants = quant::q5_0::join(self.qh, &self.qs).map(|quant| quant as i8);
        Parts { quants, scale: widen(self.d), offset: widen(self.m) }
    }
}

impl Small for Q8_0 {
    fn parts(&self) -> Parts {
        Parts { quants: self.qs, scale: widen(self.d), offset: 0.0 }
    }
}

impl Small for AprQ4 {
    /// The quants of low nibbles before those of high ones, which is not the order of the values.
    fn parts(&self) -> Parts {
        let quants = nibbles(&self.qs).map(|quant| quant.wrapping_sub(8));
        Parts { quants, scale: self.step(), offset: 0.0 }
    }
}

fn nibbles(bytes: &[u8; 16]) -> [i8; 32] {
    let mut quants = [0; 32];
    let (low, high) = quants.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = (byte & 0x0F) as i8;
        *high = (byte >> 4) as i8;
    }
    quants
}

/// A super-block taken apart: value = d * scale * quant - dmin * minimum, scales and minimums per 16.
pub(super) struct SuperParts {
    pub(super) quants: [i8; SUPER],
    pub(super) scales: [i8; 16],
    pub(super) d: f32,
    pub(super) minimums: [u8; 16],
    pub(super) dmin: f32,
}

pub(super) trait Super: Block<SUPER> {
    fn parts(&self) -> SuperParts;
}

impl Super for Q2K {
    fn parts(&self) -> SuperParts {
        SuperParts {
            quants: quant::q2_k::unpack_pairs(&self.qs).map(|quant| quant as i8),
            scales: self.scales.map(|scale| (scale & 0x0F) as i8),
            d: widen(self.d),
            minimums: self.scales.map(|scale| scale >> 4),
            dmin: widen(self.dmin),
        }
    }
}

impl Super for Q3K {
    fn parts(&self) -> SuperParts {
        SuperParts {
            quants: self.quants(),
            scales: quant::q3_k::unpack_scales(&self.scales),
            d: widen(self.d),
            minimums: [0; 16],
            dmin: 0.0,
        }
    }
}

impl Super for Q4K {
    fn parts(&self) -> SuperParts {
        let (scales, minimums) = quant::k_scales::unpack(&self.scales);
        SuperParts {
            quants: self.quants().map(|quant| quant as i8),
            scales: std::array::from_fn(|j| scales[j / 2] as i8),
            d: widen(self.d),
            minimums: std::array::from_fn(|j| minimums[j / 2]),
            dmin: widen(self.dmin),
        }
    }
}

impl Super for Q5K {
    fn parts(&self) -> SuperParts {
        let (scales, minimums) = quant::k_scales::unpack(&self.scales);
        SuperParts {
            quants: self.quants().map(|quant| quant as i8),
            scales: std::array::from_fn(|j| scales[j / 2] as i8),
            d: widen(self.d),
            minimums: std::array::from_fn(|j| minimums[j / 2]),
            dmin: widen(self.dmin),
        }
    }
}

impl Super for Q6K {
    fn parts(&self) -> SuperParts {
        SuperParts {
            quants: self.quants(),
            scales: self.scales,
            d: widen(self.d),
            minimums: [0; 16],
            dmin: 0.0,
        }
    }
}
