//! Tolerances: numbers with reasons.
//!
//! A bound without a `why` does not parse, and neither does one that is not a finite number above zero: a NaN limit
//! would let everything through or nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shortest reason that is accepted, in characters; shorter ones say nothing.
const WHY_CHARS_MIN: usize = 12;

/// Why a bound has the value it has: the rounding argument, or what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Why(String);

impl Why {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Why {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.trim().chars().count() < WHY_CHARS_MIN {
            return Err(format!("a reason of at least {WHY_CHARS_MIN} characters, found {text:?}"));
        }
        Ok(Self(text))
    }
}

/// A finite number above zero.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64")]
#[schemars(with = "f64")]
pub struct Positive(f64);

impl Positive {
    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Positive {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value.is_finite() && value > 0.0 {
            Ok(Self(value))
        } else {
            Err(format!("expected a finite number above zero, found {value}"))
        }
    }
}

/// A number between 0 and 1, both included.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64")]
#[schemars(with = "f64")]
pub struct Share(f64);

impl Share {
    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(format!("expected a number from 0 to 1, found {value}"))
        }
    }
}

/// An upper bound of one error measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AtMost {
    /// The largest error that is accepted.
    pub at_most: Positive,
    /// Why.
    pub why: Why,
}

/// A lower bound of one measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AtLeast {
    /// The smallest value that is accepted.
    pub at_least: Positive,
    /// Why.
    pub why: Why,
}

/// Bounds of a comparison of rows. Every bound that is given must hold; there is no any-of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Parity {
    /// Largest normalised mean squared error of any row: `sum((a-r)²) / sum(r²)`, normalised by the reference.
    pub nmse_worst_row: Positive,
    /// Largest absolute difference of any value.
    #[serde(default)]
    pub max_abs: Option<Positive>,
    /// Smallest cosine of any row. Blind to scale, so never alone.
    #[serde(default)]
    pub cosine: Option<Share>,
    /// Largest mean over the rows of the divergence `KL(reference ‖ tested)` in nats. Logits only.
    #[serde(default)]
    pub kl_mean: Option<Positive>,
    /// Largest divergence of any row, in nats. Logits only.
    #[serde(default)]
    pub kl_max: Option<Positive>,
    /// Both sides must choose the same token wherever the reference leads the runner-up by more than this many logits:
    /// more than rounding was ever seen to turn. Logits only.
    #[serde(default)]
    pub argmax_lead: Option<Positive>,
    /// Largest relative change of the perplexity over the compared texts, either way. Logits only.
    #[serde(default)]
    pub perplexity_change: Option<Positive>,
    /// Why these bounds.
    pub why: Why,
}

impl Parity {
    /// Whether a bound is given that only exists for logits.
    pub const fn wants_logits(&self) -> bool {
        self.kl_mean.is_some()
            || self.kl_max.is_some()
            || self.argmax_lead.is_some()
            || self.perplexity_change.is_some()
    }
}
