//! Damage to the values of the weights: zeros, poison, scales, order.

use apr_engine::Dtype;

use super::super::surgery::{self, Found};
use super::{FileFault, changed, fault, has, is_down, is_embedding, weights};

/// Every fault of the values.
pub(super) const ALL: &[FileFault] = &[
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
    fault(
        "file/spot-zeroed",
        "the middle tenth of the embedding is zero",
        &["FI-40"],
        |name, bytes| {
            values(name, bytes, is_embedding, |found, values| {
                let tenth = found.shape.rows() as usize / 20 * found.shape.cols() as usize;
                let middle = values.len() / 2;
                values[middle - tenth..middle + tenth].fill(0.0);
            })
        },
    ),
    fault(
        "file/tail-zeroed",
        "the last third of the file was never written",
        &["FI-41"],
        |name, bytes| {
            weights(name).then(|| {
                surgery::reseal(changed(bytes, |bytes| {
                    let end = bytes.len();
                    bytes[end / 3 * 2..].fill(0);
                }))
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
    fault(
        "file/projection-zeroed",
        "one value projection is zero, its bias too",
        &["FI-41"],
        |name, bytes| {
            let of_layer = ["layers.0.self_attn.v_proj.", "blk.0.attn_v."];
            let pick = |found: &Found| of_layer.iter().any(|part| found.name.contains(part));
            values(name, bytes, pick, |_, values| values.fill(0.0))
        },
    ),
    fault("file/nan-weight", "one weight is NaN", &["FI-49", "FI-33"], |name, bytes| {
        poison(name, bytes, f32::NAN)
    }),
    fault("file/inf-weight", "one weight is infinite", &["FI-49"], |name, bytes| {
        poison(name, bytes, f32::INFINITY)
    }),
    fault(
        "file/bytes-swapped",
        "the bytes of one matrix stand in the other order",
        &["FI-31"],
        |name, bytes| {
            if !weights(name) {
                return None;
            }
            surgery::edit_tensors(
                bytes,
                |found| is_down(found, 0),
                |_, stored| stored.as_chunks_mut::<2>().0.iter_mut().for_each(|two| two.reverse()),
            )
        },
    ),
    fault("file/scale-off", "one matrix is a fifth too large", &["FI-37"], |name, bytes| {
        let larger = |_: &Found, values: &mut [f32]| {
            for value in values {
                *value *= 1.2;
            }
        };
        values(name, bytes, |found| is_down(found, 0), larger)
    }),
    fault(
        "file/nan-minimum",
        "the step of the minimums of one block is NaN",
        &["FI-49"],
        |name, bytes| {
            surgery::edit_tensors(
                bytes,
                |found| weights(name) && found.dtype == Dtype::Q4K && in_odd_layer(&found.name),
                |_, stored| stored[2..4].copy_from_slice(&half_bits(f32::NAN)),
            )
        },
    ),
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
        "file/gains-less-one",
        "gains of norms are stored less one",
        &["FI-01"],
        |name, bytes| {
            values(
                name,
                bytes,
                |found| found.name.ends_with("norm.weight"),
                |_, values| values.iter_mut().for_each(|value| *value -= 1.0),
            )
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
];

fn values(
    name: &str,
    bytes: &[u8],
    pick: impl Fn(&Found) -> bool,
    edit: impl FnMut(&Found, &mut [f32]),
) -> Option<Vec<u8>> {
    if weights(name) { surgery::edit_values(bytes, pick, edit) } else { None }
}

fn is_matrix(found: &Found) -> bool {
    found.shape.rank() == 2 && !is_embedding(found)
}

fn is_output(found: &Found) -> bool {
    has(found, &["self_attn.o_proj.weight", "attn_output.weight"])
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
