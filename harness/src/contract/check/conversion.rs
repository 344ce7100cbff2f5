//! Checks of conversions: the form is converted, and what was written is judged against it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::contract::tolerance::AtMost;

/// Parameters of `conversion`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Conversion {
    /// The formats: each converted to from the form itself, or, for `round-trip`, the stations of the way.
    pub to: Vec<Target>,
    /// Dtype or mixture of the written matrices (`f16`, `q4_k_m`), for `round-trip` of those that go on the way; as stored
    /// when absent.
    #[serde(default)]
    pub dtype: Option<String>,
    /// What must hold.
    pub rule: ConversionRule,
}

/// What must hold of a conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum ConversionRule {
    /// Every weight has the very values of its source, rows in the order that the format wants.
    Weights,
    /// Every weight is as close to its source as its dtype allows: root mean square error over root mean square.
    WithinRounding(AtMost),
    /// Every weight is as close to its source as the grid of its blocks allows: no error is larger than this many steps
    /// of its block. Holds whatever the spread of the weights is.
    WithinSteps {
        /// Values in a block.
        block: u16,
        /// Steps from zero to the largest magnitude of a block.
        steps: u16,
        /// The largest error, in steps.
        within: AtMost,
    },
    /// Family, hyper-parameters and the ids that end a text are those of the source.
    HyperParameters,
    /// The same text gives the same ids, special tokens and chat template included.
    Text,
    /// Along all formats and back, every tensor has the bytes and all metadata the values that it had.
    RoundTrip,
    /// From one format to the next, each leg and the whole way keep weights (by their values, or by their error where a
    /// dtype is asked for), hyper-parameters and text.
    Legs,
    /// Every tensor has the dtype and the bytes that another program gave it in this form of the model.
    SameAs {
        /// The form.
        form: String,
    },
    /// A damaged copy of the form is refused, and nothing is left of the conversion.
    Halts {
        /// Damages, by the ids of file faults.
        on: Vec<String>,
    },
}
