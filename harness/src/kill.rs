//! The kill matrix: which gate turned red under which planted fault.
//!
//! A record, filled by the proof run and rendered by the reports. It knows neither how a fault is planted nor how a
//! gate is judged. A gate is named `contract/gate`, a fault `kind/name`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of one fault in front of one gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kill {
    /// The gate turned red, for the stated reason.
    Killed,
    /// The gate stayed green although the fault was planted.
    Survived,
    /// The gate turned red, but not for the stated reason.
    WrongReason,
    /// The fault was not planted in front of this gate, or could not be.
    #[default]
    NotRun,
}

impl Kill {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Survived => "survived",
            Self::WrongReason => "wrong-reason",
            Self::NotRun => "not-run",
        }
    }
}

/// One planted fault in front of one gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KillCell {
    /// Row, `contract/gate`.
    pub gate: String,
    /// Column, name of the fault.
    pub fault: String,
    /// What happened.
    pub kill: Kill,
    /// Id of the first case that turned red.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_red: Option<String>,
    /// The reason that was seen, or why the fault did not run.
    #[serde(default)]
    pub note: String,
}

/// Gates by faults. Only the cells that were aimed at are kept; every other cell is [`Kill::NotRun`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KillMatrix {
    /// Rows, `contract/gate`, in report order.
    pub gates: Vec<String>,
    /// Columns, names of faults, in report order.
    pub faults: Vec<String>,
    /// The cells that were aimed at, by row and then by column.
    pub cells: Vec<KillCell>,
    /// Cases that turned red under the fault that changes nothing: each is a defect of the harness.
    #[serde(default)]
    pub red_under_no_op: Vec<String>,
}

impl KillMatrix {
    /// What happened to `fault` in front of `gate`.
    pub fn at(&self, gate: &str, fault: &str) -> Kill {
        self.cell(gate, fault).map_or(Kill::NotRun, |cell| cell.kill)
    }

    /// The cell of `gate` and `fault`, when it was aimed at.
    pub fn cell(&self, gate: &str, fault: &str) -> Option<&KillCell> {
        self.cells.iter().find(|cell| cell.gate == gate && cell.fault == fault)
    }

    /// Gates that killed at least one fault: the ones that have shown that they can fail.
    pub fn proven(&self) -> BTreeSet<String> {
        let killed = self.cells.iter().filter(|cell| cell.kill == Kill::Killed);
        killed.map(|cell| cell.gate.clone()).collect()
    }

    /// Gates without a kill, in row order.
    pub fn unproven(&self) -> Vec<&str> {
        let proven = self.proven();
        self.gates.iter().filter(|gate| !proven.contains(*gate)).map(String::as_str).collect()
    }

    /// Faults that ran and that no gate killed, in column order.
    pub fn surviving(&self) -> Vec<&str> {
        let mut killed = BTreeMap::<&str, bool>::new();
        for cell in self.cells.iter().filter(|cell| cell.kill != Kill::NotRun) {
            *killed.entry(&cell.fault).or_default() |= cell.kill == Kill::Killed;
        }
        let survived = |fault: &&str| killed.get(fault) == Some(&false);
        self.faults.iter().map(String::as_str).filter(survived).collect()
    }

    /// How many cells ended as `kill`.
    pub fn count(&self, kill: Kill) -> usize {
        self.cells.iter().filter(|cell| cell.kill == kill).count()
    }

    /// One line for a person.
    pub fn summary(&self) -> String {
        format!(
            "{} of {} planted faults killed at {} of {} gates, {} survived, {} red for another reason, {} not run, \
             {} red under no-op",
            self.count(Kill::Killed),
            self.cells.len(),
            self.proven().len(),
            self.gates.len(),
            self.count(Kill::Survived),
            self.count(Kill::WrongReason),
            self.count(Kill::NotRun),
            self.red_under_no_op.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(gate: &str, fault: &str, kill: Kill) -> KillCell {
        KillCell {
            gate: gate.into(),
            fault: fault.into(),
            kill,
            first_red: None,
            note: String::new(),
        }
    }

    fn matrix() -> KillMatrix {
        KillMatrix {
            gates: vec!["a/one".into(), "a/two".into(), "b/three".into()],
            faults: vec!["file/cut".into(), "engine/eps".into(), "engine/swap".into()],
            cells: vec![
                cell("a/one", "file/cut", Kill::Killed),
                cell("a/one", "engine/eps", Kill::WrongReason),
                cell("a/two", "engine/eps", Kill::Survived),
                cell("b/three", "engine/swap", Kill::NotRun),
            ],
            red_under_no_op: Vec::new(),
        }
    }

    #[test]
    fn a_gate_is_proven_only_by_a_kill_for_the_stated_reason() {
        let matrix = matrix();
        assert_eq!(matrix.proven().into_iter().collect::<Vec<_>>(), ["a/one"]);
        assert_eq!(matrix.unproven(), ["a/two", "b/three"]);
    }

    #[test]
    fn a_fault_that_did_not_run_is_not_a_survivor() {
        assert_eq!(matrix().surviving(), ["engine/eps"]);
    }

    #[test]
    fn a_cell_nobody_aimed_at_is_not_run() {
        assert_eq!(matrix().at("b/three", "file/cut"), Kill::NotRun);
    }
}
