//! Score sheets: which claims earn which points, as data in `contracts/sheets/`.
//!
//! A sheet names claims; the gates that judge them, run on one model, are the evidence ([`tally`]). Beside the claims it
//! scores the bricks of a token by their times ([`brick`]). Parts are integers, truncated after the multiplication.

pub mod brick;
pub mod tally;

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::load::{self, CatalogueError};
use crate::contract::tolerance::Share;
use crate::coverage::claim::range;
use crate::coverage::{ClaimReport, ClaimStanding, Coverage};
use crate::judge::Planned;

/// A YAML file in `contracts/sheets/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sheet {
    /// One line for a person.
    pub title: String,
    /// The largest share of the claims that may be without a measurement; above it there is no score.
    pub unmeasured_at_most: Share,
    /// The parts of the format score.
    pub parts: Vec<Part>,
    /// What the combined score is made of.
    pub combined: Combined,
    /// How the bricks of a token are timed and scored.
    pub bricks: brick::Plan,
}

/// A part of the format score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Part {
    /// Name.
    pub part: String,
    /// What it is about.
    pub title: String,
    /// Points when every claim holds.
    pub points: u32,
    /// Its claims; `F001..F020` stands for each of the range.
    pub claims: Vec<String>,
}

/// What the combined score is made of, each on a scale of 100.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Combined {
    /// The share of these claims that hold.
    pub claims: WeighedClaims,
    /// The format score.
    pub parts: Weight,
    /// The brick score.
    pub bricks: Weight,
}

/// Claims with a weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WeighedClaims {
    /// Per cent of the combined score.
    pub weight: u32,
    /// The claims; ranges as in a part.
    pub claims: Vec<String>,
}

/// A weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Weight {
    /// Per cent of the combined score.
    pub weight: u32,
}

/// The JSON Schema of a sheet, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Sheet).to_value()
}

impl Sheet {
    /// Reads a sheet.
    ///
    /// # Errors
    /// Mistakes of the file; parts or weights that do not add up to 100; a malformed range; a part without claims.
    pub fn read(file: &Path) -> Result<Self, CatalogueError> {
        Self::from_text(&load::read(file)?, file)
    }

    /// As [`Sheet::read`], out of `text`.
    ///
    /// # Errors
    /// As there.
    pub fn from_text(text: &str, file: &Path) -> Result<Self, CatalogueError> {
        let sheet: Self = load::parse(text, file)?;
        sheet.check().map_err(|message| CatalogueError::whole(file, message))?;
        Ok(sheet)
    }

    fn check(&self) -> Result<(), String> {
        let hundred = |what: &str, sum: u32| match sum {
            100 => Ok(()),
            sum => Err(format!("{what}: add up to {sum}, not to 100")),
        };
        hundred("parts: points", self.parts.iter().map(|part| part.points).sum())?;
        let Combined { claims, parts, bricks } = &self.combined;
        hundred("combined: weights", claims.weight + parts.weight + bricks.weight)?;
        hundred("bricks: points", self.bricks.points.sum())?;
        for part in &self.parts {
            ids(&part.claims).map_err(|message| format!("parts: {}: {message}", part.part))?;
        }
        ids(&claims.claims).map_err(|message| format!("combined: claims: {message}"))?;
        self.bricks.check()
    }

    /// Every claim that the sheet speaks of, once, in the order of the sheet.
    pub fn claims(&self) -> Vec<String> {
        let parts = self.parts.iter().map(|part| &part.claims);
        let mut all: Vec<String> = Vec::new();
        for list in std::iter::once(&self.combined.claims.claims).chain(parts) {
            for id in ids(list).unwrap_or_default() {
                if !all.contains(&id) {
                    all.push(id);
                }
            }
        }
        all
    }
}

/// The ids that a list of ids and ranges stands for.
fn ids(list: &[String]) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    for text in list {
        ids.extend(range(text).ok_or_else(|| format!("{text} is neither an id nor a range"))?);
    }
    if ids.is_empty() { Err("no claim at all".to_owned()) } else { Ok(ids) }
}

/// What a claim says, and what could judge it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its id.
    pub id: String,
    /// What is claimed.
    pub title: String,
    /// Which gates judge it, or why none does.
    pub standing: ClaimStanding,
}

/// Looks the claims of `sheet` up.
///
/// # Errors
/// The first id that no claim has.
pub fn asked(sheet: &Sheet, coverage: &Coverage) -> Result<Vec<Asked>, String> {
    let mut by_id: BTreeMap<String, &ClaimReport> = BTreeMap::new();
    for claim in coverage.families.iter().flat_map(|family| &family.claims) {
        for id in ids(&claim.ids)? {
            by_id.insert(id, claim);
        }
    }
    let find = |id: String| match by_id.get(&id) {
        None => Err(format!("no claim is called {id}")),
        Some(claim) => {
            Ok(Asked { id, title: claim.title.clone(), standing: claim.standing.clone() })
        }
    };
    sheet.claims().into_iter().map(find).collect()
}

/// Keeps the cases that are evidence for one of the claims, on the form `form` or on none.
pub fn keep(cases: &mut Vec<Planned>, asked: &[Asked], form: &str) {
    cases.retain(|case| {
        let gate = format!("{}/{}", case.info.contract, case.info.gate);
        let mine = case.info.cell.model.as_ref().is_none_or(|model| model.form == form);
        mine && asked.iter().any(|claim| match &claim.standing {
            ClaimStanding::Gates { gates } => gates.contains(&gate),
            _ => false,
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../../../contracts/sheets/apr.yaml");

    fn read(text: &str) -> Result<Sheet, String> {
        Sheet::from_text(text, Path::new("apr.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_carried_sheet_asks_for_eighty_claims_that_exist() {
        let sheet = read(TEXT).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts");
        let claims = crate::coverage::claim::Claims::from_directory(&root.join("claims")).unwrap();
        let catalogue = crate::contract::Catalogue::from_directory(&root).unwrap();
        let coverage = Coverage::new(&claims, &catalogue).unwrap();
        assert_eq!(asked(&sheet, &coverage).unwrap().len(), 80);
    }

    #[test]
    fn a_sheet_that_does_not_add_up_is_refused() {
        for (from, to, message) in [
            ("points: 25,", "points: 26,", "parts: points: add up to 101, not to 100"),
            ("weight: 50", "weight: 40", "combined: weights: add up to 90, not to 100"),
            ("performance: 40", "performance: 50", "bricks: points: add up to 110, not to 100"),
            ("F-APR-001..F-APR-020", "F-APR-020..F-APR-001", "F-APR-020..F-APR-001 is neither"),
            ("samples: 100", "samples: 1", "bricks: samples: at least 2"),
            ("[attn_out]", "[attention]", "bricks: attention: no site is called attention"),
            ("unmeasured-at-most: 0.5", "unmeasured-at-most: 2", "a number from 0 to 1"),
        ] {
            let text = TEXT.replacen(from, to, 1);
            assert_ne!(text, TEXT, "{from}");
            let error = read(&text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
