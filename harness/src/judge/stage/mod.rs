//! `stage`: invariants of a real forward pass, measured at its sites.

mod head;
mod norm;
mod oracle;
mod poison;
mod rounding;
mod stated;
mod turns;
mod worst;

use std::sync::Arc;

use apr_engine::Code;
use apr_engine::model::{Activation, Config, Lm, LmOptions, Model, Role, Slot};
use apr_engine::probe::{Op, Site};

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::look::{Tokens, all_of, ended, token_sets};
use super::sampler::Subject;
use crate::case::ModelRef;
use crate::compare::RowError;
use crate::contract::check::{Invariant, Stage};
use crate::contract::tolerance::{AtLeast, AtMost};
use crate::recording::{self, Recording};
use crate::verdict::Verdict;

use stated::rope_as_stated;
use turns::rope_relative;
use worst::Worst;

/// Tokens that are run: enough for two parts of a prompt and some single steps, few enough for the oracle.
const TOKENS: usize = 24;
/// Under this need a gate is skipped whose sites a pass did not get to.
const NEED_PASS: &str = "forward-pass";

/// A forward pass with everything it was run on.
struct Pass<'a> {
    config: &'a Config,
    model: &'a Model,
    tokens: &'a Tokens,
    seen: &'a Recording,
}

/// The cell that is looked at.
struct Cell<'a> {
    ctx: &'a JudgeContext,
    form: &'a ModelRef,
    model: &'a Model,
    spec: BackendSpec,
    tokens: &'a Tokens,
}

/// Judges `check` on `case`.
pub(super) fn judge(check: &Stage, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let tokens = tokens(check, form, &model, ctx)?;
    let spec = BackendSpec::of(&case.info.cell);
    let cell = Cell { ctx, form, model: &model, spec, tokens: &tokens };
    let seen = cell.pass()?;
    let pass = Pass { config: model.config(), model: &model, tokens: &tokens, seen: &seen };
    let verdict = match &check.invariant {
        Invariant::Finite => pass.finite(),
        Invariant::Bounded(bound) => pass.bounded(bound),
        Invariant::RowSpread(bound) => pass.row_spread(bound),
        Invariant::MatchesOracle(bound) => pass.matches_oracle(&*cell.oracle(&seen)?, bound),
        Invariant::EmbeddingVaries => pass.embedding_varies()?,
        Invariant::NormRms(bound) => pass.norm_rms(bound)?,
        Invariant::AttentionSums(bound) => pass.attention_sums(bound),
        Invariant::AttentionCausal => pass.attention_causal(),
        Invariant::AttentionEntropy(bound) => pass.attention_entropy(bound),
        Invariant::RopeNorm(bound) => pass.rope_norm(bound),
        Invariant::RopeMoves => pass.rope_moves(),
        Invariant::RopeAngles(bound) => pass.rope_angles(bound)?,
        Invariant::RopeAsStated => rope_as_stated(&model, cell.start()?.config())?,
        Invariant::RopeRelative(bound) => rope_relative(&pass, &mut *cell.start()?, bound)?,
        Invariant::LayersWork(bound) => pass.layers_work(bound),
        Invariant::Swiglu(bound) => pass.swiglu(bound),
        Invariant::FeedForwardTurns(bound) => pass.feed_forward_turns(bound),
        Invariant::LogitsPerToken => pass.logits_per_token(),
        Invariant::NoFavourite(bound) => pass.no_favourite(bound),
        Invariant::LogitSpread(bound) => pass.logit_spread(bound),
        Invariant::ProbabilitySums(bound) => {
            pass.probability_sums(&Subject::new(ctx, ctx.seed), bound)
        }
        Invariant::EntropyBelow(bound) => pass.entropy_below(bound),
        Invariant::PositionsDiffer => pass.positions_differ(),
        Invariant::GreedyIsArgmax => pass.greedy_is_argmax(&Subject::new(ctx, ctx.seed)),
        Invariant::GreedyRepeats => pass.greedy_repeats(&mut *cell.start()?),
    };
    Ok(reached(verdict, &seen))
}

/// What is run: a text of the gate, else seeded tokens, cut to what the oracle can follow.
fn tokens(check: &Stage, form: &ModelRef, model: &Model, ctx: &JudgeContext) -> Look<Tokens> {
    let prompts: Vec<String> = check.prompt.iter().cloned().collect();
    let sets = token_sets(ctx, form, model, &prompts)?;
    // The seeded tokens come last and are the longest look; a text of the gate comes first.
    let set =
        if check.prompt.is_some() { sets.into_iter().next() } else { sets.into_iter().last() };
    let mut tokens = set.ok_or_else(|| Box::new(Verdict::broken("there is nothing to run")))?;
    tokens.ids.truncate(TOKENS);
    Ok(tokens)
}

/// A pass that ended early leaves later sites unseen: what could not be looked at is neither right nor wrong.
fn reached(verdict: Verdict, seen: &Recording) -> Verdict {
    match (&verdict, &seen.ended) {
        (Verdict::Broken { .. }, Some(error)) => {
            Verdict::skipped(NEED_PASS, format!("the forward pass ended early: {error}"))
        }
        _ => verdict,
    }
}

impl Cell<'_> {
    fn start(&self) -> Look<Box<dyn Lm>> {
        let options = LmOptions { context: Some(self.tokens.ids.len()), ..self.ctx.options() };
        self.ctx.lm(self.model, &self.spec, options)
    }

    /// What a pass is remembered by.
    fn key(&self, what: &str) -> String {
        format!("{what} {:?} {:?}", self.spec, self.tokens.ids)
    }

    /// The pass that is judged, made once for all gates of the cell. One that ended for want of a finite value is
    /// judged up to there.
    fn pass(&self) -> Look<Arc<Recording>> {
        self.ctx.remember_sized(&self.key("pass"), self.form, Recording::bytes, || {
            let parts = recording::stepped(&self.tokens.ids);
            let seen = recording::record(&mut *self.start()?, &parts, &|_| true);
            match &seen.ended {
                Some(error) if error.code() != Code::NonFinite => Err(ended(error)),
                _ => Ok(seen),
            }
        })
    }

    /// What the oracle computes at each site out of what `seen` had in front of it, with the roundings that the judged
    /// backend declares.
    fn oracle(&self, seen: &Recording) -> Look<Arc<Recording>> {
        self.ctx.remember_sized(&self.key("oracle"), self.form, Recording::bytes, || {
            let options = LmOptions { context: Some(self.tokens.ids.len()), ..self.ctx.options() };
            let declared = self.start()?.arithmetic();
            let mut scalar = self.ctx.oracle(self.model, &declared, options)?;
            let parts = recording::stepped(&self.tokens.ids);
            Ok(recording::record_given(&mut *scalar, &parts, seen))
        })
    }
}

fn length(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

impl Pass<'_> {
    /// The rows of a site; none when the engine does not report it.
    fn rows(&self, site: Site) -> &[Vec<f32>] {
        self.seen.rows(site)
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

    /// Rows of the table that are zero or equal may be embedded so; no others. A vocabulary has unused entries, but most of
    /// the tokens of a text are none of them.
    fn embedding_varies(&self) -> Look<Verdict> {
        let rows = self.rows(Site::model(Op::Embed));
        let stored = self.embedding_rows()?;
        let mut wrong = Vec::new();
        for (position, row) in rows.iter().enumerate() {
            if length(row) <= 0.0 && length(&stored[position]) > 0.0 {
                wrong.push(format!("the embedding at {position} is zero"));
            }
            let earlier = rows[..position].iter().position(|other| other == row);
            if let Some(earlier) = earlier
                && stored[earlier] != stored[position]
            {
                wrong.push(format!(
                    "different tokens at {earlier} and {position} are embedded alike"
                ));
            }
        }
        let zero = rows.iter().filter(|row| length(row) <= 0.0).count();
        if 2 * zero > rows.len() {
            wrong.push(format!("{zero} of {} embedded tokens are zero", rows.len()));
        }
        Ok(all_of(rows.len() as u64, "embedded tokens as distinct as their rows", wrong))
    }

    /// The row of the embedding table of each token that was run.
    fn embedding_rows(&self) -> Look<Vec<Vec<f32>>> {
        let unreadable = |error| refused("the embedding cannot be read", &error);
        let slot = Slot::model(Role::Embed);
        let entry = self.model.weights().get(slot).ok_or_else(|| {
            Box::new(Verdict::broken("the model was loaded without an embedding"))
        })?;
        let table = entry.tensor.view().map_err(unreadable)?;
        let row = |id: &u32| {
            let mut row = vec![0.0; table.cols()];
            table.dequantize_row(*id as usize, &mut row).map(|()| row).map_err(unreadable)
        };
        self.tokens.ids.iter().map(row).collect()
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

    /// The cosine of what goes into a feed-forward block and what comes out of it.
    fn feed_forward_turns(&self, bound: &AtMost) -> Verdict {
        let mut worst = Worst::largest();
        for ((site, given), (_, added)) in self.layers(Op::FfnNorm).zip(self.layers(Op::Down)) {
            for (position, (given, added)) in given.iter().zip(added).enumerate() {
                let cosine = RowError::new(given, added).map_or(f64::NAN, |error| error.cosine);
                // A mask mismatch gives a cosine of -1, which must not look well turned.
                let finite = added.iter().all(|value| value.is_finite());
                let cosine = if finite { cosine.abs() } else { f64::NAN };
                worst.add(cosine, || format!("{site} row {position}"));
            }
        }
        worst.at_most("cosine of input and output", bound)
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
