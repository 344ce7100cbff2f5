//! Damage to what turns text into ids and back: vocabulary, merges, special tokens, templates.

#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "names of carried fixtures and of tensors, spelled in one way only"
)]

use serde_json::{Map, Value as Json, json};

use super::super::surgery;
use super::{FileFault, apr_text, fault, replace_bytes};

/// Every fault of the text side.
pub(super) const ALL: &[FileFault] = &[
    fault(
        "file/byte-token-lost",
        "the token of one byte is called otherwise",
        &["FI-55"],
        byte_token_lost,
    ),
    fault(
        "file/tokenizer-hidden",
        "the file carries no vocabulary any more",
        &["FI-59", "FI-104"],
        |name, bytes| {
            if name.ends_with(".gguf") {
                let (key, unknown) = (b"tokenizer.ggml.tokens", b"tokenizer.ggml.snekot");
                return replace_bytes(bytes, key, unknown);
            }
            apr_text(name, bytes, |map| map.retain(|key, _| !key.starts_with("tokenizer.")))
        },
    ),
    fault(
        "file/vocabulary-grown",
        "the tokenizer has more tokens than the embedding has rows",
        &["FI-53"],
        |name, bytes| match name {
            "tokenizer.json" => surgery::edit_json(bytes, |map| {
                if let Some(vocab) = map
                    .get_mut("model")
                    .and_then(|model| model.get_mut("vocab"))
                    .and_then(Json::as_object_mut)
                {
                    let first = 1_000_000;
                    vocab.extend((first..first + 10).map(|id| (format!("extra{id}"), json!(id))));
                }
            }),
            _ => apr_text(name, bytes, |map| {
                if let Some(Json::Array(vocabulary)) = map.get_mut("tokenizer.vocabulary") {
                    vocabulary.extend((0..5000).map(|id| json!(format!("extra{id}"))));
                }
            }),
        },
    ),
    fault(
        "file/template-empty",
        "the chat template renders the same text for every conversation",
        &["FI-50"],
        |name, bytes| match name {
            "tokenizer_config.json" => surgery::edit_json(bytes, |map| {
                map.insert("chat_template".into(), json!("hello"));
            }),
            _ if name.ends_with(".gguf") => {
                surgery::blank_gguf_text(bytes, "tokenizer.chat_template")
            }
            _ => apr_text(name, bytes, |map| {
                for key in ["chat_template", "tokenizer.chat_template"] {
                    if map.contains_key(key) {
                        map.insert(key.into(), json!("hello"));
                    }
                }
            }),
        },
    ),
    fault(
        "file/pre-tokenizer",
        "the pre-tokenizer is that of another family",
        &["FI-54"],
        |name, bytes| match name {
            "tokenizer.json" => surgery::edit_json(bytes, |map| {
                map.insert("pre_tokenizer".into(), json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}));
            }),
            _ if name.ends_with(".gguf") => {
                surgery::set_gguf_text(bytes, "tokenizer.ggml.pre", "qwen2", "gpt-2")
            }
            _ => apr_text(name, bytes, |map| {
                map.insert("tokenizer.pre_type".into(), json!("gpt-2"));
            }),
        },
    ),
    fault(
        "file/merges-dropped",
        "the merges of the tokenizer are missing",
        &["FI-54"],
        |name, bytes| match name {
            "tokenizer.json" => surgery::edit_json(bytes, |map| {
                if let Some(model) = map.get_mut("model").and_then(Json::as_object_mut) {
                    model.insert("merges".into(), json!([]));
                }
            }),
            _ => apr_text(name, bytes, |map| {
                map.insert("tokenizer.merges".into(), json!([]));
            }),
        },
    ),
    fault(
        "file/added-tokens-dropped",
        "the added tokens of the tokenizer are missing",
        &["FI-53"],
        |name, bytes| match name {
            "tokenizer.json" => surgery::edit_json(bytes, |map| {
                map.insert("added_tokens".into(), json!([]));
            }),
            _ => None,
        },
    ),
    fault(
        "file/eos-wrong",
        "the end-of-sequence id is that of an ordinary token",
        &["FI-50", "FI-27"],
        |name, bytes| match name {
            "generation_config.json" | "config.json" => surgery::edit_json(bytes, |map| {
                map.insert("eos_token_id".into(), json!(5));
            }),
            "tokenizer_config.json" => surgery::edit_json(bytes, |map| {
                map.insert("eos_token".into(), json!("!"));
            }),
            _ if name.ends_with(".gguf") => {
                surgery::set_gguf_word(bytes, "tokenizer.ggml.eos_token_id", 5u32.to_le_bytes())
            }
            _ => apr_text(name, bytes, |map| {
                map.insert("tokenizer.eos_token_id".into(), json!(5));
            }),
        },
    ),
    fault(
        "file/template-role",
        "the chat template opens the answer with the wrong role",
        &["FI-50"],
        |name, bytes| match name {
            "tokenizer_config.json" => {
                surgery::edit_json(bytes, |map| wrong_role(map, "chat_template"))
            }
            _ if name.ends_with(".gguf") => {
                replace_bytes(bytes, b"<|im_start|>assistant\\n", b"<|im_start|>asistante\\n")
            }
            _ => apr_text(name, bytes, |map| {
                wrong_role(map, "chat_template");
                wrong_role(map, "tokenizer.chat_template");
            }),
        },
    ),
];

fn wrong_role(map: &mut Map<String, Json>, key: &str) {
    if let Some(Json::String(template)) = map.get_mut(key) {
        *template = template.replace("<|im_start|>assistant", "<|im_start|>user");
    }
}

fn byte_token_lost(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    match name {
        "tokenizer.json" => surgery::edit_json(bytes, |map| {
            if let Some(vocab) = map
                .get_mut("model")
                .and_then(|model| model.get_mut("vocab"))
                .and_then(Json::as_object_mut)
                && let Some(id) = vocab.remove("A")
            {
                vocab.insert("\u{22A5}".into(), id);
            }
        }),
        _ if name.ends_with(".gguf") => {
            // The record of a one-byte string: its length, then the byte.
            let (from, to) = (b"\x01\0\0\0\0\0\0\0A", b"\x01\0\0\0\0\0\0\0\x01");
            replace_bytes(bytes, from, to)
        }
        _ => apr_text(name, bytes, |map| {
            if let Some(Json::Array(vocabulary)) = map.get_mut("tokenizer.vocabulary") {
                for token in vocabulary.iter_mut().filter(|token| *token == "A") {
                    *token = json!("\u{22A5}");
                }
            }
        }),
    }
}
