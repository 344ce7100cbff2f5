//! Round trips, and what each direction carries over.

use super::*;
use crate::format::write::{ArrayBuf, ValueBuf};
use crate::format::{Array, Value, gguf};
use crate::text::{ChatOptions, Message, prepare_chat, prepare_raw};

/// The order of formats in which a model is passed around.
fn chain(start: &Path, formats: &[Format]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut at = start.to_path_buf();
    for (step, format) in formats.iter().enumerate() {
        let inside = folder.path().join(step.to_string());
        std::fs::create_dir(&inside).unwrap();
        at = stored(&at, *format, &inside);
    }
    (folder, at)
}

fn assert_side_files_equal(a: &Path, b: &Path, model: &str) {
    let names = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    ];
    let mut compared = 0;
    for name in names {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(name)).ok();
        assert_eq!(read(b), read(a), "{model} {name}");
        compared += usize::from(a.join(name).exists());
    }
    assert!(compared >= 3, "{model}: only {compared} side files");
}

#[test]
fn weights_and_side_files_survive_every_way_around_the_formats_bit_for_bit() {
    use Format::{Apr, Gguf, SafeTensors};
    let ways: [&[Format]; 4] = [
        &[Gguf, Apr, SafeTensors],
        &[Apr, Gguf, SafeTensors],
        &[Gguf, SafeTensors],
        &[Apr, SafeTensors],
    ];
    for model in PYGMIES.iter().chain(&["golden"]) {
        let start = fixture(model);
        let expected = tensors(&load(&start));
        for way in ways {
            let (_folder, end) = chain(&start, way);
            let found = tensors(&load(&end));
            assert_eq!(found.len(), expected.len(), "{model} {way:?}");
            for (found, expected) in found.iter().zip(&expected) {
                assert!(found == expected, "{model} {way:?} {}", expected.0);
            }
            assert_side_files_equal(&start, &end, model);
        }
    }
}

#[test]
fn files_of_llama_cpp_come_back_with_every_pair_every_type_and_every_byte() {
    use Format::{Apr, Gguf, SafeTensors};
    for name in [
        "golden-Q4_K_M",
        "mistral-Q5_K_M",
        "llama3-gqa-Q8_0",
        "qwen2-tied-Q4_K_M",
        "longrope-Q8_0",
        "gemma3-Q8_0",
    ] {
        let start = fixture(&format!("gguf/{name}.gguf"));
        let (_folder, end) = chain(&start, &[Apr, Gguf]);
        let (expected, found) = (load(&start), load(&end));
        assert_eq!(tensors(&found), tensors(&expected), "{name}");
        let found = typed_pairs(&found);
        for pair in typed_pairs(&expected) {
            // One number cannot describe a mixture that nobody asked for by name.
            if pair.0 != "general.file_type" {
                assert!(found.contains(&pair), "{name}: {pair:?} is lost");
            }
        }
    }
    for name in [
        "golden-F16",
        "llama-mha-F32",
        "llama-mha-BF16",
        "mistral-F16",
        "qwen3-F16",
        "longrope-F16",
        "gemma2-F16",
        "gemma3-F16",
    ] {
        let start = fixture(&format!("gguf/{name}.gguf"));
        let (_folder, end) = chain(&start, &[SafeTensors, Apr, Gguf]);
        let (expected, found) = (load(&start), load(&end));
        assert_eq!(tensors(&found), tensors(&expected), "{name}");
        let found = typed_pairs(&found);
        let lost = typed_pairs(&expected).into_iter().filter(|pair| !found.contains(pair));
        assert_eq!(lost.collect::<Vec<_>>(), [], "{name}");
    }
}

/// GGUF holds gains whole: what a sum with one loses is kept beside it.
#[test]
fn gains_whose_last_bits_a_sum_would_lose_survive_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let start = folder.path().join("start");
    std::fs::create_dir(&start).unwrap();
    for entry in std::fs::read_dir(fixture("pygmy/gemma2")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), start.join(entry.file_name())).unwrap();
    }
    let from = load(&fixture("pygmy/gemma2"));
    let containers = from.source().containers().unwrap();
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let odd = |tensor: crate::tensor::Tensor| {
            let values: Vec<f32> = tensor.view().unwrap().dequantize().unwrap();
            let odd = |(place, value): (usize, &f32)| match place % 4 {
                0 => -0.0,
                1 => 3e-7 * (place + 1) as f32,
                _ => value + 1e-4 * value.sin(),
            };
            let values: Vec<f32> = values.iter().enumerate().map(odd).collect();
            crate::tensor::Tensor::from_f32(tensor.shape(), &values).unwrap()
        };
        let entries = containers[0].tensors.iter();
        let tensors: Vec<_> = entries
            .map(|entry| {
                let tensor = from.source().tensor(0, entry).unwrap();
                let tensor = if tensor.shape().rank() < 2 { odd(tensor) } else { tensor };
                Outgoing { dtype, ..Outgoing::unchanged(entry.name.clone(), tensor) }
            })
            .collect();
        let Metadata::SafeTensors(metadata) = &containers[0].metadata else { panic!("metadata") };
        let weights = std::fs::File::create(start.join("model.safetensors")).unwrap();
        write_safetensors(weights, metadata, &tensors).unwrap();
        let (_folder, end) = chain(&start, &[Format::Gguf, Format::Apr, Format::SafeTensors]);
        assert_eq!(tensors_of(&end), tensors_of(&start), "{dtype}");
    }
}

fn tensors_of(path: &Path) -> Vec<(String, Dtype, Vec<u64>, Vec<u8>)> {
    tensors(&load(path))
}

/// Everything that a configuration says of a model can be said again in the words of `config.json`.
#[test]
fn a_configuration_made_from_metadata_is_that_of_the_original() {
    for name in ["qwen3", "longrope", "gemma2", "gemma3", "mistral", "llama3-gqa", "qwen2-tied"] {
        let start = fixture(&format!("gguf/{name}-F16.gguf"));
        let (_folder, end) = chain(&start, &[Format::SafeTensors]);
        let original = load(&fixture(&format!("pygmy/{name}")));
        let made = load(&end);
        assert_eq!(made.config().disagreement(original.config()), None, "{name}");
        assert_eq!(made.config().rope.scaling, original.config().rope.scaling, "{name}");
        // Readers would take the family's usual padding, which this vocabulary need not have.
        let text = std::fs::read(end.join("config.json")).unwrap();
        let map = crate::format::json::object(&text, Code::ConfigJson).unwrap();
        assert!(map.contains_key("pad_token_id"), "{name}");
    }
}

/// Hyper-parameters survive the way through APR, the ones that are stated by a null too.
#[test]
fn an_apr_file_has_the_hyper_parameters_of_its_source() {
    for name in PYGMIES.iter().chain(&["pygmy/gemma2-wide"]) {
        let source = load(&fixture(name));
        let (_folder, end) = chain(&fixture(name), &[Format::Apr]);
        let (ours, theirs) = (load(&end).config().clone(), source.config().clone());
        // Whether the head is the embedding is known by the head there; biases by their presence.
        let (tied_embeddings, qkv_bias) = (theirs.tied_embeddings, theirs.qkv_bias);
        let (o_bias, eos) = (theirs.o_bias, theirs.eos.clone());
        let ours = crate::model::Config { qkv_bias, o_bias, tied_embeddings, eos, ..ours };
        assert_eq!(ours, theirs, "{name}");
    }
}

/// The values of a tensor, whatever it is stored in.
fn values(model: &Model, name: &str) -> Vec<f32> {
    let containers = model.source().containers().unwrap();
    let entry = containers.iter().find_map(|container| container.tensor(name)).unwrap();
    entry.view.dequantize().unwrap()
}

#[test]
fn quantised_weights_become_their_exact_values_in_safetensors() {
    for name in ["mistral-Q4_K_M", "qwen2-tied-Q4_K_M", "golden-Q8_0"] {
        let start = fixture(&format!("gguf/{name}.gguf"));
        let (_folder, end) = chain(&start, &[Format::SafeTensors]);
        let (from, to) = (load(&start), load(&end));
        for (slot, entry) in to.weights().iter() {
            let theirs = from.weights().get(slot).unwrap();
            // Rows of llama-type files come in another order.
            let mut ours = values(&to, &entry.name);
            let mut expected = values(&from, &theirs.name);
            if entry.name.contains("q_proj") || entry.name.contains("k_proj") {
                ours.sort_by(f32::total_cmp);
                expected.sort_by(f32::total_cmp);
            }
            assert!(ours == expected, "{name} {}", entry.name);
        }
    }
}

#[test]
fn a_format_converted_to_itself_keeps_metadata_types_and_tensors() {
    for name in
        ["apr-interop/tiny-q8_0.gguf", "apr-interop/from-st-int8.apr", "gguf/mistral-Q6_K.gguf"]
    {
        let folder = tempfile::tempdir().unwrap();
        // Away from the side files that lie beside it.
        let start = folder.path().join("start");
        std::fs::copy(fixture(name), &start).unwrap();
        let from = load(&start);
        let to = load(&stored(&start, from.format(), folder.path()));
        let (a, b) = (from.source().containers().unwrap(), to.source().containers().unwrap());
        assert_eq!(format!("{:?}", a[0].metadata), format!("{:?}", b[0].metadata), "{name}");
        assert_eq!(tensors(&from), tensors(&to), "{name}");
        if from.format() == Format::Gguf {
            assert_eq!(typed_pairs(&from), typed_pairs(&to), "{name}");
        }
    }
}

#[test]
fn what_lies_beside_an_apr_file_comes_along() {
    let start = fixture("apr-interop/from-st-int8.apr");
    let folder = tempfile::tempdir().unwrap();
    let alone = load(&stored(&start, Format::Apr, folder.path()));
    assert!(load(&start).chat_template().unwrap().is_some());
    assert_eq!(reading(&alone), reading(&load(&start)));
}

#[test]
fn the_same_model_gives_the_same_bytes_every_time() {
    for to in [Format::Apr, Format::Gguf, Format::SafeTensors] {
        let once = converted("apr-interop", to, Precision::Stored);
        let again = converted("apr-interop", to, Precision::Stored);
        assert!(once == again);
    }
}

/// A GGUF file with pairs that this engine does not know, of every type.
fn with_foreign_pairs(folder: &Path) -> PathBuf {
    let from = load(&fixture("gguf/llama-mha-F32.gguf"));
    let bytes = from.source().files()[0].bytes();
    let own = gguf::typed_pairs(bytes).unwrap();
    let words = ArrayBuf::strings(["a", "", "日本"]);
    let raw = |element_type, bytes| {
        ValueBuf::Array(ArrayBuf::copy_of(Array { element_type, len: 2, bytes }))
    };
    let numbers =
        [raw(0, &[1, 255]), raw(3, &[1, 0, 255, 255]), raw(7, &[0, 1]), raw(12, &[9; 16])];
    let foreign = [
        ("general.author", Typed { id: 8, value: Value::Str("someone \u{1F642}") }),
        ("general.license", Typed { id: 8, value: Value::Str("apache-2.0") }),
        ("other.u8", Typed { id: 0, value: Value::Unsigned(200) }),
        ("other.i8", Typed { id: 1, value: Value::Signed(-100) }),
        ("other.u16", Typed { id: 2, value: Value::Unsigned(7) }),
        ("other.i16", Typed { id: 3, value: Value::Signed(-7) }),
        ("other.i32", Typed { id: 5, value: Value::Signed(7) }),
        ("other.f32", Typed { id: 6, value: Value::Float(f64::from(0.1_f32)) }),
        ("other.bool", Typed { id: 7, value: Value::Bool(false) }),
        ("other.u64", Typed { id: 10, value: Value::Unsigned(7) }),
        ("other.i64", Typed { id: 11, value: Value::Signed(i64::MIN) }),
        ("other.f64", Typed { id: 12, value: Value::Float(0.1) }),
        ("other.nan", Typed { id: 12, value: Value::Float(f64::INFINITY) }),
        ("other.words", Typed { id: 9, value: words.value() }),
    ];
    let arrays = numbers.iter().enumerate().map(|(index, array)| {
        (format!("other.array{index}"), Typed { id: 9, value: array.value() })
    });
    let pairs: Vec<_> = own
        .into_iter()
        .chain(foreign)
        .map(|(key, typed)| (key.to_owned(), typed))
        .chain(arrays)
        .collect();
    let containers = from.source().containers().unwrap();
    let tensors: Vec<_> = containers[0]
        .tensors
        .iter()
        .map(|entry| {
            let tensor = from.source().tensor(0, entry).unwrap();
            Outgoing::unchanged(entry.name.clone(), tensor)
        })
        .collect();
    let mut written = Vec::new();
    write_gguf(&mut written, &pairs, &tensors).unwrap();
    let path = folder.join("foreign.gguf");
    std::fs::write(&path, written).unwrap();
    path
}

#[test]
fn pairs_that_nobody_here_knows_pass_through_other_formats_with_their_types() {
    use Format::{Apr, Gguf, SafeTensors};
    let folder = tempfile::tempdir().unwrap();
    let start = with_foreign_pairs(folder.path());
    let expected = typed_pairs(&load(&start));
    assert!(expected.iter().filter(|(key, ..)| key.starts_with("other.")).count() >= 16);
    for way in [&[Apr, Gguf][..], &[SafeTensors, Gguf], &[SafeTensors, Apr, Gguf]] {
        let (_folder, end) = chain(&start, way);
        let found = typed_pairs(&load(&end));
        let lost = expected.iter().filter(|pair| !found.contains(pair));
        assert_eq!(lost.collect::<Vec<_>>(), Vec::<&(String, u32, String)>::new(), "{way:?}");
    }
}

#[test]
fn keys_of_published_apr_files_come_back_through_other_formats() {
    use Format::{Apr, Gguf, SafeTensors};
    for name in ["from-st.apr", "from-gguf-q8.apr", "preserve.apr"] {
        let start = fixture(&format!("apr-interop/{name}"));
        let expected = load(&start);
        let containers = expected.source().containers().unwrap();
        let Metadata::Apr(expected) = &containers[0].metadata else { panic!("metadata") };
        for way in [&[Gguf, Apr][..], &[SafeTensors, Apr]] {
            let (_folder, end) = chain(&start, way);
            let found = load(&end);
            let containers = found.source().containers().unwrap();
            let Metadata::Apr(found) = &containers[0].metadata else { panic!("metadata") };
            for (key, value) in expected.iter().filter(|(_, value)| !value.is_null()) {
                if !apr::is_about_storage(key) {
                    assert_eq!(found.get(key), Some(value), "{name} {way:?} {key}");
                }
            }
        }
    }
}

/// Prompts as ids, and the ids that end a text. Which id would begin one is no part of it: GGUF names the one of
/// `config.json` where the tokenizer of Hugging Face has none.
fn reading(model: &Model) -> impl PartialEq + std::fmt::Debug + use<> {
    let tokenizer = model.tokenizer().unwrap();
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    let chat = [Message::new("system", "Be brief."), Message::new("user", "What is 2+2? 你好 🙂")];
    let chat = model.chat_template().unwrap().map(|template| {
        let prepared = prepare_chat(tokenizer, template, &chat, &options).unwrap();
        (prepared.ids().to_vec(), prepared.text().to_owned())
    });
    let raw =
        prepare_raw(tokenizer, "2+2=\r\n\n  I've 1234 caf\u{e9}s e\u{301} <|im_end|>").unwrap();
    let ids = [tokenizer.eos(), tokenizer.pad()];
    (chat, raw, ids, tokenizer.eos_set().clone(), model.generation().eos.clone())
}

#[test]
fn a_converted_model_reads_text_as_its_source_does() {
    use Format::{Apr, Gguf, SafeTensors};
    for start in ["golden", "pygmy/llama-mha", "gguf/golden-Q4_K_M.gguf", "gguf/mistral-F16.gguf"] {
        let start = fixture(start);
        let expected = reading(&load(&start));
        for way in [&[Gguf][..], &[Apr], &[SafeTensors], &[SafeTensors, Gguf], &[Apr, SafeTensors]]
        {
            let (_folder, end) = chain(&start, way);
            assert_eq!(reading(&load(&end)), expected, "{} {way:?}", start.display());
        }
    }
}

#[test]
fn llama_3_scaling_is_named_again_when_only_its_divisors_are_stored() {
    let start = fixture("gguf/llama3-gqa-F16.gguf");
    let (_folder, end) = chain(&start, &[Format::SafeTensors]);
    let ours = load(&end);
    let original = load(&fixture("pygmy/llama3-gqa"));
    assert_eq!(ours.config().rope, original.config().rope);
}
