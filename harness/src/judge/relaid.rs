//! The same GGUF file laid out in another way.

use std::path::Path;

use apr_engine::format::value::type_id;
use apr_engine::format::write::{ArrayBuf, Outgoing, ValueBuf, write_gguf};
use apr_engine::format::{Format, Source, Typed, atomic, gguf};
use apr_engine::{Code, Error, Result};

use crate::suite::Layout;

/// The key that states the alignment of payloads.
const ALIGNMENT: &str = "general.alignment";
/// What the unknown keys begin with.
const UNKNOWN: &str = "apr.unknown-to-readers";

/// Writes the GGUF file at `from` to `to`, laid out as `layout` says, with the same stored bytes of every tensor.
///
/// # Errors
/// Those of the parser and of the writer; [`Code::ConversionUnsupported`] when `from` is no GGUF file.
pub(super) fn relay(from: &Path, layout: &Layout, to: &Path) -> Result<()> {
    let source = Source::open(from)?;
    let not_gguf = || Error::new(Code::ConversionUnsupported).expected("a GGUF file").in_file(from);
    let file = source.files().first().ok_or_else(not_gguf)?;
    if source.format() != Format::Gguf {
        return Err(not_gguf());
    }
    let added = added(layout);
    let mut pairs: Vec<(String, Typed<'_>)> = gguf::typed_pairs(file.bytes())?
        .into_iter()
        .filter(|(key, _)| added.iter().all(|(name, ..)| name != key))
        .map(|(key, typed)| (key.to_owned(), typed))
        .collect();
    for (name, id, value) in &added {
        pairs.push((name.clone(), Typed { id: *id, value: value.value() }));
    }
    let mut tensors = Vec::new();
    for (shard, container) in source.containers()?.iter().enumerate() {
        for entry in &container.tensors {
            let tensor = source.tensor(shard, entry)?;
            tensors.push(Outgoing::unchanged(entry.name.clone(), tensor));
        }
    }
    if *layout == Layout::Reversed {
        tensors.reverse();
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::new(Code::Io).found(error).in_file(folder))?;
    }
    atomic::write(to, |out| write_gguf(out, &pairs, &tensors).map(drop))
}

/// The metadata that a layout adds, or puts in the place of what the file says.
fn added(layout: &Layout) -> Vec<(String, u32, ValueBuf)> {
    match layout {
        Layout::Reversed => Vec::new(),
        Layout::Alignment(bytes) => {
            vec![(ALIGNMENT.to_owned(), type_id::U32, ValueBuf::Unsigned((*bytes).into()))]
        }
        Layout::UnknownKeys => [
            ("text", type_id::STRING, ValueBuf::Str("a note\nof two lines, größer".into())),
            ("empty", type_id::STRING, ValueBuf::Str(String::new())),
            ("byte", type_id::U8, ValueBuf::Unsigned(255)),
            ("large", type_id::U64, ValueBuf::Unsigned(u64::MAX)),
            ("negative", type_id::I64, ValueBuf::Signed(i64::MIN)),
            ("single", type_id::F32, ValueBuf::Float(-0.5)),
            ("double", type_id::F64, ValueBuf::Float(1e300)),
            ("flag", type_id::BOOL, ValueBuf::Bool(true)),
            ("words", type_id::ARRAY, ValueBuf::Array(ArrayBuf::strings(["a", "", "ü"]))),
            ("numbers", type_id::ARRAY, ValueBuf::Array(ArrayBuf::i32s([-1, 0, i32::MAX]))),
            ("nothing", type_id::ARRAY, ValueBuf::Array(ArrayBuf::f32s([]))),
        ]
        .map(|(key, id, value)| (format!("{UNKNOWN}.{key}"), id, value))
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use apr_engine::format::{Metadata, Value};
    use apr_engine::model::Model;

    use super::*;

    /// The carried file and the same laid out as `layout` says.
    fn relaid(layout: &Layout) -> (Source, Source, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let from = root.join("fixtures/gguf/qwen2-tied-Q8_0.gguf");
        let to = folder.path().join("deep/to.gguf");
        relay(&from, layout, &to).unwrap();
        (Source::open(&from).unwrap(), Source::open(&to).unwrap(), folder)
    }

    #[test]
    fn every_layout_keeps_every_stored_byte_and_loads() {
        for layout in [Layout::Reversed, Layout::Alignment(4096), Layout::UnknownKeys] {
            let (from, to, _folder) = relaid(&layout);
            let (before, after) = (from.containers().unwrap(), to.containers().unwrap());
            assert!(before[0].tensors.len() > 10);
            for entry in &before[0].tensors {
                assert_eq!(after[0].tensor(&entry.name).unwrap().view, entry.view, "{layout:?}");
            }
            assert_ne!(from.sha256(), to.sha256(), "{layout:?}");
            Model::load(to.path()).unwrap();
        }
    }

    #[test]
    fn a_layout_is_what_it_says() {
        let (from, to, _folder) = relaid(&Layout::Reversed);
        let names = |source: &Source| -> Vec<String> {
            let containers = source.containers().unwrap();
            containers[0].tensors.iter().map(|entry| entry.name.to_string()).collect()
        };
        assert_eq!(names(&to), names(&from).into_iter().rev().collect::<Vec<_>>());

        let (_, to, _folder) = relaid(&Layout::Alignment(4096));
        let containers = to.containers().unwrap();
        assert!(containers[0].tensors.iter().all(|entry| entry.offset.is_multiple_of(4096)));

        let (_, to, _folder) = relaid(&Layout::UnknownKeys);
        let containers = to.containers().unwrap();
        let metadata: &Metadata<'_> = &containers[0].metadata;
        assert_eq!(metadata.gguf("apr.unknown-to-readers.large"), Some(&Value::Unsigned(u64::MAX)));
    }
}
