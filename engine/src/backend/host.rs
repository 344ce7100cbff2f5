//! Host memory as the CPU backends see it: checked operand lengths, weights as vectors.
//!
//! Everything here is shared by the oracle and the fast backend, so it decides nothing about speed.

use super::too_short;
use crate::error::{Code, Error, Result};
use crate::model::config::Activation;
use crate::model::slots::Slot;
use crate::probe::Site;
use crate::tensor::Tensor;

/// The first `len` values of an operand.
pub(crate) fn front<T>(values: &[T], len: usize, site: Option<Site>) -> Result<&[T]> {
    values.get(..len).ok_or_else(|| too_short(site, len, values.len()))
}

/// The first `len` values of a destination.
pub(crate) fn front_mut(values: &mut [f32], len: usize, site: Option<Site>) -> Result<&mut [f32]> {
    let found = values.len();
    values.get_mut(..len).ok_or_else(|| too_short(site, len, found))
}

/// The values of a vector weight, which must number `len`.
pub(crate) fn vector(weight: &Tensor, len: usize, site: Site) -> Result<Vec<f32>> {
    let values = weight.view()?.dequantize()?;
    if values.len() == len { Ok(values) } else { Err(too_short(Some(site), len, values.len())) }
}

/// Whether `dtype` can be computed with: one row is dequantised as a trial.
///
/// # Errors
/// [`Code::WeightDtype`] when it cannot.
pub(crate) fn check_dtype(slot: Slot, tensor: &Tensor) -> Result<()> {
    let view = tensor.view()?;
    let mut row = vec![0.0; view.cols()];
    if view.rows() == 0 {
        return Ok(());
    }
    view.dequantize_row(0, &mut row).map_err(|error| {
        Error::new(Code::WeightDtype)
            .tensor(slot.to_string())
            .expected("a floating-point or block dtype")
            .found(format_args!("{} ({})", tensor.dtype(), error.code().meaning()))
    })
}

/// `activation(x)` in f64.
pub(crate) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}
