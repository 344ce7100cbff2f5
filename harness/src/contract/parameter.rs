//! Parameters: numbers and words of a contract that a suite or the command line may change.
//!
//! A parameter has a declared type, usually a default, and a reason. Its value is held against the declared type first
//! and then, where a check refers to it (`$name`), against the type that the check demands there.

use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::load::CatalogueError;
use super::place::Position;
use super::tolerance::Why;

/// A parameter as a contract declares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Parameter {
    /// What values it takes.
    #[serde(rename = "type")]
    pub kind: ParameterKind,
    /// Its value when nobody sets it; without a default somebody must.
    #[serde(default)]
    pub default: Option<Scalar>,
    /// What it means and why the default is what it is.
    pub why: Why,
}

/// What values a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterKind {
    /// A whole number from 0.
    Integer,
    /// A finite number.
    Number,
    /// A number from 0 to 1.
    Share,
    /// A text.
    Text,
    /// True or false.
    Flag,
}

impl ParameterKind {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Share => "share",
            Self::Text => "text",
            Self::Flag => "flag",
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Integer => "a whole number from 0",
            Self::Number => "a finite number",
            Self::Share => "a number from 0 to 1",
            Self::Text => "a text",
            Self::Flag => "true or false",
        }
    }

    /// `value` as a value of this type.
    pub(super) fn accept(self, value: &Scalar) -> Result<Scalar, String> {
        let number = match *value {
            Scalar::Integer(whole) => Some(whole as f64),
            Scalar::Number(number) => Some(number).filter(|number| number.is_finite()),
            Scalar::Text(_) | Scalar::Flag(_) => None,
        };
        let accepted = match (self, value) {
            (Self::Integer, Scalar::Integer(_))
            | (Self::Text, Scalar::Text(_))
            | (Self::Flag, Scalar::Flag(_)) => Some(value.clone()),
            (Self::Number, _) => number.map(Scalar::Number),
            (Self::Share, _) => {
                number.filter(|share| (0.0..=1.0).contains(share)).map(Scalar::Number)
            }
            _ => None,
        };
        accepted.ok_or_else(|| {
            let what = value.what();
            format!("expected {} ({}), found {what} {value}", self.expected(), self.name())
        })
    }

    /// A word of the command line as a value of this type.
    fn read(self, word: &str) -> Result<Scalar, String> {
        let read = match self {
            Self::Integer => word.parse().ok().map(Scalar::Integer),
            Self::Number | Self::Share => word.parse().ok().map(Scalar::Number),
            Self::Text => Some(Scalar::Text(word.to_owned())),
            Self::Flag => word.parse().ok().map(Scalar::Flag),
        };
        self.accept(&read.unwrap_or_else(|| Scalar::Text(word.to_owned())))
    }
}

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A whole number from 0.
    Integer(u64),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(String),
    /// True or false.
    Flag(bool),
}

impl Scalar {
    const fn what(&self) -> &'static str {
        match self {
            Self::Integer(_) => "the whole number",
            Self::Number(_) => "the number",
            Self::Text(_) => "the text",
            Self::Flag(_) => "the truth value",
        }
    }

    /// As it is written in YAML, on one line: JSON, which YAML reads.
    pub(super) fn yaml(&self) -> String {
        match self {
            Self::Integer(whole) => whole.to_string(),
            // With its point, so that an integer is not read where a number was meant.
            Self::Number(number) => format!("{number:?}"),
            Self::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(whole) => whole.fmt(f),
            Self::Number(number) if number.abs() < 1e-3 && *number != 0.0 => {
                write!(f, "{number:e}")
            }
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a text, true or false")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(u64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Integer))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Flag(value))
            }
        }

        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A value of a parameter.",
            "type": ["number", "string", "boolean"],
        })
    }
}

/// The value somebody gives to a parameter, before its type is known.
#[derive(Clone, Debug, PartialEq)]
enum Given {
    /// Out of a suite.
    Scalar(Scalar),
    /// A word of the command line.
    Word(String),
}

/// A parameter that somebody sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The contract.
    pub(crate) contract: String,
    /// The parameter.
    pub(crate) name: String,
    /// Who sets it, as reports say it.
    pub(crate) by: String,
    given: Given,
    file: PathBuf,
    position: Option<Position>,
    path: String,
}

impl Setting {
    /// `contract.name=value` on the command line, given by `option`.
    ///
    /// # Errors
    /// When the text is not of that form.
    pub(crate) fn from_words(option: &str, text: &str) -> Result<Self, CatalogueError> {
        let parts = text.split_once('=').and_then(|(key, value)| {
            let (contract, name) = key.split_once('.')?;
            Some((contract, name, value))
        });
        let Some((contract, name, value)) = parts else {
            let message = format!("expected contract.parameter=value, found {text:?}");
            return Err(CatalogueError::whole(option.as_ref(), message));
        };
        Ok(Self {
            contract: contract.to_owned(),
            name: name.to_owned(),
            by: "command line".to_owned(),
            given: Given::Word(value.to_owned()),
            file: option.into(),
            position: None,
            path: format!("{contract}.{name}"),
        })
    }

    /// A line of the suite called `suite`, at `position` and `path` of `file`.
    pub(crate) fn from_suite(
        (suite, file): (&str, &std::path::Path),
        (position, path): (Option<Position>, String),
        (contract, name): (&str, &str),
        value: &Scalar,
    ) -> Self {
        Self {
            contract: contract.to_owned(),
            name: name.to_owned(),
            by: format!("suite {suite}"),
            given: Given::Scalar(value.clone()),
            file: file.to_path_buf(),
            position,
            path,
        }
    }

    /// Whether both set the same parameter.
    pub(crate) fn rivals(&self, other: &Self) -> bool {
        self.contract == other.contract && self.name == other.name
    }

    /// Whether both give the same value.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.given == other.given
    }

    /// The value, when it is one of `kind`.
    pub(super) fn value(&self, kind: ParameterKind) -> Result<Scalar, CatalogueError> {
        match &self.given {
            Given::Scalar(scalar) => kind.accept(scalar),
            Given::Word(word) => kind.read(word),
        }
        .map_err(|message| self.refused(message))
    }

    /// A mistake of whoever sets the parameter.
    pub(crate) fn refused(&self, message: impl Into<String>) -> CatalogueError {
        CatalogueError {
            file: self.file.clone(),
            position: self.position,
            path: self.path.clone(),
            message: message.into(),
        }
    }
}

/// A parameter with the value it has in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParameterValue {
    /// `contract.name`.
    pub parameter: String,
    /// What values it takes.
    #[serde(rename = "type")]
    pub kind: ParameterKind,
    /// Its value when nobody sets it.
    pub default: Option<Scalar>,
    /// Its value in this run.
    pub value: Scalar,
    /// Who set it; nobody when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What it means and why the default is what it is.
    pub why: String,
}

impl ParameterValue {
    /// The contract.
    pub fn contract(&self) -> &str {
        self.parameter.split_once('.').map_or("", |(contract, _)| contract)
    }

    /// Whether the value is another one than the contract was written with.
    pub fn is_changed(&self) -> bool {
        self.default.as_ref() != Some(&self.value)
    }
}

impl fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.parameter, self.value)?;
        if self.is_changed() {
            match &self.default {
                Some(default) => write!(f, " instead of {default}")?,
                None => write!(f, ", which has no default")?,
            }
        }
        match &self.by {
            Some(by) => write!(f, " ({by})"),
            None => Ok(()),
        }
    }
}
