//! Strict JSON: duplicate keys, trailing text, byte-order marks and invalid UTF-8 are errors.
//!
//! `serde_json` keeps the last of two equal keys; two readers that keep different ones disagree about
//! the same file, so here a duplicate is refused. Nesting is limited by `serde_json` (128 levels).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Code, Error, Place, Result};

/// Parses `bytes` as one JSON object without duplicate keys at any level.
///
/// # Errors
/// `code`, with line and column, for everything else.
pub fn object(bytes: &[u8], code: Code) -> Result<Map<String, Value>> {
    let text = text(bytes, code)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| json_error(&error, code))?;
    match value {
        Value::Object(map) => Ok(map),
        other => Err(Error::new(code).expected("a JSON object").found(kind(&other))),
    }
}

/// `bytes` as text.
///
/// # Errors
/// `code`, with the byte offset, when they are not UTF-8.
pub(super) fn text(bytes: &[u8], code: Code) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        Error::new(code).at(error.valid_up_to() as u64).expected("UTF-8").found("other bytes")
    })
}

/// Turns a parser error into ours, keeping line and column.
pub(super) fn json_error(error: &serde_json::Error, code: Code) -> Error {
    Error::new(code)
        .place(Place::Line(error.line() as u32, error.column() as u32))
        .expected("valid JSON")
        .found(error)
}

/// The JSON name of the type of `value`.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Reads any JSON value, refusing duplicate keys.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!("duplicate key `{key}`")));
            }
            let value = entries.next_value_seed(Strict)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_key_is_an_error_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":[{"b":1,"b":2}]}"#] {
            let error = object(text.as_bytes(), Code::ConfigJson).unwrap_err();
            assert!(error.found_text().contains("duplicate key"), "{error}");
        }
    }

    #[test]
    fn everything_that_is_not_one_object_is_an_error() {
        for text in ["", "[]", "3", "{} x", "\u{feff}{}", "{\"a\":1e999}", "{\"a\":NaN}"] {
            assert!(object(text.as_bytes(), Code::ConfigJson).is_err(), "{text}");
        }
        assert!(object(b"{\"a\":\"\xff\"}", Code::ConfigJson).is_err());
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(object(deep.as_bytes(), Code::ConfigJson).is_err());
    }

    #[test]
    fn values_equal_those_of_the_lenient_parser() {
        let text = r#"{"a":[1,-2,3.5,1e3,true,null,"\u00e9\n"],"b":{"c":{}}}"#;
        let lenient: Map<String, Value> = serde_json::from_str(text).unwrap();
        assert_eq!(object(text.as_bytes(), Code::ConfigJson).unwrap(), lenient);
    }
}
