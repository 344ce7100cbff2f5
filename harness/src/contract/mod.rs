//! Contracts: what is claimed, as gates.
//!
//! A contract is a YAML file of gates. Everything in it is typed at load: [`load`] turns text into a [`Contract`] or into
//! a [`load::CatalogueError`] with file, line, column and path. Nothing here judges anything.

pub mod aim;
mod catalogue;
pub mod check;
pub mod load;
pub mod parameter;
pub(crate) mod place;
mod schema;
pub mod tolerance;
mod validate;
mod values;
pub mod waiver;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use aim::Aim;
pub use catalogue::Catalogue;
pub use check::{Check, Scope};
pub use load::{CatalogueError, load_contract, load_waivers};
pub use schema::schema;
pub(crate) use validate::is_kebab;

use crate::pipeline::PipelineStage;

/// A YAML file in `contracts/`: what is claimed, as gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Contract {
    /// Name, equal to the file stem; the family in reports and the first part of case ids.
    pub contract: String,
    /// One line for a person.
    pub title: String,
    /// What a suite or the command line may change, by name. A check refers to it as `$name`.
    #[serde(default)]
    pub parameters: BTreeMap<String, parameter::Parameter>,
    /// The gates.
    pub gates: Vec<Gate>,
}

/// One falsifiable claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Gate {
    /// Name inside the contract, lower-case words joined by hyphens.
    pub id: String,
    /// What is claimed, in one sentence that could be false.
    pub claim: String,
    /// How much a falsification weighs.
    pub severity: Severity,
    /// Ids of the gate catalogue this gate answers.
    #[serde(default)]
    pub refs: Vec<String>,
    /// What must be there before anything can be measured; see [`crate::need::KNOWN`].
    #[serde(default)]
    pub needs: Vec<String>,
    /// The stage of the pipeline that the claim speaks of; `apr check` runs these gates.
    #[serde(default)]
    pub stage: Option<PipelineStage>,
    /// Free words to select by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How long the gate takes; suites choose up to which tier they go.
    #[serde(default)]
    pub tier: Tier,
    /// The cells the gate is meant for, as a filter over `backend`, facts of the file such as `stored(blocks)` and
    /// `has(template)`, and the names `model` and `form` of a suite; all when absent.
    #[serde(default)]
    pub on: Option<String>,
    /// Wall-clock limit in seconds; by default minutes, and more for a large model.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// What is looked at, and which observation refutes the claim.
    #[serde(with = "load::one_key")]
    #[schemars(with = "Check")]
    pub check: Check,
    /// Planted faults this gate must catch.
    #[serde(default)]
    pub kills: Vec<Aim>,
}

/// How long a gate takes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Seconds: on every change.
    Quick,
    /// Up to a minute: before a merge.
    #[default]
    Standard,
    /// Minutes: before a release.
    Deep,
}

/// How much a falsification weighs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A release must not happen.
    Blocking,
    /// A feature does not do what is claimed.
    Major,
    /// An inconvenience.
    Minor,
    /// Reported only.
    Info,
}

impl Severity {
    /// Every severity, the heaviest first.
    pub const ALL: [Self; 4] = [Self::Blocking, Self::Major, Self::Minor, Self::Info];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Major => "major",
            Self::Minor => "minor",
            Self::Info => "info",
        }
    }

    /// Weight in the severity score.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Blocking => 8,
            Self::Major => 4,
            Self::Minor => 2,
            Self::Info => 0,
        }
    }
}

impl Tier {
    /// Every tier, the quickest first.
    pub const ALL: [Self; 3] = [Self::Quick, Self::Standard, Self::Deep];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Deep => "deep",
        }
    }
}
