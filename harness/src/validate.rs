//! Validation of a model file: every violation that can be found, not only the first.
//!
//! What the engine refuses comes with its error code as the rule. On top come the notes of the parsers, when the
//! caller is strict, and the rules on values, when the caller wants them.

use std::path::Path;

use apr_engine::error::Place;
use apr_engine::format::Source;
use apr_engine::model::Model;
use schemars::JsonSchema;
use serde::Serialize;

mod oddities;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use self::values::look;
pub use self::values::{
    DENSITY, FINITE, Histogram, NORM, Quality, RuleReport, SPOTS, TensorReport,
};

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// In the order files, parts, tensors.
    pub violations: Vec<Violation>,
    /// How much was looked at.
    pub checked: Checked,
    /// Rule by rule and tensor by tensor; `None` unless the values were asked for and the files parse.
    pub quality: Option<Quality>,
}

impl Validation {
    /// Whether nothing is wrong.
    pub fn ok(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Validates the file or Hugging Face directory at `path`.
///
/// # Errors
/// Only those of the machine ([`apr_engine::Code::Io`], no threads): everything else is a violation.
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
    if options.strict {
        validation.violations.extend(oddities::of_files(&source, &containers));
        if errors.is_empty() {
            validation.violations.extend(oddities::of_model(path));
        }
    }
    let entries: Vec<_> = containers.iter().flat_map(|container| &container.tensors).collect();
    validation.checked.tensors = entries.len() as u64;
    if options.quality {
        let (quality, violations) = look(&entries)?;
        validation.checked.values = quality.tensors.iter().map(|tensor| tensor.values).sum();
        validation.violations.extend(violations);
        validation.quality = Some(quality);
    }
    Ok(validation)
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
