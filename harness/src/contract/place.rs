//! Where in a YAML text a thing stands.
//!
//! The YAML library keeps positions for its errors only. So the text is walked along a path, and at its end an error
//! is raised on purpose: the library says where.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into the value of this key.
    Key(String),
    /// Into this item of a list.
    Item(usize),
}

/// Line and column, both from 1, columns in characters.
pub(crate) type Position = (usize, usize);

/// A path as errors print it: `gates[3].check`.
pub(crate) fn path_text(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Key(key) if text.is_empty() => key.clone(),
        Step::Key(key) => format!("{text}.{key}"),
        Step::Item(index) => format!("{text}[{index}]"),
    })
}

/// Where the value at `path` begins.
pub(crate) fn value_at(text: &str, path: &[Step]) -> Option<Position> {
    raised(text, Walk { path, at: Target::Value })
}

/// Where the last key of `path` stands.
pub(crate) fn key_at(text: &str, path: &[Step]) -> Option<Position> {
    raised(text, Walk { path, at: Target::Key })
}

/// What the error on purpose says.
const FOUND: &str = "this is the place";

fn raised(text: &str, walk: Walk<'_>) -> Option<Position> {
    let error = walk.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    let place = error.to_string().contains(FOUND).then(|| error.location())??;
    Some((place.line(), place.column()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Key,
    Value,
}

#[derive(Clone, Copy)]
struct Walk<'p> {
    path: &'p [Step],
    at: Target,
}

impl Walk<'_> {
    /// A scalar: the end of the path, or not on it.
    fn scalar<E: de::Error>(self) -> Result<(), E> {
        if self.path.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.path.split_first() else {
            return Err(de::Error::custom(FOUND));
        };
        let Step::Key(wanted) = step else { return Ok(()) };
        let raise = self.at == Target::Key && rest.is_empty();
        while let Some(is_wanted) = map.next_key_seed(Key { wanted, raise })? {
            if is_wanted {
                map.next_value_seed(Self { path: rest, ..self })?;
            } else {
                map.next_value::<de::IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.path.split_first() else {
            return Err(de::Error::custom(FOUND));
        };
        let Step::Item(wanted) = step else { return Ok(()) };
        for _ in 0..*wanted {
            items.next_element::<de::IgnoredAny>()?;
        }
        items.next_element_seed(Self { path: rest, ..self })?;
        while items.next_element::<de::IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.scalar()
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    /// A value with a tag: its tag is where it begins, and no path leads into it.
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom(if self.path.is_empty() { FOUND } else { "not on the path" }))
    }
}

/// Reads a key and says whether it is the wanted one.
struct Key<'p> {
    wanted: &'p str,
    raise: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        match key == self.wanted {
            true if self.raise => Err(E::custom(FOUND)),
            is_wanted => Ok(is_wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "a: {b: 1, ä: [x, {c: true}]}\nlist:\n  - one\n  - deep:\n      deeper: 2.5\n";

    fn key(name: &str) -> Step {
        Step::Key(name.into())
    }

    #[test]
    fn values_are_found_in_flow_and_in_block_style() {
        let deeper = [key("list"), Step::Item(1), key("deep"), key("deeper")];
        assert_eq!(value_at(TEXT, &deeper), Some((5, 15)));
        assert_eq!(value_at(TEXT, &[key("a"), key("b")]), Some((1, 8)));
        // Columns count characters: the umlaut is one.
        assert_eq!(value_at(TEXT, &[key("a"), key("ä"), Step::Item(1), key("c")]), Some((1, 22)));
        assert_eq!(value_at(TEXT, &[key("a")]), Some((1, 4)));
        assert_eq!(value_at(TEXT, &[key("list"), Step::Item(0)]), Some((3, 5)));
    }

    #[test]
    fn keys_are_found_where_they_stand() {
        let deeper = [key("list"), Step::Item(1), key("deep"), key("deeper")];
        assert_eq!(key_at(TEXT, &deeper), Some((5, 7)));
        assert_eq!(key_at(TEXT, &[key("a"), key("ä")]), Some((1, 11)));
    }

    #[test]
    fn a_path_that_leads_nowhere_has_no_place() {
        for path in [&[key("x")][..], &[key("a"), key("x")], &[key("list"), Step::Item(7)]] {
            assert_eq!(value_at(TEXT, path), None, "{}", path_text(path));
            assert_eq!(key_at(TEXT, path), None);
        }
        assert_eq!(value_at("a: [", &[key("a"), Step::Item(0)]), None);
    }
}
