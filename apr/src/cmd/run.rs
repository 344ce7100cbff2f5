//! `apr run`: a prompt in, the answer out.

use std::io::{IsTerminal, Read};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use apr_engine::generate::{Event, FinishReason, GenerateOptions, Generation, Sampling, generate};
use apr_engine::model::{Lm, LmOptions, Model};
use apr_engine::text::{ChatOptions, Message, PreparedTokens, prepare_chat, prepare_raw};
use schemars::JsonSchema;
use serde::Serialize;

use super::trace;
use crate::cli::RunArgs;
use crate::device;
use crate::failure::Failure;
use crate::gate::{Admission, ContractState};
use crate::interrupt::Interrupt;
use crate::render::{Envelope, Terminal};

/// Longest prompt that is read from a pipe, in bytes.
const PROMPT_BYTES_MAX: u64 = 64 << 20;

/// `run`: what was generated, and how.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunOutput {
    /// The answer.
    text: String,
    /// Ids of the answer, without the end token.
    tokens: Vec<u32>,
    /// Ids of the prompt as the model saw it.
    prompt_tokens: Vec<u32>,
    /// `stop`, `stop_string`, `length`, `context` or `cancelled`.
    finish_reason: String,
    /// One entry per token when asked for.
    logprobs: Vec<StepOutput>,
    /// Token counts.
    usage: Usage,
    /// The model.
    model: ModelOutput,
    /// Whether the model's contract was looked at before.
    contract: ContractState,
    /// The backend, with its instruction set.
    backend: String,
    /// Measured times.
    timings: Timings,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Usage {
    /// Tokens of the prompt.
    prompt_tokens: usize,
    /// Tokens of the answer.
    completion_tokens: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StepOutput {
    /// The chosen token.
    token: u32,
    /// Its text; replacement characters where a character spans tokens.
    text: String,
    /// Natural logarithm of its probability.
    logprob: f64,
    /// The most likely tokens, best first.
    top: Vec<AlternativeOutput>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct AlternativeOutput {
    /// The token.
    token: u32,
    /// Its text.
    text: String,
    /// Natural logarithm of its probability.
    logprob: f64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ModelOutput {
    /// As it was named.
    path: String,
    /// Format of the weights.
    format: String,
    /// SHA-256 of the weight files.
    sha256: String,
    /// Model family.
    architecture: String,
}

/// Wall times in milliseconds.
#[derive(Debug, Serialize, JsonSchema)]
struct Timings {
    /// Opening, checking and setting up the model.
    load_ms: f64,
    /// From the first prompt token to its logits.
    prompt_ms: f64,
    /// From there to the last token.
    decode_ms: f64,
    /// Prompt tokens per second.
    prompt_tokens_per_s: Option<f64>,
    /// Answer tokens per second.
    decode_tokens_per_s: Option<f64>,
}

pub(crate) fn run(
    args: &RunArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let prompt = prompt(args)?;
    let start = now();
    let (contract, took) = (admission.contract(), admission.took);
    let model = match admission.model {
        Some(model) => model,
        None => Model::load(&args.model.model)?,
    };
    let device = device::choose(&args.device)?;
    let options = LmOptions { context: args.context, ..device::options(args.cache) };
    let mut lm = model.lm_on(&device, options)?;
    let load = took + start.elapsed();
    facts(&model, lm.as_ref(), load, terminal)?;

    let prepared = prepare(args, &model, &prompt)?;
    report_unspelled(&model, &prompt, terminal)?;
    terminal.fact("prompt tokens", prepared.ids().len())?;
    let mut clock = Clock::new();
    let answer =
        |lm: &mut dyn Lm| stream(args, &model, lm, &prepared, terminal, interrupt, &mut clock);
    let traced = trace::Traced { model: &model, args, prompt: &prompt, tokens: prepared.ids() };
    let generation = traced.run(lm.as_mut(), answer)?;
    clock.finish();
    let timings = clock.timings(load, prepared.ids().len(), generation.tokens.len());
    terminal.fact("tokens", generation.tokens.len())?;
    terminal.fact("finish reason", generation.finish_reason.name())?;
    terminal.fact("prompt time", format_args!("{:.1} ms", timings.prompt_ms))?;
    if let Some(speed) = timings.decode_tokens_per_s {
        terminal.fact("speed", format_args!("{speed:.1} tokens/s"))?;
    }
    let cancelled = generation.finish_reason == FinishReason::Cancelled;
    let how = How { contract, backend: lm.backend_name(), timings };
    let output = || output(&model, &prepared, generation, how);
    let output = terminal.json.then(output).transpose()?;
    // Nothing is claimed of a file that is not the one that was opened; the hash has read all of it just now.
    model.source().check_unchanged()?;
    if let Some(output) = output {
        terminal.value(&Envelope::new("run", "run", output))?;
    }
    if cancelled { Err(Failure::Interrupted) } else { Ok(0) }
}

#[expect(clippy::disallowed_methods, reason = "the command line owns the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The prompt: positional, by option, or from a pipe.
fn prompt(args: &RunArgs) -> Result<String, Failure> {
    if let Some(prompt) = args.prompt.as_ref().or(args.prompt_option.as_ref()) {
        return Ok(prompt.clone());
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("no prompt: give one as an argument or through a pipe"));
    }
    let mut text = String::new();
    let read = stdin.lock().take(PROMPT_BYTES_MAX + 1).read_to_string(&mut text);
    let read = read.map_err(|error| Failure::usage(format_args!("standard input: {error}")))?;
    if read as u64 > PROMPT_BYTES_MAX {
        return Err(Failure::usage(format_args!(
            "the prompt on standard input is longer than {PROMPT_BYTES_MAX} bytes"
        )));
    }
    // A pipe from `echo` ends in a line break that nobody meant.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn facts(model: &Model, lm: &dyn Lm, load: Duration, terminal: &Terminal) -> Result<(), Failure> {
    let config = model.config();
    terminal.fact("model", model.path().display())?;
    terminal.fact("format", model.format().name())?;
    terminal.fact("size", format_args!("{} bytes", model.source().bytes_total()))?;
    terminal.fact("architecture", config.family.name)?;
    terminal.fact("layers", config.layers)?;
    terminal.fact("hidden size", config.hidden)?;
    terminal
        .fact("heads", format_args!("{} query, {} key-value", config.heads, config.kv_heads))?;
    terminal.fact("vocabulary", config.vocab)?;
    terminal.fact("context", format_args!("{} tokens", lm.context()))?;
    terminal.fact("cache type", lm.cache_type())?;
    terminal.fact("backend", lm.backend_name())?;
    terminal.fact("load time", format_args!("{:.1} ms", milliseconds(load)))
}

/// A prompt that loses characters is answered, and the loss is reported.
fn report_unspelled(model: &Model, prompt: &str, terminal: &Terminal) -> Result<(), Failure> {
    let lost = model.tokenizer()?.unspelled(prompt);
    let Some(first) = lost.first() else { return Ok(()) };
    terminal.notice(&format!(
        "apr: the vocabulary has no token for {} of the prompt, the first {first:?}: left out",
        super::validate::counted(lost.len(), "character")
    ))
}

/// Chat template when the model has one and nobody asked for raw text.
fn prepare(args: &RunArgs, model: &Model, prompt: &str) -> Result<PreparedTokens, Failure> {
    let tokenizer = model.tokenizer()?;
    let template = if args.raw { None } else { model.chat_template()? };
    let Some(template) = template else {
        if args.system.is_some() {
            return Err(Failure::usage("--system needs a model with a chat template"));
        }
        return Ok(prepare_raw(tokenizer, prompt)?);
    };
    let mut messages = Vec::new();
    messages.extend(args.system.as_ref().map(|system| Message::new("system", system.as_str())));
    messages.push(Message::new("user", prompt));
    Ok(prepare_chat(tokenizer, template, &messages, &chat_options())?)
}

/// Generates; text goes out as it comes unless one JSON value is wanted.
fn stream(
    args: &RunArgs,
    model: &Model,
    lm: &mut dyn Lm,
    prepared: &PreparedTokens,
    terminal: &Terminal,
    interrupt: &Interrupt,
    clock: &mut Clock,
) -> Result<Generation, Failure> {
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens),
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repeat_penalty: args.repeat_penalty,
            seed: args.seed,
            ..Sampling::default()
        },
        stop: args.stop.clone(),
        logprobs: args.logprobs.unwrap_or(0),
        ..GenerateOptions::default()
    };
    let mut written: Result<(), Failure> = Ok(());
    let mut on_event = |event: Event<'_>| {
        let text = match event {
            Event::Prompt { done, total } => {
                clock.prompt(done == total);
                ""
            }
            Event::Token { text, .. } | Event::End { text, .. } => text,
        };
        if !terminal.json && !text.is_empty() && written.is_ok() {
            written = terminal.model_text(text);
        }
        if interrupt.requested() || written.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let generation = generate(lm, model.tokenizer()?, prepared, &options, &mut on_event)?;
    written?;
    if !terminal.json {
        terminal.text("\n")?;
    }
    Ok(generation)
}

/// Takes the times of a generation.
struct Clock {
    start: Instant,
    prompt_done: Option<Instant>,
    end: Option<Instant>,
}

impl Clock {
    fn new() -> Self {
        Self { start: now(), prompt_done: None, end: None }
    }

    fn prompt(&mut self, whole: bool) {
        if whole {
            self.prompt_done = Some(now());
        }
    }

    fn finish(&mut self) {
        self.end = Some(now());
    }

    fn timings(&self, load: Duration, prompt_tokens: usize, tokens: usize) -> Timings {
        let end = self.end.unwrap_or(self.start);
        let middle = self.prompt_done.unwrap_or(end);
        let (prompt, decode) = (middle - self.start, end - middle);
        let speed = |count: usize, time: Duration| {
            (count > 0 && !time.is_zero()).then(|| count as f64 / time.as_secs_f64())
        };
        Timings {
            load_ms: milliseconds(load),
            prompt_ms: milliseconds(prompt),
            decode_ms: milliseconds(decode),
            prompt_tokens_per_s: speed(prompt_tokens, prompt),
            decode_tokens_per_s: speed(tokens, decode),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What is told of a run besides its answer.
struct How {
    contract: ContractState,
    backend: String,
    timings: Timings,
}

fn output(
    model: &Model,
    prepared: &PreparedTokens,
    generation: Generation,
    how: How,
) -> Result<RunOutput, Failure> {
    let How { contract, backend, timings } = how;
    let tokenizer = model.tokenizer()?;
    let text = |token: u32| -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(tokenizer.token_bytes(token)?).into_owned())
    };
    let mut logprobs = Vec::new();
    for step in &generation.logprobs {
        let mut top = Vec::new();
        for other in &step.top {
            top.push(AlternativeOutput {
                token: other.id,
                text: text(other.id)?,
                logprob: other.logprob,
            });
        }
        let chosen = step.chosen;
        logprobs.push(StepOutput {
            token: chosen.id,
            text: text(chosen.id)?,
            logprob: chosen.logprob,
            top,
        });
    }
    Ok(RunOutput {
        usage: Usage {
            prompt_tokens: prepared.ids().len(),
            completion_tokens: generation.tokens.len(),
        },
        text: generation.text,
        tokens: generation.tokens,
        prompt_tokens: prepared.ids().to_vec(),
        finish_reason: generation.finish_reason.name().to_owned(),
        logprobs,
        model: ModelOutput {
            path: model.path().display().to_string(),
            format: model.format().name().to_owned(),
            sha256: model.sha256(),
            architecture: model.config().family.name.to_owned(),
        },
        contract,
        backend,
        timings,
    })
}

/// A turn of the assistant is asked for; templates that print a date use their own.
fn chat_options() -> ChatOptions {
    ChatOptions { add_generation_prompt: true, ..ChatOptions::default() }
}
