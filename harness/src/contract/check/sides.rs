//! Checks of the comparison of two sides, site by site.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::tolerance::{Share, Why};

/// Parameters of `compare-inference`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CompareInference {
    /// The other side.
    pub with: OtherSide,
}

/// What a model on a backend is compared with at every site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum OtherSide {
    /// Itself: not a bit may differ.
    Itself,
    /// Another form of the same model on the same backend: no site may differ by more than the dtypes of both round.
    Form(String),
    /// Itself with a random fault of the engine in a random layer, many times over: the first site where the sides part
    /// must be the one that the fault changes first.
    Faulty(Placements),
}

/// Parameters of `faulty`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Placements {
    /// How many faults are placed, one after the other.
    pub count: usize,
    /// Share of them that must be found at their own site.
    pub located_at_least: Share,
    /// Why not all.
    pub why: Why,
}
