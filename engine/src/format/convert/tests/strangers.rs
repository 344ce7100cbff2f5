//! The same conversion by other programs: byte for byte where both can do it.

use super::*;
use crate::format::{apr, gguf};

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
        assert_equal_to(&written, theirs, model);
    }
}

/// The pairs of a weight file and all its tensors are those of the carried file `theirs`.
#[track_caller]
fn assert_equal_to(written: &[u8], theirs: &str, model: &str) {
    let ours = gguf::parse(written).unwrap();
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

/// What a reader must know has a key in every file that says it, here as there.
#[test]
fn gguf_states_what_sets_a_family_apart() {
    for (model, keys) in [
        ("longrope", &["phi3.rope.scaling.attn_factor", "phi3.rope.dimension_count"][..]),
        ("longrope", &["phi3.rope.scaling.original_context_length"]),
        ("gemma2", &["gemma2.attn_logit_softcapping", "gemma2.final_logit_softcapping"]),
        ("gemma2", &["gemma2.attention.sliding_window", "gemma2.attention.key_length"]),
        ("gemma3", &["gemma3.rope.freq_base", "gemma3.rope.freq_base_swa"]),
        ("gemma3", &["gemma3.rope.scaling.type", "gemma3.rope.scaling.factor"]),
        ("gemma3", &["gemma3.attention.sliding_window"]),
    ] {
        let precision = Precision::Uniform(Dtype::F16);
        let written = converted(&format!("pygmy/{model}"), Format::Gguf, precision);
        let ours = gguf::parse(&written).unwrap();
        let theirs = Source::open(&fixture(&format!("gguf/{model}-F16.gguf"))).unwrap();
        let theirs = theirs.containers().unwrap();
        for key in keys {
            assert!(theirs[0].metadata.gguf(key).is_some(), "{key}");
            assert_eq!(ours.metadata.gguf(key), theirs[0].metadata.gguf(key), "{key}");
        }
    }
}

/// llama.cpp quantised the same F16 files: every tensor has the same dtype and the same bytes.
#[test]
fn mixtures_equal_those_of_llama_cpps_quantiser() {
    for (source, theirs) in [
        ("golden-F16", "golden-Q4_K_M"),
        ("golden-F16", "golden-Q8_0"),
        ("mistral-F16", "mistral-Q4_0"),
        ("mistral-F16", "mistral-Q4_K_M"),
        ("mistral-F16", "mistral-Q5_K_M"),
        ("mistral-F16", "mistral-Q6_K"),
        ("mistral-F16", "mistral-Q8_0"),
        // Rows of 224 and 96 values: no whole super-blocks.
        ("qwen2-tied-F16", "qwen2-tied-Q4_K_M"),
    ] {
        let recipe = theirs.split_once('-').map(|(_, rest)| rest.trim_start_matches("tied-"));
        let precision = Precision::from_name(recipe.unwrap()).unwrap();
        let written = converted(&format!("gguf/{source}.gguf"), Format::Gguf, precision);
        assert_equal_to(&written, &format!("gguf/{theirs}.gguf"), theirs);
    }
}

/// From SafeTensors the same numbers reach the quantiser, because these weights are exact in F16.
#[test]
fn a_mixture_does_not_depend_on_the_container_it_comes_from() {
    let precision = Precision::from_name("q4_k_m").unwrap();
    let written = converted("pygmy/mistral", Format::Gguf, precision);
    assert_equal_to(&written, "gguf/mistral-Q4_K_M.gguf", "pygmy/mistral");
    let apr = converted("pygmy/mistral", Format::Apr, precision);
    let (apr, gguf) = (apr::parse(&apr).unwrap(), gguf::parse(&written).unwrap());
    let down = apr.tensor("model.layers.1.mlp.down_proj.weight").unwrap();
    assert_eq!(down.view, gguf.tensor("blk.1.ffn_down.weight").unwrap().view);
    assert_eq!(down.view.dtype(), Dtype::Q6K);
}
