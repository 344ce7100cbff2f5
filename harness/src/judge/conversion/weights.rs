//! Weights of a converted model against those of its source.
//!
//! They are compared by slot in the row order of Hugging Face, which this judge restores on its own: an order that the
//! converter got wrong in both directions would not show in a round trip.

use apr_engine::model::{Config, Model, Role, RopeStyle, Slot};

use super::{Compared, converted};
use crate::case::ModelRef;
use crate::contract::check::Conversion;
use crate::contract::tolerance::AtMost;
use crate::judge::context::{JudgeContext, Look, refused};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// The smallest normal number in half precision, 2^-14: smaller steps are all stored with the same rounding.
const SMALLEST_STEP: f64 = 1.0 / 16_384.0;

/// A weight on both sides; `None` where it is missing.
struct Pair {
    slot: Slot,
    expected: Option<Vec<f32>>,
    found: Option<Vec<f32>>,
}

/// Hands every weight of both models to `look`, one at a time.
fn pairs(source: &Model, written: &Model, mut look: impl FnMut(&Pair)) -> apr_engine::Result<()> {
    // Written from the hyper-parameters where a format wants them.
    let computed = [Role::RopeFactors, Role::RopeFactorsShort, Role::RopeFactorsLong];
    let is_computed = |slot: &Slot| computed.contains(&slot.role);
    let slots = source.weights().iter().map(|(slot, _)| slot);
    let extra = written.weights().iter().map(|(slot, _)| slot);
    let extra = extra.filter(|slot| source.weights().get(*slot).is_none());
    for slot in slots.chain(extra).filter(|slot| !is_computed(slot)) {
        look(&Pair { slot, expected: values(source, slot)?, found: values(written, slot)? });
    }
    Ok(())
}

/// Every weight has the same values, bit for bit.
pub(super) fn equal(source: &Model, written: &Model) -> apr_engine::Result<Compared> {
    let mut compared = Compared::default();
    pairs(source, written, |pair| {
        let equal = match (&pair.expected, &pair.found) {
            (Some(expected), Some(found)) => {
                expected.len() == found.len()
                    && expected.iter().zip(found).all(|(a, b)| a.to_bits() == b.to_bits())
            }
            _ => false,
        };
        compared.demand(equal, || format!("{} has other values", pair.slot));
    })?;
    Ok(compared)
}

/// Every weight is within `limit` of its source, by the measure `distance` of what is expected and what is found.
pub(super) fn rounding(
    check: &Conversion,
    limit: &AtMost,
    form: &ModelRef,
    ctx: &JudgeContext,
    distance: impl Fn(&[f32], &[f32]) -> f64,
) -> Look<Verdict> {
    let source = ctx.reference_model(form)?;
    let most = limit.at_most.get();
    let (mut count, mut worst, mut wrong) = (0, 0.0_f64, Vec::new());
    for target in &check.to {
        let written = ctx.model(&converted(form, *target, check.dtype.as_deref(), ctx)?)?;
        let look = |pair: &Pair| {
            let error = match (&pair.expected, &pair.found) {
                (Some(expected), Some(found)) if expected.len() == found.len() => {
                    distance(expected, found)
                }
                _ => f64::INFINITY,
            };
            count += 1;
            // Also when it is no number.
            let holds = error <= most;
            if !holds {
                wrong.push(format!("{} is off by {error:.2e}", pair.slot));
            }
            worst = worst_of([worst, error].into_iter());
        };
        pairs(&source, &written, look)
            .map_err(|error| refused("the conversion cannot be judged", &error))?;
    }
    let summary = format!("worst error {worst:.3e} of {most:.3e} over {count} weights");
    let measure = Measure::judged("worst error", worst, Limit::AtMost(most));
    let mut evidence = Evidence::new(count, summary).measure(measure);
    evidence.details = wrong;
    Ok(evidence.verdict())
}

/// Root mean square of the difference over that of what is expected.
pub(super) fn relative_error(expected: &[f32], found: &[f32]) -> f64 {
    let square = |value: f64| value * value;
    let differences = expected.iter().zip(found).map(|(a, b)| f64::from(*a) - f64::from(*b));
    let error: f64 = differences.map(square).sum();
    let total: f64 = expected.iter().map(|value| square(f64::from(*value))).sum();
    if error == 0.0 { 0.0 } else { (error / total).sqrt() }
}

/// The largest difference in steps of its block of `block` values: the largest magnitude there is `steps` of them.
pub(super) fn worst_step(expected: &[f32], found: &[f32], block: usize, steps: f64) -> f64 {
    let block_worst = |(expected, found): (&[f32], &[f32])| {
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let step = (f64::from(largest) / steps).max(SMALLEST_STEP);
        let errors = expected.iter().zip(found).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        worst_of(errors) / step
    };
    worst_of(expected.chunks(block.max(1)).zip(found.chunks(block.max(1))).map(block_worst))
}

/// The largest number, or the one that is none.
fn worst_of(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers
        .fold(0.0, |worst, number| if number > worst || number.is_nan() { number } else { worst })
}

/// Values of a weight in the row order of Hugging Face.
fn values(model: &Model, slot: Slot) -> apr_engine::Result<Option<Vec<f32>>> {
    // A tied head may be stored or not.
    let stands_for = |slot: Slot| match slot.role {
        Role::Head if model.weights().tied() => Slot::model(Role::Embed),
        _ => slot,
    };
    let Some(entry) = model.weights().get(stands_for(slot)) else { return Ok(None) };
    let values = entry.tensor.view()?.dequantize()?;
    let config = model.config();
    Ok(Some(match heads(slot, config) {
        Some(heads) if config.rope.style == RopeStyle::Adjacent => {
            halves(&values, heads, config.head_dim)
        }
        _ => values,
    }))
}

/// The heads of a weight whose rows are rotated in pairs.
fn heads(slot: Slot, config: &Config) -> Option<usize> {
    match slot.role {
        Role::Q | Role::QBias => Some(config.heads),
        Role::K | Role::KBias => Some(config.kv_heads),
        _ => None,
    }
}

/// Rows of each head from adjacent pairs to halves.
fn halves(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let cols = values.len() / (heads * head_dim).max(1);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for part in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = head * head_dim + 2 * pair + part;
                out.extend_from_slice(&values[row * cols..(row + 1) * cols]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_head_are_put_apart_again() {
        // Two heads of four rows, two columns: rows 0 2 | 1 3 of each head.
        let values: Vec<f32> = (0..16).map(|value| value as f32).collect();
        let rows = [0, 2, 1, 3, 4, 6, 5, 7].map(|row| [2.0 * row as f32, 2.0 * row as f32 + 1.0]);
        assert_eq!(halves(&values, 2, 4), rows.concat());
    }

    #[test]
    fn an_error_is_relative_to_what_is_expected_and_never_small_by_accident() {
        assert!((relative_error(&[3.0, 4.0], &[3.0, 4.5]) - 0.1).abs() < 1e-12);
        assert!(relative_error(&[0.0], &[0.0]) < f64::MIN_POSITIVE);
        assert!(relative_error(&[0.0], &[1.0]).is_infinite());
        assert!(relative_error(&[1.0], &[f32::NAN]).is_nan());
    }

    #[test]
    fn an_error_in_steps_is_that_of_the_worst_block() {
        let expected = [127.0, 1.0, 1270.0, 1.0];
        assert!((worst_step(&expected, &[127.0, 1.5, 1270.0, 3.0], 2, 127.0) - 0.5).abs() < 1e-12);
        assert!((worst_step(&expected, &[127.0, 1.5, 1270.0, -8.0], 2, 127.0) - 0.9).abs() < 1e-12);
        assert!(worst_step(&expected, &[127.0, f32::NAN, 1270.0, 3.0], 2, 127.0).is_nan());
        assert!(worst_step(&[0.0; 4], &[0.0; 4], 2, 127.0) == 0.0);
        assert!(worst_step(&[0.0; 4], &[0.0, 0.0, 0.0, 1e-3], 2, 127.0) > 1.0);
    }
}
