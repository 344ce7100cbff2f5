//! Damage to the structure of a file: magic, counts, records, names, offsets.

#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "names of carried fixtures and of tensors, spelled in one way only"
)]

use apr_engine::Dtype;
use serde_json::{Value as Json, json};

use super::super::surgery::{self, Found};
use super::{FileFault, changed, fault, is_down, is_embedding, rename_either, weights};

/// Every fault of the structure.
pub(super) const ALL: &[FileFault] = &[
    // A SafeTensors file begins with a length: no bytes at its front say what it is.
    fault("file/magic", "the first byte of the magic is flipped", &["FI-48"], |name, bytes| {
        (name.ends_with(".gguf") || name.ends_with(".apr"))
            .then(|| changed(bytes, |bytes| bytes[0] ^= 0x01))
    }),
    fault(
        "file/historic-magic",
        "the file was written before the format was settled",
        &["FI-43"],
        |name, bytes| {
            name.ends_with(".apr")
                .then(|| changed(bytes, |bytes| bytes[..4].copy_from_slice(b"APR1")))
        },
    ),
    fault("file/index-zeroed", "the index of tensors is zeros", &["FI-45"], index_zeroed),
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
    fault(
        "file/dtype-integer",
        "one matrix is declared to hold integers",
        &["FI-38"],
        dtype_integer,
    ),
    fault(
        "file/half-kind",
        "one matrix of F16 is declared to hold BF16",
        &["FI-33", "FI-35"],
        |name, bytes| {
            if !name.ends_with(".gguf") {
                return None;
            }
            let tensors = surgery::tensors(bytes)?;
            let found =
                tensors.iter().find(|found| is_down(found, 0) && found.dtype == Dtype::F16)?;
            redeclared(bytes, found, Dtype::BF16)
        },
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
];

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
    redeclared(bytes, &found, Dtype::I16)
}

/// Declares a tensor of a GGUF file to be of another dtype.
fn redeclared(bytes: &[u8], found: &Found, dtype: Dtype) -> Option<Vec<u8>> {
    let place = record_of(bytes, found)? + 4 + 8 * found.shape.rank();
    let id = dtype.gguf_id()?;
    Some(changed(bytes, |bytes| bytes[place..place + 4].copy_from_slice(&id.to_le_bytes())))
}

/// Overwrites all that says where tensors are, and of what kind.
fn index_zeroed(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    if !weights(name) {
        return None;
    }
    let tensors = surgery::tensors(bytes)?;
    let data = tensors.iter().map(|found| found.start).min()?;
    let start = if name.ends_with(".gguf") {
        let first = tensors.first()?;
        // Its name, and the length of the name.
        record_of(bytes, first)? - first.name.len() - 8
    } else if name.ends_with(".apr") {
        u64::from_le_bytes(bytes.get(24..32)?.try_into().ok()?) as usize
    } else {
        8
    };
    Some(surgery::reseal(changed(bytes, |bytes| bytes[start..data].fill(0))))
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
