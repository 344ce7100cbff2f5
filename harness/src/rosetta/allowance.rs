//! How far two honest computations of one operation may lie apart.
//!
//! The bounds are normalised mean squared errors of a row. They say what rounding does, so that what is beyond them is no
//! rounding: the arithmetic of a backend, the rounding of activations in front of quantised blocks, and the storage of the
//! weights, or of keys and values, where the two sides store them differently.

use apr_engine::Dtype;
use apr_engine::backend::CacheType;
use apr_engine::model::{Model, NamedTensor, Role, Slot};
use apr_engine::probe::{Op, Site};

/// Single against double precision on the same inputs: measured up to 3e-13 on sums of a thousand terms; the square of the
/// rounding grows with their number.
const ARITHMETIC: f64 = 1e-10;
/// Activations rounded to 8 bits in front of quantised blocks: measured up to 8e-4.
const ACTIVATIONS: f64 = 5e-3;
/// Recorded values are rounded themselves, and their sums run in another order.
const RECORDED: f64 = 1e-8;
/// Keys and values cached in f16 on one side and in f32 on the other: measured up to 1e-6 at a row of scores.
const CACHE: f64 = 1e-5;

/// What a side adds to the allowance of a site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding<'a> {
    /// The model, when its weights are known.
    pub(super) model: Option<&'a Model>,
    /// Whether the backend computes in double precision and rounds no activation.
    pub(super) exact: bool,
    /// What keys and values are cached as.
    pub(super) cache_type: CacheType,
}

/// The largest error of a row at `site` that rounding explains.
pub(super) fn allowance(site: Site, source: Rounding<'_>, target: Rounding<'_>) -> f64 {
    let mut allowed = ARITHMETIC;
    if source.model.is_none() || target.model.is_none() {
        allowed += RECORDED;
    }
    let dtypes = |side: Rounding<'_>| -> Vec<Dtype> {
        let tensors = side.model.into_iter().flat_map(|model| weights(model, site));
        tensors.map(|(_, entry)| entry.tensor.dtype()).collect()
    };
    let (ours, theirs) = (dtypes(source), dtypes(target));
    let is_product = product(site.op).is_some();
    for (side, dtypes) in [(source, &ours), (target, &theirs)] {
        if is_product && !side.exact && dtypes.iter().any(|dtype| dtype.is_quantized()) {
            allowed += ACTIVATIONS;
        }
    }
    if source.cache_type != target.cache_type && matches!(site.op, Op::AttnScores | Op::AttnOut) {
        allowed += CACHE;
    }
    if ours != theirs {
        allowed += ours.iter().chain(&theirs).copied().map(storage).sum::<f64>();
    }
    allowed
}

/// What storing normally distributed weights in `dtype` does to a product with them, with room for the worst row: about
/// three quarters of a step squared, a step being the range of a block over the levels of the dtype.
fn storage(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => 1e-7,
        Dtype::BF16 => 1e-5,
        Dtype::Q8_0 | Dtype::Q8K => 5e-4,
        Dtype::Q6K => 5e-3,
        Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q5K | Dtype::AprQ8 => 2e-2,
        Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q4K | Dtype::AprQ4 => 8e-2,
        Dtype::Q3K => 0.25,
        Dtype::Q2K => 0.8,
        // Nothing is computed with integers.
        Dtype::F32 | Dtype::F64 | Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8 => {
            0.0
        }
    }
}

/// The role of the matrix that a site is a product with.
pub(crate) const fn product(op: Op) -> Option<Role> {
    match op {
        Op::Q => Some(Role::Q),
        Op::K => Some(Role::K),
        Op::V => Some(Role::V),
        Op::OProj => Some(Role::O),
        Op::Gate => Some(Role::Gate),
        Op::Up => Some(Role::Up),
        Op::Down => Some(Role::Down),
        Op::Logits => Some(Role::Head),
        _ => None,
    }
}

/// The weights that the operation of a site reads.
pub(super) fn weights(model: &Model, site: Site) -> Vec<(Slot, &NamedTensor)> {
    let roles: &[Role] = match site.op {
        Op::Embed => &[Role::Embed],
        Op::AttnNorm => &[Role::AttnNorm],
        Op::Q => &[Role::Q, Role::QBias],
        Op::K => &[Role::K, Role::KBias],
        Op::V => &[Role::V, Role::VBias],
        Op::QNorm => &[Role::QNorm],
        Op::KNorm => &[Role::KNorm],
        Op::OProj => &[Role::O, Role::OBias],
        Op::AttnPostNorm => &[Role::AttnPostNorm],
        Op::FfnPostNorm => &[Role::FfnPostNorm],
        Op::FfnNorm => &[Role::FfnNorm],
        Op::Gate => &[Role::Gate],
        Op::Up => &[Role::Up],
        Op::Down => &[Role::Down],
        Op::FinalNorm => &[Role::FinalNorm],
        Op::Logits if model.weights().tied() => &[Role::Embed],
        Op::Logits => &[Role::Head],
        Op::RopeQ | Op::RopeK => {
            &[Role::RopeFactors, Role::RopeFactorsShort, Role::RopeFactorsLong]
        }
        Op::AttnScores | Op::AttnOut | Op::AttnResidual | Op::Swiglu | Op::FfnResidual => &[],
    };
    let slot = |role: &Role| Slot { layer: site.layer.filter(|_| role.in_layer()), role: *role };
    roles.iter().map(slot).filter_map(|slot| Some((slot, model.weights().get(slot)?))).collect()
}
