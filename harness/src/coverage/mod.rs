//! Which claims are judged by gates, which do not apply, and which nothing judges yet.
//!
//! What covers a claim is never typed: it is read off the `refs` of the gates. A claim that says why nothing judges it while
//! a gate does is a contradiction, and so is one that says nothing at all.

pub mod claim;
mod render;

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use self::claim::{Claims, Written};
use crate::contract::{Catalogue, CatalogueError};

pub use render::markdown;

/// How many claims stand how, counted by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tally {
    /// All ids.
    pub ids: usize,
    /// Judged by a gate.
    pub gates: usize,
    /// Held by a test of the workspace, without a gate.
    pub tests: usize,
    /// Do not apply.
    pub not_applicable: usize,
    /// Nothing judges them yet.
    pub not_yet: usize,
}

impl Tally {
    fn add(&mut self, standing: &ClaimStanding, ids: usize) {
        self.ids += ids;
        *match standing {
            ClaimStanding::Gates { .. } => &mut self.gates,
            ClaimStanding::Tests { .. } => &mut self.tests,
            ClaimStanding::NotApplicable { .. } => &mut self.not_applicable,
            ClaimStanding::NotYet { .. } => &mut self.not_yet,
        } += ids;
    }

    /// Ids that apply.
    pub const fn applicable(self) -> usize {
        self.ids - self.not_applicable
    }
}

/// How a claim stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "standing")]
pub enum ClaimStanding {
    /// Gates judge it.
    Gates {
        /// They, as `contract/gate`.
        gates: Vec<String>,
    },
    /// Tests hold it.
    Tests {
        /// They, as `file#name`.
        tests: Vec<String>,
    },
    /// It does not apply.
    NotApplicable {
        /// Why.
        reason: String,
    },
    /// Nothing judges it yet.
    NotYet {
        /// What is missing.
        reason: String,
    },
}

/// A claim and how it stands.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ClaimReport {
    /// Its ids, ranges as they were written.
    pub ids: Vec<String>,
    /// What is claimed.
    pub title: String,
    /// The claim that it is the twin of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// How it stands.
    #[serde(flatten)]
    pub standing: ClaimStanding,
}

/// The claims of one file.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FamilyReport {
    /// File stem.
    pub name: String,
    /// What they are about.
    pub title: String,
    /// Counts.
    pub tally: Tally,
    /// The claims.
    pub claims: Vec<ClaimReport>,
}

/// The coverage of all claims by a catalogue.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Coverage {
    /// Gates of the catalogue.
    pub gates: usize,
    /// Counts over all families.
    pub tally: Tally,
    /// By file.
    pub families: Vec<FamilyReport>,
}

impl Coverage {
    /// Holds `claims` against the gates of `catalogue`.
    ///
    /// # Errors
    /// Every contradiction: a gate that names an unknown id, a claim that says two things or nothing, a twin of nothing.
    pub fn new(claims: &Claims, catalogue: &Catalogue) -> Result<Self, Vec<CatalogueError>> {
        let by_id: BTreeMap<&str, &Written> = claims
            .iter()
            .flat_map(|written| written.ids.iter().map(move |id| (id.as_str(), written)))
            .collect();
        let (gates_of, mut wrong) = references(catalogue, &by_id);
        let covering = |written: &Written| -> Vec<String> {
            let mut gates: Vec<String> = written
                .ids
                .iter()
                .filter_map(|id| gates_of.get(id.as_str()))
                .flatten()
                .cloned()
                .collect();
            gates.sort();
            gates.dedup();
            gates
        };
        let mut families = Vec::new();
        for family in &claims.families {
            let mut report = FamilyReport {
                name: family.name.clone(),
                title: family.title.clone(),
                tally: Tally::default(),
                claims: Vec::new(),
            };
            for written in &family.claims {
                let standing = match &written.claim.same_as {
                    None => own_standing(written, covering(written)),
                    Some(twin) => twin_standing(written, twin, &by_id, &covering),
                };
                match standing {
                    Err(message) => wrong.push(written.wrong(message)),
                    Ok(standing) => {
                        report.tally.add(&standing, written.ids.len());
                        report.claims.push(ClaimReport {
                            ids: written.claim.ids.clone(),
                            title: written.claim.title.clone(),
                            same_as: written.claim.same_as.clone(),
                            standing,
                        });
                    }
                }
            }
            families.push(report);
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut tally = Tally::default();
        for claim in families.iter().flat_map(|family| &family.claims).zip(claims.iter()) {
            tally.add(&claim.0.standing, claim.1.ids.len());
        }
        let gates = catalogue.contracts.values().map(|contract| contract.gates.len()).sum();
        Ok(Self { gates, tally, families })
    }
}

/// Which gates name which id; and the ids that nobody knows.
fn references<'a>(
    catalogue: &'a Catalogue,
    known: &BTreeMap<&str, &Written>,
) -> (BTreeMap<&'a str, Vec<String>>, Vec<CatalogueError>) {
    let mut gates_of: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for contract in catalogue.contracts.values() {
        for (index, gate) in contract.gates.iter().enumerate() {
            for id in &gate.refs {
                if !known.contains_key(id.as_str()) {
                    let message = format!("refs: no claim is called {id}");
                    wrong.push(catalogue.wrong_gate(contract, index, message));
                }
                let name = format!("{}/{}", contract.contract, gate.id);
                gates_of.entry(id).or_default().push(name);
            }
        }
    }
    (gates_of, wrong)
}

fn own_standing(written: &Written, gates: Vec<String>) -> Result<ClaimStanding, String> {
    let claim = &written.claim;
    let mut said: Vec<(&str, ClaimStanding)> = Vec::new();
    if let Some(reason) = &claim.not_applicable {
        let reason = reason.text().to_owned();
        said.push(("not-applicable", ClaimStanding::NotApplicable { reason }));
    }
    if let Some(reason) = &claim.not_yet {
        said.push(("not-yet", ClaimStanding::NotYet { reason: reason.text().to_owned() }));
    }
    if !claim.tests.is_empty() {
        said.push(("tests", ClaimStanding::Tests { tests: claim.tests.clone() }));
    }
    let ids = claim.ids.join(" ");
    match (gates.first(), said.len()) {
        (None, 1) => Ok(said.remove(0).1),
        (Some(_), 0) => Ok(ClaimStanding::Gates { gates }),
        (Some(gate), _) => {
            Err(format!("{ids} is judged by {gate} and still says {}: take that away", said[0].0))
        }
        (None, 0) => Err(format!("{ids} is judged by no gate and does not say why")),
        (None, _) => Err(format!("{ids} says both {} and {}", said[0].0, said[1].0)),
    }
}

/// A twin stands as the claim it names, or by gates of its own.
fn twin_standing(
    written: &Written,
    twin: &str,
    by_id: &BTreeMap<&str, &Written>,
    covering: &dyn Fn(&Written) -> Vec<String>,
) -> Result<ClaimStanding, String> {
    let claim = &written.claim;
    let ids = claim.ids.join(" ");
    if claim.not_applicable.is_some() || claim.not_yet.is_some() || !claim.tests.is_empty() {
        return Err(format!("{ids} stands as {twin} does and needs no word of its own"));
    }
    let Some(other) = by_id.get(twin) else {
        return Err(format!("{ids}: same-as: no claim is called {twin}"));
    };
    if other.claim.same_as.is_some() {
        return Err(format!("{ids}: same-as: {twin} is itself the twin of another"));
    }
    let mut gates = covering(written);
    gates.extend(covering(other));
    gates.sort();
    gates.dedup();
    if gates.is_empty() { own_standing(other, gates) } else { Ok(ClaimStanding::Gates { gates }) }
}

/// The tests that claims rest on but that do not exist below `root`, as `file#name`.
///
/// # Errors
/// When a file cannot be read.
pub fn missing_tests(coverage: &Coverage, root: &Path) -> std::io::Result<Vec<String>> {
    let mut missing = Vec::new();
    for claim in coverage.families.iter().flat_map(|family| &family.claims) {
        let ClaimStanding::Tests { tests } = &claim.standing else { continue };
        for test in tests {
            let there = match test.split_once('#') {
                Some((file, name)) => std::fs::read_to_string(root.join(file))
                    .map(|text| text.contains(&format!("fn {name}(")))?,
                None => false,
            };
            if !there {
                missing.push(test.clone());
            }
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests;
