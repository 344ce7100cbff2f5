//! The logit lens: the residual stream behind each layer, sent through final norm and head, tells when the answer
//! was decided. Only the tokens that lead in the end are followed, so that a layer costs a few rows of the head.

use std::cmp::Ordering;

use apr_engine::model::{Model, Role, Slot};

use super::payload::{Anomaly, Evolution, LensLayer, Oddity};
use super::product::{dot, row, view};

/// Tokens that are followed.
const FOLLOWED: usize = 8;
/// Places that a token moves between two layers, of [`FOLLOWED`], to be called a jump.
const JUMP: usize = 5;
/// Largest share of the logits' deviation by which the lens may miss them: rounded activations of one product.
const MISMATCH: f64 = 0.25;

/// The residual stream of the last row, layer by layer.
pub(super) struct Lens<'m> {
    model: &'m Model,
    gain: Option<Vec<f32>>,
    /// Layers and streams; those from `taken` on are room of earlier steps.
    streams: Vec<(usize, Vec<f32>)>,
    taken: usize,
}

impl<'m> Lens<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        let gain =
            view(model, Slot::model(Role::FinalNorm)).and_then(|gain| gain.dequantize().ok());
        Self { model, gain, streams: Vec::new(), taken: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.taken = 0;
    }

    /// Takes the stream behind `layer`.
    pub(super) fn take(&mut self, layer: usize, stream: &[f32]) {
        match self.streams.get_mut(self.taken) {
            Some(room) => {
                room.0 = layer;
                room.1.clear();
                room.1.extend_from_slice(stream);
            }
            None => self.streams.push((layer, stream.to_vec())),
        }
        self.taken += 1;
    }

    /// How `logits`, whose log-probabilities are known, came to be; `None` when nothing was taken.
    pub(super) fn evolution(&self, logits: &[f32], logprobs: &[f64]) -> Option<Evolution> {
        let gain = self.gain.as_ref()?;
        let head = view(self.model, Slot::model(Role::Head))?;
        let streams = &self.streams[..self.taken];
        if streams.is_empty() {
            return None;
        }
        let tokens = highest(logits, FOLLOWED);
        let rows: Vec<Vec<f32>> =
            tokens.iter().map(|token| row(&head, *token as usize)).collect::<Option<_>>()?;
        let (eps, cap) = (self.model.config().norm_eps, self.model.config().logit_cap);
        let layers: Vec<LensLayer> = streams
            .iter()
            .map(|(layer, stream)| {
                let stream = normed(stream, gain, eps);
                let logits = rows.iter().map(|row| capped(dot(row, &stream), cap));
                let logits: Vec<f64> = logits.collect();
                LensLayer { layer: *layer, rank: rank(&logits), logits }
            })
            .collect();
        let of = |token: &u32| *token as usize;
        let last = layers.last().filter(|last| last.layer + 1 == self.model.config().layers);
        let finals: Vec<f32> = tokens.iter().map(|token| logits[of(token)]).collect();
        Some(Evolution {
            probabilities: tokens.iter().map(|token| logprobs[of(token)].exp()).collect(),
            decisive_layer: decisive(&layers),
            mismatch: last.map(|last| mismatch(last, &finals, logits)),
            logits: finals,
            tokens,
            layers,
        })
    }
}

/// A logit as families with a soft cap bend it.
fn capped(logit: f64, cap: Option<f32>) -> f64 {
    match cap.map(f64::from) {
        Some(cap) => cap * (logit / cap).tanh(),
        None => logit,
    }
}

/// Root-mean-square norm with gain.
fn normed(stream: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    let squares = dot(stream, stream) / stream.len().max(1) as f64;
    let scale = 1.0 / (squares + f64::from(eps)).sqrt();
    stream.iter().zip(gain).map(|(x, g)| (f64::from(*x) * scale) as f32 * g).collect()
}

/// The ids of the `count` highest values, highest first, the lower id first among equals.
fn highest(values: &[f32], count: usize) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(count + 1);
    for (id, value) in (0u32..).zip(values) {
        let least = best.last().map(|id| values[*id as usize]);
        if best.len() < count || least.is_some_and(|least| *value > least) {
            let place = best.partition_point(|other| values[*other as usize] >= *value);
            best.insert(place, id);
            best.truncate(count);
        }
    }
    best
}

/// Place of the first among all.
fn rank(logits: &[f64]) -> usize {
    let first = logits.first().copied().unwrap_or(f64::NAN);
    1 + logits.iter().skip(1).filter(|other| **other > first).count()
}

/// The first layer of the unbroken lead that lasts to the end.
fn decisive(layers: &[LensLayer]) -> Option<usize> {
    layers.iter().rev().take_while(|layer| layer.rank == 1).last().map(|layer| layer.layer)
}

fn mismatch(last: &LensLayer, finals: &[f32], logits: &[f32]) -> f64 {
    let deviation = super::moments::Moments::of(logits).statistics().std.unwrap_or(0.0);
    let pairs = last.logits.iter().zip(finals);
    let most = pairs.map(|(lens, real)| (lens - f64::from(*real)).abs()).fold(0.0, f64::max);
    most / deviation.max(f64::MIN_POSITIVE)
}

/// What is odd about an evolution.
pub(super) fn oddities(evolution: &Evolution) -> Vec<Anomaly> {
    let mut odd = Vec::new();
    for pair in evolution.layers.windows(2) {
        let jump = pair[0].rank.abs_diff(pair[1].rank);
        if jump >= JUMP {
            odd.push(Anomaly {
                oddity: Oddity::RankJump,
                place: format!("layers.{} to layers.{}", pair[0].layer, pair[1].layer),
                found: Some(jump as f64),
            });
        }
    }
    if let Some(share) = evolution.mismatch
        && share.partial_cmp(&MISMATCH).is_none_or(Ordering::is_gt)
    {
        let place = "the last layer".to_owned();
        odd.push(Anomaly { oddity: Oddity::LensMismatch, place, found: Some(share) });
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(layer: usize, logits: &[f64]) -> LensLayer {
        LensLayer { layer, logits: logits.to_vec(), rank: rank(logits) }
    }

    #[test]
    fn a_cap_bends_what_is_near_it_and_is_never_passed() {
        assert_eq!(capped(1e3, None).to_bits(), 1e3f64.to_bits());
        assert!((capped(1e3, Some(30.0)) - 30.0).abs() < 1e-9);
        assert!((capped(0.03, Some(30.0)) - 0.03).abs() < 1e-6);
        assert!(capped(-40.0, Some(30.0)) > -30.0);
    }

    #[test]
    fn the_decisive_layer_is_where_the_lead_that_lasts_begins() {
        let layers = [
            layer(0, &[2.0, 1.0]),
            layer(1, &[0.0, 1.0]),
            layer(2, &[3.0, 1.0]),
            layer(3, &[4.0, 1.0]),
        ];
        assert_eq!(decisive(&layers), Some(2));
        assert_eq!(decisive(&layers[..2]), None);
    }

    #[test]
    fn a_jump_of_five_places_is_odd_and_so_is_a_lens_that_misses_the_head() {
        let places = |rank| LensLayer { layer: rank, logits: Vec::new(), rank };
        let evolution = Evolution {
            tokens: Vec::new(),
            logits: Vec::new(),
            probabilities: Vec::new(),
            layers: vec![places(7), places(2), places(1)],
            decisive_layer: None,
            mismatch: Some(0.5),
        };
        let kinds: Vec<Oddity> = oddities(&evolution).iter().map(|odd| odd.oddity).collect();
        assert_eq!(kinds, [Oddity::RankJump, Oddity::LensMismatch]);
    }

    #[test]
    fn the_highest_come_first_and_equal_ones_by_id() {
        assert_eq!(highest(&[1.0, 5.0, 5.0, 0.0, 7.0], 3), [4, 1, 2]);
        assert_eq!(highest(&[1.0], 3), [0]);
    }
}
