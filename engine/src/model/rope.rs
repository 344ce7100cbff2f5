//! Rotary position embedding as data: style, base, scaling, and the table of inverse frequencies.
//!
//! Knows how frequencies come about, not how vectors are rotated: that is an operation of the backend.

use serde_json::{Map, Value as Json};

use super::config::out_of_range;
use super::keys::{Key, Keys};
use crate::error::{Code, Error, Result};

/// Which two values of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RopeStyle {
    /// `i` and `i + dims / 2` (GPT-NeoX, Hugging Face).
    Neox,
    /// `2 i` and `2 i + 1` (the original order; llama in GGUF).
    Adjacent,
}

/// How frequencies are stretched beyond the trained context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Stretch, at least 1.
        factor: f64,
    },
    /// Llama 3: long wavelengths divided by `factor`, short ones kept, blended in between.
    Llama3 {
        /// Stretch of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original_context / low` are stretched whole.
        low: f64,
        /// Wavelengths below `original_context / high` are kept.
        high: f64,
        /// Context of the first training stage, tokens.
        original_context: f64,
    },
}

/// Rotary embedding of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Pairing.
    pub style: RopeStyle,
    /// Stretch.
    pub scaling: RopeScaling,
    /// Values of each head that are rotated, even; the rest passes through.
    pub dims: usize,
}

/// Base when the file states none, as every reader assumes.
const THETA_DEFAULT: f64 = 10_000.0;

const THETA: Key = Key { json: &["rope_theta"], gguf: "rope.freq_base" };
const DIMS: Key = Key { json: &[], gguf: "rope.dimension_count" };
const PARTIAL: Key = Key { json: &["partial_rotary_factor"], gguf: "" };
const SCALING: Key = Key { json: &["rope_scaling"], gguf: "" };
const PARAMETERS: Key = Key { json: &["rope_parameters"], gguf: "" };
const GGUF_SCALING: Key = Key { json: &[], gguf: "rope.scaling.type" };
const GGUF_FACTOR: Key = Key { json: &[], gguf: "rope.scaling.factor" };

impl RopeConfig {
    /// Reads base, scaling and rotated width. The style is set by the caller, who knows the origin.
    pub(super) fn read(keys: &Keys<'_>, head_dim: usize) -> Result<Self> {
        let parameters = keys.object(&PARAMETERS)?;
        let nested = match parameters {
            Some(map) => Keys::Json(map).real(&THETA)?,
            None => None,
        };
        let dims = match keys.real(&PARTIAL)? {
            Some(factor) => (head_dim as f64 * factor) as usize,
            None => keys.count(&DIMS)?.unwrap_or(head_dim),
        };
        let scaling = match keys.object(&SCALING)?.or(parameters) {
            Some(map) => RopeScaling::from_json(map)?,
            None => RopeScaling::from_gguf(keys)?,
        };
        let theta = keys.real(&THETA)?.or(nested).unwrap_or(THETA_DEFAULT);
        Ok(Self { theta, style: RopeStyle::Neox, scaling, dims })
    }

    /// Refuses values that cannot rotate heads of `head_dim` values.
    pub(super) fn check(&self, head_dim: usize) -> Result<()> {
        if !(self.theta.is_finite() && self.theta >= 1.0) {
            return Err(out_of_range("rope_theta", self.theta, "a finite number from 1"));
        }
        if self.dims == 0 || self.dims > head_dim || !self.dims.is_multiple_of(2) {
            let expected = format!("an even number from 2 to {head_dim}");
            return Err(out_of_range("rope dimensions", self.dims, expected));
        }
        self.scaling.check()
    }

    /// Angle per position of each pair: `dims / 2` values, after scaling, divided by `factors` when
    /// the file brings them.
    ///
    /// Rounded to f32, as every trained model saw them.
    pub fn inverse_frequencies(&self, factors: Option<&[f32]>) -> Vec<f32> {
        let exponent = |pair: usize| (2 * pair) as f64 / self.dims as f64;
        (0..self.dims / 2)
            .map(|pair| {
                let plain = self.theta.powf(-exponent(pair));
                let scaled = self.scaling.apply(plain);
                match factors.and_then(|factors| factors.get(pair)) {
                    Some(factor) => (scaled / f64::from(*factor)) as f32,
                    None => scaled as f32,
                }
            })
            .collect()
    }
}

impl RopeConfig {
    /// What the scaling divides each of the `dims / 2` plain frequencies by; GGUF stores Llama-3 scaling so.
    pub fn divisors(&self) -> Vec<f32> {
        let plain = |pair: usize| self.theta.powf(-((2 * pair) as f64 / self.dims as f64));
        (0..self.dims / 2)
            .map(plain)
            .map(|frequency| (frequency / self.scaling.apply(frequency)) as f32)
            .collect()
    }
}

impl RopeScaling {
    fn from_json(map: &Map<String, Json>) -> Result<Self> {
        let kind = map.get("rope_type").or_else(|| map.get("type"));
        let number = |field: &str| {
            map.get(field).and_then(Json::as_f64).ok_or_else(|| {
                Error::new(Code::RopeScaling)
                    .field(format!("rope_scaling.{field}"))
                    .expected("a number")
                    .found(map.get(field).unwrap_or(&Json::Null))
            })
        };
        match kind.and_then(Json::as_str) {
            Some("default") => Ok(Self::None),
            None if kind.is_none() && !map.contains_key("factor") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear { factor: number("factor")? }),
            Some("llama3") => Ok(Self::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original_context: number("original_max_position_embeddings")?,
            }),
            other => Err(unknown_scaling("rope_scaling.rope_type", other.unwrap_or("none"))),
        }
    }

    fn from_gguf(keys: &Keys<'_>) -> Result<Self> {
        match keys.text(&GGUF_SCALING)? {
            None | Some("none") => Ok(Self::None),
            Some("linear") => match keys.real(&GGUF_FACTOR)? {
                Some(factor) => Ok(Self::Linear { factor }),
                None => Err(Error::new(Code::RopeScaling)
                    .field("rope.scaling.factor")
                    .expected("a number")
                    .found("none")),
            },
            Some(other) => Err(unknown_scaling("rope.scaling.type", other)),
        }
    }

    fn check(&self) -> Result<()> {
        let (factor, ordered) = match *self {
            Self::None => return Ok(()),
            Self::Linear { factor } => (factor, true),
            Self::Llama3 { factor, low, high, original_context } => {
                (factor, low > 0.0 && high > low && original_context >= 1.0)
            }
        };
        let in_range = (1.0..=1e6).contains(&factor);
        if in_range && ordered {
            return Ok(());
        }
        Err(Error::new(Code::RopeScaling)
            .field("rope_scaling")
            .expected("a factor from 1 to 1e6 and 0 < low_freq_factor < high_freq_factor")
            .found(format_args!("{self:?}")))
    }

    /// Scales one inverse frequency (radians per token).
    fn apply(&self, frequency: f64) -> f64 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original_context } => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                let turns = original_context / wavelength;
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - keep) * frequency / factor + keep * frequency
            }
        }
    }
}

fn unknown_scaling(field: &str, found: &str) -> Error {
    Error::new(Code::RopeScaling)
        .field(field)
        .expected("default, linear or llama3")
        .found(found)
        .hint("a wrong rotation gives fluent nonsense on long prompts, so this is refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig { theta: 500_000.0, style: RopeStyle::Neox, scaling, dims: 128 }
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192.0 };
        let plain = config(RopeScaling::None).inverse_frequencies(None);
        let scaled = config(scaling).inverse_frequencies(None);
        assert_eq!(scaled[0].to_bits(), plain[0].to_bits());
        assert!((plain[63] / scaled[63] - 8.0).abs() < 1e-5);
        assert!(scaled.windows(2).all(|pair| pair[1] < pair[0]), "blending stays monotonic");
    }

    #[test]
    fn factors_of_the_file_divide_the_frequencies() {
        let plain = config(RopeScaling::None).inverse_frequencies(None);
        let divided = config(RopeScaling::None).inverse_frequencies(Some(&[2.0; 64]));
        assert!(plain.iter().zip(&divided).all(|(a, b)| (a / b - 2.0).abs() < 1e-6));
    }

    #[test]
    fn a_factor_that_is_not_a_number_is_refused() {
        let error = RopeScaling::Linear { factor: f64::NAN }.check().unwrap_err();
        assert_eq!(error.code(), Code::RopeScaling);
    }
}
