//! What a gate is aimed at: a planted fault, and by which of its measures the gate must see it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::validate::is_kebab;

/// Between the fault and the measure.
const BY: &str = " by ";

/// A planted fault that a gate must catch: `area/name`, or `area/name by measure` where only that measure counts. A gate
/// that measures several things can turn red under a fault by another of them, which proves nothing of the one it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Aim {
    /// Id of the fault.
    pub fault: String,
    /// Name of the judged measure that must break its limit; any when absent.
    pub by: Option<String>,
}

impl TryFrom<String> for Aim {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (fault, by) = match text.split_once(BY) {
            Some((fault, by)) => (fault, Some(by)),
            None => (text.as_str(), None),
        };
        let named =
            fault.split_once('/').is_some_and(|(area, name)| is_kebab(area) && is_kebab(name));
        if named && by.is_none_or(is_kebab) {
            Ok(Self { fault: fault.to_owned(), by: by.map(str::to_owned) })
        } else {
            Err(format!("{text:?} is not of the form area/name or area/name{BY}measure"))
        }
    }
}

impl From<Aim> for String {
    fn from(aim: Aim) -> Self {
        aim.to_string()
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault)?;
        self.by.as_ref().map_or(Ok(()), |by| write!(f, "{BY}{by}"))
    }
}

impl JsonSchema for Aim {
    fn schema_name() -> Cow<'static, str> {
        "Aim".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A planted fault, `area/name`, and the measure that must see it: `area/name by measure`.",
            "type": "string",
            "pattern": "^[a-z0-9_-]+/[a-z0-9_-]+( by [a-z0-9_-]+)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_reads_as_it_is_written() {
        for (text, fault, by) in [
            ("engine/row-swap", "engine/row-swap", None),
            ("cli/slow by slowest", "cli/slow", Some("slowest")),
        ] {
            let aim = Aim::try_from(text.to_owned()).unwrap();
            assert_eq!((aim.fault.as_str(), aim.by.as_deref()), (fault, by));
            assert_eq!(String::from(aim), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "row-swap", "engine/", "engine/x by", "engine/x by a b", "Engine/X"] {
            assert!(Aim::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
