//! Text to contracts, suites and waivers: the only user of the YAML library.
//!
//! Every refusal says where: file, path inside the document, line and column. Unknown fields, unknown checks, double
//! keys, missing reasons, several documents in one file, files above the size limit and documents whose aliases
//! explode are all refused.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::parameter::{ParameterValue, Setting};
use super::values::{self, Unvalued};
use super::waiver::{Waiver, Waivers};
use super::{Contract, validate};

/// Enums as one-key maps (`check: { golden: { … } }`), at every depth.
pub(crate) use serde_yaml::with::singleton_map_recursive as one_key;

/// Largest catalogue file, in bytes. The catalogue is written by hand; more is a mistake or an attack.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A mistake in the catalogue, or a file of it that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueError {
    /// The file.
    pub file: PathBuf,
    /// Line and column from 1, when they are known.
    pub position: Option<(usize, usize)>,
    /// Path inside the document, for example `gates[3].check`; empty for the whole document.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl CatalogueError {
    /// A mistake without a finer place than the file.
    pub fn whole(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.into(), position: None, path: String::new(), message: message.into() }
    }
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for CatalogueError {}

/// What a contract file gives.
pub(super) enum Loaded {
    /// A contract whose parameters have values.
    Contract {
        /// The contract.
        contract: Contract,
        /// Its text with the values written in.
        text: String,
        /// The values.
        values: Vec<ParameterValue>,
    },
    /// A contract that waits for the value of a parameter, and what it says about it.
    Waiting(CatalogueError),
}

/// Reads a contract out of `text`, its parameters at their defaults; `file` names it in errors.
///
/// # Errors
/// The first mistake of the text, the first contradiction inside the contract, or a parameter without default.
pub fn load_contract(text: &str, file: &Path) -> Result<Contract, CatalogueError> {
    match load_with(text, file, &[])? {
        Loaded::Contract { contract, .. } => Ok(contract),
        Loaded::Waiting(error) => Err(error),
    }
}

/// Reads a contract out of `text`, its parameters as `settings` say.
///
/// # Errors
/// The first mistake of the text or of a setting, or the first contradiction inside the contract.
pub(super) fn load_with(
    text: &str,
    file: &Path,
    settings: &[Setting],
) -> Result<Loaded, CatalogueError> {
    let valued = match values::give(text, file, settings) {
        Ok(valued) => valued,
        Err(Unvalued::Unset(error)) => return Ok(Loaded::Waiting(error)),
        Err(Unvalued::Wrong(error)) => return Err(error),
    };
    let mut contract: Contract =
        parse(&valued.text, file).map_err(|error| valued.restore(error))?;
    validate::contract(&contract).map_err(|fault| valued.restore(fault.located(text, file)))?;
    for (index, gate) in contract.gates.iter_mut().enumerate() {
        gate.claim = valued
            .say(&gate.claim)
            .map_err(|message| validate::in_gate(index, &gate.id, message).located(text, file))?;
    }
    let values = valued.values.into_values().collect();
    Ok(Loaded::Contract { contract, text: valued.text, values })
}

/// Reads the waivers out of `text`.
///
/// # Errors
/// As [`load_contract`].
pub fn load_waivers(text: &str, file: &Path) -> Result<Vec<Waiver>, CatalogueError> {
    let waivers: Waivers = parse(text, file)?;
    for (index, waiver) in waivers.waivers.iter().enumerate() {
        waiver.check().map_err(|message| CatalogueError {
            file: file.into(),
            position: line_of(text, &waiver.case),
            path: format!("waivers[{index}]"),
            message,
        })?;
    }
    Ok(waivers.waivers)
}

/// The `*.yaml` files of a directory, sorted. A file that would be passed over because it ends in `.yml` is an error.
pub(crate) fn yaml_files(directory: &Path) -> Result<Vec<PathBuf>, CatalogueError> {
    let refused = |error: std::io::Error| CatalogueError::whole(directory, error.to_string());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        let extension = path.extension().unwrap_or_default();
        if extension == "yaml" {
            files.push(path);
        } else if ["yml", "yaml"].iter().any(|other| extension.eq_ignore_ascii_case(other)) {
            let named = path.with_extension("yaml");
            let message = format!("would be passed over; did you mean {}?", named.display());
            return Err(CatalogueError::whole(&path, message));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a catalogue file, up to the size limit.
///
/// # Errors
/// When the file is too large, unreadable or not UTF-8.
pub fn read(file: &Path) -> Result<String, CatalogueError> {
    let refused = |error: std::io::Error| CatalogueError::whole(file, error.to_string());
    let bytes = std::fs::metadata(file).map_err(refused)?.len();
    if bytes > FILE_BYTES_MAX {
        let message = format!("{bytes} bytes; a catalogue file has at most {FILE_BYTES_MAX}");
        return Err(CatalogueError::whole(file, message));
    }
    std::fs::read_to_string(file).map_err(refused)
}

/// Typed YAML out of `text`.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, CatalogueError> {
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{} bytes; at most {FILE_BYTES_MAX}", text.len());
        return Err(CatalogueError::whole(file, message));
    }
    serde_yaml::from_str(text).map_err(|error| located(&error, file))
}

/// Takes the path and the position that the YAML library prints into its message apart.
fn located(error: &serde_yaml::Error, file: &Path) -> CatalogueError {
    let text = error.to_string();
    let position = error.location().map(|at| (at.line(), at.column()));
    let text = match position {
        Some((line, column)) => text.replace(&format!(" at line {line} column {column}"), ""),
        None => text,
    };
    let (path, message) = match text.split_once(": ") {
        Some((path, rest)) if !path.contains(' ') => (path.to_owned(), rest.to_owned()),
        _ => (String::new(), text),
    };
    CatalogueError { file: file.into(), position, path, message }
}

/// Line and column of the first list item or value that is exactly `value`.
pub(crate) fn line_of(text: &str, value: &str) -> Option<(usize, usize)> {
    text.lines().enumerate().find_map(|(index, line)| {
        let (before, found) = line.split_once(": ")?;
        let key = before.trim_start().trim_start_matches("- ");
        let found = found.split(" #").next().unwrap_or(found).trim().trim_matches(['"', '\'']);
        let is_name = matches!(key, "id" | "case" | "contract" | "suite");
        (is_name && found == value).then(|| (index + 1, before.len() - key.len() + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: &str = "
contract: parity
title: Backends agree
gates:
  - id: simd-matches-scalar
    claim: SIMD logits equal the scalar oracle within rounding.
    severity: blocking
    needs: [model]
    on: backend(simd)
    check:
      logits-close:
        against: scalar
        tolerance: { nmse-worst-row: 1e-4, cosine: 0.9999, why: f32 sums of 256 terms }
    kills: [engine/rms-eps]
";

    fn load(text: &str) -> Result<Contract, CatalogueError> {
        load_contract(text, Path::new("parity.yaml"))
    }

    fn refusal(text: &str) -> CatalogueError {
        load(text).expect_err(text)
    }

    #[test]
    fn a_whole_gate_loads() {
        let contract = load(GATE).unwrap();
        assert_eq!(contract.gates[0].check.kind(), "logits-close");
    }

    #[test]
    fn an_unknown_field_is_refused_with_path_line_and_column() {
        let error = refusal(&GATE.replace("cosine", "cosinus"));
        assert_eq!(error.position.map(|(line, _)| line), Some(13), "{error}");
        assert!(error.path.contains("gates[0].check"), "{error}");
        assert!(error.message.contains("unknown field `cosinus`"), "{error}");
    }

    #[test]
    fn an_unknown_check_is_refused_and_the_known_ones_are_named() {
        let error = refusal(&GATE.replace("logits-close", "logits-near"));
        assert!(error.message.contains("unknown variant `logits-near`"), "{error}");
        assert!(error.message.contains("logits-close"), "{error}");
        assert!(error.position.is_some(), "{error}");
    }

    #[test]
    fn a_bound_without_a_reason_is_refused() {
        let error = refusal(&GATE.replace(", why: f32 sums of 256 terms", ""));
        assert!(error.message.contains("missing field `why`"), "{error}");
        assert_eq!(error.position.map(|(line, _)| line), Some(13), "{error}");
        let error = refusal(&GATE.replace("f32 sums of 256 terms", "because"));
        assert!(error.message.contains("a reason of at least"), "{error}");
    }

    #[test]
    fn a_bound_that_is_no_positive_number_is_refused() {
        for bad in [".nan", "0", "-1e-4", ".inf", "small"] {
            let error = refusal(&GATE.replace("1e-4", bad));
            assert!(error.path.contains("logits-close.tolerance"), "{bad}: {error}");
            assert_eq!(error.position.map(|(line, _)| line), Some(13), "{bad}: {error}");
        }
    }

    #[test]
    fn double_keys_and_several_documents_are_refused() {
        let error = refusal(&GATE.replace("severity: blocking", "severity: blocking\n    id: x"));
        assert!(error.message.contains("duplicate"), "{error}");
        let error = refusal(&format!("{GATE}---\n{GATE}"));
        assert!(error.message.contains("more than one document"), "{error}");
        assert!(!refusal("").message.is_empty());
    }

    #[test]
    fn exploding_aliases_are_refused_quickly() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            let list = vec![alias; 9].join(", ");
            text.extend(["a", &level.to_string(), ": &a", &level.to_string(), " [", &list, "]\n"]);
        }
        text.push_str("contract: *a11\ntitle: bomb\ngates: []\n");
        assert!(load(&text).is_err());
    }

    #[test]
    fn a_file_above_the_limit_is_refused() {
        let error = refusal(&format!("{GATE}#{}", "x".repeat(1 << 20)));
        assert!(error.message.contains("at most"), "{error}");
    }
}
