//! Tracing: a run told as an execution history, with statistics of what was seen at each site.
//!
//! [`Observed`] goes around a running model, so that whoever generates needs not know of it, and records every step; a
//! [`Tracer`] tells what was recorded, at once or [`beside`] the run. Neither gives anything back to the engine, and so
//! cannot change a token.

mod attention;
pub mod history;
mod lens;
pub mod moments;
mod observed;
mod oddity;
pub mod options;
pub mod payload;
mod product;
mod relay;
mod step;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{fmt, io};

use apr_engine::generate::{FinishReason, Generation};
use apr_engine::model::Model;
use apr_engine::probe::{Op, Site};

pub use history::{Clock, History, HistoryEvent, Sink};
pub use observed::{Listener, Observed};
pub use options::Options;
pub use payload::Payload;
pub use relay::beside;
pub use step::Step;
pub use whole::flaws;

use crate::compare::log_probabilities;
use history::{Detail, EventType, Iteration, Recorder};
use lens::Lens;
use oddity::oddities;
use payload::{
    ANOMALIES_LISTED, Anomaly, Configuration, HeadTrace, KvState, LayerTrace, ModelFacts, Run,
    SCHEMA, SiteTrace, Summary, Tokens,
};
use product::Products;
use step::Seen;

/// Values that are told of a site when asked for.
const VALUES: usize = 8;
/// The map of the layers.
const LAYERS: &str = "layers";

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Embed,
    Layers,
    Head,
}

/// Logits of a step and their log-probabilities.
struct Answer {
    logits: Vec<f32>,
    logprobs: Vec<f64>,
}

/// Writes the history of one run.
pub struct Tracer<'m> {
    model: &'m Model,
    options: Arc<Options>,
    clock: Clock,
    recorder: Recorder<'m>,
    /// Room for a step that is told at once.
    room: Option<Step>,
    products: Products<'m>,
    lens: Lens<'m>,
    phase: Phase,
    /// Position of the first row of this step, and its rows.
    rows: (usize, usize),
    context: usize,
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens chosen so far.
    chosen: usize,
    embed: Vec<SiteTrace>,
    layer: Option<(usize, LayerTrace)>,
    head: HeadTrace,
    /// Last rows of this layer that later sites need; empty where there is none.
    last: BTreeMap<Op, Vec<f32>>,
    answer: Option<Answer>,
    summary: Summary,
}

impl<'m> Tracer<'m> {
    /// A tracer of a run of `model`; events go to `sink` as they happen.
    pub fn new(model: &'m Model, options: Options, sink: Sink<'m>, clock: Clock) -> Self {
        Self {
            model,
            options: Arc::new(options),
            clock,
            recorder: Recorder::new(sink),
            room: None,
            products: Products::new(model),
            lens: Lens::new(model),
            phase: Phase::Idle,
            rows: (0, 0),
            context: 0,
            prompt: 0,
            chosen: 0,
            embed: Vec::new(),
            layer: None,
            head: HeadTrace::default(),
            last: BTreeMap::new(),
            answer: None,
            summary: Summary::default(),
        }
    }

    /// The run begins: `prompt` was made of a text of `characters`.
    pub fn start(
        &mut self,
        version: &str,
        id: &str,
        configuration: Configuration,
        characters: usize,
        prompt: &[u32],
    ) {
        let config = self.model.config();
        let run = Run {
            schema: SCHEMA.to_owned(),
            execution_arn: format!("arn:apr:execution:local:{id}"),
            apr_version: version.to_owned(),
            model: ModelFacts {
                path: self.model.path().display().to_string(),
                format: self.model.format().name().to_owned(),
                architecture: config.family.name.to_owned(),
                layers: config.layers,
                hidden_size: config.hidden,
                heads: config.heads,
                kv_heads: config.kv_heads,
                vocab_size: config.vocab,
            },
            configuration,
            sites: self.options.ops.iter().map(|op| op.name().to_owned()).collect(),
            layers: self.options.layers.iter().copied().collect(),
            outputs_recomputed: product::OUTPUTS,
        };
        self.prompt = prompt.len();
        self.recorder.at((self.clock)());
        let run = Payload::Run(Box::new(run));
        self.recorder.enter(EventType::ExecutionStarted, Detail::Starts(run));
        let tokens = Payload::Tokens(Tokens::of(0, prompt));
        self.recorder.task("tokenize", Payload::Text { characters }, tokens);
    }

    /// The run ends: with an answer, or with the code and the text of an error.
    ///
    /// # Errors
    /// When an event could not be written.
    pub fn finish(&mut self, result: Result<&Generation, (&str, &str)>) -> io::Result<()> {
        self.recorder.at((self.clock)());
        match result {
            Ok(generation) => {
                let unread = generation.tokens.iter().skip(self.chosen).copied();
                for token in unread.chain(generation.end_token).collect::<Vec<u32>>() {
                    self.sample(token);
                }
                generation.finish_reason.name().clone_into(&mut self.summary.finish_reason);
                self.summary.tokens = generation.tokens.len();
                let output = Payload::Summary(Box::new(self.summary.clone()));
                if generation.finish_reason == FinishReason::Cancelled {
                    let broken_off = Detail::aborts("cancelled", "the caller broke off");
                    self.recorder.leave(EventType::ExecutionAborted, broken_off);
                } else {
                    self.recorder.leave(EventType::ExecutionSucceeded, Detail::Succeeds(output));
                }
            }
            Err((code, cause)) => {
                self.recorder.leave(EventType::ExecutionFailed, Detail::fails(code, cause));
            }
        }
        self.recorder.failure().map_or(Ok(()), Err)
    }

    /// Values that were shown so far.
    pub fn values(&self) -> u64 {
        self.summary.values
    }

    /// Room for the record of a step.
    fn blank(&self) -> Step {
        Step::new(Arc::clone(&self.options), self.clock)
    }

    /// Tells of one step.
    fn tell(&mut self, step: &Step) {
        self.recorder.at(step.began);
        self.begin(step.position, &step.tokens, step.context);
        for seen in step.seen() {
            self.recorder.at(seen.at);
            self.see(&seen);
        }
        self.recorder.at(step.ended);
        if step.whole {
            self.end(step.last(Site::model(Op::Logits)));
        } else {
            self.fail();
        }
    }

    /// `tokens` are about to be read from `position` on, in a cache of `context` positions.
    fn begin(&mut self, position: usize, tokens: &[u32], context: usize) {
        // What is not of the prompt was chosen from the logits of the step before.
        if position >= self.prompt
            && let [token] = tokens
        {
            self.sample(*token);
        }
        self.context = context;
        self.open(position, tokens.len(), Payload::Tokens(Tokens::of(position, tokens)));
    }

    fn open(&mut self, position: usize, rows: usize, input: Payload) {
        self.rows = (position, rows);
        self.phase = Phase::Embed;
        self.answer = None;
        self.head = HeadTrace::default();
        self.lens.clear();
        self.enter("embed", input);
    }

    fn sample(&mut self, token: u32) {
        let answer = self.answer.take();
        let of = |answer: &Answer| {
            let own = *answer.logits.get(token as usize)?;
            let rank = 1 + answer.logits.iter().filter(|other| **other > own).count();
            Some((rank, *answer.logprobs.get(token as usize)?))
        };
        let (rank, logprob) = answer.as_ref().and_then(of).unzip();
        let input = Payload::Rows { position: self.rows.0 + self.rows.1, rows: 1 };
        self.recorder.task("sample", input, Payload::Sample { token, rank, logprob });
        self.chosen += 1;
    }

    /// Goes on to `phase`, closing what is open before it.
    fn go_to(&mut self, phase: Phase) {
        if self.phase == Phase::Embed && phase != Phase::Embed {
            let sites = std::mem::take(&mut self.embed);
            self.exit("embed", Payload::Sites { sites });
            let input = Payload::Rows { position: self.rows.0, rows: self.rows.1 };
            let length = self.model.config().layers;
            let layers = Detail::Enters(LAYERS.to_owned(), input);
            self.recorder.enter(EventType::MapStateEntered, layers);
            self.recorder.note(EventType::MapStateStarted, Detail::Length(length));
            self.phase = Phase::Layers;
        }
        if self.phase == Phase::Layers && phase == Phase::Head {
            self.close_layer(true);
            let cache = Payload::Cache(self.cache());
            self.recorder.note(EventType::MapStateSucceeded, Detail::Nothing);
            let layers = Detail::Exits(LAYERS.to_owned(), cache);
            self.recorder.leave(EventType::MapStateExited, layers);
            let input = Payload::Rows { position: self.rows.0, rows: self.rows.1 };
            self.enter("lm_head", input);
            self.phase = Phase::Head;
        }
    }

    /// The step ends; `logits` are those of its last row, where they are traced.
    fn end(&mut self, logits: Option<&[f32]>) {
        self.go_to(Phase::Head);
        if let Some(logits) = logits {
            let logprobs = log_probabilities(logits);
            self.head.evolution = self.lens.evolution(logits, &logprobs);
            self.answer = Some(Answer { logits: logits.to_vec(), logprobs });
        }
        if let Some(evolution) = &self.head.evolution {
            let odd = lens::oddities(evolution);
            self.count(&odd);
            self.head.anomalies = odd;
        }
        self.close_head();
    }

    /// The step ends in an error: what was seen until then is told.
    fn fail(&mut self) {
        match self.phase {
            Phase::Idle => return,
            Phase::Embed => {
                let sites = std::mem::take(&mut self.embed);
                self.exit("embed", Payload::Sites { sites });
            }
            Phase::Layers => {
                self.close_layer(false);
                self.recorder.leave(EventType::MapStateFailed, Detail::Nothing);
            }
            Phase::Head => self.close_head(),
        }
        self.phase = Phase::Idle;
    }

    fn close_head(&mut self) {
        let head = Payload::Head(Box::new(std::mem::take(&mut self.head)));
        self.exit("lm_head", head);
        self.summary.steps += 1;
        self.phase = Phase::Idle;
        self.forget();
    }

    /// Empties the rows that later sites need; their room stays.
    fn forget(&mut self) {
        self.last.values_mut().for_each(Vec::clear);
    }

    fn open_layer(&mut self, layer: usize) {
        self.close_layer(true);
        let iteration = Iteration { name: LAYERS.to_owned(), index: layer };
        self.recorder.enter(EventType::MapIterationStarted, Detail::Iteration(iteration));
        let input = Payload::Rows { position: self.rows.0, rows: self.rows.1 };
        self.enter(&format!("{LAYERS}.{layer}"), input);
        self.layer = Some((layer, LayerTrace::default()));
        self.forget();
    }

    fn close_layer(&mut self, whole: bool) {
        let Some((index, mut trace)) = self.layer.take() else { return };
        trace.attention_ratio = ratio(&trace.sites, Op::OProj, Op::AttnResidual);
        trace.feed_forward_ratio = ratio(&trace.sites, Op::Down, Op::FfnResidual);
        let output = Payload::Layer(Box::new(trace));
        self.exit(&format!("{LAYERS}.{index}"), output);
        let kind =
            if whole { EventType::MapIterationSucceeded } else { EventType::MapIterationFailed };
        let iteration = Iteration { name: LAYERS.to_owned(), index };
        self.recorder.leave(kind, Detail::Iteration(iteration));
    }

    /// A task begins.
    fn enter(&mut self, name: &str, input: Payload) {
        self.recorder.enter(EventType::TaskStateEntered, Detail::Enters(name.to_owned(), input));
    }

    /// A task ends.
    fn exit(&mut self, name: &str, output: Payload) {
        self.recorder.leave(EventType::TaskStateExited, Detail::Exits(name.to_owned(), output));
    }

    fn cache(&self) -> KvState {
        let config = self.model.config();
        let size = self.rows.0 + self.rows.1;
        let width = config.kv_width();
        let unseen_by = |layer| config.window_of(layer).map_or(0, |len| size.saturating_sub(len));
        KvState {
            step: self.summary.steps,
            size,
            capacity: self.context,
            layers: config.layers,
            width,
            values: 2 * (config.layers * width) as u64 * size as u64,
            hit_rate: self.rows.0 as f64 / size.max(1) as f64,
            evictions: 0,
            // What one layer still sees is not lost.
            unseen: (0..config.layers).map(unseen_by).min().unwrap_or(0),
        }
    }

    fn count(&mut self, anomalies: &[Anomaly]) {
        self.summary.anomalies_total += anomalies.len() as u64;
        let room = ANOMALIES_LISTED.saturating_sub(self.summary.anomalies.len());
        self.summary.anomalies.extend(anomalies.iter().take(room).cloned());
    }

    /// What is told of a site.
    fn look(&mut self, seen: &Seen<'_>) -> SiteTrace {
        let Seen { moments, last, .. } = seen;
        self.summary.values += moments.count();
        let site = seen.site.to_string();
        let anomalies = oddities(moments, seen.site.op, &site);
        self.count(&anomalies);
        let told = |value: &f32| value.is_finite().then_some(*value);
        let values = self.options.verbose.then(|| last.iter().take(VALUES).map(told).collect());
        let shape = [seen.rows, last.len()];
        SiteTrace { site, shape, statistics: moments.statistics(), anomalies, values }
    }

    /// The error of a product of the last row, when its input was seen.
    fn product(&mut self, site: Site, output: &[f32]) -> Option<payload::ProductError> {
        let (_, _, input) = product::operands(site.op)?;
        let input = self.last.get(&input).filter(|row| !row.is_empty())?;
        self.products.error(site, input, output)
    }

    /// A long prompt is read in several passes: each is a step of its own.
    fn follow(&mut self, seen: &Seen<'_>) {
        if self.phase != Phase::Idle && seen.position != self.rows.0 {
            self.go_to(Phase::Head);
            self.close_head();
            let input = Payload::Rows { position: seen.position, rows: seen.rows };
            self.open(seen.position, seen.rows, input);
        }
        self.rows = (seen.position, seen.rows);
    }

    fn see_in_layer(&mut self, layer: usize, seen: &Seen<'_>) {
        self.follow(seen);
        self.go_to(Phase::Layers);
        if self.layer.as_ref().is_none_or(|(open, _)| *open != layer) {
            self.open_layer(layer);
        }
        let (op, last) = (seen.site.op, seen.last);
        let told = self.look(seen);
        let mut heads = Vec::new();
        if op == Op::AttnScores {
            let count = self.model.config().heads;
            heads = attention::heads(last, count, seen.position + seen.rows - 1);
            for head in &heads {
                self.count(&attention::oddities(head, last.len() / count.max(1), &told.site));
            }
        }
        let product = self.product(seen.site, last);
        if op == Op::FfnResidual && self.options.has(Site::model(Op::Logits)) {
            self.lens.take(layer, last);
        }
        if let Some((_, trace)) = &mut self.layer {
            trace.sites.push(told);
            trace.attention.extend(heads);
            trace.quantization.extend(product);
        }
    }

    fn see(&mut self, seen: &Seen<'_>) {
        let op = seen.site.op;
        if let Some(layer) = seen.site.layer {
            self.see_in_layer(layer, seen);
        } else if op == Op::Embed {
            self.follow(seen);
            let told = self.look(seen);
            self.embed.push(told);
        } else {
            self.go_to(Phase::Head);
            let told = self.look(seen);
            self.head.sites.push(told);
            if let Some(error) = self.product(seen.site, seen.last) {
                self.head.quantization.push(error);
            }
        }
        let later =
            matches!(op, Op::AttnNorm | Op::AttnOut | Op::FfnNorm | Op::Swiglu | Op::FinalNorm);
        if later {
            let room = self.last.entry(op).or_default();
            room.clear();
            room.extend_from_slice(seen.last);
        }
    }
}

/// Told at once.
impl Listener for Tracer<'_> {
    fn room(&mut self) -> io::Result<Step> {
        Ok(self.room.take().unwrap_or_else(|| self.blank()))
    }

    fn hear(&mut self, step: Step) -> io::Result<()> {
        self.tell(&step);
        self.room = Some(step);
        Ok(())
    }
}

impl fmt::Debug for Tracer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Tracer");
        shown.field("options", &self.options).field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// Root mean square at `part` divided by that at `whole`.
fn ratio(sites: &[SiteTrace], part: Op, whole: Op) -> Option<f64> {
    let rms = |op: Op| {
        let seen = sites.iter().find(|seen| seen.site.rsplit('.').next() == Some(op.name()))?;
        seen.statistics.rms
    };
    let ratio = rms(part)? / rms(whole)?;
    ratio.is_finite().then_some(ratio)
}

#[cfg(test)]
mod tests;
