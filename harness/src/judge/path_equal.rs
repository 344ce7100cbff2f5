//! `path-equal`: two execution paths give the same numbers.

use apr_engine::backend::simd::Isa;
use apr_engine::model::{Lm, LmOptions, Model, SequenceTokens, Want};
use apr_engine::probe::NoProbe;

use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::look::{Tokens, logits, token_sets};
use super::{Planned, parity};
use crate::compare::{RowPlace, Tally};
use crate::contract::check::{Class, Path, PathEqual};
use crate::trace::{Observed, Options, Tracer};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Longest prefix that is run on its own; every prefix of a long text would be quadratic in it.
const PREFIXES_MAX: usize = 12;

/// Judges `check` on `case`.
pub(super) fn judge(check: &PathEqual, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let spec = BackendSpec::of(&case.info.cell);
    let prompts: Vec<String> = check.prompt.iter().cloned().collect();
    let mut tally = ctx.tally();
    let options = ctx.options_with(check.cache_type);
    let paths = Paths { ctx, model: &model, spec: &spec, options };
    let mut compared = Vec::new();
    for tokens in token_sets(ctx, form, &model, &prompts)? {
        compared = paths.run(&check.path, &tokens, &mut tally)?;
    }
    let label = format!("one prefill ({})", compared.join(", "));
    Ok(match &check.class {
        Class::Within(bounds) => parity::verdict(ctx, &tally, bounds, &label),
        Class::Bitwise => bitwise(ctx, &tally, &label),
    })
}

/// Compares rows of logits (reference, tested) under a name, and gives the name back.
type Compare<'c> = dyn FnMut(String, &[f32], &[f32]) -> String + 'c;

struct Paths<'a> {
    ctx: &'a JudgeContext,
    model: &'a Model,
    spec: &'a BackendSpec,
    options: LmOptions,
}

impl Paths<'_> {
    fn start(&self, spec: &BackendSpec, options: LmOptions) -> Look<Box<dyn Lm>> {
        self.ctx.lm(self.model, spec, options)
    }

    /// Compares `path` with one prefill of all tokens and says what was compared.
    fn run(&self, path: &Path, tokens: &Tokens, tally: &mut Tally) -> Look<Vec<String>> {
        let chunk = tokens.ids.len().max(1);
        let whole = LmOptions { chunk, ..self.options };
        let ids = &tokens.ids;
        let plain =
            |spec: &BackendSpec| -> Look<Vec<f32>> { logits(&mut *self.start(spec, whole)?, ids) };
        let mut compare = |name: String, reference: &[f32], tested: &[f32]| {
            let vocab = self.model.config().vocab;
            rows(tally, &format!("{} {name}", tokens.label), vocab, reference, tested);
            name
        };
        match path {
            Path::Cached => {
                let mut lm = self.start(self.spec, whole)?;
                let tested = step_by_step(&mut *lm, ids)?;
                Ok(vec![compare("token by token".into(), &plain(self.spec)?, &tested)])
            }
            Path::Chunked(chunks) => {
                let reference = plain(self.spec)?;
                let mut names = Vec::new();
                for &chunk in chunks {
                    let options = LmOptions { chunk, ..whole };
                    let tested = logits(&mut *self.start(self.spec, options)?, ids)?;
                    names.push(compare(format!("chunks of {chunk}"), &reference, &tested));
                }
                Ok(names)
            }
            Path::Threads(threads) => {
                let with = |threads| BackendSpec { threads: Some(threads), ..self.spec.clone() };
                let (one, many) = (plain(&with(1))?, plain(&with(*threads))?);
                Ok(vec![compare(format!("{threads} threads against 1"), &one, &many)])
            }
            Path::Isa => self.isas(&plain, &mut compare),
            Path::Reset => {
                let mut lm = self.start(self.spec, whole)?;
                let first = logits(&mut *lm, ids)?;
                step_by_step(&mut *lm, &reversed(ids))?;
                lm.reset();
                let again = logits(&mut *lm, ids)?;
                Ok(vec![compare("after a reset".into(), &first, &again)])
            }
            Path::Traced => self.traced(whole, ids, &mut compare),
            Path::Truncated => self.truncated(whole, ids, &mut compare),
            Path::Sequences(count) => self.sequences(*count, whole, ids, &mut compare),
            Path::Allocation(context) => {
                let options = LmOptions { context: Some(*context), ..whole };
                let tested = logits(&mut *self.start(self.spec, options)?, ids)?;
                Ok(vec![compare(format!("context of {context}"), &plain(self.spec)?, &tested)])
            }
            Path::Prefixes => {
                let mut lm = self.start(self.spec, whole)?;
                let mut tested = Vec::new();
                let vocab = self.model.config().vocab;
                let last = ids.len().min(PREFIXES_MAX);
                for end in 1..=last {
                    let all = logits(&mut *lm, &ids[..end])?;
                    tested.extend_from_slice(&all[(end - 1) * vocab..]);
                }
                let reference = plain(self.spec)?;
                Ok(vec![compare("each prefix".into(), &reference[..last * vocab], &tested)])
            }
        }
    }

    /// Each instruction set that the machine has, against the default choice.
    fn isas(
        &self,
        plain: &dyn Fn(&BackendSpec) -> Look<Vec<f32>>,
        compare: &mut Compare<'_>,
    ) -> Look<Vec<String>> {
        let reference = plain(self.spec)?;
        let mut names = Vec::new();
        for isa in Isa::ALL.iter().map(|isa| isa.name()) {
            let spec = BackendSpec { isa: Some(isa.to_owned()), ..self.spec.clone() };
            match plain(&spec) {
                Ok(tested) => names.push(compare(isa.to_owned(), &reference, &tested)),
                Err(verdict) if matches!(*verdict, Verdict::Skipped { .. }) => {}
                Err(verdict) => return Err(verdict),
            }
        }
        if names.is_empty() {
            let why = "the backend takes no instruction set by name";
            return Err(Box::new(Verdict::skipped("avx2", why)));
        }
        Ok(names)
    }

    /// Everything is traced on one side and nothing on the other.
    fn traced(
        &self,
        whole: LmOptions,
        ids: &[u32],
        compare: &mut Compare<'_>,
    ) -> Look<Vec<String>> {
        let mut lm = self.start(self.spec, whole)?;
        let plain = (logits(&mut *lm, ids)?, step_by_step(&mut *lm, ids)?);
        let options = Options::all(self.model.config());
        let mut tracer = Tracer::new(self.model, options, Box::new(|_| Ok(())), || 0);
        let mut observed = Observed::new(&mut *lm, &mut tracer);
        let traced = (logits(&mut observed, ids)?, step_by_step(&mut observed, ids)?);
        if tracer.values() == 0 {
            return Err(Box::new(Verdict::broken("the tracer was shown nothing")));
        }
        Ok(vec![
            compare("traced at once".into(), &plain.0, &traced.0),
            compare("traced token by token".into(), &plain.1, &traced.1),
        ])
    }

    /// Half of the tokens, other tokens behind them, cut back, and then the rest.
    fn truncated(
        &self,
        whole: LmOptions,
        ids: &[u32],
        compare: &mut Compare<'_>,
    ) -> Look<Vec<String>> {
        let half = ids.len() / 2;
        let mut lm = self.start(self.spec, whole)?;
        let reference = logits(&mut *lm, ids)?;
        lm.reset();
        let mut tested = append(&mut *lm, &ids[..half])?;
        append(&mut *lm, &reversed(&ids[half..]))?;
        lm.truncate(half);
        tested.extend(append(&mut *lm, &ids[half..])?);
        Ok(vec![compare("after cutting the cache back".into(), &reference, &tested)])
    }

    /// `count` texts side by side, each a token behind the one before and begun with two at once, against each alone,
    /// token by token.
    fn sequences(
        &self,
        count: usize,
        whole: LmOptions,
        ids: &[u32],
        compare: &mut Compare<'_>,
    ) -> Look<Vec<String>> {
        let texts: Vec<Vec<u32>> = (0..count).map(|turn| turned(ids, turn)).collect();
        let mut lm = self.start(self.spec, LmOptions { sequences: count, ..whole })?;
        let vocab = lm.config().vocab;
        let begin = ids.len().min(2);
        let mut together = vec![Vec::new(); count];
        for round in 0..ids.len() + count {
            let batch: Vec<SequenceTokens<'_>> = (0..count.min(round + 1))
                .map(|sequence| {
                    let (done, left) = (lm.position_of(sequence), round - sequence);
                    let end = if left == 0 { begin } else { begin + left };
                    let tokens = texts[sequence].get(done..end).unwrap_or_default();
                    SequenceTokens { sequence, tokens }
                })
                .filter(|part| !part.tokens.is_empty())
                .collect();
            if batch.is_empty() {
                continue;
            }
            let rows = lm.forward_batch(&batch);
            let rows =
                rows.map_err(|error| refused("the pass of several sequences fails", &error))?;
            for (part, row) in batch.iter().zip(rows.values().chunks_exact(vocab)) {
                together[part.sequence].extend_from_slice(row);
            }
        }
        let mut names = Vec::new();
        for (sequence, (text, together)) in texts.iter().zip(&together).enumerate() {
            let alone = step_by_step(&mut *self.start(self.spec, whole)?, text)?;
            let name = format!("text {} of {count}", sequence + 1);
            names.push(compare(name, &alone[(begin - 1) * vocab..], together));
        }
        Ok(names)
    }
}

/// `ids`, of which the first `turn` come last.
fn turned(ids: &[u32], turn: usize) -> Vec<u32> {
    let mut turned = ids.to_vec();
    turned.rotate_left(turn % ids.len().max(1));
    turned
}

fn reversed(ids: &[u32]) -> Vec<u32> {
    ids.iter().rev().copied().collect()
}

/// Appends `ids` and returns their logits.
fn append(lm: &mut dyn Lm, ids: &[u32]) -> Look<Vec<f32>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    match lm.forward(ids, Want::All, &mut NoProbe) {
        Ok(rows) => Ok(rows.values().to_vec()),
        Err(error) => Err(refused("the forward pass fails", &error)),
    }
}

fn step_by_step(lm: &mut dyn Lm, ids: &[u32]) -> Look<Vec<f32>> {
    lm.reset();
    let mut rows = Vec::new();
    for id in ids {
        rows.extend(append(lm, &[*id])?);
    }
    Ok(rows)
}

fn rows(tally: &mut Tally, label: &str, vocab: usize, reference: &[f32], tested: &[f32]) {
    let count = (reference.len() / vocab).max(tested.len() / vocab);
    let row = |values: &[f32], index: usize| -> Vec<f32> {
        values.get(index * vocab..(index + 1) * vocab).unwrap_or_default().to_vec()
    };
    for position in 0..count {
        let place = RowPlace { label: label.to_owned(), position };
        tally.add_logits(place, &row(reference, position), &row(tested, position));
    }
}

/// The same bits everywhere.
pub(super) fn bitwise(ctx: &JudgeContext, tally: &Tally, label: &str) -> Verdict {
    if let Some(blind) = parity::blindness(ctx) {
        return Verdict::broken(blind);
    }
    let shapes = tally.shape_mismatches();
    let summary = format!(
        "{} of {} values differ in their bits from {label}, worst NMSE {:.2e}",
        tally.bits_differ, tally.values, tally.nmse_worst.0
    );
    let mut evidence = Evidence::new(tally.rows + shapes.len() as u64, summary)
        .measure(Measure::judged("bits-differ", tally.bits_differ as f64, Limit::Exactly(0.0)))
        .measure(Measure::judged(
            "non-finite",
            tally.reference_non_finite as f64,
            Limit::Exactly(0.0),
        ))
        .measure(Measure::judged("shape-mismatches", shapes.len() as f64, Limit::Exactly(0.0)))
        .measure(Measure::noted("nmse-worst-row", tally.nmse_worst.0));
    evidence.details.extend(shapes.iter().take(8).cloned());
    evidence.verdict()
}
