//! What the rounding of scores may do to attention.
//!
//! A score is a dot product of `n` terms. Summed in f32 in any order it errs by at most
//! `(n + 2) * 2^-24 * scale * sum |q k|`, and softmax turns an absolute error of a score into a relative one of its
//! probability. Where queries and keys are massive that is far more than f32 rounds a result, so the bound follows from
//! the values at hand.

use apr_engine::probe::{Op, Site};

use super::Pass;
use crate::recording::Recording;

/// The normalised mean squared error that rounded scores may cause in the row at `position` of `site`: zero at sites other
/// than the probabilities and the mixed values.
pub(super) fn of_scores(pass: &Pass<'_>, oracle: &Recording, site: Site, position: usize) -> f64 {
    let Some(layer) = site.layer else { return 0.0 };
    let Some(row) = oracle.rows(site).get(position) else { return 0.0 };
    let at = |op| pass.rows(Site::layer(layer, op));
    let size: f64 = row.iter().map(|value| f64::from(*value).powi(2)).sum();
    let heads = 0..pass.config.heads;
    let allowed: f64 = match site.op {
        Op::AttnScores => heads
            .map(|head| {
                let errors = Errors::of(pass, layer, head, position);
                errors.iter().map(|(_, of_probability)| of_probability.powi(2)).sum::<f64>()
            })
            .sum(),
        Op::AttnOut => {
            heads.map(|head| Errors::of(pass, layer, head, position).mixed(at(Op::V))).sum()
        }
        _ => return 0.0,
    };
    if size > 0.0 { allowed / size } else { 0.0 }
}

/// The largest errors of the probabilities of one query.
struct Errors {
    /// First column of the key and value head.
    column: usize,
    head_dim: usize,
    /// By position.
    of_probability: Vec<f64>,
}

impl Errors {
    fn of(pass: &Pass<'_>, layer: usize, head: usize, position: usize) -> Self {
        let config = pass.config;
        let at = |op| pass.rows(Site::layer(layer, op));
        let head_dim = config.head_dim;
        let column = head / (config.heads / config.kv_heads.max(1)).max(1) * head_dim;
        let part = |row: Option<&Vec<f32>>, first: usize| -> Vec<f32> {
            let part = row.and_then(|row| row.get(first..first + head_dim));
            part.map(<[f32]>::to_vec).unwrap_or_default()
        };
        let query = part(at(Op::RopeQ).get(position), head * head_dim);
        let rounding = (head_dim + 2) as f64 * f64::from(f32::EPSILON) / 2.0;
        let unit = rounding * f64::from(config.score_scale);
        let probabilities = at(Op::AttnScores).get(position).map(Vec::as_slice).unwrap_or_default();
        let width = (probabilities.len() / config.heads.max(1)).max(1);
        let probabilities = probabilities.chunks_exact(width).nth(head).unwrap_or_default();
        let of_score: Vec<f64> = (0..probabilities.len())
            .map(|other| {
                let key = part(at(Op::RopeK).get(other), column);
                let terms = query.iter().zip(&key);
                unit * terms.map(|(q, k)| f64::from((q * k).abs())).sum::<f64>()
            })
            .collect();
        let weighted = probabilities.iter().zip(&of_score);
        let mean: f64 = weighted.clone().map(|(p, error)| f64::from(*p) * error).sum();
        let of_probability = weighted.map(|(p, error)| f64::from(*p) * (error + mean)).collect();
        Self { column, head_dim, of_probability }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, f64)> {
        self.of_probability.iter().copied().enumerate()
    }

    /// The sum of squared errors of the values mixed by these probabilities.
    fn mixed(&self, values: &[Vec<f32>]) -> f64 {
        let mut errors = vec![0.0; self.head_dim];
        for (position, of_probability) in self.iter() {
            let value = values.get(position).and_then(|row| row.get(self.column..));
            for (error, value) in errors.iter_mut().zip(value.unwrap_or_default()) {
                *error += of_probability * f64::from(value.abs());
            }
        }
        errors.iter().map(|error| error * error).sum()
    }
}
