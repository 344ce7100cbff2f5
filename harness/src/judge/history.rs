//! `history`: the trace that the executable writes is whole, and true of the run that it tells of.
//!
//! The trace is read from the outside, as a user gets it, and strictly: a member that is not known is a flaw. What it says
//! of the model is held against the model, and its statistics against a pass that is recorded here.

use std::time::Duration;

use apr_engine::model::{Config, Model};
use apr_engine::probe::{Op, Site};
use apr_engine::text::prepare_raw;
use serde_json::Value;

use super::Planned;
use super::cli::absolute;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::look::{all_of, record};
use crate::contract::check::{History as Check, HistoryRule};
use crate::recording::Recording;
use crate::subject::{Call, CommandOutput};
use crate::trace::payload::{
    Evolution, HeadAttention, HeadTrace, KvState, LayerTrace, ProductError, SCHEMA, SiteTrace,
};
use crate::trace::{History, Payload, flaws};
use crate::verdict::Verdict;

/// What is traced: long enough that a head has somewhere to look.
const PROMPT: &str = "The quick brown fox jumps over the lazy dog.";
/// Tokens of the answer.
const TOKENS: usize = 3;
/// Far beyond what such a run takes.
const TIME: Duration = Duration::from_mins(1);
/// Distance of a statistic from the one that is recorded here, in root mean squares: another order of f64 sums.
const SLACK: f64 = 1e-6;
/// Distance of a sum of probabilities from one.
const SUM_SLACK: f64 = 1e-3;
/// Longest list of a trace.
const LIST_MAX: usize = 256;

/// Judges `check` on `case`.
pub(super) fn judge(check: Check, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let spec = BackendSpec::of(&case.info.cell);
    let path = absolute(&ctx.path(form)?);
    let count = TOKENS.to_string();
    let args = ["run", &path, "--raw", "--backend", &spec.backend, "-n", &count, "--trace", PROMPT];
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let output = ctx.run_apr(Call::new(args, &ctx.scratch(case)?, TIME))?;
    let told = match Told::read(&output) {
        Ok(told) => told,
        Err(why) => return Ok(all_of(1, "traces", vec![why])),
    };
    let mut seen = Seen::default();
    match check.holds {
        HistoryRule::Whole => {
            seen.count = told.history.events.len() as u64;
            seen.wrong = flaws(&told.history.events);
        }
        HistoryRule::Facts => facts(&told, &model, &spec, &mut seen),
        HistoryRule::Statistics => {
            let tokenizer = model.tokenizer().map_err(|error| refused("no tokenizer", &error))?;
            let prompt = prepare_raw(tokenizer, PROMPT)
                .map_err(|error| refused("the prompt is not encoded", &error))?;
            let mut lm = ctx.unplanted().lm(&model, &spec, ctx.options())?;
            let recording = record(&mut *lm, prompt.ids(), &|_| true)?;
            statistics(&told, &recording, &mut seen);
        }
        HistoryRule::Attention => {
            told.layers()
                .flat_map(|layer| &layer.attention)
                .for_each(|head| attention(head, &mut seen));
        }
        HistoryRule::Evolution => evolution(&told, &mut seen),
        HistoryRule::Cache => cache(&told, model.config(), &mut seen),
        HistoryRule::Products => products(&told, &mut seen),
        HistoryRule::Bounded => told.texts.iter().for_each(|text| bounded(text, &mut seen)),
    }
    Ok(all_of(seen.count, "told things", seen.wrong))
}

/// What was looked at, and what of it does not hold.
#[derive(Default)]
struct Seen {
    count: u64,
    wrong: Vec<String>,
}

impl Seen {
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.count += 1;
        if !holds {
            self.wrong.push(otherwise());
        }
    }
}

/// A trace with the JSON inside its events.
struct Told {
    history: History,
    texts: Vec<Value>,
    payloads: Vec<Payload>,
}

impl Told {
    fn read(output: &CommandOutput) -> Result<Self, String> {
        if output.code != Some(0) {
            return Err(format!("the traced run ends with {}", output.ending()));
        }
        let history: History = serde_json::from_str(&output.stderr_text())
            .map_err(|error| format!("the trace is no history: {error}"))?;
        let (mut texts, mut payloads) = (Vec::new(), Vec::new());
        for text in history.events.iter().flat_map(|event| event.texts()) {
            let wrong = |error| format!("an input or output is no payload: {error}");
            texts.push(serde_json::from_str(text).map_err(wrong)?);
            payloads.push(serde_json::from_str(text).map_err(wrong)?);
        }
        Ok(Self { history, texts, payloads })
    }

    fn layers(&self) -> impl Iterator<Item = &LayerTrace> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::Layer(layer) => Some(&**layer),
            _ => None,
        })
    }

    fn heads(&self) -> impl Iterator<Item = &HeadTrace> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::Head(head) => Some(&**head),
            _ => None,
        })
    }

    /// What was seen of every site in the first step.
    fn first_step(&self) -> Vec<&SiteTrace> {
        let mut sites = Vec::new();
        for payload in &self.payloads {
            match payload {
                Payload::Sites { sites: seen } => sites.extend(seen),
                Payload::Layer(layer) => sites.extend(&layer.sites),
                Payload::Head(head) => {
                    sites.extend(&head.sites);
                    break;
                }
                _ => {}
            }
        }
        sites
    }
}

fn facts(told: &Told, model: &Model, spec: &BackendSpec, seen: &mut Seen) {
    let config = model.config();
    let Some(Payload::Run(run)) = told.payloads.first() else {
        return seen.expect(false, || "the first event does not say what runs".into());
    };
    seen.expect(run.schema == SCHEMA, || format!("schema {}", run.schema));
    let names = (run.model.architecture.as_str(), run.model.format.as_str());
    let real = (config.family.name, model.format().name());
    seen.expect(names == real, || format!("{names:?} is not {real:?}"));
    for (what, told, real) in [
        ("layers", run.model.layers, config.layers),
        ("hidden size", run.model.hidden_size, config.hidden),
        ("heads", run.model.heads, config.heads),
        ("KV heads", run.model.kv_heads, config.kv_heads),
        ("vocabulary", run.model.vocab_size, config.vocab),
        ("most tokens", run.configuration.max_tokens, TOKENS),
        ("traced layers", run.layers.len(), config.layers),
        ("traced sites", run.sites.len(), Op::ALL.len()),
        ("steps entered", told.steps(true), told.steps(false)),
    ] {
        seen.expect(told == real, || format!("{what}: {told} is told, {real} is true"));
    }
    let backend = &run.configuration.backend;
    seen.expect(backend.starts_with(&spec.backend), || format!("backend {backend}"));
    let Some(Payload::Summary(summary)) = told.payloads.last() else {
        return seen.expect(false, || "the last event does not sum up".into());
    };
    let samples = told.payloads.iter().filter(|one| matches!(one, Payload::Sample { .. })).count();
    seen.expect(samples >= summary.tokens && samples > 0, || {
        format!("{samples} choices of {} tokens are told", summary.tokens)
    });
}

impl Told {
    /// Steps that have an input, or an output.
    fn steps(&self, input: bool) -> usize {
        let events = self.history.events.iter();
        let entered = |it: &&crate::trace::HistoryEvent| it.state_entered_event_details.is_some();
        let exited = |it: &&crate::trace::HistoryEvent| it.state_exited_event_details.is_some();
        if input { events.filter(entered).count() } else { events.filter(exited).count() }
    }
}

fn statistics(told: &Told, recording: &Recording, seen: &mut Seen) {
    for site in told.first_step() {
        let rows = Site::from_name(&site.site).map(|known| recording.rows(known));
        let rows = rows.unwrap_or_default();
        // The head computes the last row alone.
        let rows = rows.get(rows.len().saturating_sub(site.shape[0])..).unwrap_or_default();
        let values: Vec<f64> = rows.iter().flatten().map(|value| f64::from(*value)).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let rms = (values.iter().map(|value| value * value).sum::<f64>() / count).sqrt();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let zeros = values.iter().filter(|value| **value == 0.0).count() as u64;
        let found = site.statistics;
        let counts = [
            (found.count, values.len() as u64),
            (found.nan, 0),
            (found.inf, 0),
            (found.zeros, zeros),
        ];
        for (told, real) in counts {
            seen.expect(told == real, || format!("{}: {told} is told, {real} is true", site.site));
        }
        for (what, told, real) in [
            ("mean", found.mean, mean),
            ("deviation", found.std, (squares / count).sqrt()),
            ("root mean square", found.rms, rms),
            ("minimum", found.min.map(f64::from), least),
            ("maximum", found.max.map(f64::from), most),
        ] {
            let near =
                told.is_some_and(|told| (told - real).abs() <= SLACK * rms.max(f64::MIN_POSITIVE));
            seen.expect(near, || format!("{}: {what} {told:?} is told, {real} is true", site.site));
        }
    }
}

fn attention(head: &HeadAttention, seen: &mut Seen) {
    let name = || format!("head {} at {}", head.head, head.query);
    let sorted = head.top.windows(2).all(|pair| pair[0].weight >= pair[1].weight);
    seen.expect(sorted && !head.top.is_empty(), || format!("{}: not sorted", name()));
    let one = head.sum.is_some_and(|sum| (sum - 1.0).abs() <= SUM_SLACK);
    seen.expect(one, || format!("{}: weights sum to {:?}", name(), head.sum));
    let most = ((head.query + 1) as f64).ln() + SUM_SLACK;
    let possible = head.entropy.is_some_and(|entropy| (0.0..=most).contains(&entropy));
    seen.expect(possible, || format!("{}: entropy {:?} of at most {most}", name(), head.entropy));
}

fn evolution(told: &Told, seen: &mut Seen) {
    for evolution in told.heads().filter_map(|head| head.evolution.as_ref()) {
        decided(evolution, seen);
    }
    let mut leading = None;
    for payload in &told.payloads {
        match payload {
            Payload::Head(head) => {
                leading = head.evolution.as_ref().and_then(|it| it.tokens.first().copied());
            }
            Payload::Sample { token, rank, .. } => {
                let best = leading == Some(*token) && *rank == Some(1);
                seen.expect(best, || {
                    format!("greedy choice {token} of rank {rank:?} beside {leading:?}")
                });
            }
            _ => {}
        }
    }
}

fn decided(evolution: &Evolution, seen: &mut Seen) {
    let sorted = evolution.logits.windows(2).all(|pair| pair[0] >= pair[1]);
    seen.expect(sorted, || "final logits are not sorted".into());
    let shares = evolution.probabilities.iter().sum::<f64>();
    seen.expect((0.0..=1.0 + SUM_SLACK).contains(&shares), || {
        format!("probabilities sum to {shares}")
    });
    let rank = |logits: &[f64]| 1 + logits.iter().filter(|other| **other > logits[0]).count();
    for layer in &evolution.layers {
        let real = layer.logits.first().map(|_| rank(&layer.logits));
        seen.expect(real == Some(layer.rank), || {
            format!("layer {}: rank {} is told, {real:?} is true", layer.layer, layer.rank)
        });
    }
    let lead = evolution.layers.iter().rev().take_while(|layer| rank(&layer.logits) == 1);
    let decisive = lead.last().map(|layer| layer.layer);
    seen.expect(evolution.decisive_layer == decisive, || {
        format!("decisive layer {:?} is told, {decisive:?} is true", evolution.decisive_layer)
    });
}

fn cache(told: &Told, config: &Config, seen: &mut Seen) {
    let mut size = 0;
    let mut rows = 0;
    for payload in &told.payloads {
        match payload {
            Payload::Rows { position, rows: of } if *position == size => rows = *of,
            Payload::Cache(state) => {
                size += rows;
                one_state(state, size, config, seen);
            }
            _ => {}
        }
    }
}

fn one_state(state: &KvState, size: usize, config: &Config, seen: &mut Seen) {
    for (what, told, real) in [
        ("size", state.size, size),
        ("layers", state.layers, config.layers),
        ("width", state.width, config.kv_width()),
        ("values", state.values as usize, 2 * config.layers * config.kv_width() * size),
        ("evictions", state.evictions as usize, 0),
    ] {
        seen.expect(told == real, || {
            format!("step {}: {what} {told} is told, {real} is true", state.step)
        });
    }
    seen.expect(state.size <= state.capacity, || format!("{} of {}", state.size, state.capacity));
    seen.expect((0.0..=1.0).contains(&state.hit_rate), || format!("hit rate {}", state.hit_rate));
}

fn products(told: &Told, seen: &mut Seen) {
    /// Projections of a layer.
    const PROJECTIONS: usize = 7;
    for layer in told.layers() {
        let count = layer.quantization.len();
        seen.expect(count == PROJECTIONS, || format!("{count} products of {PROJECTIONS} are told"));
        layer.quantization.iter().for_each(|product| possible(product, seen));
    }
    told.heads().flat_map(|head| &head.quantization).for_each(|product| possible(product, seen));
}

/// Whether an error can be one: means and maxima of the same errors.
fn possible(product: &ProductError, seen: &mut Seen) {
    let ProductError { site, outputs, mse, max_abs, cosine, .. } = product;
    let squared = max_abs * max_abs;
    let bounds = mse / 1.001..=mse * 1.001 * *outputs as f64;
    seen.expect(*outputs > 0 && bounds.contains(&squared), || {
        format!("{site}: largest error {max_abs} of {outputs} with a mean square of {mse}")
    });
    seen.expect(cosine.is_none_or(|cosine| (-1.0..=1.0).contains(&cosine)), || {
        format!("{site}: cosine {cosine:?}")
    });
}

/// Every list inside a text.
fn bounded(text: &Value, seen: &mut Seen) {
    match text {
        Value::Array(items) => {
            seen.expect(items.len() <= LIST_MAX, || format!("a list of {}", items.len()));
            for item in items {
                bounded(item, seen);
            }
        }
        Value::Object(members) => {
            for member in members.values() {
                bounded(member, seen);
            }
        }
        _ => {}
    }
}
