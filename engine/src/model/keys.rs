//! Typed look-up of hyper-parameters in whatever wrote them: JSON objects or GGUF key-value pairs.
//!
//! Knows spellings and types, not meanings: ranges are judged by `config`.

use serde_json::{Map, Value as Json};

use crate::error::{Code, Error, Result};
use crate::format::{Metadata, Value};

/// One hyper-parameter and its spellings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Spellings in `config.json` and APR metadata; the first one is canonical.
    pub(super) json: &'static [&'static str],
    /// GGUF key: whole when it begins with `tokenizer.`, else behind `{architecture}.`; empty when GGUF has none.
    pub(super) gguf: &'static str,
}

/// Where hyper-parameters are read from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys<'a> {
    /// `config.json` or APR metadata.
    Json(&'a Map<String, Json>),
    /// GGUF metadata of one architecture.
    Gguf(&'a Metadata<'a>, &'a str),
}

/// A metadata value of either origin.
#[derive(Clone, Copy, Debug)]
enum Found<'a> {
    Json(&'a Json),
    Gguf(&'a Value<'a>),
}

impl Key {
    fn gguf_name(&self, architecture: &str) -> String {
        if self.gguf.starts_with("tokenizer.") {
            self.gguf.to_owned()
        } else {
            format!("{architecture}.{}", self.gguf)
        }
    }
}

impl<'a> Keys<'a> {
    /// Whether the keys are those of `config.json`, which leaves out what is as usual in the family.
    pub(super) fn is_json(&self) -> bool {
        matches!(self, Self::Json(_))
    }

    /// The value under the spelling that is present; JSON `null` counts as absent.
    ///
    /// Two spellings in one file must agree, because readers differ in which one they believe.
    fn find(&self, key: &Key) -> Result<Option<(String, Found<'a>)>> {
        match self {
            Self::Gguf(_, _) if key.gguf.is_empty() => Ok(None),
            Self::Gguf(metadata, architecture) => {
                let name = key.gguf_name(architecture);
                Ok(metadata.gguf(&name).map(|value| (name, Found::Gguf(value))))
            }
            Self::Json(map) => {
                let present = |name: &&str| map.get(*name).filter(|value| !value.is_null());
                let mut spellings = key.json.iter().filter_map(|name| Some((name, present(name)?)));
                let Some((name, value)) = spellings.next() else {
                    return Ok(Self::prefixed(map, key));
                };
                for (other, second) in spellings {
                    if second.as_f64() != value.as_f64() {
                        return Err(Error::new(Code::ConfigValue)
                            .field(other)
                            .expected(format_args!("{value}, as {name} says"))
                            .found(second));
                    }
                }
                Ok(Some(((*name).to_owned(), Found::Json(value))))
            }
        }
    }

    /// APR files imported from GGUF repeat the hyper-parameters as `model.…`.
    fn prefixed(map: &'a Map<String, Json>, key: &Key) -> Option<(String, Found<'a>)> {
        let name = format!("model.{}", key.json.first()?);
        let value = map.get(&name).filter(|value| !value.is_null())?;
        Some((name, Found::Json(value)))
    }

    /// A non-negative whole number.
    pub(super) fn count(&self, key: &Key) -> Result<Option<usize>> {
        let Some((name, found)) = self.find(key)? else { return Ok(None) };
        let number = match found {
            Found::Json(value) => value.as_u64().or_else(|| whole(value.as_f64()?)),
            Found::Gguf(Value::Unsigned(number)) => Some(*number),
            Found::Gguf(Value::Signed(number)) => u64::try_from(*number).ok(),
            Found::Gguf(_) => None,
        };
        let number = number.and_then(|number| usize::try_from(number).ok());
        number.map(Some).ok_or_else(|| wrong(&name, "a whole number, not negative", found))
    }

    /// A count that the model cannot do without.
    pub(super) fn required(&self, key: &Key) -> Result<usize> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    /// The error for an absent `key`.
    pub(super) fn missing(&self, key: &Key) -> Error {
        let name = match self {
            Self::Json(_) => key.json.first().copied().unwrap_or_default().to_owned(),
            Self::Gguf(_, architecture) => key.gguf_name(architecture),
        };
        Error::new(Code::ConfigMissing).field(name)
    }

    /// A number that is finite once rounded to f32.
    pub(super) fn real(&self, key: &Key) -> Result<Option<f64>> {
        let Some((name, found)) = self.find(key)? else { return Ok(None) };
        let number = match found {
            Found::Json(value) => value.as_f64(),
            Found::Gguf(Value::Float(number)) => Some(*number),
            Found::Gguf(Value::Unsigned(number)) => Some(*number as f64),
            Found::Gguf(Value::Signed(number)) => Some(*number as f64),
            Found::Gguf(_) => None,
        };
        number
            .filter(|number| (*number as f32).is_finite())
            .map(Some)
            .ok_or_else(|| wrong(&name, "a finite number", found))
    }

    /// A boolean.
    pub(super) fn flag(&self, key: &Key) -> Result<Option<bool>> {
        let Some((name, found)) = self.find(key)? else { return Ok(None) };
        let flag = match found {
            Found::Json(value) => value.as_bool(),
            Found::Gguf(Value::Bool(flag)) => Some(*flag),
            Found::Gguf(_) => None,
        };
        flag.map(Some).ok_or_else(|| wrong(&name, "true or false", found))
    }

    /// A list of booleans in a GGUF file; `None` when something else stands there, or nothing.
    pub(super) fn flags(&self, key: &Key) -> Result<Option<Vec<bool>>> {
        match self.find(key)? {
            Some((_, Found::Gguf(Value::Array(array)))) => Ok(Some(array.bools()?.collect())),
            _ => Ok(None),
        }
    }

    /// A string.
    pub(super) fn text(&self, key: &Key) -> Result<Option<&'a str>> {
        let Some((name, found)) = self.find(key)? else { return Ok(None) };
        let text = match found {
            Found::Json(value) => value.as_str(),
            Found::Gguf(Value::Str(text)) => Some(*text),
            Found::Gguf(_) => None,
        };
        text.map(Some).ok_or_else(|| wrong(&name, "a string", found))
    }

    /// A JSON object under `key`; `None` for GGUF.
    pub(super) fn object(&self, key: &Key) -> Result<Option<&'a Map<String, Json>>> {
        match self.find(key)? {
            Some((_, Found::Json(Json::Object(map)))) => Ok(Some(map)),
            Some((name, found @ Found::Json(_))) => Err(wrong(&name, "an object", found)),
            Some((_, Found::Gguf(_))) | None => Ok(None),
        }
    }

    /// One token id or a list of at most `max` of them; empty when absent.
    pub(super) fn token_ids(&self, key: &Key, max: usize) -> Result<Vec<u32>> {
        let Some((name, found)) = self.find(key)? else { return Ok(Vec::new()) };
        let ids = match found {
            Found::Json(Json::Array(items)) if items.len() > max => {
                return Err(Error::new(Code::ConfigValue)
                    .field(name)
                    .expected(format_args!("at most {max} token ids"))
                    .found(items.len()));
            }
            Found::Json(Json::Array(items)) => items.iter().map(Json::as_u64).collect(),
            Found::Json(value) => value.as_u64().map(|id| vec![id]),
            Found::Gguf(Value::Unsigned(id)) => Some(vec![*id]),
            Found::Gguf(Value::Signed(id)) => u64::try_from(*id).ok().map(|id| vec![id]),
            Found::Gguf(_) => None,
        };
        ids.and_then(|ids: Vec<u64>| ids.into_iter().map(|id| u32::try_from(id).ok()).collect())
            .ok_or_else(|| wrong(&name, "a token id", found))
    }
}

/// `768.0` is how some writers spell 768.
fn whole(number: f64) -> Option<u64> {
    (number >= 0.0 && number <= 2f64.powi(53) && number.fract() == 0.0).then_some(number as u64)
}

fn wrong(name: &str, expected: &str, found: Found<'_>) -> Error {
    let error = Error::new(Code::ConfigValue).field(name).expected(expected);
    match found {
        Found::Json(value) => error.found(value),
        // An array may be long: its type is enough.
        Found::Gguf(Value::Array(array)) => error.found(format_args!("an array of {}", array.len)),
        Found::Gguf(value) => error.found(format_args!("{value:?}")),
    }
}
