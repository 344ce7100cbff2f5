//! Hyper-parameters of three origins: what is read, what is refused, and with which words.

use apr_engine::Code;
use apr_engine::format::{Metadata, Value};
use apr_engine::model::{Bias, Config, NamedTensor, RopeScaling, RopeStyle, Weights};
use apr_engine::{Dtype, Shape, Tensor};
use serde_json::{Map, Value as Json, json};

fn hugging_face() -> Map<String, Json> {
    let config = json!({
        "model_type": "qwen2", "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10,
        "max_position_embeddings": 32, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": true, "eos_token_id": [8, 9],
    });
    config.as_object().expect("object").clone()
}

fn with(key: &str, value: Json) -> Map<String, Json> {
    let mut config = hugging_face();
    config.insert(key.to_owned(), value);
    config
}

#[test]
fn a_plain_configuration_is_read_whole() {
    let config = Config::from_hugging_face(&hugging_face()).unwrap();
    assert_eq!((config.hidden, config.layers, config.vocab, config.context), (8, 1, 10, 32));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (2, 1, 4));
    assert_eq!((config.q_width(), config.kv_width()), (8, 4));
    assert_eq!((config.rope.style, config.rope.dims), (RopeStyle::Neox, 4));
    assert_eq!((config.qkv_bias, config.o_bias), (Bias::Required, Bias::Absent));
    assert_eq!((config.tied_embeddings, config.eos), (Some(true), vec![8, 9]));
}

#[test]
fn every_value_out_of_range_is_refused_with_its_field() {
    let rows = [
        ("hidden_size", json!(0), Code::ConfigValue),
        ("hidden_size", json!(-1), Code::ConfigValue),
        ("hidden_size", json!("768"), Code::ConfigValue),
        ("hidden_size", json!(1e300), Code::ConfigValue),
        ("hidden_size", json!(9), Code::ConfigValue),
        ("hidden_size", Json::Null, Code::ConfigMissing),
        ("num_hidden_layers", json!(0), Code::ConfigValue),
        ("num_hidden_layers", json!(2147483648u64), Code::ConfigValue),
        ("num_attention_heads", json!(0), Code::ConfigValue),
        ("num_attention_heads", json!(3), Code::ConfigValue),
        ("num_key_value_heads", json!(0), Code::ConfigValue),
        ("num_key_value_heads", json!(4), Code::ConfigValue),
        ("head_dim", json!(3), Code::ConfigValue),
        ("vocab_size", json!(0), Code::ConfigValue),
        ("max_position_embeddings", json!(0), Code::ConfigValue),
        ("max_position_embeddings", json!(4294967295u64), Code::ConfigValue),
        ("rope_theta", json!(0), Code::ConfigValue),
        ("rope_theta", json!(1e300), Code::ConfigValue),
        ("rms_norm_eps", json!(0), Code::ConfigValue),
        ("rms_norm_eps", json!(-1e-6), Code::ConfigValue),
        ("eos_token_id", json!(10), Code::ConfigValue),
        ("eos_token_id", json!(vec![1; 10_000]), Code::ConfigValue),
        ("hidden_act", json!("relu"), Code::ConfigValue),
        ("use_sliding_window", json!(true), Code::ConfigValue),
        ("layer_types", json!(["full_attention", "sliding_attention"]), Code::ConfigValue),
        ("num_experts", json!(8), Code::ConfigValue),
        ("quantization_config", json!({"quant_method": "gptq"}), Code::ConfigValue),
        ("model_type", json!("mamba"), Code::Architecture),
        ("model_type", json!("x".repeat(1 << 20)), Code::Architecture),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0}), Code::RopeScaling),
        ("rope_scaling", json!({"type": "linear", "factor": 0.0}), Code::RopeScaling),
        ("rope_scaling", json!({"type": "linear", "factor": Json::Null}), Code::RopeScaling),
        ("rope_scaling", json!({"type": 7}), Code::RopeScaling),
    ];
    for (field, value, code) in rows {
        let text = value.to_string();
        let error = Config::from_hugging_face(&with(field, value)).expect_err(&text);
        assert_eq!(error.code(), code, "{field}: {text:.60}");
        assert!(error.to_string().len() < 1024, "{field}: a short message");
        assert_ne!(error.to_string().split(';').next(), Some(""), "{error}");
    }
}

#[test]
fn two_spellings_of_one_value_must_agree() {
    assert!(Config::from_hugging_face(&with("n_embd", json!(8))).is_ok());
    let error = Config::from_hugging_face(&with("n_embd", json!(16))).unwrap_err();
    assert_eq!(error.code(), Code::ConfigValue);
}

#[test]
fn llama3_scaling_is_read_from_both_places_transformers_writes_it_to() {
    let scaling = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16, "rope_theta": 500000.0,
    });
    let old = Config::from_hugging_face(&with("rope_scaling", scaling.clone())).unwrap();
    let mut config = with("rope_parameters", scaling);
    config.remove("rope_theta");
    let new = Config::from_hugging_face(&config).unwrap();
    assert!(matches!(old.rope.scaling, RopeScaling::Llama3 { .. }));
    assert_eq!(old.rope.scaling, new.rope.scaling);
    assert!((new.rope.theta - 500_000.0).abs() < 1e-9);
}

fn gguf(changes: &[(&'static str, Option<Value<'static>>)]) -> Metadata<'static> {
    let mut pairs = vec![
        ("general.architecture", Value::Str("llama")),
        ("llama.embedding_length", Value::Unsigned(8)),
        ("llama.block_count", Value::Unsigned(1)),
        ("llama.attention.head_count", Value::Unsigned(2)),
        ("llama.attention.head_count_kv", Value::Unsigned(1)),
        ("llama.feed_forward_length", Value::Unsigned(6)),
        ("llama.context_length", Value::Unsigned(32)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5)),
        ("llama.vocab_size", Value::Unsigned(10)),
    ];
    for (key, value) in changes {
        pairs.retain(|(name, _)| name != key);
        pairs.extend(value.map(|value| (*key, value)));
    }
    Metadata::Gguf(pairs)
}

#[test]
fn llama_in_gguf_rotates_adjacent_pairs() {
    let config = Config::from_gguf(&gguf(&[]), None).unwrap();
    assert_eq!((config.rope.style, config.head_dim), (RopeStyle::Adjacent, 4));
    assert_eq!(config.tied_embeddings, None, "the presence of a head decides");
}

#[test]
fn every_gguf_value_out_of_range_is_refused() {
    let rows = [
        ("general.architecture", None, Code::Architecture),
        ("general.architecture", Some(Value::Str("rwkv")), Code::Architecture),
        ("llama.block_count", Some(Value::Unsigned(0)), Code::ConfigValue),
        ("llama.block_count", Some(Value::Unsigned(513)), Code::ConfigValue),
        ("llama.block_count", Some(Value::Unsigned(u64::MAX)), Code::ConfigValue),
        ("llama.block_count", Some(Value::Str("2")), Code::ConfigValue),
        ("llama.attention.head_count", Some(Value::Unsigned(0)), Code::ConfigValue),
        ("llama.attention.head_count_kv", Some(Value::Unsigned(0)), Code::ConfigValue),
        ("llama.attention.head_count_kv", Some(Value::Unsigned(4)), Code::ConfigValue),
        ("llama.embedding_length", None, Code::ConfigMissing),
        ("llama.embedding_length", Some(Value::Signed(-8)), Code::ConfigValue),
        ("llama.rope.freq_base", Some(Value::Float(f64::NAN)), Code::ConfigValue),
        ("llama.rope.freq_base", Some(Value::Float(f64::INFINITY)), Code::ConfigValue),
        ("llama.rope.dimension_count", Some(Value::Unsigned(6)), Code::ConfigValue),
        ("llama.rope.dimension_count", Some(Value::Unsigned(3)), Code::ConfigValue),
        ("llama.rope.scaling.type", Some(Value::Str("yarn")), Code::RopeScaling),
        ("llama.rope.scaling.type", Some(Value::Str("linear")), Code::RopeScaling),
        ("llama.attention.layer_norm_rms_epsilon", Some(Value::Float(f64::NAN)), Code::ConfigValue),
        ("llama.attention.value_length", Some(Value::Unsigned(8)), Code::ConfigValue),
        ("llama.expert_count", Some(Value::Unsigned(8)), Code::ConfigValue),
        ("tokenizer.ggml.eos_token_id", Some(Value::Unsigned(10)), Code::ConfigValue),
        ("tokenizer.ggml.unknown_token_id", Some(Value::Unsigned(u64::MAX)), Code::ConfigValue),
    ];
    for (key, value, code) in rows {
        let error = Config::from_gguf(&gguf(&[(key, value)]), None).expect_err(key);
        assert_eq!(error.code(), code, "{key}: {error}");
    }
}

#[test]
fn apr_metadata_names_its_own_rotation() {
    let mut metadata = hugging_face();
    metadata.insert("architecture".into(), json!("llama"));
    metadata.remove("model_type");
    let style = |metadata: &Map<String, Json>, gguf_names| {
        Config::from_apr(metadata, gguf_names, None).map(|config| config.rope.style)
    };
    assert_eq!(style(&metadata, false), Ok(RopeStyle::Neox));
    assert_eq!(style(&metadata, true), Ok(RopeStyle::Adjacent));
    metadata.insert("rope_type".into(), json!(2));
    assert_eq!(style(&metadata, true), Ok(RopeStyle::Neox));
    metadata.insert("rope_type".into(), json!(1));
    assert_eq!(style(&metadata, true).unwrap_err().code(), Code::ConfigValue);
}

/// Weights of the plain configuration, by name and shape.
fn tensors() -> Vec<(String, Vec<u64>)> {
    let layer = [
        ("input_layernorm.weight", vec![8]),
        ("self_attn.q_proj.weight", vec![8, 8]),
        ("self_attn.q_proj.bias", vec![8]),
        ("self_attn.k_proj.weight", vec![4, 8]),
        ("self_attn.k_proj.bias", vec![4]),
        ("self_attn.v_proj.weight", vec![4, 8]),
        ("self_attn.v_proj.bias", vec![4]),
        ("self_attn.o_proj.weight", vec![8, 8]),
        ("post_attention_layernorm.weight", vec![8]),
        ("mlp.gate_proj.weight", vec![6, 8]),
        ("mlp.up_proj.weight", vec![6, 8]),
        ("mlp.down_proj.weight", vec![8, 6]),
    ];
    let layer = layer.into_iter().map(|(name, dims)| (format!("model.layers.0.{name}"), dims));
    let model = [("model.embed_tokens.weight", vec![10, 8]), ("model.norm.weight", vec![8])];
    model.into_iter().map(|(name, dims)| (name.to_owned(), dims)).chain(layer).collect()
}

fn collect(tensors: Vec<(String, Vec<u64>)>) -> apr_engine::Result<Weights> {
    let config = Config::from_hugging_face(&hugging_face())?;
    let tensors = tensors.into_iter().map(|(name, dims)| {
        let shape = Shape::new(&dims)?;
        let bytes = vec![0u8; 4 * shape.elements() as usize].into();
        Ok(NamedTensor { name, tensor: Tensor::new(Dtype::F32, shape, bytes)? })
    });
    Weights::collect(&config, tensors.collect::<apr_engine::Result<_>>()?)
}

#[test]
fn complete_weights_are_accepted_and_strangers_outside_the_layers_noted() {
    let mut all = tensors();
    all.push(("vision.patch".into(), vec![3]));
    all.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![2]));
    let weights = collect(all).unwrap();
    assert_eq!(weights.iter().count(), 14);
    assert!(weights.tied());
    assert_eq!(weights.ignored().len(), 2);
}

#[test]
fn each_missing_weight_is_named() {
    for index in 0..tensors().len() {
        let mut some = tensors();
        let (name, _) = some.remove(index);
        let error = collect(some).unwrap_err();
        assert_eq!(error.code(), Code::WeightMissing);
        assert!(error.to_string().contains(&name), "{error}");
    }
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes_and_a_transposed_one_recognised() {
    let mut wrong = tensors();
    for (name, dims) in &mut wrong {
        if name.ends_with("k_proj.weight") {
            dims.reverse();
        }
    }
    let error = collect(wrong).unwrap_err();
    assert_eq!(error.code(), Code::WeightShape);
    assert_eq!((error.expected_text(), error.found_text()), ("[4, 8]", "[8, 4]"));
    assert!(error.hint_text().contains("transposed"));
}

#[test]
fn undeclared_weights_that_would_change_the_answer_are_refused() {
    for (name, dims) in [
        ("model.layers.1.input_layernorm.weight", vec![8]),
        ("model.layers.0.self_attn.o_proj.bias", vec![8]),
        ("model.layers.0.self_attn.q_norm.weight", vec![4]),
        ("blk.0.attn_norm.weight", vec![8]),
    ] {
        let mut more = tensors();
        more.push((name.to_owned(), dims));
        assert_eq!(collect(more).unwrap_err().code(), Code::WeightUnexpected, "{name}");
    }
}
