//! What sets families apart: the same facts from every origin, and which of them are refused.

use apr_engine::Code;
use apr_engine::format::{Metadata, Value};
use apr_engine::model::{
    Activation, Config, LongRope, NamedTensor, Role, RopeScaling, Sliding, Slot, Weights,
};
use apr_engine::{Dtype, Shape, Tensor};
use serde_json::{Map, Value as Json, json};

/// A configuration of `kind` with `more` in it.
fn config(kind: &str, more: &Json) -> Map<String, Json> {
    let base = json!({
        "model_type": kind, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 7,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 10,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-6,
    });
    let mut config = base.as_object().expect("object").clone();
    config.extend(more.as_object().expect("object").clone());
    config
}

fn read(kind: &str, more: &Json) -> Config {
    Config::from_hugging_face(&config(kind, more)).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(kind: &str, more: &Json) -> Code {
    Config::from_hugging_face(&config(kind, more)).expect_err(&more.to_string()).code()
}

/// GGUF metadata of `kind` with `more` behind its name.
fn gguf(kind: &'static str, more: &[(&'static str, Value<'static>)]) -> Metadata<'static> {
    let sizes = [
        ("embedding_length", 8),
        ("block_count", 7),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 4),
        ("feed_forward_length", 6),
        ("context_length", 32),
        ("vocab_size", 10),
    ];
    let mut pairs: Vec<(&'static str, Value<'static>)> =
        sizes.map(|(key, size)| (name(kind, key), Value::Unsigned(size))).to_vec();
    pairs.push(("general.architecture", Value::Str(kind)));
    pairs.push((name(kind, "attention.layer_norm_rms_epsilon"), Value::Float(1e-6)));
    for (key, value) in more {
        let key = name(kind, key);
        pairs.retain(|(known, _)| *known != key);
        pairs.push((key, *value));
    }
    Metadata::Gguf(pairs)
}

fn name(kind: &str, key: &str) -> &'static str {
    // Keys are borrowed from the file, which outlives its metadata.
    format!("{kind}.{key}").leak()
}

#[test]
fn a_configuration_of_the_hub_and_one_of_the_newer_library_mean_the_same_model() {
    let hub = read(
        "gemma3_text",
        &json!({
            "rope_theta": 1e6, "rope_local_base_freq": 100.0, "query_pre_attn_scalar": 5,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window": 3, "sliding_window_pattern": 6,
        }),
    );
    let sliding = |layer| if layer == 5 { "full_attention" } else { "sliding_attention" };
    let newer = read(
        "gemma3_text",
        &json!({
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
            "query_pre_attn_scalar": 5, "sliding_window": 3, "attn_logit_softcapping": null,
            "layer_types": (0..7).map(sliding).collect::<Vec<_>>(),
        }),
    );
    assert_eq!(hub, newer);
    assert_eq!((0..7).filter(|layer| hub.window_of(*layer).is_none()).collect::<Vec<_>>(), [5]);
    assert!(
        (hub.rope_of(0).theta - 100.0).abs() < 1e-9 && hub.rope_of(0).scaling == RopeScaling::None
    );
    assert!((hub.rope_of(5).theta - 1e6).abs() < 1e-3);
    assert!((hub.score_scale - 5f32.sqrt().recip()).abs() < 1e-7);
    assert_eq!((hub.activation, hub.tied_embeddings), (Activation::GeluTanh, Some(true)));
    assert_eq!((hub.gain_offset, hub.embedding_scale), (1.0, Some(8f32.sqrt())));
}

#[test]
fn a_soft_cap_is_as_usual_stated_or_denied() {
    let caps = |more: Json| {
        let config = read("gemma2", &more);
        (config.score_cap, config.logit_cap)
    };
    assert_eq!(caps(json!({})), (Some(50.0), Some(30.0)));
    assert_eq!(caps(json!({"attn_logit_softcapping": 2.5})), (Some(2.5), Some(30.0)));
    assert_eq!(caps(json!({"final_logit_softcapping": null})), (Some(50.0), None));
    for wrong in [json!(0.0), json!(-1.0), json!("50")] {
        assert_eq!(refused("gemma2", &json!({"attn_logit_softcapping": wrong})), Code::ConfigValue);
    }
    // The library keeps the name in the next family and bends nothing by it.
    assert_eq!(refused("gemma3_text", &json!({"attn_logit_softcapping": 50.0})), Code::ConfigValue);
}

#[test]
fn layers_that_a_family_cannot_have_are_refused() {
    for (kind, more) in [
        ("gemma2", json!({"layer_types": ["full_attention"]})),
        ("gemma2", json!({"layer_types": vec!["chunked_attention"; 7]})),
        ("gemma2", json!({"layer_types": "full_attention"})),
        ("gemma3_text", json!({"use_bidirectional_attention": true})),
        ("gemma3_text", json!({"sliding_window": 3, "sliding_window_pattern": -1})),
        ("qwen3", json!({"layer_types": vec!["sliding_attention"; 7]})),
        ("gemma2", json!({"query_pre_attn_scalar": 0})),
    ] {
        assert_eq!(refused(kind, &more), Code::ConfigValue, "{kind} {more}");
    }
    let every = read("gemma3_text", &json!({"sliding_window": 3, "sliding_window_pattern": 0}));
    assert_eq!(every.window.expect("a window").layers, Sliding::Every);
    assert_eq!(read("gemma3_text", &json!({})).window, None);
}

/// `LongRoPE` of four values per head: two divisors per set.
fn long(kind: &str) -> Json {
    json!({
        "rope_scaling": {"type": kind, "short_factor": [1.0, 2.0], "long_factor": [3.0, 4.0]},
        "original_max_position_embeddings": 8,
    })
}

#[test]
fn longrope_goes_by_either_of_its_names_and_knows_its_attention_factor() {
    for kind in ["su", "longrope"] {
        let RopeScaling::Long(found) = read("phi3", &long(kind)).rope.scaling else {
            panic!("{kind} is no LongRoPE")
        };
        assert_eq!(found.original_context, 8);
        // The square root of 1 + ln(32 / 8) / ln(8).
        assert!((found.attention_factor - (1.0f64 + 2.0 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(found.factors, Some((vec![1.0, 2.0], vec![3.0, 4.0])));
    }
    let mut stated = long("longrope");
    stated["rope_scaling"]["attention_factor"] = json!(1.25);
    assert!((read("phi3", &stated).rope.attention_factor() - 1.25).abs() < 1e-12);
    let mut wider = long("longrope");
    wider["original_max_position_embeddings"] = json!(32);
    assert!((read("phi3", &wider).rope.attention_factor() - 1.0).abs() < 1e-12);
}

#[test]
fn longrope_that_cannot_rotate_is_refused() {
    for (field, value) in [
        ("short_factor", json!([1.0])),
        ("long_factor", json!([1.0, 0.0])),
        ("long_factor", json!([1.0, "2"])),
        ("long_factor", Json::Null),
        ("attention_factor", json!(-1.0)),
    ] {
        let mut config = long("longrope");
        config["rope_scaling"][field] = value;
        assert_eq!(refused("phi3", &config), Code::RopeScaling, "{field}");
    }
    let mut config = long("longrope");
    config["original_max_position_embeddings"] = json!(0);
    assert_eq!(refused("phi3", &config), Code::RopeScaling);
    assert_eq!(refused("phi3", &long("yarn")), Code::RopeScaling);
}

#[test]
fn gguf_says_the_same_by_its_own_keys() {
    let read = |metadata: &Metadata<'_>| {
        Config::from_gguf(metadata, None).unwrap_or_else(|error| panic!("{error}"))
    };
    let second = read(&gguf("gemma2", &[("attn_logit_softcapping", Value::Float(2.5))]));
    assert_eq!((second.score_cap, second.logit_cap), (Some(2.5), Some(30.0)));
    assert_eq!((second.window_of(0), second.window_of(1)), (Some(4096), None));
    assert!(second.gain_offset.abs() < f32::EPSILON, "gains are whole there");
    assert!((second.score_scale - 0.5).abs() < 1e-7);
    let third = [
        ("attention.sliding_window", Value::Unsigned(3)),
        ("rope.freq_base_swa", Value::Float(100.0)),
        ("block_count", Value::Unsigned(62)),
    ];
    let third = read(&gguf("gemma3", &third));
    assert!((third.rope_of(0).theta - 100.0).abs() < 1e-9);
    // 62 layers are the size whose scores are divided by the root of 8 / 2; a head is 4 too, so ask for another.
    let wide = [("block_count", Value::Unsigned(62)), ("attention.head_count", Value::Unsigned(1))];
    assert!((read(&gguf("gemma3", &wide)).score_scale - 8f32.sqrt().recip()).abs() < 1e-7);
    assert!((third.score_scale - 0.5).abs() < 1e-7);
    assert_eq!(read(&gguf("gemma3", &[])).window, None);
    // Converters of some years left the type out.
    let factor = [
        ("rope.scaling.attn_factor", Value::Float(1.5)),
        ("rope.scaling.original_context_length", Value::Unsigned(8)),
    ];
    let RopeScaling::Long(found) = read(&gguf("phi3", &factor)).rope.scaling else {
        panic!("no LongRoPE")
    };
    assert_eq!(found, LongRope { original_context: 8, attention_factor: 1.5, factors: None });
    assert_eq!(
        read(&gguf("phi3", &[("attention.sliding_window", Value::Unsigned(0))])).window,
        None
    );
}

/// Names and shapes of the weights of a layer of phi3.
fn fused() -> Vec<(&'static str, Vec<u64>)> {
    vec![
        ("model.embed_tokens.weight", vec![10, 8]),
        ("model.norm.weight", vec![8]),
        ("lm_head.weight", vec![10, 8]),
        ("model.layers.0.input_layernorm.weight", vec![8]),
        ("model.layers.0.self_attn.qkv_proj.weight", vec![16, 8]),
        ("model.layers.0.self_attn.o_proj.weight", vec![8, 8]),
        ("model.layers.0.post_attention_layernorm.weight", vec![8]),
        ("model.layers.0.mlp.gate_up_proj.weight", vec![12, 8]),
        ("model.layers.0.mlp.down_proj.weight", vec![8, 6]),
    ]
}

fn collect(config: &Config, tensors: Vec<(&str, Vec<u64>)>) -> apr_engine::Result<Weights> {
    let tensors = tensors.into_iter().map(|(name, dims)| {
        let shape = Shape::new(&dims)?;
        let values: Vec<f32> = (0..shape.elements()).map(|value| value as f32).collect();
        Ok(NamedTensor { name: name.to_owned(), tensor: Tensor::from_f32(shape, &values)? })
    });
    Weights::collect(config, tensors.collect::<apr_engine::Result<_>>()?)
}

#[test]
fn fused_matrices_are_taken_apart_and_missed_by_their_own_names() {
    let config = read("phi3", &json!({"num_hidden_layers": 1, "tie_word_embeddings": false}));
    let weights = collect(&config, fused()).unwrap();
    let first = |role| {
        let entry = weights.get(Slot::layer(0, role)).expect("a slot");
        assert_eq!(entry.tensor.dtype(), Dtype::F32);
        entry.tensor.view().unwrap().dequantize().unwrap()[0]
    };
    // Rows count up by eight: 8 of Q, 4 of K and 4 of V; 6 of gate and 6 of up.
    let found = [Role::Q, Role::K, Role::V, Role::Gate, Role::Up].map(first);
    assert_eq!(found.map(f32::to_bits), [0.0f32, 64.0, 96.0, 0.0, 48.0].map(f32::to_bits));
    for index in 0..fused().len() {
        let mut some = fused();
        let (name, _) = some.remove(index);
        let error = collect(&config, some).unwrap_err();
        assert_eq!(error.code(), Code::WeightMissing);
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut more = fused();
    more.push(("model.layers.0.self_attn.q_proj.weight", vec![8, 8]));
    assert_eq!(collect(&config, more).unwrap_err().code(), Code::WeightUnexpected);
}
