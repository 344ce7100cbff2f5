//! What the rounding of weights and activations in blocks does to a product: some outputs, recomputed from the
//! dequantised weights and the unrounded inputs with f64 sums.

use std::collections::BTreeMap;

use apr_engine::model::{Model, Role, Slot};
use apr_engine::probe::{Op, Site};
use apr_engine::tensor::TensorView;

use super::payload::ProductError;

/// Outputs that are recomputed per product.
pub(super) const OUTPUTS: usize = 4;
/// Sums that a product is split into.
const LANES: usize = 8;

/// The weight, the bias and the site of the input of a product.
pub(super) fn operands(op: Op) -> Option<(Role, Option<Role>, Op)> {
    Some(match op {
        Op::Q => (Role::Q, Some(Role::QBias), Op::AttnNorm),
        Op::K => (Role::K, Some(Role::KBias), Op::AttnNorm),
        Op::V => (Role::V, Some(Role::VBias), Op::AttnNorm),
        Op::OProj => (Role::O, Some(Role::OBias), Op::AttnOut),
        Op::Gate => (Role::Gate, None, Op::FfnNorm),
        Op::Up => (Role::Up, None, Op::FfnNorm),
        Op::Down => (Role::Down, None, Op::Swiglu),
        Op::Logits => (Role::Head, None, Op::FinalNorm),
        _ => return None,
    })
}

/// The rows of one weight that are recomputed.
struct Rows {
    dtype: &'static str,
    /// Index, weights and bias of each.
    rows: Vec<(usize, Vec<f32>, f32)>,
}

/// Recomputes products; what it needs of a weight is dequantised once.
pub(super) struct Products<'m> {
    model: &'m Model,
    known: BTreeMap<Site, Option<Rows>>,
}

impl<'m> Products<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self { model, known: BTreeMap::new() }
    }

    /// The error of `output`, the last row at `site`, given `input`, the last row at its input. `None` where the site is
    /// no product, or where nothing was recomputed.
    pub(super) fn error(
        &mut self,
        site: Site,
        input: &[f32],
        output: &[f32],
    ) -> Option<ProductError> {
        let model = self.model;
        let rows = self.known.entry(site).or_insert_with(|| rows(model, site)).as_ref()?;
        let mut pairs = Vec::with_capacity(rows.rows.len());
        for (index, weights, bias) in &rows.rows {
            if weights.len() != input.len() {
                return None;
            }
            pairs.push((dot(weights, input) + f64::from(*bias), f64::from(*output.get(*index)?)));
        }
        judge(site, rows.dtype, &pairs)
    }
}

/// Product of two rows with f64 sums, side by side so that none has to wait for another.
pub(super) fn dot(weights: &[f32], input: &[f32]) -> f64 {
    let len = weights.len().min(input.len());
    let (weights, last_weights) = weights[..len].as_chunks::<LANES>();
    let (input, last_input) = input[..len].as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (weights, input) in weights.iter().zip(input) {
        for ((sum, w), x) in sums.iter_mut().zip(weights).zip(input) {
            *sum += f64::from(*w) * f64::from(*x);
        }
    }
    let last = last_weights.iter().zip(last_input);
    sums.iter().sum::<f64>() + last.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
}

/// The tensor of a slot of `model`; of a head that the model shares with its embedding, that.
pub(super) fn view(model: &Model, slot: Slot) -> Option<TensorView<'_>> {
    let weights = model.weights();
    let shared = slot == Slot::model(Role::Head) && weights.tied();
    let slot = if shared { Slot::model(Role::Embed) } else { slot };
    weights.get(slot)?.tensor.view().ok()
}

/// One row in f32.
pub(super) fn row(view: &TensorView<'_>, index: usize) -> Option<Vec<f32>> {
    let mut row = vec![0.0; view.cols()];
    view.dequantize_row(index, &mut row).ok()?;
    Some(row)
}

fn rows(model: &Model, site: Site) -> Option<Rows> {
    let (weight, bias, _) = operands(site.op)?;
    // Logits that were bent behind the product are no product.
    if site.op == Op::Logits && model.config().logit_cap.is_some() {
        return None;
    }
    let slot = |role| Slot { layer: site.layer, role };
    let weight = view(model, slot(weight))?;
    let bias = bias.and_then(|role| view(model, slot(role)));
    let bias = bias.and_then(|bias| bias.dequantize().ok());
    let count = OUTPUTS.min(weight.rows());
    let mut rows = Vec::with_capacity(count);
    for number in 0..count {
        // Evenly over the height, the last row included.
        let index = (number + 1) * weight.rows() / count - 1;
        let bias = bias.as_ref().and_then(|bias| bias.get(index)).copied().unwrap_or(0.0);
        rows.push((index, row(&weight, index)?, bias));
    }
    Some(Rows { dtype: weight.dtype().name(), rows })
}

fn judge(site: Site, dtype: &str, pairs: &[(f64, f64)]) -> Option<ProductError> {
    if pairs.is_empty() {
        return None;
    }
    let (mut noise, mut signal, mut other, mut both, mut most) = (0.0, 0.0, 0.0, 0.0, 0.0f64);
    for (reference, found) in pairs {
        let error = found - reference;
        // A NaN here would be lost in the maximum; the statistics of the site count it.
        if !error.is_finite() {
            return None;
        }
        noise += error * error;
        signal += reference * reference;
        other += found * found;
        both += reference * found;
        most = most.max(error.abs());
    }
    let length = (signal * other).sqrt();
    Some(ProductError {
        site: site.to_string(),
        dtype: dtype.to_owned(),
        outputs: pairs.len(),
        mse: noise / pairs.len() as f64,
        max_abs: most,
        cosine: (length > 0.0).then(|| (both / length).clamp(-1.0, 1.0)),
        snr_db: (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_any_length_is_the_sum_over_the_shorter_row() {
        for len in [0, 1, 7, 8, 9, 33] {
            let row: Vec<f32> = (0..len).map(|at| at as f32).collect();
            let squares: f64 = row.iter().map(|at| f64::from(at * at)).sum();
            let found = dot(&row, &[&row[..], &[5.0; 9]].concat());
            assert!((found - squares).abs() < f64::EPSILON, "{len}: {found}");
        }
    }

    #[test]
    fn an_error_of_a_tenth_is_twenty_decibel_below_its_signal() {
        let site = Site::layer(0, Op::Q);
        let found = judge(site, "q8_0", &[(1.0, 1.1), (1.0, 0.9)]).unwrap();
        assert!((found.snr_db.unwrap() - 20.0).abs() < 1e-9);
        assert!((found.max_abs - 0.1).abs() < 1e-12);
        assert!((found.mse - 0.01).abs() < 1e-12);
        let same = judge(site, "f32", &[(2.0, 2.0)]).unwrap();
        assert_eq!((same.mse, same.cosine, same.snr_db), (0.0, Some(1.0), None));
        assert_eq!(judge(site, "f32", &[]), None);
        assert_eq!(judge(site, "f32", &[(1.0, f64::NAN)]), None);
    }
}
