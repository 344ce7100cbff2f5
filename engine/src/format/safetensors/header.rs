//! The JSON header, checked while it is parsed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::cursor::range;
use super::super::lenience::Lenience;
use super::super::{TENSORS_MAX, TensorEntry};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Place, Result};
use crate::tensor::{RANK_MAX, Shape, TensorView};

/// The key of the free metadata.
const METADATA_KEY: &str = "__metadata__";
/// Dtypes of the format that no tensor of this engine has.
const UNSUPPORTED_DTYPES: &[&str] = &[
    "BOOL",
    "U16",
    "U32",
    "U64",
    "C64",
    "F4",
    "F6_E2M3",
    "F6_E3M2",
    "F8_E5M2",
    "F8_E4M3",
    "F8_E8M0",
    "F8_E4M3FNUZ",
    "F8_E5M2FNUZ",
];

/// Everything the header says.
pub(super) struct Walked<'h> {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: Vec<(Cow<'h, str>, Raw)>,
}

/// One tensor as the header describes it.
pub(super) struct Raw {
    /// `None` when something is wrong with them that was kept.
    kind: Option<(Dtype, Shape)>,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// Reads the header.
///
/// # Errors
/// As [`super::parse`], for what the header alone can show.
pub(super) fn walk<'h>(header: &'h str, lenience: &mut Lenience) -> Result<Walked<'h>> {
    let kept = std::mem::take(lenience);
    let thrown = Thrown { error: RefCell::default(), lenience: RefCell::new(kept) };
    let mut deserializer = serde_json::Deserializer::from_str(header);
    let walked = HeaderSeed(&thrown)
        .deserialize(&mut deserializer)
        .and_then(|walked| deserializer.end().map(|()| walked));
    *lenience = thrown.lenience.take();
    walked.map_err(|error| {
        thrown.error.take().unwrap_or_else(|| {
            let offset = 8 + byte_offset(header, error.line(), error.column());
            Error::new(Code::StHeaderJson)
                .place(Place::Offset(offset))
                .expected("a JSON object of tensors")
                .found(error)
        })
    })
}

/// Byte offset in `text` of a 1-based line and column.
fn byte_offset(text: &str, line: usize, column: usize) -> u64 {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column.saturating_sub(1)) as u64
}

/// Carries an error of ours through the JSON parser, which only carries its own.
struct Thrown {
    error: RefCell<Option<Error>>,
    lenience: RefCell<Lenience>,
}

impl Thrown {
    fn throw<E: de::Error>(&self, error: Error) -> E {
        self.error.borrow_mut().get_or_insert(error);
        E::custom("refused")
    }

    /// The value, or `None` for an error that was kept.
    fn pass<T, E: de::Error>(&self, result: Result<T>) -> Result<Option<T>, E> {
        let passed = self.lenience.borrow_mut().pass(result);
        passed.map_err(|error| self.throw(error))
    }
}

macro_rules! seed {
    ($seed:ident => $value:ty, $method:ident) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<$value, D::Error> {
                deserializer.$method(self)
            }
        }
    };
}

/// A string, borrowed from the header where it has no escapes.
#[derive(Deserialize)]
struct Text<'h>(#[serde(borrow)] Cow<'h, str>);

/// Reads the top level.
struct HeaderSeed<'t>(&'t Thrown);

seed!(HeaderSeed => Walked<'de>, deserialize_map);

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = Walked<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Walked<'de>, A::Error> {
        let mut metadata = None;
        let mut tensors = Vec::new();
        while let Some(Text(name)) = entries.next_key()? {
            if name == METADATA_KEY {
                if metadata.is_some() {
                    return Err(self.0.throw(Error::new(Code::StDuplicate).field(name)));
                }
                metadata = Some(entries.next_value_seed(MetadataSeed(self.0))?);
                continue;
            }
            if tensors.len() as u64 == TENSORS_MAX {
                return Err(self.0.throw(
                    Error::new(Code::LimitExceeded)
                        .expected(format_args!("at most {TENSORS_MAX} tensors"))
                        .found("more"),
                ));
            }
            let raw = entries.next_value_seed(TensorSeed { thrown: self.0, name: &name })?;
            tensors.extend(raw.map(|raw| (name, raw)));
        }
        self.0.pass(unique(&tensors))?;
        Ok(Walked { metadata: metadata.unwrap_or_default(), tensors })
    }
}

/// Refuses two tensors of one name. Asked once, behind the limits: a header of too many tensors never gets here.
fn unique(tensors: &[(Cow<'_, str>, Raw)]) -> Result<()> {
    let mut names: Vec<&str> = tensors.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::new(Code::StDuplicate).tensor(pair[0])),
        None => Ok(()),
    }
}

/// Reads `__metadata__`: strings only, no key twice.
struct MetadataSeed<'t>(&'t Thrown);

seed!(MetadataSeed => BTreeMap<String, String>, deserialize_any);

impl<'de> Visitor<'de> for MetadataSeed<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut metadata = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            if metadata.contains_key(&key) {
                let field = format!("{METADATA_KEY}.{key}");
                return Err(self.0.throw(Error::new(Code::StDuplicate).field(field)));
            }
            let seed = StringSeed { thrown: self.0, key: &key };
            let value = entries.next_value_seed(seed)?;
            metadata.insert(key, value);
        }
        Ok(metadata)
    }
}

/// Reads one metadata value.
struct StringSeed<'t> {
    thrown: &'t Thrown,
    key: &'t str,
}

seed!(StringSeed => String, deserialize_any);

impl StringSeed<'_> {
    fn wrong<E: de::Error>(&self, found: &str) -> E {
        let field = format!("{METADATA_KEY}.{}", self.key);
        let error = Error::new(Code::StMetadata).field(field).expected("a string").found(found);
        self.thrown.throw(error)
    }
}

impl<'de> Visitor<'de> for StringSeed<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<String, E> {
        Err(self.wrong("a boolean"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        Err(self.wrong("null"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<String, E> {
        Err(self.wrong("a number"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<String, E> {
        Err(self.wrong("a number"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<String, E> {
        Err(self.wrong("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(self.wrong("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(self.wrong("an object"))
    }
}

/// Reads one tensor description.
struct TensorSeed<'t> {
    thrown: &'t Thrown,
    name: &'t str,
}

seed!(TensorSeed => Option<Raw>, deserialize_map);

impl<'de> Visitor<'de> for TensorSeed<'_> {
    type Value = Option<Raw>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Option<Raw>, A::Error> {
        let error = |code| Error::new(code).tensor(self.name);
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(Text(field)) = entries.next_key()? {
            let numbers =
                |code, limit| NumbersSeed { thrown: self.thrown, name: self.name, code, limit };
            let twice = match &*field {
                "dtype" => {
                    let Text(name) = entries.next_value()?;
                    let known = parse_dtype(&name).map_err(|error| error.tensor(self.name));
                    dtype.replace(self.thrown.pass(known)?).is_some()
                }
                "shape" => {
                    let dims = entries.next_value_seed(numbers(Code::StShape, RANK_MAX))?;
                    shape.replace(dims).is_some()
                }
                "data_offsets" => {
                    let pair = entries.next_value_seed(numbers(Code::StOffsets, 2))?;
                    offsets.replace(pair).is_some()
                }
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                    return Err(self.thrown.throw(
                        error(Code::StHeaderJson)
                            .expected("dtype, shape and data_offsets")
                            .found(format_args!("field `{field}`")),
                    ));
                }
            };
            if twice {
                let found = format!("field `{field}` twice");
                return Err(self.thrown.throw(error(Code::StDuplicate).found(found)));
            }
        }
        let (Some(dtype), Some(dims), Some(offsets)) = (dtype, shape, offsets) else {
            let missing = error(Code::StHeaderJson).expected("dtype, shape and data_offsets");
            return Err(self.thrown.throw(missing.found("one missing")));
        };
        let span = span(offsets.as_slice()).map_err(|error| error.tensor(self.name));
        let Some((begin, end)) = self.thrown.pass(span)? else { return Ok(None) };
        let Some(dtype) = dtype else { return Ok(Some(Raw { kind: None, begin, end })) };
        let shape = check_shape(dtype, dims.as_slice(), end - begin);
        let shape = self.thrown.pass(shape.map_err(|error| error.tensor(self.name)))?;
        Ok(Some(Raw { kind: shape.map(|shape| (dtype, shape)), begin, end }))
    }
}

fn parse_dtype(name: &str) -> Result<Dtype> {
    Dtype::from_safetensors_name(name).ok_or_else(|| {
        let code =
            if UNSUPPORTED_DTYPES.contains(&name) { Code::DtypeUnsupported } else { Code::StDtype };
        Error::new(code).expected("F64, F32, F16, BF16, I64, I32, I16, I8 or U8").found(name)
    })
}

/// A shape, or a pair of offsets, without an allocation for each.
#[derive(Default)]
struct Numbers {
    values: [u64; RANK_MAX],
    len: usize,
}

impl Numbers {
    fn as_slice(&self) -> &[u64] {
        &self.values[..self.len]
    }
}

/// Reads an array of at most `limit` unsigned integers; `limit` is at most [`RANK_MAX`].
struct NumbersSeed<'t> {
    thrown: &'t Thrown,
    name: &'t str,
    code: Code,
    limit: usize,
}

seed!(NumbersSeed => Numbers, deserialize_seq);

impl<'de> Visitor<'de> for NumbersSeed<'_> {
    type Value = Numbers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {} integers", self.limit)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Numbers, A::Error> {
        let error = || Error::new(self.code).tensor(self.name);
        let mut numbers = Numbers::default();
        loop {
            // The parser reports a value that is not a u64 by its own error: name the field instead.
            match items.next_element::<u64>() {
                Ok(None) => return Ok(numbers),
                Ok(Some(_)) if numbers.len == self.limit => {
                    let found = error().expected(format_args!("at most {} numbers", self.limit));
                    return Err(self.thrown.throw(found.found("more")));
                }
                Ok(Some(number)) => {
                    numbers.values[numbers.len] = number;
                    numbers.len += 1;
                }
                Err(cause) => {
                    let found = error().expected("integers from 0 to 2^64 - 1").found(&cause);
                    return Err(self.thrown.throw(found));
                }
            }
        }
    }
}

/// Where the data of a tensor begin and end.
fn span(offsets: &[u64]) -> Result<(u64, u64)> {
    let wrong = |expected: &str| Error::new(Code::StOffsets).expected(expected);
    match offsets {
        &[begin, end] if begin <= end => Ok((begin, end)),
        [_, _] => Err(wrong("begin <= end").found(format_args!("{offsets:?}"))),
        _ => Err(wrong("two data offsets").found(offsets.len())),
    }
}

/// The shape of a tensor of `len` bytes.
fn check_shape(dtype: Dtype, dims: &[u64], len: u64) -> Result<Shape> {
    let wrong = |found: String| {
        Error::new(Code::StShape)
            .expected(format_args!("{len} bytes as the data offsets say"))
            .found(found)
    };
    let shape =
        Shape::new(dims).map_err(|_| wrong(format!("{dtype} {dims:?}, which overflows")))?;
    let size = shape.elements().checked_mul(dtype.block_bytes() as u64);
    if size == Some(len) { Ok(shape) } else { Err(wrong(format!("{dtype} {dims:?}"))) }
}

impl Raw {
    /// The tensor; `None` when it is not known what it is.
    pub(super) fn resolve<'b>(
        self,
        name: Cow<'b, str>,
        bytes: &'b [u8],
        data: u64,
    ) -> Result<Option<TensorEntry<'b>>> {
        let Some((dtype, shape)) = self.kind else { return Ok(None) };
        let offset = data.saturating_add(self.begin);
        let payload = range(bytes, offset, self.end - self.begin)
            .ok_or_else(|| Error::new(Code::StTruncated).tensor(&name))?;
        let view = TensorView::new(dtype, shape, payload).map_err(|error| error.tensor(&name))?;
        Ok(Some(TensorEntry { name, offset, view }))
    }
}
