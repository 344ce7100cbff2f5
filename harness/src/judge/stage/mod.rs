//! `stage`: invariants of a real forward pass, measured at its sites.

mod head;
mod worst;

use apr_engine::model::{Activation, Config, LmOptions, Model, Role, Slot};
use apr_engine::probe::{Op, Site};

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::look::{Tokens, all_of, record, token_sets};
use crate::contract::check::{Invariant, Stage};
use crate::contract::tolerance::{AtLeast, AtMost};
use crate::recording::Recording;
use crate::verdict::Verdict;

use worst::Worst;

/// A forward pass with everything it was run on.
struct Pass<'a> {
    config: &'a Config,
    model: &'a Model,
    tokens: &'a Tokens,
    seen: &'a Recording,
}

/// Judges `check` on `case`.
pub(super) fn judge(check: &Stage, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let prompts: Vec<String> = check.prompt.iter().cloned().collect();
    let sets = token_sets(ctx, form, &model, &prompts)?;
    let mut lm = ctx.lm(&model, &BackendSpec::of(&case.info.cell), LmOptions::default())?;
    // The seeded tokens come last and are the longest look; a text of the gate comes first.
    let tokens = if check.prompt.is_some() { sets.first() } else { sets.last() };
    let Some(tokens) = tokens else {
        return Err(Box::new(Verdict::broken("there is nothing to run")));
    };
    let seen = record(&mut *lm, &tokens.ids, &|_| true)?;
    let pass = Pass { config: model.config(), model: &model, tokens, seen: &seen };
    match &check.invariant {
        Invariant::Finite => Ok(pass.finite()),
        Invariant::EmbeddingVaries => Ok(pass.embedding_varies()),
        Invariant::NormRms(bound) => pass.norm_rms(bound),
        Invariant::AttentionSums(bound) => Ok(pass.attention_sums(bound)),
        Invariant::AttentionCausal => Ok(pass.attention_causal()),
        Invariant::RopeNorm(bound) => Ok(pass.rope_norm(bound)),
        Invariant::RopeMoves => Ok(pass.rope_moves()),
        Invariant::RopeRelative(bound) => rope_relative(&pass, &mut *lm, bound),
        Invariant::LayersWork(bound) => Ok(pass.layers_work(bound)),
        Invariant::Swiglu(bound) => Ok(pass.swiglu(bound)),
        Invariant::LogitSpread(bound) => Ok(pass.logit_spread(bound)),
        Invariant::ProbabilitySums(bound) => Ok(pass.probability_sums(bound)),
        Invariant::EntropyBelow(bound) => Ok(pass.entropy_below(bound)),
        Invariant::PositionsDiffer => Ok(pass.positions_differ()),
        Invariant::GreedyIsArgmax => pass.greedy_is_argmax(),
    }
}

fn length(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

impl Pass<'_> {
    /// The rows of a site; none when the engine does not report it.
    fn rows(&self, site: Site) -> &[Vec<f32>] {
        self.seen.sites.get(&site).map_or(&[], |rows| &rows.rows)
    }

    /// The rows of `op` in each layer.
    fn layers(&self, op: Op) -> impl Iterator<Item = (Site, &[Vec<f32>])> {
        let sites = (0..self.config.layers).map(move |layer| Site::layer(layer, op));
        sites.map(|site| (site, self.rows(site)))
    }

    /// Every op must be seen, and every value of it finite.
    fn finite(&self) -> Verdict {
        let mut wrong = Vec::new();
        let mut count = 0;
        for (site, rows) in &self.seen.sites {
            for (position, row) in rows.rows.iter().enumerate() {
                count += row.len() as u64;
                if let Some(at) = row.iter().position(|value| !value.is_finite()) {
                    wrong.push(format!("{site} row {position} value {at} is {}", row[at]));
                }
            }
        }
        let expected = Op::ALL.iter().filter(|op| self.config.has_site(**op));
        let unseen = expected.filter(|op| !self.seen.sites.keys().any(|site| site.op == **op));
        wrong.extend(unseen.map(|op| format!("{} was never seen", op.name())));
        all_of(count, "activations finite", wrong)
    }

    fn embedding_varies(&self) -> Verdict {
        let rows = self.rows(Site::model(Op::Embed));
        let mut wrong = Vec::new();
        for (position, row) in rows.iter().enumerate() {
            if length(row) <= 0.0 {
                wrong.push(format!("the embedding at {position} is zero"));
            }
            let earlier = rows[..position].iter().position(|other| other == row);
            if let Some(earlier) = earlier
                && self.tokens.ids[earlier] != self.tokens.ids[position]
            {
                wrong.push(format!(
                    "different tokens at {earlier} and {position} are embedded alike"
                ));
            }
        }
        all_of(rows.len() as u64, "embedded tokens not zero and distinct", wrong)
    }

    /// `norm / gain` has a root mean square of one but for epsilon, which only makes it smaller.
    fn norm_rms(&self, bound: &AtMost) -> Look<Verdict> {
        let mut worst = Worst::largest();
        let norms = [
            (Op::AttnNorm, Role::AttnNorm),
            (Op::QNorm, Role::QNorm),
            (Op::KNorm, Role::KNorm),
            (Op::FfnNorm, Role::FfnNorm),
        ];
        let layers = (0..self.config.layers).flat_map(|layer| {
            norms.map(|(op, role)| (Site::layer(layer, op), Slot::layer(layer, role)))
        });
        let last = (Site::model(Op::FinalNorm), Slot::model(Role::FinalNorm));
        for (site, slot) in layers.chain([last]) {
            let gain = self.model.weights().get(slot).map(|entry| entry.tensor.view());
            let gain = match gain {
                Some(view) => view.and_then(|view| view.dequantize()),
                None => continue,
            };
            let gain = gain.map_err(|error| refused("a gain cannot be read", &error))?;
            // Heads are normalised one by one, with one gain for all.
            let parts = self.rows(site).iter().enumerate().flat_map(|(position, row)| {
                row.chunks_exact(gain.len()).map(move |part| (position, part))
            });
            for (position, part) in parts {
                let squares = part.iter().zip(&gain).filter(|(_, gain)| **gain != 0.0);
                let squares = squares.map(|(x, gain)| (f64::from(*x) / f64::from(*gain)).powi(2));
                let mean = squares.clone().sum::<f64>() / squares.count().max(1) as f64;
                worst.add((mean.sqrt() - 1.0).abs(), || format!("{site} row {position}"));
            }
        }
        Ok(worst.at_most("distance of the RMS from 1", bound))
    }

    fn attention_sums(&self, bound: &AtMost) -> Verdict {
        let mut worst = Worst::largest();
        for (site, rows) in self.layers(Op::AttnScores) {
            for (position, row) in rows.iter().enumerate() {
                let width = row.len() / self.config.heads;
                for (head, scores) in row.chunks_exact(width.max(1)).enumerate() {
                    let sum: f64 = scores.iter().map(|score| f64::from(*score)).sum();
                    let negative = scores.iter().any(|score| *score < 0.0);
                    let error = if negative { f64::INFINITY } else { (sum - 1.0).abs() };
                    worst.add(error, || format!("{site} row {position} head {head}"));
                }
            }
        }
        worst.at_most("distance of the sum from 1", bound)
    }

    fn attention_causal(&self) -> Verdict {
        let mut wrong = Vec::new();
        let mut count = 0;
        for (site, rows) in self.layers(Op::AttnScores) {
            for (position, row) in rows.iter().enumerate() {
                let width = row.len() / self.config.heads;
                for (head, scores) in row.chunks_exact(width.max(1)).enumerate() {
                    let later = scores.get(position + 1..).unwrap_or_default();
                    count += later.len() as u64;
                    if later.iter().any(|score| *score != 0.0) {
                        wrong.push(format!("{site} row {position} head {head} sees the future"));
                    }
                }
            }
        }
        all_of(count, "later positions have no weight", wrong)
    }

    /// What each rotation turns, and what comes out.
    fn rotations(&self) -> [(Op, Op); 2] {
        if self.config.qk_norm {
            [(Op::QNorm, Op::RopeQ), (Op::KNorm, Op::RopeK)]
        } else {
            [(Op::Q, Op::RopeQ), (Op::K, Op::RopeK)]
        }
    }

    fn rope_norm(&self, bound: &AtMost) -> Verdict {
        let mut worst = Worst::largest();
        for (before, after) in self.rotations() {
            for ((site, plain), (_, turned)) in self.layers(before).zip(self.layers(after)) {
                for (position, (plain, turned)) in plain.iter().zip(turned).enumerate() {
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
    fn rope_moves(&self) -> Verdict {
        let mut wrong = Vec::new();
        let mut count = 0;
        for (before, after) in self.rotations() {
            for ((site, plain), (_, turned)) in self.layers(before).zip(self.layers(after)) {
                for (position, (plain, turned)) in plain.iter().zip(turned).enumerate() {
                    count += 1;
                    if (plain == turned) != (position == 0) {
                        let how = if position == 0 { "is turned" } else { "is not turned" };
                        wrong.push(format!("{site} row {position} {how}"));
                    }
                }
            }
        }
        all_of(count, "rotations depend on the position", wrong)
    }

    fn layers_work(&self, bound: &AtLeast) -> Verdict {
        let mut worst = Worst::smallest();
        let embed = self.rows(Site::model(Op::Embed));
        let mut before = embed;
        for layer in 0..self.config.layers {
            for op in [Op::AttnResidual, Op::FfnResidual] {
                let site = Site::layer(layer, op);
                let after = self.rows(site);
                for (position, (old, new)) in before.iter().zip(after).enumerate() {
                    let change: Vec<f32> =
                        old.iter().zip(new).map(|(old, new)| new - old).collect();
                    let share = length(&change) / length(old).max(f64::MIN_POSITIVE);
                    worst.add(share, || format!("{site} row {position}"));
                }
                before = after;
            }
        }
        worst.at_least("relative change of the stream", bound)
    }

    fn swiglu(&self, bound: &AtMost) -> Verdict {
        let mut worst = Worst::largest();
        for layer in 0..self.config.layers {
            let at = |op| self.rows(Site::layer(layer, op));
            let rows = at(Op::Gate).iter().zip(at(Op::Up)).zip(at(Op::Swiglu));
            for (position, ((gate, up), found)) in rows.enumerate() {
                let expected: Vec<f64> = gate
                    .iter()
                    .zip(up)
                    .map(|(gate, up)| {
                        activate(self.config.activation, f64::from(*gate)) * f64::from(*up)
                    })
                    .collect();
                let size = expected.iter().map(|value| value * value).sum::<f64>().sqrt();
                let error = expected.iter().zip(found).map(|(e, f)| (e - f64::from(*f)).powi(2));
                let error = error.sum::<f64>().sqrt() / size.max(f64::MIN_POSITIVE);
                worst.add(error, || format!("layers.{layer}.swiglu row {position}"));
            }
        }
        worst.at_most("relative error", bound)
    }
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

/// The same token at every position: its queries and keys before rotation are equal in layer 0, so the dot product of
/// rotated query `i` and key `j` must depend on `i - j` alone.
fn rope_relative(
    pass: &Pass<'_>,
    lm: &mut dyn apr_engine::model::Lm,
    bound: &AtMost,
) -> Look<Verdict> {
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
