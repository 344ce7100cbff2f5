//! Rotary position embedding as data: style, base and scaling.
//!
//! Knows what files say of it. The frequencies that follow are made by the `rotation` module beside it.

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
#[derive(Clone, Debug, PartialEq)]
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
    /// Each frequency by a divisor of its own, of one set for short texts and of another for long ones.
    Long(LongRope),
}

/// LongRoPE, also called su-scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// Longest text, in tokens, that the short set serves.
    pub original_context: usize,
    /// Factor on every rotated value: what longer texts take from the sharpness of attention.
    pub attention_factor: f64,
    /// Divisors for short and for long texts, `[dims / 2]` each; `None` when the file has them as tensors.
    pub factors: Option<(Vec<f32>, Vec<f32>)>,
}

/// Rotary embedding of a model.
#[derive(Clone, Debug, PartialEq)]
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

const THETA: Key = Key { json: &["rope_theta"], gguf: "rope.freq_base" };
const LOCAL_THETA: Key = Key { json: &["rope_local_base_freq"], gguf: "rope.freq_base_swa" };
const DIMS: Key = Key { json: &[], gguf: "rope.dimension_count" };
const PARTIAL: Key = Key { json: &["partial_rotary_factor"], gguf: "" };
const SCALING: Key = Key { json: &["rope_scaling"], gguf: "" };
const ORIGINAL_CONTEXT: Key = Key {
    json: &["original_max_position_embeddings"],
    gguf: "rope.scaling.original_context_length",
};
const FACTOR: Key = Key { json: &["factor"], gguf: "" };
const ATTENTION_FACTOR: Key = Key { json: &["attention_factor"], gguf: "" };
const PARAMETERS: Key = Key { json: &["rope_parameters"], gguf: "" };
const GGUF_SCALING: Key = Key { json: &[], gguf: "rope.scaling.type" };
const GGUF_FACTOR: Key = Key { json: &[], gguf: "rope.scaling.factor" };
const GGUF_ATTENTION: Key = Key { json: &[], gguf: "rope.scaling.attn_factor" };

impl RopeConfig {
    /// Reads base, scaling and rotated width. The style is set by the caller, who knows the origin.
    ///
    /// `context` is the longest context of the model, in tokens; `usual` the base where the file states none.
    pub(super) fn read(
        keys: &Keys<'_>,
        head_dim: usize,
        context: usize,
        usual: f64,
    ) -> Result<Self> {
        let parameters = keys.object(&PARAMETERS)?.map(|map| of_kind(map, "full_attention"));
        let real = |key: &Key| match (keys.real(key)?, parameters) {
            (None, Some(map)) => Keys::Json(map).real(key),
            (found, _) => Ok(found),
        };
        let dims = match real(&PARTIAL)? {
            Some(factor) => (head_dim as f64 * factor) as usize,
            None => keys.count(&DIMS)?.unwrap_or(head_dim),
        };
        let scaling = match keys.object(&SCALING)?.or(parameters) {
            Some(map) => RopeScaling::from_json(map, keys, context)?,
            None => RopeScaling::from_gguf(keys, context)?,
        };
        let theta = real(&THETA)?.unwrap_or(usual);
        Ok(Self { theta, style: RopeStyle::Neox, scaling, dims })
    }

    /// The same for the layers with a window, where they rotate by numbers of their own.
    pub(super) fn read_local(
        keys: &Keys<'_>,
        head_dim: usize,
        context: usize,
        usual: f64,
    ) -> Result<Self> {
        let kind = "sliding_attention";
        let own = keys.object(&PARAMETERS)?.and_then(|map| map.get(kind)).and_then(Json::as_object);
        let scaling = own.map(|map| RopeScaling::from_json(map, keys, context)).transpose()?;
        let nested = own.map(|map| Keys::Json(map).real(&THETA)).transpose()?.flatten();
        let theta = keys.real(&LOCAL_THETA)?.or(nested).unwrap_or(usual);
        let scaling = scaling.unwrap_or(RopeScaling::None);
        Ok(Self { theta, style: RopeStyle::Neox, scaling, dims: head_dim })
    }

    /// Factor on rotated values.
    pub fn attention_factor(&self) -> f64 {
        match &self.scaling {
            RopeScaling::Long(long) => long.attention_factor,
            _ => 1.0,
        }
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
        self.scaling.check(self.dims)
    }
}

impl RopeScaling {
    fn from_json(map: &Map<String, Json>, keys: &Keys<'_>, context: usize) -> Result<Self> {
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
            Some("longrope" | "su") => LongRope::from_json(map, keys, context).map(Self::Long),
            other => Err(unknown_scaling("rope_scaling.rope_type", other.unwrap_or("none"))),
        }
    }

    fn from_gguf(keys: &Keys<'_>, context: usize) -> Result<Self> {
        let attention_factor = keys.real(&GGUF_ATTENTION)?;
        match keys.text(&GGUF_SCALING)? {
            None | Some("none") if attention_factor.is_none() => Ok(Self::None),
            // Older converters leave the type out.
            None | Some("none" | "longrope") => Ok(Self::Long(LongRope {
                original_context: keys.count(&ORIGINAL_CONTEXT)?.unwrap_or(context),
                attention_factor: attention_factor.unwrap_or(1.0),
                factors: None,
            })),
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

    /// `dims` is the number of rotated values per head.
    fn check(&self, dims: usize) -> Result<()> {
        let (factor, ordered) = match self {
            Self::None => return Ok(()),
            Self::Linear { factor } => (*factor, true),
            Self::Llama3 { factor, low, high, original_context } => {
                (*factor, *low > 0.0 && high > low && *original_context >= 1.0)
            }
            Self::Long(long) => return long.check(dims / 2),
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

    /// Scales one inverse frequency (radians per token), where one rule holds for all of them.
    pub(super) fn apply(&self, frequency: f64) -> f64 {
        match *self {
            Self::None | Self::Long(_) => frequency,
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

impl LongRope {
    /// Reads the object that names the scaling. The model's own key for the original context comes first, as in
    /// the library that wrote it.
    fn from_json(map: &Map<String, Json>, keys: &Keys<'_>, context: usize) -> Result<Self> {
        let inner = Keys::Json(map);
        let original = match keys.count(&ORIGINAL_CONTEXT)? {
            Some(original) => original,
            None => inner.count(&ORIGINAL_CONTEXT)?.unwrap_or(context),
        };
        let stretch = inner.real(&FACTOR)?.unwrap_or(context as f64 / original as f64);
        let stated = inner.real(&ATTENTION_FACTOR)?;
        let attention_factor = stated.unwrap_or_else(|| Self::usual_attention(stretch, original));
        let divisors = |field: &str| -> Result<Vec<f32>> {
            let list = map.get(field).and_then(Json::as_array);
            let numbers =
                list.map(|list| list.iter().map(Json::as_f64).collect::<Option<Vec<_>>>());
            match numbers.flatten() {
                Some(numbers) => Ok(numbers.into_iter().map(|number| number as f32).collect()),
                None => Err(Error::new(Code::RopeScaling)
                    .field(format!("rope_scaling.{field}"))
                    .expected("a list of numbers")
                    .found(if list.is_some() { "other values in it" } else { "none" })),
            }
        };
        let factors = Some((divisors("short_factor")?, divisors("long_factor")?));
        Ok(Self { original_context: original, attention_factor, factors })
    }

    /// The factor of a model whose files state none, for texts `stretch` times as long as the `original` context.
    pub(super) fn usual_attention(stretch: f64, original: usize) -> f64 {
        match stretch {
            stretch if stretch > 1.0 => (1.0 + stretch.ln() / (original as f64).ln()).sqrt(),
            _ => 1.0,
        }
    }

    /// `pairs` is the number of frequencies.
    fn check(&self, pairs: usize) -> Result<()> {
        let wrong = |expected: String, found: String| {
            Err(Error::new(Code::RopeScaling).field("rope_scaling").expected(expected).found(found))
        };
        if self.original_context < 2 {
            let found = self.original_context.to_string();
            return wrong("an original context of at least 2 tokens".into(), found);
        }
        if !(self.attention_factor > 0.0 && self.attention_factor <= 100.0) {
            let found = self.attention_factor.to_string();
            return wrong("an attention factor above 0, at most 100".into(), found);
        }
        let Some((short, long)) = &self.factors else { return Ok(()) };
        for factors in [short, long] {
            let usable = |factor: &f32| factor.is_finite() && *factor > 0.0;
            if factors.len() != pairs || !factors.iter().all(usable) {
                let found = format!("{} numbers", factors.len());
                return wrong(format!("{pairs} finite positive divisors"), found);
            }
        }
        Ok(())
    }
}

/// Of parameters that differ by kind of layer those of `kind`; else the parameters themselves.
fn of_kind<'a>(map: &'a Map<String, Json>, kind: &str) -> &'a Map<String, Json> {
    map.get(kind).and_then(Json::as_object).unwrap_or(map)
}

fn unknown_scaling(field: &str, found: &str) -> Error {
    Error::new(Code::RopeScaling)
        .field(field)
        .expected("default, linear, llama3 or longrope")
        .found(found)
        .hint("a wrong rotation gives fluent nonsense on long prompts, so this is refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_that_is_not_a_number_is_refused() {
        let error = RopeScaling::Linear { factor: f64::NAN }.check(8).unwrap_err();
        assert_eq!(error.code(), Code::RopeScaling);
    }

    #[test]
    fn divisors_must_be_usable_and_one_for_each_pair() {
        let long = |short: &[f32]| {
            let factors = Some((short.to_vec(), vec![1.0, 2.0]));
            let long = LongRope { original_context: 8, attention_factor: 1.0, factors };
            RopeScaling::Long(long).check(4)
        };
        assert!(long(&[1.0, 1.5]).is_ok());
        for wrong in [&[1.0][..], &[1.0, 0.0], &[1.0, f32::NAN], &[1.0, 1.0, 1.0]] {
            assert_eq!(long(wrong).unwrap_err().code(), Code::RopeScaling, "{wrong:?}");
        }
    }
}
