//! What stops a conversion, and that nothing is left of it.

use super::*;
use crate::format::json;

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A copy of a carried directory, with one of its files changed.
fn spoiled(model: &str, file: &str, spoil: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(model)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    spoil(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    folder
}

/// Converts into an empty folder; the error, and that nothing lies there.
fn halted(from: &Path, to: Format, precision: Precision) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let converted = Model::load(from)
        .and_then(|model| convert_file(&model, to, precision, &target, &mut go_on).map(drop));
    assert_eq!(names(folder.path()), Vec::<String>::new());
    converted.unwrap_err()
}

const ALL: [Format; 3] = [Format::SafeTensors, Format::Gguf, Format::Apr];

#[test]
fn a_weight_that_is_not_finite_stops_every_direction() {
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let folder = spoiled("pygmy/llama-mha", "model.safetensors", |bytes| {
            let end = bytes.len();
            bytes[end - 400..end - 396].copy_from_slice(&value.to_le_bytes());
        });
        for to in ALL {
            for precision in [Precision::Stored, Precision::Uniform(Dtype::F16)] {
                let error = halted(folder.path(), to, precision);
                assert_eq!(error.code(), Code::NonFinite, "{to:?} {precision:?} {error}");
                assert!(error.to_string().contains("at tensor"), "{error}");
            }
        }
    }
    // The scale of a block, passed through.
    let mut bytes = std::fs::read(fixture("gguf/llama-mha-Q8_0.gguf")).unwrap();
    let end = bytes.len();
    let last = end - 34 * (96 / 32);
    bytes[last..last + 2].copy_from_slice(&[0, 0x7C]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    for to in ALL {
        assert_eq!(halted(&path, to, Precision::Stored).code(), Code::NonFinite, "{to:?}");
    }
}

#[test]
fn a_weight_that_the_asked_dtype_cannot_hold_stops_the_conversion() {
    let folder = spoiled("pygmy/llama-mha", "model.safetensors", |bytes| {
        let end = bytes.len();
        bytes[end - 400..end - 396].copy_from_slice(&1e6_f32.to_le_bytes());
    });
    let error = halted(folder.path(), Format::Gguf, Precision::Uniform(Dtype::F16));
    assert_eq!(error.code(), Code::NonFinite, "{error}");
}

#[test]
fn shapes_counts_and_vocabularies_that_contradict_each_other_stop_the_conversion() {
    let config = |edit: fn(&mut serde_json::Map<String, serde_json::Value>)| {
        spoiled("pygmy/llama-mha", "config.json", move |bytes| {
            let mut map = json::object(bytes, Code::ConfigJson).unwrap();
            edit(&mut map);
            *bytes = serde_json::to_vec(&map).unwrap();
        })
    };
    let set = |key: &'static str, value: u64| {
        spoiled("pygmy/llama-mha", "config.json", move |bytes| {
            let mut map = json::object(bytes, Code::ConfigJson).unwrap();
            map.insert(key.to_owned(), value.into());
            *bytes = serde_json::to_vec(&map).unwrap();
        })
    };
    let cases = [
        (set("intermediate_size", 64), Code::WeightShape),
        (set("num_hidden_layers", 3), Code::WeightMissing),
        (set("num_hidden_layers", 1), Code::WeightUnexpected),
        // The end token has no row any more.
        (set("vocab_size", 300), Code::ConfigValue),
        (set("vocab_size", 384), Code::WeightShape),
        (
            config(|map| {
                map.insert("model_type".to_owned(), "bert".into());
            }),
            Code::Architecture,
        ),
    ];
    for (folder, code) in cases {
        let error = halted(folder.path(), Format::Gguf, Precision::Stored);
        assert_eq!(error.code(), code, "{error}");
    }
    let grown = spoiled("pygmy/llama-mha", "tokenizer.json", |bytes| {
        let mut map = json::object(bytes, Code::TokenizerInvalid).unwrap();
        map["model"]["vocab"]["extra"] = 400.into();
        *bytes = serde_json::to_vec(&map).unwrap();
    });
    for to in [Format::Gguf, Format::Apr] {
        let error = halted(grown.path(), to, Precision::Stored);
        assert_eq!(error.code(), Code::TokenizerInvalid, "{error}");
    }
}

#[test]
fn a_damaged_apr_file_is_refused_by_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.apr");
    let mut bytes = converted("pygmy/llama-mha", Format::Apr, Precision::Stored);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(halted(&path, Format::Gguf, Precision::Stored).code(), Code::AprFooterChecksum);
}

#[test]
fn metadata_that_was_changed_beside_the_carried_configuration_stops_the_way_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut bytes = converted("pygmy/llama-mha", Format::Gguf, Precision::Stored);
    let key = b"llama.rope.freq_base";
    let place = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    bytes[place..place + 4].copy_from_slice(&5e5_f32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    for to in [Format::SafeTensors, Format::Apr] {
        let error = halted(&path, to, Precision::Stored);
        assert_eq!(error.code(), Code::ConversionMismatch, "{error}");
        assert!(error.to_string().contains("rope_theta"), "{error}");
    }
}

#[test]
fn a_scalar_that_no_reader_of_gguf_would_assume_is_not_dropped() {
    let error = halted(&fixture("pygmy/gemma2-wide"), Format::Gguf, Precision::Stored);
    assert_eq!(error.code(), Code::ConversionUnsupported);
    assert!(error.to_string().contains("query_pre_attn_scalar"), "{error}");
}

#[test]
fn blocks_are_not_for_safetensors() {
    for name in ["q4_k_m", "q8_0", "q4_k", "apr-q8"] {
        let precision = Precision::from_name(name).unwrap();
        let error = halted(&fixture("pygmy/llama-mha"), Format::SafeTensors, precision);
        assert_eq!(error.code(), Code::ConversionUnsupported, "{name}");
    }
}

#[test]
fn a_conversion_that_is_stopped_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let model = load(&fixture("golden"));
    for to in ALL {
        let path = folder.path().join(to.name());
        let mut seen = Vec::new();
        let mut stop_later = |progress: Progress| {
            seen.push(progress);
            if seen.len() > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let stopped = convert_file(&model, to, Precision::Stored, &path, &mut stop_later);
        assert_eq!(stopped.unwrap_err().code(), Code::Cancelled);
        assert_eq!(seen.len(), 4, "nothing is asked after a stop");
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn progress_counts_up_to_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let model = load(&fixture("golden"));
    let mut last = Progress { done: 0, total: 0 };
    let mut watch = |progress: Progress| {
        assert!(progress.done >= last.done && progress.total > 6_000_000);
        last = progress;
        ControlFlow::Continue(())
    };
    let path = folder.path().join("golden.apr");
    let summary = convert_file(&model, Format::Apr, Precision::Stored, &path, &mut watch).unwrap();
    assert!(last.done * 10 > last.total * 9);
    assert_eq!((summary.tensors, summary.untouched, summary.requantised), (51, 51, 0));
}
