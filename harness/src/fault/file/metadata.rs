//! Damage to what a file declares: hyper-parameters and the architecture.

#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "names of carried fixtures and of tensors, spelled in one way only"
)]

use serde_json::{Map, Value as Json, json};

use super::super::surgery;
use super::{FileFault, apr_text, fault, replace_bytes};

/// Every fault of the metadata.
pub(super) const ALL: &[FileFault] = &[
    fault("file/rope-theta", "the RoPE base is another one", &["FI-13"], |name, bytes| {
        meta(
            name,
            bytes,
            "rope.freq_base",
            500_000f32.to_le_bytes(),
            "rope_theta",
            &json!(500_000.0),
        )
    }),
    fault("file/rms-eps", "the norm epsilon is 0.1", &["FI-20"], |name, bytes| {
        meta(
            name,
            bytes,
            "layer_norm_rms_epsilon",
            0.1f32.to_le_bytes(),
            "rms_norm_eps",
            &json!(0.1),
        )
    }),
    fault("file/rms-eps-zero", "the norm epsilon is zero", &["FI-20"], |name, bytes| {
        meta(name, bytes, "layer_norm_rms_epsilon", 0f32.to_le_bytes(), "rms_norm_eps", &json!(0.0))
    }),
    fault("file/head-count", "twice as many heads are declared", &["FI-18"], |name, bytes| {
        meta(
            name,
            bytes,
            "attention.head_count",
            8u32.to_le_bytes(),
            "num_attention_heads",
            &json!(8),
        )
    }),
    fault(
        "file/kv-heads-missing",
        "the number of key-value heads is not declared",
        &["FI-17"],
        |name, bytes| {
            remove_meta(
                name,
                bytes,
                "attention.head_count_kv",
                "num_key_value_heads",
                "num_kv_heads",
            )
        },
    ),
    fault(
        "file/hidden-size-missing",
        "the hidden size is not declared",
        &["FI-47"],
        |name, bytes| remove_meta(name, bytes, "embedding_length", "hidden_size", "hidden_size"),
    ),
    fault("file/layer-count", "one layer less is declared", &["FI-77"], |name, bytes| {
        meta(name, bytes, "block_count", 2u32.to_le_bytes(), "num_hidden_layers", &json!(2))
    }),
    fault(
        "file/architecture",
        "the architecture is unknown",
        &["FI-52"],
        |name, bytes| match name {
            "config.json" => surgery::edit_json(bytes, |map| {
                map.insert("model_type".into(), json!("transformer"));
                map.insert("architectures".into(), json!(["Transformer"]));
            }),
            _ if name.ends_with(".apr") => surgery::edit_apr_metadata(bytes, |map| {
                map.retain(|key, _| !key.starts_with("hf_"));
                map.insert("architecture".into(), json!("transformer"));
                map.insert("model_type".into(), json!("transformer"));
            }),
            _ => surgery::set_gguf_text(bytes, "general.architecture", "qwen2", "qwenX"),
        },
    ),
    fault(
        "file/entry-lost",
        "an entry that this engine has no use for is missing",
        &["FI-17"],
        |name, bytes| match name {
            "config.json" => surgery::edit_json(bytes, |map| {
                map.remove("initializer_range");
            }),
            _ if name.ends_with(".apr") => surgery::edit_apr_metadata(bytes, |map| {
                map.remove("hf_architecture");
            }),
            _ => replace_bytes(bytes, b"general.size_label", b"general.label_size"),
        },
    ),
    fault(
        "file/untied",
        "the head is declared to be separate but is not there",
        &["FI-30"],
        |name, bytes| match name {
            "config.json" => surgery::edit_json(bytes, |map| {
                map.insert("tie_word_embeddings".into(), json!(false));
            }),
            _ => apr_text(name, bytes, |map| {
                map.insert("tied_embeddings".into(), json!(false));
            }),
        },
    ),
];

/// Sets a hyper-parameter in whichever place the file keeps it.
fn meta(
    name: &str,
    bytes: &[u8],
    gguf_suffix: &str,
    word: [u8; 4],
    key: &str,
    value: &Json,
) -> Option<Vec<u8>> {
    let set = |map: &mut Map<String, Json>| {
        for spelling in spellings(key) {
            if let Some(present) = map.get_mut(*spelling) {
                *present = value.clone();
            }
        }
    };
    match name {
        "config.json" => surgery::edit_json(bytes, set),
        _ if name.ends_with(".apr") => surgery::edit_apr_metadata(bytes, set),
        _ if name.ends_with(".gguf") => surgery::set_gguf_word(bytes, gguf_suffix, word),
        _ => None,
    }
}

/// The spellings of a hyper-parameter in JSON metadata.
fn spellings(key: &str) -> &'static [&'static str] {
    match key {
        "rope_theta" => &["rope_theta"],
        "rms_norm_eps" => &["rms_norm_eps"],
        "num_attention_heads" => &["num_attention_heads", "num_heads"],
        "num_hidden_layers" => &["num_hidden_layers", "num_layers"],
        "num_key_value_heads" => &["num_key_value_heads", "num_kv_heads"],
        _ => &["hidden_size"],
    }
}

/// Removes a hyper-parameter; in GGUF by giving its key another name of the same length.
fn remove_meta(
    name: &str,
    bytes: &[u8],
    gguf_suffix: &str,
    key: &str,
    apr_key: &str,
) -> Option<Vec<u8>> {
    match name {
        "config.json" => surgery::edit_json(bytes, |map| {
            map.remove(key);
        }),
        _ if name.ends_with(".apr") => surgery::edit_apr_metadata(bytes, |map| {
            map.remove(key);
            map.remove(apr_key);
        }),
        _ if name.ends_with(".gguf") => {
            let unknown: String = gguf_suffix.chars().rev().collect();
            replace_bytes(bytes, gguf_suffix.as_bytes(), unknown.as_bytes())
        }
        _ => None,
    }
}
