//! Frequencies of the rotary embedding: made once per model from its hyper-parameters and the divisors in its file.
//!
//! Knows how frequencies come about, not how vectors are rotated: that is an operation of the backend.

use super::rope::{RopeConfig, RopeScaling};
use super::slots::Role;
use super::weights::Weights;
use crate::error::Result;

/// What a rotation needs besides the position.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rotation {
    /// Radians per position of each pair, `[dims / 2]`.
    frequencies: Vec<f32>,
    /// The same for texts of more tokens than the number beside them.
    long: Option<(usize, Vec<f32>)>,
    /// Factor on rotated values.
    pub(super) stretch: f32,
}

impl Rotation {
    /// The rotation that `rope` describes, with the divisors that `weights` bring.
    ///
    /// # Errors
    /// [`crate::Code::NonFinite`] for divisors that cannot be used.
    pub(super) fn new(rope: &RopeConfig, weights: &Weights) -> Result<Self> {
        let RopeScaling::Long(long) = &rope.scaling else {
            let divisors = weights.divisors(Role::RopeFactors)?.unwrap_or_default();
            return Ok(Self {
                frequencies: frequencies(rope, &divisors),
                long: None,
                stretch: 1.0,
            });
        };
        let (short_set, long_set) = match &long.factors {
            Some((short, long)) => (short.clone(), long.clone()),
            None => (
                weights.divisors(Role::RopeFactorsShort)?.unwrap_or_default(),
                weights.divisors(Role::RopeFactorsLong)?.unwrap_or_default(),
            ),
        };
        Ok(Self {
            frequencies: frequencies(rope, &short_set),
            long: Some((long.original_context, frequencies(rope, &long_set))),
            stretch: long.attention_factor as f32,
        })
    }

    /// Whether a text of `tokens` tokens is rotated as a long one.
    pub(super) fn is_long(&self, tokens: usize) -> bool {
        self.long.as_ref().is_some_and(|(original, _)| tokens > *original)
    }

    /// Radians per position of each pair, in long texts or in short ones.
    pub(super) fn frequencies(&self, long: bool) -> &[f32] {
        match &self.long {
            Some((_, frequencies)) if long => frequencies,
            _ => &self.frequencies,
        }
    }
}

/// Angle per position of each pair, `dims / 2` of them: after scaling, divided by the divisor of the pair if there
/// is one. Rounded to f32, as every trained model saw them.
fn frequencies(rope: &RopeConfig, divisors: &[f32]) -> Vec<f32> {
    plain(rope)
        .enumerate()
        .map(|(pair, frequency)| {
            let divisor = divisors.get(pair).map_or(1.0, |divisor| f64::from(*divisor));
            (rope.scaling.apply(frequency) / divisor) as f32
        })
        .collect()
}

/// The frequencies before any scaling.
fn plain(rope: &RopeConfig) -> impl Iterator<Item = f64> + '_ {
    (0..rope.dims / 2).map(|pair| rope.theta.powf(-((2 * pair) as f64 / rope.dims as f64)))
}

impl RopeConfig {
    /// What the scaling divides each of the `dims / 2` plain frequencies by; GGUF stores Llama-3 scaling so.
    pub fn divisors(&self) -> Vec<f32> {
        plain(self).map(|frequency| (frequency / self.scaling.apply(frequency)) as f32).collect()
    }
}

impl RopeScaling {
    /// The scaling behind divisors of the frequencies, as [`RopeConfig::divisors`] makes them; `None` when no
    /// published one gives these.
    pub(crate) fn from_divisors(rope: &RopeConfig, divisors: &[f32]) -> Option<Self> {
        let farthest = divisors.iter().fold(1.0f32, |most, divisor| most.max(*divisor));
        let factor = f64::from(farthest);
        let explains = |scaling: &Self| {
            let tried = RopeConfig { scaling: scaling.clone(), ..rope.clone() }.divisors();
            tried.len() == divisors.len()
                && tried.iter().zip(divisors).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs())
        };
        if divisors.iter().all(|divisor| (divisor - 1.0).abs() < 1e-6) {
            return Some(Self::None).filter(explains);
        }
        // First training contexts are powers of two.
        let contexts = (5..=20).map(|power| f64::from(1u32 << power));
        let frequencies = |original_context: f64| {
            let bounds = [(1.0, 4.0), (1.0, 2.0), (1.0, 8.0), (2.0, 4.0)];
            bounds.map(|(low, high)| Self::Llama3 { factor, low, high, original_context })
        };
        contexts.flat_map(frequencies).find(explains)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rope::RopeStyle;

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig { theta: 500_000.0, style: RopeStyle::Neox, scaling, dims: 128 }
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192.0 };
        let plain = frequencies(&config(RopeScaling::None), &[]);
        let scaled = frequencies(&config(scaling), &[]);
        assert_eq!(scaled[0].to_bits(), plain[0].to_bits());
        assert!((plain[63] / scaled[63] - 8.0).abs() < 1e-5);
        assert!(scaled.windows(2).all(|pair| pair[1] < pair[0]), "blending stays monotonic");
    }

    #[test]
    fn a_scaling_is_found_again_from_its_divisors() {
        let plain = config(RopeScaling::None);
        for (factor, original_context) in [(8.0, 8192.0), (32.0, 8192.0), (4.0, 64.0)] {
            let scaling = RopeScaling::Llama3 { factor, low: 1.0, high: 4.0, original_context };
            let divisors = config(scaling.clone()).divisors();
            assert_eq!(RopeScaling::from_divisors(&plain, &divisors), Some(scaling));
        }
        assert_eq!(RopeScaling::from_divisors(&plain, &[1.0; 64]), Some(RopeScaling::None));
        let odd: Vec<f32> = (0..64).map(|pair| 1.0 + (pair % 7) as f32).collect();
        assert_eq!(RopeScaling::from_divisors(&plain, &odd), None);
    }

    #[test]
    fn divisors_of_the_file_divide_the_frequencies() {
        let plain = frequencies(&config(RopeScaling::None), &[]);
        let divided = frequencies(&config(RopeScaling::None), &[2.0; 64]);
        assert!(plain.iter().zip(&divided).all(|(a, b)| (a / b - 2.0).abs() < 1e-6));
    }
}
