//! File faults: damage to model files and their side files, each retelling a defect that shipped somewhere.

#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "names of carried fixtures and of tensors, spelled in one way only"
)]

use std::path::Path;

use apr_engine::Dtype;
use serde_json::{Map, Value as Json, json};

use super::surgery::{self, Found};
use super::{FaultInfo, Plant};
use crate::case::ModelRef;

/// Changes the bytes of a file called so; `None` when the fault does not concern this file.
type Mutation = fn(name: &str, bytes: &[u8]) -> Option<Vec<u8>>;

/// A planted damage of files.
#[derive(Clone, Copy)]
pub struct FileFault {
    info: FaultInfo,
    mutate: Mutation,
}

impl std::fmt::Debug for FileFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileFault").field("id", &self.info.id).finish_non_exhaustive()
    }
}

impl Plant for FileFault {
    fn id(&self) -> &str {
        self.info.id
    }

    fn mutate_file(&self, _: &ModelRef, name: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
        (self.mutate)(name.file_name()?.to_str()?, bytes)
    }
}

impl FileFault {
    /// What the fault is.
    pub fn info(&self) -> FaultInfo {
        self.info
    }
}

const fn fault(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    mutate: Mutation,
) -> FileFault {
    FileFault { info: FaultInfo { id, what, incidents, loads: true }, mutate }
}

/// Every file fault.
pub const ALL: &[FileFault] = &[
    // Structure.
    fault("file/magic", "the first byte is flipped", &["FI-48"], |name, bytes| {
        weights(name).then(|| changed(bytes, |bytes| bytes[0] ^= 0x01))
    }),
    fault("file/version", "the format version is 9", &["FI-48"], |name, bytes| {
        (name.ends_with(".gguf") || name.ends_with(".apr"))
            .then(|| surgery::reseal(changed(bytes, |bytes| bytes[4] = 9)))
    }),
    fault("file/truncated", "the last 100 bytes are missing", &["FI-48"], |name, bytes| {
        weights(name).then(|| bytes[..bytes.len().saturating_sub(100)].to_vec())
    }),
    fault("file/trailing-bytes", "ten bytes follow the end", &["FI-48"], |name, bytes| {
        weights(name).then(|| [bytes, b"0123456789"].concat())
    }),
    fault("file/bit-flip", "one bit of one weight is flipped", &["FI-48"], |name, bytes| {
        name.ends_with(".apr").then(|| {
            changed(bytes, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
            })
        })
    }),
    fault("file/header-checksum", "the header checksum is zero", &["FI-48"], |name, bytes| {
        name.ends_with(".apr").then(|| changed(bytes, |bytes| bytes[40..44].fill(0)))
    }),
    fault(
        "file/column-major",
        "the file declares column-major weights",
        &["FI-25"],
        |name, bytes| {
            name.ends_with(".apr")
                .then(|| surgery::reseal(changed(bytes, |bytes| bytes[7] |= 0x08)))
        },
    ),
    fault("file/tensor-count", "the declared tensor count is 2^31", &["FI-48"], |name, bytes| {
        let place = match name.rsplit('.').next()? {
            "gguf" | "apr" => 8,
            _ => return None,
        };
        Some(surgery::reseal(changed(bytes, |bytes| {
            bytes[place..place + 4].copy_from_slice(&0x8000_0000_u32.to_le_bytes());
        })))
    }),
    fault(
        "file/type-ids-swapped",
        "the ids of Q4_K and Q6_K are exchanged",
        &["FI-32"],
        type_ids_swapped,
    ),
    fault(
        "file/dims-reversed",
        "the dimensions of the embedding are reversed",
        &["FI-27"],
        dims_reversed,
    ),
    fault("file/bias-renamed", "query biases carry a fused name", &["FI-04"], |name, bytes| {
        rename_either(name, bytes, ("q_proj.bias", "qkv_pr.bias"), ("attn_q.bias", "attnqk.bias"))
    }),
    fault(
        "file/norm-renamed",
        "the final norm carries an unknown name",
        &["FI-39"],
        |name, bytes| {
            rename_either(
                name,
                bytes,
                ("model.norm.weight", "model.nrom.weight"),
                ("output_norm", "output_nrom"),
            )
        },
    ),
    fault(
        "file/layer-missing",
        "one matrix of layer 1 is called by the name of another layer",
        &["FI-39"],
        |name, bytes| {
            rename_either(
                name,
                bytes,
                ("layers.1.mlp.up", "layers.9.mlp.up"),
                ("blk.1.ffn_up", "blk.9.ffn_up"),
            )
        },
    ),
    // Values.
    fault(
        "file/embedding-zeroed",
        "94.5 % of the embedding rows are zero",
        &["FI-40"],
        |name, bytes| {
            values(name, bytes, is_embedding, |found, values| {
                let zero =
                    (found.shape.rows() as f64 * 0.945) as usize * found.shape.cols() as usize;
                values[..zero].fill(0.0);
            })
        },
    ),
    fault("file/tensors-zeroed", "half of the matrices are zero", &["FI-41"], |name, bytes| {
        values(
            name,
            bytes,
            |found| is_matrix(found) && in_odd_layer(&found.name),
            |_, values| values.fill(0.0),
        )
    }),
    fault("file/nan-weight", "one weight is NaN", &["FI-49", "FI-33"], |name, bytes| {
        poison(name, bytes, f32::NAN)
    }),
    fault("file/inf-weight", "one weight is infinite", &["FI-49"], |name, bytes| {
        poison(name, bytes, f32::INFINITY)
    }),
    fault("file/tensor-constant", "one matrix holds a single value", &["FI-45"], |name, bytes| {
        values(name, bytes, |found| is_down(found, 0), |_, values| values.fill(0.01))
    }),
    fault(
        "file/scale-exploded",
        "one matrix is a million times too large",
        &["FI-37"],
        |name, bytes| {
            values(
                name,
                bytes,
                |found| is_down(found, 0),
                |_, values| {
                    for value in values {
                        *value *= 1e6;
                    }
                },
            )
        },
    ),
    fault(
        "file/values-vanished",
        "one matrix is too small for its block scales",
        &["FI-37"],
        |name, bytes| {
            values(
                name,
                bytes,
                |found| is_down(found, 0),
                |_, values| {
                    for value in values {
                        *value *= 1e-12;
                    }
                },
            )
        },
    ),
    fault(
        "file/rows-swapped",
        "rows of every output projection are interleaved",
        &["FI-28"],
        |name, bytes| {
            values(name, bytes, is_output, |found, values| {
                interleave_rows(values, found.shape.cols() as usize);
            })
        },
    ),
    fault(
        "file/transposed",
        "a square matrix is stored transposed",
        &["FI-24", "FI-26"],
        |name, bytes| {
            values(
                name,
                bytes,
                |found| is_output(found) && found.shape.rows() == found.shape.cols(),
                |found, values| {
                    transpose(values, found.shape.cols() as usize);
                },
            )
        },
    ),
    fault(
        "file/bias-zeroed",
        "query, key and value biases are zero",
        &["FI-03", "FI-05"],
        |name, bytes| {
            values(name, bytes, |found| found.name.ends_with(".bias"), |_, values| values.fill(0.0))
        },
    ),
    fault(
        "file/sign-flipped",
        "one gate matrix has the opposite sign",
        &["FI-108"],
        |name, bytes| {
            values(
                name,
                bytes,
                |found| has(found, &["layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"]),
                |_, values| {
                    for value in values {
                        *value = -*value;
                    }
                },
            )
        },
    ),
    // Metadata.
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
    fault(
        "file/dtype-integer",
        "one matrix is declared to hold integers",
        &["FI-38"],
        dtype_integer,
    ),
    fault("file/shifted", "tensor data begin one byte late", &["FI-64"], shifted),
    fault(
        "file/name-control",
        "a tensor name holds a control character",
        &["FI-39"],
        |name, bytes| {
            if name.ends_with(".safetensors") {
                return surgery::edit_safetensors_header(bytes, |map| {
                    if let Some(entry) = map.remove("model.norm.weight") {
                        map.insert("model.n\u{1}rm.weight".into(), entry);
                    }
                });
            }
            rename_either(
                name,
                bytes,
                ("model.norm.weight", "model.n\u{1}rm.weight"),
                ("output_norm", "output_n\u{1}rm"),
            )
        },
    ),
    // Text.
    fault(
        "file/byte-token-lost",
        "the token of one byte is called otherwise",
        &["FI-55"],
        byte_token_lost,
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

fn changed(bytes: &[u8], edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    edit(&mut copy);
    copy
}

/// Whether a file holds weights.
fn weights(name: &str) -> bool {
    [".gguf", ".safetensors", ".apr"].iter().any(|extension| name.ends_with(extension))
}

fn values(
    name: &str,
    bytes: &[u8],
    pick: impl Fn(&Found) -> bool,
    edit: impl FnMut(&Found, &mut [f32]),
) -> Option<Vec<u8>> {
    if weights(name) { surgery::edit_values(bytes, pick, edit) } else { None }
}

fn has(found: &Found, endings: &[&str]) -> bool {
    endings.iter().any(|ending| found.name.ends_with(ending))
}

fn is_embedding(found: &Found) -> bool {
    has(found, &["embed_tokens.weight", "token_embd.weight"])
}

fn is_matrix(found: &Found) -> bool {
    found.shape.rank() == 2 && !is_embedding(found)
}

fn is_output(found: &Found) -> bool {
    has(found, &["self_attn.o_proj.weight", "attn_output.weight"])
}

fn is_down(found: &Found, layer: usize) -> bool {
    let hugging_face = format!("layers.{layer}.mlp.down_proj.weight");
    let gguf = format!("blk.{layer}.ffn_down.weight");
    has(found, &[&hugging_face, &gguf])
}

fn in_odd_layer(name: &str) -> bool {
    name.split('.').filter_map(|part| part.parse::<usize>().ok()).any(|layer| layer % 2 == 1)
}

/// Puts `value` into one weight of one matrix; in block types into the scale of one block.
fn poison(name: &str, bytes: &[u8], value: f32) -> Option<Vec<u8>> {
    if !weights(name) {
        return None;
    }
    surgery::edit_tensors(
        bytes,
        |found| is_down(found, 1),
        |found, stored| {
            let half = half_bits(value);
            // Where the f16 scale of the first block lies.
            let scale = match found.dtype {
                Dtype::F32 => return stored[..4].copy_from_slice(&value.to_le_bytes()),
                Dtype::BF16 => return stored[..2].copy_from_slice(&value.to_le_bytes()[2..]),
                Dtype::Q6K => 208,
                Dtype::Q3K => 108,
                Dtype::Q2K => 80,
                _ => 0,
            };
            stored[scale..scale + 2].copy_from_slice(&half);
        },
    )
}

/// The f16 bits of NaN or infinity.
fn half_bits(value: f32) -> [u8; 2] {
    if value.is_nan() { 0x7E00u16.to_le_bytes() } else { 0x7C00u16.to_le_bytes() }
}

fn interleave_rows(values: &mut [f32], cols: usize) {
    let before = values.to_vec();
    let rows = before.len() / cols;
    let half = rows / 2;
    for row in 0..half * 2 {
        let from = if row % 2 == 0 { row / 2 } else { half + row / 2 };
        values[row * cols..(row + 1) * cols]
            .copy_from_slice(&before[from * cols..(from + 1) * cols]);
    }
}

fn transpose(values: &mut [f32], side: usize) {
    for row in 0..side {
        for col in 0..row {
            values.swap(row * side + col, col * side + row);
        }
    }
}

fn rename_either(
    name: &str,
    bytes: &[u8],
    hugging_face: (&str, &str),
    gguf: (&str, &str),
) -> Option<Vec<u8>> {
    if !weights(name) {
        return None;
    }
    surgery::rename(bytes, hugging_face.0, hugging_face.1)
        .or_else(|| surgery::rename(bytes, gguf.0, gguf.1))
}

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

/// Replaces the first occurrence of `from` by `to` of the same length.
fn replace_bytes(bytes: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    if from.len() != to.len() {
        return None;
    }
    let place = bytes.windows(from.len()).position(|window| window == from)?;
    Some(changed(bytes, |bytes| bytes[place..place + to.len()].copy_from_slice(to)))
}

fn apr_text(
    name: &str,
    bytes: &[u8],
    edit: impl FnOnce(&mut Map<String, Json>),
) -> Option<Vec<u8>> {
    if name.ends_with(".apr") { surgery::edit_apr_metadata(bytes, edit) } else { None }
}

fn wrong_role(map: &mut Map<String, Json>, key: &str) {
    if let Some(Json::String(template)) = map.get_mut(key) {
        *template = template.replace("<|im_start|>assistant", "<|im_start|>user");
    }
}

/// Exchanges the ids 12 and 14 in the tensor records of a GGUF file.
fn type_ids_swapped(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    if !name.ends_with(".gguf") {
        return None;
    }
    let mut changed = bytes.to_vec();
    let mut swapped = false;
    for found in surgery::tensors(bytes)? {
        let id: u32 = match found.dtype {
            Dtype::Q4K => 14,
            Dtype::Q6K => 12,
            _ => continue,
        };
        let record = record_of(bytes, &found)?;
        let place = record + 4 + 8 * found.shape.rank();
        changed[place..place + 4].copy_from_slice(&id.to_le_bytes());
        swapped = true;
    }
    swapped.then_some(changed)
}

/// Where the rank of a tensor stands in a GGUF tensor record: behind its name.
fn record_of(bytes: &[u8], found: &Found) -> Option<usize> {
    let mut pattern = (found.name.len() as u64).to_le_bytes().to_vec();
    pattern.extend_from_slice(found.name.as_bytes());
    Some(bytes.windows(pattern.len()).position(|window| window == pattern)? + pattern.len())
}

fn dims_reversed(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    if !weights(name) {
        return None;
    }
    let found = surgery::tensors(bytes)?.into_iter().find(is_embedding)?;
    if name.ends_with(".safetensors") {
        return surgery::edit_safetensors_header(bytes, |map| {
            if let Some(Json::Array(shape)) =
                map.get_mut(&found.name).and_then(|entry| entry.get_mut("shape"))
            {
                shape.reverse();
            }
        });
    }
    // GGUF: u64 name length, name, u32 rank, dims. APR: u16 name length, name, u8 dtype, u8 rank, dims.
    let dims = if name.ends_with(".gguf") {
        record_of(bytes, &found)? + 4
    } else {
        let mut pattern = (found.name.len() as u16).to_le_bytes().to_vec();
        pattern.extend_from_slice(found.name.as_bytes());
        bytes.windows(pattern.len()).position(|window| window == pattern)? + pattern.len() + 2
    };
    Some(surgery::reseal(changed(bytes, |bytes| {
        let (first, second) = bytes[dims..dims + 16].split_at_mut(8);
        first.swap_with_slice(second);
    })))
}

fn dtype_integer(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    if !weights(name) {
        return None;
    }
    let found = surgery::tensors(bytes)?
        .into_iter()
        .find(|found| is_down(found, 0) && matches!(found.dtype, Dtype::BF16 | Dtype::F16))?;
    if name.ends_with(".safetensors") {
        return surgery::edit_safetensors_header(bytes, |map| {
            if let Some(Json::Object(entry)) = map.get_mut(&found.name) {
                entry.insert("dtype".into(), json!("I16"));
            }
        });
    }
    if !name.ends_with(".gguf") {
        return None;
    }
    let place = record_of(bytes, &found)? + 4 + 8 * found.shape.rank();
    let id = Dtype::I16.gguf_id()?;
    Some(changed(bytes, |bytes| bytes[place..place + 4].copy_from_slice(&id.to_le_bytes())))
}

/// Moves the data by one byte: a blank in the SafeTensors header, an odd offset in GGUF.
fn shifted(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    if name.ends_with(".safetensors") {
        let len = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        let mut moved = (len + 1).to_le_bytes().to_vec();
        moved.extend_from_slice(bytes.get(8..8 + len as usize)?);
        moved.push(b' ');
        moved.extend_from_slice(bytes.get(8 + len as usize..)?);
        return Some(moved);
    }
    if !name.ends_with(".gguf") {
        return None;
    }
    let found = surgery::tensors(bytes)?.into_iter().find(is_embedding)?;
    let place = record_of(bytes, &found)? + 4 + 8 * found.shape.rank() + 4;
    Some(changed(bytes, |bytes| bytes[place] ^= 0x01))
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
