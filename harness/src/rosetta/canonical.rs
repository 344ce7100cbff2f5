//! The weights of a model in one order for every container: by slot, rows of queries and keys as halves.

use std::borrow::Cow;
use std::fmt::Write as _;

use apr_engine::model::{Config, Model, NamedTensor, Role, RopeStyle, Slot};
use apr_engine::tensor::{Shape, TensorView};
use apr_engine::{Dtype, Result};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A weight as every container of the model would hold it.
#[derive(Debug)]
pub(super) struct Canonical<'a> {
    pub(super) slot: Slot,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    pub(super) bytes: Cow<'a, [u8]>,
}

impl<'a> Canonical<'a> {
    fn of(slot: Slot, entry: &'a NamedTensor, config: &Config) -> Self {
        let (dtype, shape) = (entry.tensor.dtype(), entry.tensor.shape());
        let stored: &[u8] = entry.tensor.bytes();
        let heads = match slot.role {
            Role::Q | Role::QBias => config.heads,
            Role::K | Role::KBias => config.kv_heads,
            _ => 0,
        };
        let paired = config.rope.style == RopeStyle::Adjacent && heads > 0;
        let bytes = match paired.then(|| halves(stored, shape, heads)).flatten() {
            Some(ordered) => Cow::Owned(ordered),
            None => Cow::Borrowed(stored),
        };
        Self { slot, dtype, shape, bytes }
    }

    pub(super) fn view(&self) -> Result<TensorView<'_>> {
        TensorView::new(self.dtype, self.shape, &self.bytes)
    }
}

/// Reorders the rows of each head from `[x0 y0 x1 y1 …]`, as rotation in adjacent pairs wants them, to `[x0 … xn y0 … yn]`.
/// Nothing when the rows are not whole heads of even size.
fn halves(bytes: &[u8], shape: Shape, heads: usize) -> Option<Vec<u8>> {
    let rows = shape.dims().first().copied().unwrap_or(0) as usize;
    if rows == 0 || !rows.is_multiple_of(heads * 2) || !bytes.len().is_multiple_of(rows) {
        return None;
    }
    let (row, size) = (bytes.len() / rows, rows / heads);
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(row * size) {
        for first in [0, 1] {
            head.chunks_exact(row)
                .skip(first)
                .step_by(2)
                .for_each(|row| out.extend_from_slice(row));
        }
    }
    Some(out)
}

/// The weights of `model` by slot. Factors of the rotation are hyper-parameters, wherever they are stored, and an output head that
/// repeats the embedding is none.
pub(super) fn weights(model: &Model) -> impl Iterator<Item = Canonical<'_>> {
    let (config, weights) = (model.config(), model.weights());
    let embed = weights.get(Slot::model(Role::Embed)).map(|entry| &entry.tensor);
    let repeats = move |slot: Slot, entry: &NamedTensor| {
        let same = |embed: &apr_engine::Tensor| {
            embed.dtype() == entry.tensor.dtype() && **embed.bytes() == **entry.tensor.bytes()
        };
        slot.role == Role::Head && embed.is_some_and(same)
    };
    let turns = |role: Role| {
        matches!(role, Role::RopeFactors | Role::RopeFactorsShort | Role::RopeFactorsLong)
    };
    weights
        .iter()
        .filter(move |(slot, entry)| !turns(slot.role) && !repeats(*slot, entry))
        .map(|(slot, entry)| Canonical::of(slot, entry, config))
}

/// What a model's weights are, whatever file they lie in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Fingerprint {
    /// SHA-256 of slots, shapes and values in single precision: equal for equal weights in any container and in any dtype that
    /// holds them exactly.
    pub values: String,
    /// SHA-256 of slots, shapes, dtypes and stored bytes: equal for weights that are stored alike in any container.
    pub stored: String,
    /// Each weight.
    pub tensors: Vec<TensorFingerprint>,
}

/// What one weight is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TensorFingerprint {
    /// Slot.
    pub slot: String,
    /// Dtype.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// SHA-256 of its values in single precision, little-endian.
    pub values: String,
    /// SHA-256 of its stored bytes.
    pub stored: String,
}

impl Fingerprint {
    /// Reads every weight of `model` once.
    ///
    /// # Errors
    /// Those of dequantisation.
    pub fn of(model: &Model) -> Result<Self> {
        let tensors: Vec<TensorFingerprint> =
            weights(model).map(|weight| TensorFingerprint::of(&weight)).collect::<Result<_>>()?;
        let (mut values, mut stored) = (Sha256::new(), Sha256::new());
        for tensor in &tensors {
            let TensorFingerprint { slot, dtype, shape, .. } = tensor;
            values.update(format!("{slot} {shape:?} {}\n", tensor.values));
            stored.update(format!("{slot} {shape:?} {dtype} {}\n", tensor.stored));
        }
        Ok(Self { values: hex(values), stored: hex(stored), tensors })
    }
}

impl TensorFingerprint {
    fn of(weight: &Canonical<'_>) -> Result<Self> {
        let view = weight.view()?;
        let mut values = Sha256::new();
        let mut row = vec![0.0f32; view.cols()];
        for index in 0..view.rows() {
            view.dequantize_row(index, &mut row)?;
            let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            values.update(bytes);
        }
        let mut stored = Sha256::new();
        stored.update(&weight.bytes);
        Ok(Self {
            slot: weight.slot.to_string(),
            dtype: weight.dtype.name().to_owned(),
            shape: weight.shape.dims().to_vec(),
            values: hex(values),
            stored: hex(stored),
        })
    }
}

fn hex(hash: Sha256) -> String {
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_pairs_become_halves_head_by_head() {
        let shape = Shape::new(&[8, 1]).expect("a shape");
        let pairs = [0, 2, 1, 3, 4, 6, 5, 7];
        assert_eq!(halves(&pairs, shape, 2), Some((0..8).collect()));
        assert_eq!(halves(&pairs, shape, 3), None);
    }
}
