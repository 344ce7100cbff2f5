//! Validation of a model file: every violation that can be found, not only the first.
//!
//! What the engine refuses comes with its error code as the rule. On top come the notes of the parsers, when the
//! caller is strict, and the rules on values, when the caller wants them.

use std::path::Path;

use apr_engine::error::Place;
use apr_engine::format::Source;
use apr_engine::model::{Model, Role};
use schemars::JsonSchema;
use serde::Serialize;

use crate::quality::{Finding, Numbers, Tensor};

/// Zeros of an embedding, and of any other weight, stay below these shares (data-quality contract).
const EMBEDDING_ZEROS_BELOW: f64 = 0.5;
const WEIGHT_ZEROS_BELOW: f64 = 0.8;
/// Norms at or below this have vanished (data-quality contract).
const NORM_FLOOR: f64 = 1e-6;
/// Where the embedding is looked at, as shares of its height (data-quality contract).
const SPOTS: [f64; 3] = [0.1, 0.5, 0.9];

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Check the values of every tensor.
    pub quality: bool,
    /// What is legal but odd is a violation.
    pub strict: bool,
}

/// A rule that the model breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Violation {
    /// Error code (`E0117`), note (`apr-no-footer`) or rule on values (`F-DATA-QUALITY-002`).
    pub rule: String,
    /// File, field or tensor.
    #[serde(rename = "where")]
    pub place: String,
    /// Byte offset from the start of the file, when it is known.
    pub offset: Option<u64>,
    /// What the rule demands.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to do; empty when nothing useful can be said.
    pub hint: String,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Checked {
    /// Weight files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Tensors.
    pub tensors: u64,
    /// Values; 0 unless the values were asked for.
    pub values: u64,
}

/// What validation found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// In the order files, parts, tensors.
    pub violations: Vec<Violation>,
    /// How much was looked at.
    pub checked: Checked,
}

/// Validates the file or Hugging Face directory at `path`.
///
/// # Errors
/// Only those of the operating system ([`apr_engine::Code::Io`]): everything else is a violation.
pub fn validate(path: &Path, options: Options) -> apr_engine::Result<Validation> {
    let mut validation = Validation::default();
    let source = match Source::open(path) {
        Ok(source) => source,
        Err(error) if error.code() == apr_engine::Code::Io => return Err(error),
        Err(error) => {
            validation.checked.files = 1;
            validation.violations.push(refused(&error, path));
            return Ok(validation);
        }
    };
    validation.checked.files = source.files().len() as u64;
    validation.checked.bytes = source.bytes_total();
    let errors = Model::violations(&source);
    validation.violations.extend(errors.iter().map(|error| refused(error, path)));
    // A file that does not parse is among the violations already.
    let Ok(containers) = source.containers() else { return Ok(validation) };
    for (container, file) in containers.iter().zip(source.files()) {
        if options.strict {
            let place = file.path().display().to_string();
            let notes = container.notes.iter().map(|note| Violation {
                rule: note.rule.to_owned(),
                place: place.clone(),
                offset: None,
                expected: "a file without oddities".to_owned(),
                found: note.text.clone(),
                hint: String::new(),
            });
            validation.violations.extend(notes);
        }
        validation.checked.tensors += container.tensors.len() as u64;
        if options.quality {
            container.tensors.iter().for_each(|entry| validation.values(entry, path));
        }
    }
    Ok(validation)
}

impl Validation {
    /// Whether nothing is wrong.
    pub fn ok(&self) -> bool {
        self.violations.is_empty()
    }

    /// The rules on the values of one tensor.
    pub(crate) fn values(&mut self, entry: &apr_engine::format::TensorEntry<'_>, path: &Path) {
        let tensor = Tensor::of(entry);
        let numbers = match Numbers::of(&entry.view) {
            Ok(numbers) => numbers,
            // Integer tensors are stored but never computed with: nothing is claimed of their values.
            Err(error) if error.code() == apr_engine::Code::DtypeUnsupported => return,
            Err(error) => {
                self.violations.push(refused(&error.tensor(&tensor.name), path));
                return;
            }
        };
        self.checked.values += numbers.values;
        let is_embedding = tensor.role == Some(Role::Embed);
        let mut found: Vec<(&str, Finding)> = Vec::new();
        if !tensor.may_be_constant() {
            let limit = if is_embedding { EMBEDDING_ZEROS_BELOW } else { WEIGHT_ZEROS_BELOW };
            found.extend(numbers.too_sparse(limit).map(|finding| ("F-DATA-QUALITY-001", finding)));
        }
        found.extend(numbers.not_finite().map(|finding| ("F-DATA-QUALITY-002", finding)));
        if !tensor.may_be_zero() {
            found.extend(
                numbers.vanished(NORM_FLOOR).map(|finding| ("F-DATA-QUALITY-003", finding)),
            );
        }
        if !tensor.may_be_constant() {
            found.extend(numbers.constant().map(|finding| ("F-DATA-QUALITY-003", finding)));
        }
        if is_embedding {
            let spots = numbers.empty_spots(&SPOTS);
            found.extend(spots.map(|finding| ("F-DATA-QUALITY-004", finding)));
        }
        self.violations.extend(found.into_iter().map(|(rule, finding)| Violation {
            rule: rule.to_owned(),
            place: format!("tensor {}", apr_engine::error::printable(&tensor.name)),
            offset: Some(entry.offset),
            expected: finding.expected,
            found: finding.found,
            hint: String::new(),
        }));
    }
}

/// An engine error as a violation.
pub(crate) fn refused(error: &apr_engine::Error, path: &Path) -> Violation {
    let file = || error.file().unwrap_or(path).display().to_string();
    let (place, offset) = match error.location() {
        Place::Whole => (file(), None),
        Place::Offset(offset) => (file(), Some(*offset)),
        Place::Field(field) => (format!("field {field}"), None),
        Place::Tensor(name) => (format!("tensor {name}"), None),
        other => (other.to_string(), None),
    };
    let expected = match error.expected_text() {
        "" => format!("not: {}", error.code().meaning()),
        text => text.to_owned(),
    };
    Violation {
        rule: error.code().number().to_owned(),
        place,
        offset,
        expected,
        found: error.found_text().to_owned(),
        hint: error.hint_text().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const ALL: Options = Options { quality: true, strict: false };

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
    }

    fn copy_of_golden() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
        {
            std::fs::copy(fixture("golden").join(name), directory.path().join(name)).unwrap();
        }
        directory
    }

    #[test]
    fn a_healthy_model_has_no_violation_and_all_its_values_are_counted() {
        let validation = validate(&fixture("golden"), ALL).unwrap();
        assert_eq!(validation.violations, []);
        assert!(validation.checked.values > validation.checked.tensors);
    }

    #[test]
    fn every_wrong_shape_is_listed() {
        let directory = copy_of_golden();
        let config = directory.path().join("config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let wider = json["intermediate_size"].as_u64().unwrap() + 32;
        let layers = json["num_hidden_layers"].as_u64().unwrap() as usize;
        json["intermediate_size"] = wider.into();
        std::fs::write(&config, json.to_string()).unwrap();
        std::fs::write(directory.path().join("tokenizer.json"), "{").unwrap();
        let violations = validate(directory.path(), Options::default()).unwrap().violations;
        let shapes = violations.iter().filter(|violation| violation.rule == "E0506").count();
        assert_eq!(shapes, 3 * layers, "gate, up and down of every layer");
        assert!(violations.iter().any(|violation| violation.rule == "E0602"), "{violations:?}");
    }

    #[test]
    fn a_file_that_is_no_model_is_a_violation_and_a_missing_one_an_error() {
        let validation = validate(&fixture("manifest.yaml"), Options::default()).unwrap();
        assert_eq!(validation.violations[0].rule, "E0002");
        let error = validate(&fixture("no-such-file"), Options::default()).unwrap_err();
        assert_eq!(error.code(), apr_engine::Code::Io);
    }
}
