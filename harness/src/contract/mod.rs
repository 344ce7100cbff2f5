//! Contracts: what is claimed, as gates.
//!
//! A contract is a YAML file of gates. Everything in it is typed at load: [`load`] turns text into a [`Contract`] or into
//! a [`load::CatalogueError`] with file, line, column and path. Nothing here judges anything.

pub mod check;
pub mod load;
pub mod tolerance;
mod validate;
pub mod waiver;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::pipeline::PipelineStage;

pub use check::{Check, Scope};
pub use load::{CatalogueError, load_contract, load_waivers};
pub(crate) use validate::is_kebab;

/// A YAML file in `contracts/`: what is claimed, as gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Contract {
    /// Name, equal to the file stem; the family in reports and the first part of case ids.
    pub contract: String,
    /// One line for a person.
    pub title: String,
    /// The gates.
    pub gates: Vec<Gate>,
}

/// All contracts that are known, with the hash of their text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// Contracts by name.
    pub contracts: BTreeMap<String, Contract>,
    /// SHA-256 over names and texts in name order, as hexadecimal: a changed tolerance is another catalogue.
    pub sha256: String,
}

impl Catalogue {
    /// Loads contracts out of `(name, text)` pairs.
    ///
    /// # Errors
    /// The first wrong contract; a name that differs from the contract's own; two of one name; none at all.
    pub fn from_texts<N: AsRef<str>, T: AsRef<str>>(
        texts: &[(N, T)],
    ) -> Result<Self, CatalogueError> {
        let mut sorted: Vec<_> =
            texts.iter().map(|(name, text)| (name.as_ref(), text.as_ref())).collect();
        sorted.sort_unstable();
        let mut hash = Sha256::new();
        let mut contracts = BTreeMap::new();
        for (name, text) in sorted {
            let file = Path::new(name).with_extension("yaml");
            let contract = load_contract(text, &file)?;
            if contract.contract != name {
                let message =
                    format!("contract is called {} but its file is not", contract.contract);
                return Err(CatalogueError::whole(&file, message));
            }
            if contracts.insert(name.to_owned(), contract).is_some() {
                return Err(CatalogueError::whole(&file, "there are two contracts of this name"));
            }
            for part in [name, text] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        if contracts.is_empty() {
            return Err(CatalogueError::whole(Path::new("contracts"), "no contract at all"));
        }
        Ok(Self { contracts, sha256: hexadecimal(&hash.finalize()) })
    }

    /// Loads every `*.yaml` of a directory.
    ///
    /// # Errors
    /// As [`Catalogue::from_texts`], and when files cannot be read.
    pub fn from_directory(directory: &Path) -> Result<Self, CatalogueError> {
        let mut texts = Vec::new();
        for file in load::yaml_files(directory)? {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            texts.push((name.unwrap_or_default(), load::read(&file)?));
        }
        Self::from_texts(&texts)
    }

    /// The gate `contract/gate`.
    pub fn gate(&self, contract: &str, gate: &str) -> Option<&Gate> {
        self.contracts.get(contract)?.gates.iter().find(|found| found.id == gate)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
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
    /// The cells the gate is meant for, as a filter over `model`, `form`, `backend`; all when absent.
    #[serde(default)]
    pub on: Option<String>,
    /// Wall-clock limit in seconds; the runner has a default.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// Whether the case runs in a child process of its own.
    #[serde(default)]
    pub isolate: bool,
    /// What is looked at, and which observation refutes the claim.
    #[serde(with = "load::one_key")]
    #[schemars(with = "Check")]
    pub check: Check,
    /// Planted faults this gate must catch.
    #[serde(default)]
    pub kills: Vec<String>,
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
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Deep => "deep",
        }
    }
}

/// The JSON Schema of a contract file, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Contract).to_value()
}
