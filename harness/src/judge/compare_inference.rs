//! `compare-inference`: two sides agree at every site, or part exactly where a fault was placed.

use apr_engine::model::{Lm, LmOptions, Model};
use apr_engine::probe::{Op, Site};

use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::look::{Random, token_sets};
use super::{Planned, parity};
use crate::contract::check::{CompareInference, OtherSide, Placements};
use crate::fault::engine::{EngineFault, faulty_lm};
use crate::rosetta::{Comparison, Options, Side, SiteStatus, Source, Tokens, compare};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Tokens that both sides read: two parts of a prompt and some single steps.
const TOKENS: usize = 16;
/// Counterexamples that are listed.
const LISTED: usize = 8;

/// Judges `check` on `case`.
pub(super) fn judge(check: &CompareInference, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    if let Some(blind) = parity::blindness(ctx) {
        return Ok(Verdict::broken(blind));
    }
    let form = ctx.form(case)?;
    let spec = BackendSpec::of(&case.info.cell);
    let target = ctx.model(form)?;
    let bench = Bench { ctx, spec: &spec };
    let ids = |form, model: &Model| -> Look<Vec<u32>> {
        let set = token_sets(ctx, form, model, &[])?.into_iter().next();
        let set = set.ok_or_else(|| Box::new(Verdict::broken("there is nothing to run")))?;
        Ok(set.ids.into_iter().take(TOKENS).collect())
    };
    match &check.with {
        OtherSide::Itself => {
            let source = ctx.reference_model(form)?;
            let tokens = Tokens { source: ids(form, &source)?, target: ids(form, &target)? };
            Ok(zero(&bench.agreeing(&source, &target, tokens)?))
        }
        OtherSide::Form(other) => {
            let other = ctx.sibling(form, other)?;
            let source = ctx.reference_model(&other)?;
            let tokens = Tokens { source: ids(&other, &source)?, target: ids(form, &target)? };
            Ok(rounding(&bench.agreeing(&source, &target, tokens)?, &other.form))
        }
        OtherSide::Faulty(placements) => bench.faulty(placements, &target, &ids(form, &target)?),
    }
}

/// What two sides are compared on.
struct Bench<'a> {
    ctx: &'a JudgeContext,
    spec: &'a BackendSpec,
}

/// A side as it is started.
type Start<'a> = &'a dyn Fn() -> apr_engine::Result<Box<dyn Lm>>;

impl Bench<'_> {
    fn side<'a>(&self, name: &str, model: &'a Model, start: Start<'a>) -> Side<'a> {
        let exact = self.spec.backend == "scalar";
        Side { name: name.to_owned(), model, start, exact, cache_type: self.ctx.cache_type }
    }

    fn compare(&self, source: Side<'_>, target: &Side<'_>, tokens: Tokens) -> Look<Comparison> {
        let options =
            Options { vote: false, fault: self.ctx.harness_fault(), ..Options::default() };
        let found = compare(&Source::Model(source), target, tokens, options);
        found.map_err(|error| refused("a side does not start", &error))
    }

    /// `target`, with what is planted, against `source` as it really is.
    fn agreeing(&self, source: &Model, target: &Model, tokens: Tokens) -> Look<Comparison> {
        let options = LmOptions { context: Some(tokens.source.len()), ..self.ctx.options() };
        let reference = BackendSpec { reference: true, ..self.spec.clone() };
        // A backend that is not there is a skip of the case, not a difference of the sides.
        drop(self.ctx.lm(source, &reference, options)?);
        let plain = self.ctx.unplanted();
        let started = |ctx: &JudgeContext, model, spec| {
            ctx.lm(model, spec, options).map_err(|verdict| {
                apr_engine::Error::new(apr_engine::Code::BackendShape).found(verdict.summary())
            })
        };
        let first = || started(&plain, source, &reference);
        let second = || started(self.ctx, target, self.spec);
        self.compare(
            self.side("source", source, &first),
            &self.side("target", target, &second),
            tokens,
        )
    }

    /// The model against itself with one fault after the other.
    fn faulty(&self, placements: &Placements, model: &Model, ids: &[u32]) -> Look<Verdict> {
        let options = LmOptions { context: Some(ids.len()), ..self.ctx.options() };
        drop(self.ctx.lm(model, self.spec, options)?);
        let mut random = Random::new(self.ctx.seed, "placements");
        let faults: Vec<(EngineFault, Op)> = EngineFault::ALL
            .iter()
            .filter(|fault| fault.shows_on(model))
            .filter_map(|fault| Some((*fault, fault.op()?)))
            .collect();
        let mut missed = Vec::new();
        let mut rows = 0;
        for _ in 0..placements.count {
            let (fault, op) = faults[random.below(faults.len())];
            let layer = random.below(model.config().layers);
            let own = site_of(op, layer);
            let found = self.placed(fault, layer, model, ids)?;
            rows += found.rows;
            if let Some(miss) = miss(&found, own) {
                missed.push(format!("{fault:?} in layer {layer}: {miss} instead of {own}"));
            }
        }
        if rows == 0 {
            return Ok(Verdict::broken("nothing was compared"));
        }
        let located = placements.count - missed.len();
        let share = located as f64 / placements.count as f64;
        let summary = format!(
            "{located} of {} placed faults are found at their own site, {rows} rows compared{}",
            placements.count,
            missed.first().map(|first| format!("; {first}")).unwrap_or_default()
        );
        let limit = Limit::AtLeast(placements.located_at_least.get());
        let mut evidence = Evidence::new(placements.count as u64, summary)
            .measure(Measure::judged("located-share", share, limit));
        evidence.details = missed;
        Ok(evidence.verdict())
    }

    /// The model, with what is planted, against itself with `fault` in `layer`.
    fn placed(
        &self,
        fault: EngineFault,
        layer: usize,
        model: &Model,
        ids: &[u32],
    ) -> Look<Comparison> {
        let options = LmOptions { context: Some(ids.len()), ..self.ctx.options() };
        let first = || {
            let planted =
                self.ctx.plant.as_ref().and_then(|plant| plant.lm(model, self.spec, options));
            planted
                .unwrap_or_else(|| faulty_lm(EngineFault::Nothing, None, model, self.spec, options))
        };
        let second = || faulty_lm(fault, Some(layer), model, self.spec, options);
        let tokens = Tokens { source: ids.to_vec(), target: ids.to_vec() };
        self.compare(
            self.side("source", model, &first),
            &self.side("target", model, &second),
            tokens,
        )
    }
}

/// The site of `op`: in `layer`, or outside the layers.
fn site_of(op: Op, layer: usize) -> Site {
    match op {
        Op::Embed | Op::FinalNorm | Op::Logits => Site::model(op),
        _ => Site::layer(layer, op),
    }
}

/// Where the sides part, when it is not at `own`.
fn miss(found: &Comparison, own: Site) -> Option<String> {
    match &found.first {
        Some(first) if first.site == own.to_string() => None,
        Some(first) => Some(first.site.clone()),
        None => Some("nothing".to_owned()),
    }
}

/// Not a bit of any site differs.
fn zero(found: &Comparison) -> Verdict {
    let sites = found.sites.iter();
    let bits: u64 = sites
        .map(|site| {
            [&site.total, &site.local]
                .map(|d| d.bits_differ + d.mask_mismatches + d.shape_mismatches)
        })
        .map(|[total, local]| total + local)
        .sum();
    let summary =
        format!("{bits} bits differ in {} rows at {} sites", found.rows, found.sites.len());
    let evidence = Evidence::new(found.rows, summary).measure(Measure::judged(
        "values-that-differ",
        bits as f64,
        Limit::Exactly(0.0),
    ));
    told(evidence, found)
}

/// No site differs by more than rounding.
fn rounding(found: &Comparison, source: &str) -> Verdict {
    let share = |site: &crate::rosetta::SiteReport| site.local.worst() / site.allowed;
    let nearest = found.sites.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
    let Some(nearest) = nearest else { return Verdict::broken("no site was compared") };
    let beyond = found.sites.iter().filter(|site| site.status == SiteStatus::Mismatch).count();
    let summary = format!(
        "{beyond} of {} sites part from {source} by more than rounding, {} rows; nearest {}: local error {:.2e} of {:.1e}",
        found.sites.len(),
        found.rows,
        nearest.site,
        nearest.local.worst(),
        nearest.allowed
    );
    let evidence = Evidence::new(found.rows, summary)
        .measure(Measure::judged("sites-beyond-rounding", beyond as f64, Limit::Exactly(0.0)))
        .measure(Measure::judged("worst-share-of-allowed", share(nearest), Limit::AtMost(1.0)));
    told(evidence, found)
}

/// What every comparison must be besides: of the same tokens, and complete.
fn told(evidence: Evidence, found: &Comparison) -> Verdict {
    let open = found.sites.iter().filter(|site| site.status == SiteStatus::NotCompared).count();
    let tokens = usize::from(found.tokens.first_difference().is_some());
    let mut evidence = evidence
        .measure(Measure::judged("tokens-differ", tokens as f64, Limit::Exactly(0.0)))
        .measure(Measure::judged("sites-not-compared", open as f64, Limit::Exactly(0.0)));
    evidence.details.extend(found.notes.iter().cloned());
    let parted = found.sites.iter().filter(|site| site.status == SiteStatus::Mismatch);
    evidence.details.extend(parted.take(LISTED).map(|site| {
        format!("{}: local error {:.2e} of {:.1e}", site.site, site.local.worst(), site.allowed)
    }));
    evidence.verdict()
}
