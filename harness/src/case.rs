//! Cells of the matrix and the cases that stand in them.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::Severity;

/// Every backend by its name.
pub const BACKENDS: [&str; 3] = ["scalar", "simd", "cuda"];

/// One model file in one form: what a case is run on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ModelRef {
    /// Name of the model in the suite, for example `golden`.
    pub model: String,
    /// Name of the form, for example `gguf-q8_0`, `safetensors`, `apr`.
    pub form: String,
    /// Where the file or directory lies.
    pub path: PathBuf,
}

/// One cell of the matrix. Dimensions a gate does not depend on are `None` and left out of its ids.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct Cell {
    /// Model and form.
    pub model: Option<ModelRef>,
    /// `scalar`, `simd` or `cuda`.
    pub backend: Option<String>,
    /// Instruction set, when the suite forces one.
    pub isa: Option<String>,
    /// Threads, when the suite forces them.
    pub threads: Option<usize>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(model) = &self.model {
            parts.push(model.model.clone());
            parts.push(model.form.clone());
        }
        parts.extend(self.backend.clone());
        parts.extend(self.isa.clone());
        parts.extend(self.threads.map(|threads| format!("t{threads}")));
        f.write_str(&parts.join("."))
    }
}

/// One gate on one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CaseId {
    /// Contract name.
    pub contract: String,
    /// Gate id inside the contract.
    pub gate: String,
    /// The cell.
    pub cell: Cell,
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.contract, self.gate)?;
        let cell = self.cell.to_string();
        if cell.is_empty() { Ok(()) } else { write!(f, "@{cell}") }
    }
}

/// What every report says of a case besides its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CaseInfo {
    /// Printed id: `contract/gate@model.form.backend`.
    pub id: String,
    /// Contract name; the family in reports.
    pub contract: String,
    /// Gate id.
    pub gate: String,
    /// The claim.
    pub claim: String,
    /// Weight.
    pub severity: Severity,
    /// Ids of the source catalogue.
    pub refs: Vec<String>,
    /// The cell.
    pub cell: Cell,
    /// Whether a skip of this case is red.
    pub required: bool,
}
