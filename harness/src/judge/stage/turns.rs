//! Invariants of the rotation of queries and keys.

use apr_engine::model::{Lm, LongRope, Model, Role, RopeScaling, RopeStyle, Slot};
use apr_engine::probe::{Op, Site};

use super::super::context::{Look, refused};
use super::super::look::{all_of, record};
use super::worst::Worst;
use super::{Pass, length};
use crate::contract::tolerance::AtMost;
use crate::recording::stepped;
use crate::verdict::Verdict;

impl Pass<'_> {
    /// What each rotation turns, and what comes out.
    fn rotations(&self) -> [(Op, Op); 2] {
        if self.config.qk_norm {
            [(Op::QNorm, Op::RopeQ), (Op::KNorm, Op::RopeK)]
        } else {
            [(Op::Q, Op::RopeQ), (Op::K, Op::RopeK)]
        }
    }

    /// A row of queries or keys as long as its rotation leaves it: `LongRoPE` also stretches what it turns.
    fn stretched(&self, plain: &[f32]) -> Vec<f32> {
        let rope = &self.config.rope;
        let factor = rope.attention_factor() as f32;
        let mut row = plain.to_vec();
        for head in row.chunks_exact_mut(self.config.head_dim) {
            head[..rope.dims].iter_mut().for_each(|value| *value *= factor);
        }
        row
    }

    /// Tokens that the text has when the row at `position` is computed.
    fn length_at(&self, position: usize) -> usize {
        let mut end = 0;
        for part in stepped(&self.tokens.ids) {
            end += part.len();
            if position < end {
                break;
            }
        }
        end
    }

    pub(super) fn rope_norm(&self, bound: &AtMost) -> Verdict {
        let mut worst = Worst::largest();
        for (before, after) in self.rotations() {
            for ((site, plain), (_, turned)) in self.layers(before).zip(self.layers(after)) {
                for (position, (plain, turned)) in plain.iter().zip(turned).enumerate() {
                    let plain = self.stretched(plain);
                    let heads = plain
                        .chunks_exact(self.config.head_dim)
                        .zip(turned.chunks_exact(self.config.head_dim));
                    for (head, (plain, turned)) in heads.enumerate() {
                        let (plain, turned) = (length(plain), length(turned));
                        let error = (turned - plain).abs() / plain.max(f64::MIN_POSITIVE);
                        worst.add(error, || format!("{site} row {position} head {head}"));
                    }
                }
            }
        }
        worst.at_most("relative change of length", bound)
    }

    /// Position 0 is not turned; every later one is.
    pub(super) fn rope_moves(&self) -> Verdict {
        let mut wrong = Vec::new();
        let mut count = 0;
        for (before, after) in self.rotations() {
            for ((site, plain), (_, turned)) in self.layers(before).zip(self.layers(after)) {
                for (position, (plain, turned)) in plain.iter().zip(turned).enumerate() {
                    // Zeros stay zeros under every rotation.
                    if plain.iter().all(|value| *value == 0.0) {
                        continue;
                    }
                    count += 1;
                    if (self.stretched(plain) == *turned) != (position == 0) {
                        let how = if position == 0 { "is turned" } else { "is not turned" };
                        wrong.push(format!("{site} row {position} {how}"));
                    }
                }
            }
        }
        all_of(count, "rotations depend on the position", wrong)
    }

    /// The angle between what goes into a rotation and what comes out of it, pair by pair over all heads.
    pub(super) fn rope_angles(&self, bound: &AtMost) -> Look<Verdict> {
        let mut worst = Worst::largest();
        for (before, after) in self.rotations() {
            for ((site, plain), (_, turned)) in self.layers(before).zip(self.layers(after)) {
                let layer = site.layer.unwrap_or(0);
                for (position, (plain, turned)) in plain.iter().zip(turned).enumerate() {
                    let tokens = self.length_at(position);
                    let frequencies = declared_frequencies(self.model, layer, tokens)?;
                    for (pair, frequency) in frequencies.iter().enumerate() {
                        let expected = position as f64 * frequency;
                        let pairs = frequencies.len();
                        let Some(found) = self.angle(plain, turned, pair, pairs) else { continue };
                        let error = (found - expected).rem_euclid(std::f64::consts::TAU);
                        let error = error.min(std::f64::consts::TAU - error);
                        worst.add(error, || format!("{site} row {position} pair {pair}"));
                    }
                }
            }
        }
        Ok(worst.at_most("error of the angle", bound))
    }

    /// By how many radians pair `pair` of `pairs` is rotated, over all heads of a row. `None` where both values are
    /// zero in every head, as behind a gain of zero: no angle can be read there, and zero times any rotation is zero.
    fn angle(&self, plain: &[f32], turned: &[f32], pair: usize, pairs: usize) -> Option<f64> {
        let (first, second) = match self.config.rope.style {
            RopeStyle::Neox => (pair, pair + pairs),
            RopeStyle::Adjacent => (2 * pair, 2 * pair + 1),
        };
        let heads =
            plain.chunks_exact(self.config.head_dim).zip(turned.chunks_exact(self.config.head_dim));
        let (mut cross, mut dot, mut size) = (0.0, 0.0, 0.0);
        for (plain, turned) in heads {
            let (x, y) = (f64::from(plain[first]), f64::from(plain[second]));
            let (u, v) = (f64::from(turned[first]), f64::from(turned[second]));
            cross += x * v - y * u;
            dot += x * u + y * v;
            size += x * x + y * y + u * u + v * v;
        }
        (size != 0.0).then(|| cross.atan2(dot))
    }
}

/// Radians per position of each pair in `layer`, for a text of `tokens` tokens. They follow from the base by the formula of
/// the paper (Su et al. 2021) and not by the engine's, and from one divisor each.
fn declared_frequencies(model: &Model, layer: usize, tokens: usize) -> Look<Vec<f64>> {
    let rope = model.config().rope_of(layer);
    let in_file = |role: Role| match model.weights().get(Slot::model(role)) {
        Some(entry) => {
            let values = entry.tensor.view().and_then(|view| view.dequantize());
            let values =
                values.map_err(|error| refused("the rotary factors cannot be read", &error));
            values.map(Some)
        }
        None => Ok(None),
    };
    let divisors = match &rope.scaling {
        RopeScaling::Long(LongRope { original_context, factors, .. }) => {
            let long = tokens > *original_context;
            match factors {
                Some((_, factors)) if long => factors.clone(),
                Some((factors, _)) => factors.clone(),
                None if long => in_file(Role::RopeFactorsLong)?.unwrap_or_default(),
                None => in_file(Role::RopeFactorsShort)?.unwrap_or_default(),
            }
        }
        // Frequencies of a file that brings divisors are scaled by nothing else.
        RopeScaling::None => match in_file(Role::RopeFactors)? {
            Some(divisors) => divisors,
            None => vec![1.0; rope.dims / 2],
        },
        RopeScaling::Linear { factor } => vec![*factor as f32; rope.dims / 2],
        RopeScaling::Llama3 { .. } => rope.divisors(),
    };
    let plain = |pair: usize| rope.theta.powf(-((2 * pair) as f64) / rope.dims as f64);
    Ok(divisors.iter().enumerate().map(|(pair, by)| plain(pair) / f64::from(*by)).collect())
}

/// The same token at every position: its queries and keys before rotation are equal in layer 0, so the dot product of
/// rotated query `i` and key `j` must depend on `i - j` alone.
pub(super) fn rope_relative(pass: &Pass<'_>, lm: &mut dyn Lm, bound: &AtMost) -> Look<Verdict> {
    let config = pass.config;
    let length_of_run = 12.min(config.context);
    let token = pass.tokens.ids.first().copied().unwrap_or(0);
    let wanted = |site: Site| site.layer == Some(0) && matches!(site.op, Op::RopeQ | Op::RopeK);
    let seen = record(lm, &vec![token; length_of_run], &wanted)?;
    let none = Vec::new();
    let rows = |op| seen.sites.get(&Site::layer(0, op)).map_or(&none, |rows| &rows.rows);
    let (queries, keys) = (rows(Op::RopeQ), rows(Op::RopeK));
    let dim = config.head_dim;
    let mut worst = Worst::largest();
    for head in 0..config.heads {
        let key_head = head / (config.heads / config.kv_heads.max(1)).max(1);
        let dot = |i: usize, j: usize| -> f64 {
            let query = queries[i].get(head * dim..(head + 1) * dim).unwrap_or_default();
            let key = keys[j].get(key_head * dim..(key_head + 1) * dim).unwrap_or_default();
            query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
        };
        for (i, query) in queries.iter().enumerate().skip(1) {
            for (j, key) in keys.iter().enumerate().take(i + 1).skip(1) {
                let scale = length(query) * length(key);
                let error = (dot(i, j) - dot(i - 1, j - 1)).abs() / scale.max(f64::MIN_POSITIVE);
                worst.add(error, || format!("head {head}, positions {i} and {j}"));
            }
        }
    }
    Ok(worst.at_most("change with absolute position", bound))
}
