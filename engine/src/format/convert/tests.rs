use std::path::{Path, PathBuf};

use super::*;
use crate::format::{apr, gguf};

/// A directory of the fixtures: `apr-interop` is a whole Hugging Face model of 2 layers, hidden size 64.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

fn converted(name: &str, to: Format, precision: Precision) -> Vec<u8> {
    let source = Source::open(&fixture(name)).unwrap();
    let mut written = Vec::new();
    convert(&source, to, precision, &mut written).unwrap();
    written
}

#[test]
fn an_apr_file_holds_the_weights_bit_for_bit_and_the_hyper_parameters_in_canonical_spelling() {
    let written = converted("apr-interop", Format::Apr, Precision::Stored);
    let container = apr::parse(&written).unwrap();
    let source = Source::open(&fixture("apr-interop")).unwrap();
    let original = source.containers().unwrap();
    for entry in &original[0].tensors {
        assert_eq!(container.tensor(&entry.name).unwrap().view, entry.view, "{}", entry.name);
    }
    let published = Source::open(&fixture("apr-interop/from-st.apr")).unwrap();
    let published = published.containers().unwrap();
    for key in [
        "architecture",
        "hf_architecture",
        "hidden_size",
        "num_layers",
        "num_heads",
        "num_kv_heads",
        "vocab_size",
        "intermediate_size",
        "max_position_embeddings",
        "rope_theta",
        "rope_type",
        "rms_norm_eps",
        "param_count",
        "tokenizer.merges",
        "tokenizer.vocabulary",
        "tokenizer.vocab_size",
        "tokenizer.bos_token_id",
        "tokenizer.eos_token_id",
    ] {
        let (ours, theirs) = (container.metadata.apr(key), published[0].metadata.apr(key));
        assert!(theirs.is_some(), "{key}");
        assert_eq!(ours, theirs, "{key}");
    }
}

#[test]
fn a_gguf_file_holds_the_same_weights_under_the_names_of_llama_cpp() {
    let written = converted("apr-interop", Format::Gguf, Precision::Uniform(Dtype::Q8_0));
    let container = gguf::parse(&written).unwrap();
    let theirs = Source::open(&fixture("apr-interop/tiny-q8_0.gguf")).unwrap();
    let theirs = theirs.containers().unwrap();
    assert_eq!(container.tensors.len(), theirs[0].tensors.len());
    for entry in &theirs[0].tensors {
        let ours = container.tensor(&entry.name).unwrap();
        // Both quantised the same weights; so all bytes agree.
        assert_eq!(ours.view, entry.view, "{}", entry.name);
    }
    for key in [
        "general.architecture",
        "qwen2.block_count",
        "qwen2.embedding_length",
        "qwen2.feed_forward_length",
        "qwen2.attention.head_count",
        "qwen2.attention.head_count_kv",
        "qwen2.attention.layer_norm_rms_epsilon",
        "qwen2.rope.freq_base",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.eos_token_id",
    ] {
        let theirs = theirs[0].metadata.gguf(key);
        assert!(theirs.is_some(), "{key}");
        assert_eq!(container.metadata.gguf(key), theirs, "{key}");
    }
}

#[test]
fn a_format_converted_to_itself_keeps_metadata_and_tensors() {
    for (name, format) in [
        ("apr-interop/model.safetensors", Format::SafeTensors),
        ("apr-interop/tiny-q8_0.gguf", Format::Gguf),
        ("apr-interop/from-st-int8.apr", Format::Apr),
    ] {
        let source = Source::open(&fixture(name)).unwrap();
        let written = converted(name, format, Precision::Stored);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        crate::format::atomic::write(&path, |out| {
            out.write_all(&written).unwrap();
            Ok(())
        })
        .unwrap();
        let copy = Source::open(&path).unwrap();
        let (original, copy) = (source.containers().unwrap(), copy.containers().unwrap());
        assert_eq!(format!("{:?}", original[0].metadata), format!("{:?}", copy[0].metadata));
        for entry in &original[0].tensors {
            assert_eq!(copy[0].tensor(&entry.name).unwrap().view, entry.view);
        }
    }
}

#[test]
fn the_same_model_gives_the_same_bytes_every_time() {
    let once = converted("apr-interop", Format::Apr, Precision::Uniform(Dtype::AprQ8));
    let again = converted("apr-interop", Format::Apr, Precision::Uniform(Dtype::AprQ8));
    assert!(once == again);
}

#[test]
fn a_conversion_that_does_not_exist_says_so() {
    let source = Source::open(&fixture("apr-interop/tiny-q8_0.gguf")).unwrap();
    let error = convert(&source, Format::SafeTensors, Precision::Stored, Vec::new()).unwrap_err();
    assert_eq!(error.code(), Code::ConversionUnsupported);
}

/// Makes GGUF files of models that llama.cpp's converter was given too, and compares tensor by tensor.
#[test]
fn gguf_tensors_equal_those_that_llama_cpp_converts() {
    for (model, theirs, precision) in [
        ("pygmy/llama3-gqa", "gguf/llama3-gqa-F16.gguf", Dtype::F16),
        ("pygmy/llama3-gqa", "gguf/llama3-gqa-Q8_0.gguf", Dtype::Q8_0),
        ("pygmy/llama-mha", "gguf/llama-mha-BF16.gguf", Dtype::BF16),
        ("pygmy/llama-mha", "gguf/llama-mha-F32.gguf", Dtype::F32),
        ("pygmy/mistral", "gguf/mistral-F16.gguf", Dtype::F16),
        ("pygmy/qwen2-tied", "gguf/qwen2-tied-F16.gguf", Dtype::F16),
        ("pygmy/qwen3", "gguf/qwen3-F16.gguf", Dtype::F16),
        ("pygmy/qwen3", "gguf/qwen3-Q8_0.gguf", Dtype::Q8_0),
        ("pygmy/longrope", "gguf/longrope-F16.gguf", Dtype::F16),
        ("pygmy/longrope", "gguf/longrope-Q8_0.gguf", Dtype::Q8_0),
        ("pygmy/gemma2", "gguf/gemma2-F16.gguf", Dtype::F16),
        ("pygmy/gemma2", "gguf/gemma2-Q8_0.gguf", Dtype::Q8_0),
        ("pygmy/gemma3", "gguf/gemma3-F16.gguf", Dtype::F16),
        ("pygmy/gemma3", "gguf/gemma3-Q8_0.gguf", Dtype::Q8_0),
    ] {
        let written = converted(model, Format::Gguf, Precision::Uniform(precision));
        let ours = gguf::parse(&written).unwrap();
        let theirs = Source::open(&fixture(theirs)).unwrap();
        let theirs = theirs.containers().unwrap();
        let names = |container: &Container<'_>| {
            let mut names: Vec<_> =
                container.tensors.iter().map(|entry| entry.name.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&ours), names(&theirs[0]), "{model}");
        for entry in &theirs[0].tensors {
            let found = ours.tensor(&entry.name).unwrap().view;
            assert_eq!(found, entry.view, "{model} {}", entry.name);
        }
        assert_metadata_agrees(&ours, &theirs[0], model);
    }
}

/// What a reader must know has a key in every file that says it, here as there.
#[test]
fn gguf_states_what_sets_a_family_apart() {
    for (model, theirs, keys) in [
        (
            "pygmy/longrope",
            "gguf/longrope-F16.gguf",
            &[
                "phi3.rope.scaling.attn_factor",
                "phi3.rope.scaling.original_context_length",
                "phi3.rope.dimension_count",
            ][..],
        ),
        (
            "pygmy/gemma2",
            "gguf/gemma2-F16.gguf",
            &[
                "gemma2.attn_logit_softcapping",
                "gemma2.final_logit_softcapping",
                "gemma2.attention.sliding_window",
                "gemma2.attention.key_length",
            ][..],
        ),
        (
            "pygmy/gemma3",
            "gguf/gemma3-F16.gguf",
            &[
                "gemma3.rope.freq_base",
                "gemma3.rope.freq_base_swa",
                "gemma3.rope.scaling.type",
                "gemma3.rope.scaling.factor",
                "gemma3.attention.sliding_window",
            ][..],
        ),
    ] {
        let written = converted(model, Format::Gguf, Precision::Uniform(Dtype::F16));
        let ours = gguf::parse(&written).unwrap();
        let theirs = Source::open(&fixture(theirs)).unwrap();
        let theirs = theirs.containers().unwrap();
        for key in keys {
            assert!(theirs[0].metadata.gguf(key).is_some(), "{key}");
            assert_eq!(ours.metadata.gguf(key), theirs[0].metadata.gguf(key), "{key}");
        }
    }
}

#[test]
fn a_scalar_that_no_reader_of_gguf_would_assume_is_not_dropped() {
    let source = Source::open(&fixture("pygmy/gemma2-wide")).unwrap();
    let error = convert(&source, Format::Gguf, Precision::Stored, Vec::new()).unwrap_err();
    assert_eq!(error.code(), Code::ConversionUnsupported);
    assert!(error.to_string().contains("query_pre_attn_scalar"), "{error}");
}

/// Every key that means something to a reader and that both files have holds the same value.
fn assert_metadata_agrees(ours: &Container<'_>, theirs: &Container<'_>, model: &str) {
    let Metadata::Gguf(pairs) = &theirs.metadata else { panic!("metadata") };
    let judged = pairs.iter().filter(|(key, _)| *key != "general.name");
    let mut compared = 0;
    for (key, value) in judged {
        if let Some(found) = ours.metadata.gguf(key) {
            assert_eq!(found, value, "{model} {key}");
            compared += 1;
        }
    }
    assert!(compared >= 12, "{model}: only {compared} keys compared");
}

/// Hyper-parameters survive the way through APR, the ones that are stated by a null too.
#[test]
fn an_apr_file_has_the_hyper_parameters_of_its_source() {
    use crate::model::Model;
    for name in ["qwen3", "phi3", "longrope", "gemma2", "gemma2-wide", "gemma3"] {
        let source = Model::load(&fixture(&format!("pygmy/{name}"))).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.apr");
        crate::format::atomic::write(&path, |out| {
            convert(source.source(), Format::Apr, Precision::Stored, out)
        })
        .unwrap();
        let copy = Model::load(&path).unwrap();
        let (ours, theirs) = (copy.config().clone(), source.config().clone());
        // Whether the head is the embedding is known by the head there; biases by their presence.
        let (tied, qkv_bias, o_bias) = (theirs.tied_embeddings, theirs.qkv_bias, theirs.o_bias);
        assert_eq!(
            crate::model::Config { tied_embeddings: tied, qkv_bias, o_bias, ..ours },
            theirs
        );
    }
}

/// A converted model must be the same model: same hyper-parameters, same prompts as token ids, same ends.
#[test]
fn a_converted_model_reads_text_as_its_source_does() {
    use crate::model::Model;
    use crate::text::{ChatOptions, Message, prepare_chat, prepare_raw};
    let source = Model::load(&fixture("golden")).unwrap();
    let prompts = |model: &Model| {
        let tokenizer = model.tokenizer().unwrap();
        let template = model.chat_template().unwrap().expect("a chat template");
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        let chat =
            [Message::new("system", "Be brief."), Message::new("user", "What is 2+2? 你好 🙂")];
        let chat = prepare_chat(tokenizer, template, &chat, &options).unwrap();
        let raw = prepare_raw(tokenizer, "2+2=\r\n\n  I've 1234 caf\u{e9}s e\u{301}").unwrap();
        (chat, raw, tokenizer.eos_set().clone())
    };
    for format in [Format::Apr, Format::Gguf] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("golden");
        crate::format::atomic::write(&path, |out| {
            convert(source.source(), format, Precision::Stored, out)
        })
        .unwrap();
        let model = Model::load(&path).unwrap();
        assert_eq!(prompts(&model), prompts(&source), "{format:?}");
        let (ours, theirs) = (model.config(), source.config());
        assert_eq!(ours.rope, theirs.rope);
        assert_eq!(
            (ours.norm_eps, ours.context, ours.vocab),
            (theirs.norm_eps, theirs.context, theirs.vocab)
        );
    }
}
