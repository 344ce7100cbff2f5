//! The root mean square of normalised rows, against the one that their inputs and epsilon give.

use apr_engine::model::{Role, Slot};
use apr_engine::probe::{Op, Site};

use super::super::context::{Look, refused};
use super::Pass;
use super::worst::Worst;
use crate::contract::tolerance::AtMost;
use crate::verdict::Verdict;

/// Gains below this magnitude give products that f32 holds as subnormal numbers or not at all.
const GAIN_MIN: f32 = 1e-30;

/// A norm of the forward pass.
struct Norm {
    site: Site,
    gain: Slot,
    /// The site whose rows it normalises.
    input: Site,
}

impl Pass<'_> {
    /// Each row of `norm / gain` has the mean square `ms / (ms + eps)` of its input, within the rounding of f32.
    ///
    /// The sum of `n` squares in f32, in any order, is within `n * 2^-24` of the exact one, relative to it, since no
    /// term is negative; the root halves that, and the product with the scale and the gain rounds a few times more. The
    /// measure is the error as a share of `(n / 2 + 8) * 2^-24`. Values whose gain is zero say nothing and are left out.
    pub(super) fn norm_rms(&self, bound: &AtMost) -> Look<Verdict> {
        let mut worst = Worst::largest();
        for norm in self.norms() {
            let Some(gain) = self.gain(norm.gain)? else { continue };
            let rows = self.rows(norm.site).iter().zip(self.rows(norm.input));
            for (position, (row, input)) in rows.enumerate() {
                // Heads are normalised one by one, with one gain for all.
                let parts = row.chunks_exact(gain.len()).zip(input.chunks_exact(gain.len()));
                for (part, input) in parts {
                    let Some(error) = rms_error(part, input, &gain, self.config.norm_eps) else {
                        continue;
                    };
                    worst.add(error, || format!("{} row {position}", norm.site));
                }
            }
        }
        Ok(worst.at_most("error of the RMS as a share of its rounding", bound))
    }

    fn norms(&self) -> Vec<Norm> {
        let mut norms = Vec::new();
        let mut stream = Site::model(Op::Embed);
        for layer in 0..self.config.layers {
            let at = |op| Site::layer(layer, op);
            for (op, role, input) in [
                (Op::AttnNorm, Role::AttnNorm, stream),
                (Op::QNorm, Role::QNorm, at(Op::Q)),
                (Op::KNorm, Role::KNorm, at(Op::K)),
                (Op::AttnPostNorm, Role::AttnPostNorm, at(Op::OProj)),
                (Op::FfnNorm, Role::FfnNorm, at(Op::AttnResidual)),
                (Op::FfnPostNorm, Role::FfnPostNorm, at(Op::Down)),
            ] {
                norms.push(Norm { site: at(op), gain: Slot::layer(layer, role), input });
            }
            stream = at(Op::FfnResidual);
        }
        let gain = Slot::model(Role::FinalNorm);
        norms.push(Norm { site: Site::model(Op::FinalNorm), gain, input: stream });
        norms
    }

    /// The gain in `slot`; `None` where the family has none.
    fn gain(&self, slot: Slot) -> Look<Option<Vec<f32>>> {
        let Some(entry) = self.model.weights().get(slot) else { return Ok(None) };
        let values = entry.tensor.view().and_then(|view| view.dequantize());
        values.map(Some).map_err(|error| refused("a gain cannot be read", &error))
    }
}

/// The relative error of the root mean square of `row / gain`, as a share of what f32 may round; `None` where every gain
/// is zero.
fn rms_error(row: &[f32], input: &[f32], gain: &[f32], eps: f32) -> Option<f64> {
    let square = |value: f64| value * value;
    let mean = input.iter().map(|x| square(f64::from(*x))).sum::<f64>() / input.len() as f64;
    let values = row.iter().zip(input).zip(gain).filter(|(_, gain)| gain.abs() > GAIN_MIN);
    let mut count = 0;
    let (mut found, mut expected) = (0.0, 0.0);
    for ((value, x), gain) in values {
        count += 1;
        found += square(f64::from(*value) / f64::from(*gain));
        expected += square(f64::from(*x)) / (mean + f64::from(eps));
    }
    if count == 0 {
        return None;
    }
    let rounding = (input.len() as f64 / 2.0 + 8.0) * f64::from(f32::EPSILON) / 2.0;
    let (found, expected) = (found.sqrt(), expected.sqrt());
    // A row of zeros has a norm of zeros.
    let error = if expected == 0.0 { found } else { (found / expected - 1.0).abs() };
    Some(error / rounding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normed(input: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
        let mean = input.iter().map(|x| x * x).sum::<f32>() / input.len() as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        input.iter().zip(gain).map(|(x, gain)| x * scale * gain).collect()
    }

    #[test]
    fn a_norm_keeps_its_rounding_whatever_its_inputs_and_gains() {
        let wave = |size: f32| (0..64).map(|at| size * (at as f32 * 0.7).sin()).collect::<Vec<_>>();
        let plain = vec![1.0; 64];
        let mixed: Vec<f32> = (0..64).map(|at| [-3.0, 0.0, 1e3, 1e-3][at % 4]).collect();
        let mut massive = wave(1.0);
        massive[5] = 1e4;
        // Far below epsilon, as layers of real models are; far above; with one massive value.
        for input in [wave(1e-5), wave(1.0), wave(1e6), massive, vec![0.0; 64]] {
            for gain in [&plain, &mixed] {
                let row = normed(&input, gain, 1e-6);
                let error = rms_error(&row, &input, gain, 1e-6).unwrap();
                assert!(error <= 1.0, "{error} of {:?}", &input[..3]);
                assert_eq!(rms_error(&row, &input, &[0.0; 64], 1e-6), None);
            }
        }
    }

    #[test]
    fn another_epsilon_another_scale_and_a_missing_norm_are_beyond_it() {
        let input: Vec<f32> = (0..64).map(|at| 0.01 * (at as f32 * 0.7).sin()).collect();
        let gain = vec![2.0; 64];
        let scaled: Vec<f32> = normed(&input, &gain, 1e-6).iter().map(|x| x * 1.001).collect();
        for wrong in [normed(&input, &gain, 1e-5), scaled, input.clone()] {
            assert!(rms_error(&wrong, &input, &gain, 1e-6).unwrap() > 1.0);
        }
        assert!(rms_error(&input, &vec![0.0; 64], &gain, 1e-6).unwrap() > 1.0);
    }
}
