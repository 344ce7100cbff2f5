//! The list of claims that gates are held against, as data in `contracts/claims/`.
//!
//! A claim that a gate names under `refs` has no more to say. Every other one says why nothing judges it: that it does not
//! apply here, that nothing judges it yet, which test holds it, or of which claim it is the twin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::load::{self, CatalogueError};
use crate::contract::place::{Step, path_text, value_at};
use crate::contract::tolerance::Why;

/// Largest number of ids that one range stands for.
const RANGE_MAX: u32 = 200;

/// A file of `contracts/claims/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClaimFile {
    /// What the claims are about.
    pub title: String,
    /// The claims.
    pub claims: Vec<Claim>,
}

/// One claim that could be made about an engine, a model or a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Claim {
    /// Its ids; `F015..F020` stands for each of the range.
    pub ids: Vec<String>,
    /// What is claimed, in one line.
    pub title: String,
    /// The claim that says the same.
    #[serde(default)]
    pub same_as: Option<String>,
    /// Tests that hold it, as `file#name`.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Why it does not apply here.
    #[serde(default)]
    pub not_applicable: Option<Why>,
    /// What is missing before anything can judge it.
    #[serde(default)]
    pub not_yet: Option<Why>,
}

/// The JSON Schema of a file of claims, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ClaimFile).to_value()
}

/// A claim with the place it was written at.
#[derive(Clone, Debug)]
pub struct Written {
    /// The claim.
    pub claim: Claim,
    /// Its ids, ranges written out.
    pub ids: Vec<String>,
    file: PathBuf,
    /// The whole file: only a mistake looks for its place in it.
    text: Arc<str>,
    path: [Step; 2],
}

impl Written {
    /// A mistake in this claim.
    pub(super) fn wrong(&self, message: impl Into<String>) -> CatalogueError {
        CatalogueError {
            file: self.file.clone(),
            position: value_at(&self.text, &self.path),
            path: path_text(&self.path),
            message: message.into(),
        }
    }
}

/// Claims about one thing.
#[derive(Clone, Debug)]
pub struct Family {
    /// File stem.
    pub name: String,
    /// What they are about.
    pub title: String,
    /// The claims, in the order of the file.
    pub claims: Vec<Written>,
}

/// Every claim, by file.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// Families by name.
    pub families: Vec<Family>,
}

impl Claims {
    /// Reads every `*.yaml` of a directory.
    ///
    /// # Errors
    /// The first mistake of a file, a malformed range, an id that stands twice, no claim at all.
    pub fn from_directory(directory: &Path) -> Result<Self, CatalogueError> {
        let mut texts = Vec::new();
        for file in load::yaml_files(directory)? {
            let text = load::read(&file)?;
            texts.push((file, text));
        }
        if texts.is_empty() {
            return Err(CatalogueError::whole(directory, "no claim at all"));
        }
        Self::from_texts(&texts)
    }

    /// As [`Claims::from_directory`], out of `(file, text)` pairs.
    ///
    /// # Errors
    /// As there.
    pub fn from_texts(texts: &[(PathBuf, String)]) -> Result<Self, CatalogueError> {
        let mut claims = Self::default();
        let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (file, text) in texts {
            let family = family(file, text)?;
            for written in &family.claims {
                for id in &written.ids {
                    if let Some(other) = seen.insert(id.clone(), file.clone()) {
                        let message = format!("{id} stands twice, also in {}", other.display());
                        return Err(written.wrong(message));
                    }
                }
            }
            claims.families.push(family);
        }
        Ok(claims)
    }

    /// Every claim.
    pub fn iter(&self) -> impl Iterator<Item = &Written> {
        self.families.iter().flat_map(|family| &family.claims)
    }
}

fn family(file: &Path, text: &str) -> Result<Family, CatalogueError> {
    let parsed: ClaimFile = load::parse(text, file)?;
    let whole: Arc<str> = Arc::from(text);
    let mut claims = Vec::new();
    for (index, claim) in parsed.claims.into_iter().enumerate() {
        let mut written = Written {
            ids: Vec::new(),
            file: file.to_path_buf(),
            text: Arc::clone(&whole),
            path: [Step::Key("claims".into()), Step::Item(index)],
            claim,
        };
        let ids: Option<Vec<Vec<String>>> = written.claim.ids.iter().map(|id| range(id)).collect();
        written.ids = ids.unwrap_or_default().concat();
        if written.ids.is_empty() {
            return Err(written.wrong("ids: expected names or ranges such as F015..F020"));
        }
        claims.push(written);
    }
    let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok(Family { name: name.unwrap_or_default(), title: parsed.title, claims })
}

/// The ids that `text` stands for: itself, or every number between the two ends of a range.
pub(crate) fn range(text: &str) -> Option<Vec<String>> {
    let Some((first, last)) = text.split_once("..") else {
        return (!text.trim().is_empty()).then(|| vec![text.to_owned()]);
    };
    let (before, from, after) = numbered(first)?;
    let (other, to, end) = numbered(last)?;
    let (width, low, high) = (from.len(), from.parse::<u32>().ok()?, to.parse::<u32>().ok()?);
    let fits = before == other && after.is_empty() && low < high && high - low < RANGE_MAX;
    fits.then(|| (low..=high).map(|number| format!("{before}{number:0width$}{end}")).collect())
}

/// An id taken apart at its last number in front of an `@`: `F101@perf` is `F`, `101`, `@perf`.
fn numbered(id: &str) -> Option<(&str, &str, &str)> {
    let end = id.find('@').unwrap_or(id.len());
    let digits = id[..end].trim_end_matches(|c: char| c.is_ascii_digit()).len();
    (digits < end).then(|| (&id[..digits], &id[digits..end], &id[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_stands_for_each_of_its_ids() {
        let ids = |text| range(text).map(|ids| ids.join(" "));
        assert_eq!(ids("F041").as_deref(), Some("F041"));
        assert_eq!(ids("F008..F011").as_deref(), Some("F008 F009 F010 F011"));
        assert_eq!(ids("F099..F101@tuner").as_deref(), Some("F099@tuner F100@tuner F101@tuner"));
        assert_eq!(ids("x-cell-08..x-cell-09").as_deref(), Some("x-cell-08 x-cell-09"));
        for bad in ["F011..F008", "F001..G002", "F001..F999", "..", "a..b", ""] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_id_that_stands_twice_is_refused_with_both_files() {
        let file = |name: &str, ids: &str| {
            let text = format!("title: t\nclaims:\n  - {{ ids: [{ids}], title: one }}\n");
            (PathBuf::from(name), text)
        };
        let error = Claims::from_texts(&[file("a.yaml", "F001..F003"), file("b.yaml", "F002")])
            .unwrap_err();
        assert_eq!(error.to_string(), "b.yaml:3:5: claims[0]: F002 stands twice, also in a.yaml");
    }

    #[test]
    fn a_claim_without_ids_or_with_an_unknown_field_is_refused_with_its_place() {
        for (line, message) in [
            ("{ ids: [], title: one }", "a.yaml:3:5: claims[0]: ids: expected names"),
            ("{ ids: [F1], titel: one }", "a.yaml:3:18: claims[0]: unknown field `titel`"),
            ("{ ids: [F1], title: one, not-yet: no }", "a reason of at least"),
        ] {
            let text = format!("title: t\nclaims:\n  - {line}\n");
            let error = Claims::from_texts(&[(PathBuf::from("a.yaml"), text)]).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
