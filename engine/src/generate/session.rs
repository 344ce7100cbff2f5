//! The generation loop: prompt in, tokens and text out, until something ends it.
//!
//! Knows the order of prefill, choice, decoding and stopping. It has no clock and prints nothing: who
//! wants times or a stream takes them from the events.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::sampler::{Sampler, Sampling, log_softmax};
use crate::error::{Code, Error, Result};
use crate::model::{Lm, Want};
use crate::probe::NoProbe;
use crate::text::{PreparedTokens, StopMatcher, StreamDecoder, Tokenizer};

/// Prompt tokens between two [`Event::Prompt`]s.
const PROMPT_STEP: usize = 256;
/// Most alternatives per step.
const LOGPROBS_MAX: usize = 100;

/// What to generate and when to stop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateOptions {
    /// Most new tokens; `None` goes on until the context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end generation and are not part of the answer.
    pub stop: Vec<String>,
    /// Alternatives recorded per step, at most 100; 0 records nothing.
    pub logprobs: usize,
    /// Goes on behind end tokens.
    pub ignore_eos: bool,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FinishReason {
    /// The model gave an end token.
    Stop,
    /// A stop string appeared.
    StopString,
    /// As many tokens as allowed.
    Length,
    /// The context is full.
    Context,
    /// The caller broke off.
    Cancelled,
}

impl FinishReason {
    /// Stable spelling for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::StopString => "stop_string",
            Self::Length => "length",
            Self::Context => "context",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Progress, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part of the prompt was read.
    Prompt {
        /// Prompt tokens read so far.
        done: usize,
        /// Prompt tokens.
        total: usize,
    },
    /// A token was chosen.
    Token {
        /// The token.
        id: u32,
        /// Text that is certain now: whole characters, never part of a stop string; may be empty.
        text: &'a str,
    },
    /// Generation ended.
    End {
        /// Text that was held back until now; may be empty.
        text: &'a str,
        /// Why.
        reason: FinishReason,
    },
}

/// A token and its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alternative {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability before any sampling filter.
    pub logprob: f64,
}

/// Probabilities of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepLogprobs {
    /// The token that was chosen.
    pub chosen: Alternative,
    /// The best tokens, best first; of equal ones the lower id first.
    pub top: Vec<Alternative>,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// New tokens, without the end token.
    pub tokens: Vec<u32>,
    /// Their text, up to a stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The end token, when it was one that ended it.
    pub end_token: Option<u32>,
    /// One entry per new token when asked for, else empty.
    pub logprobs: Vec<StepLogprobs>,
}

/// Generates from `prompt` with an emptied cache.
///
/// # Errors
/// [`Code::EmptyPrompt`], [`Code::ContextExceeded`] with both numbers, [`Code::SamplerValue`] and what the
/// model and the tokenizer add.
pub fn generate(
    lm: &mut dyn Lm,
    tokenizer: &Tokenizer,
    prompt: &PreparedTokens,
    options: &GenerateOptions,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Generation> {
    if options.logprobs > LOGPROBS_MAX {
        return Err(Error::new(Code::SamplerValue)
            .field("logprobs")
            .expected(format_args!("at most {LOGPROBS_MAX}"))
            .found(options.logprobs));
    }
    let none = BTreeSet::new();
    let mut run = Run {
        sampler: Sampler::new(options.sampling)?,
        decoder: StreamDecoder::new(tokenizer, true),
        matcher: StopMatcher::new(options.stop.iter().cloned()),
        ends: if options.ignore_eos { &none } else { tokenizer.eos_set() },
        options,
        history: prompt.ids().to_vec(),
        generation: Generation {
            tokens: Vec::new(),
            text: String::new(),
            finish_reason: FinishReason::Cancelled,
            end_token: None,
            logprobs: Vec::new(),
        },
    };
    let reason = match read_prompt(lm, prompt.ids(), on_event)? {
        Some(logits) => run.answer(lm, logits, on_event)?,
        None => FinishReason::Cancelled,
    };
    Ok(run.finish(reason, on_event))
}

/// Fills the cache with the prompt. Gives the last logits, or `None` when the caller broke off.
fn read_prompt(
    lm: &mut dyn Lm,
    ids: &[u32],
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Option<Vec<f32>>> {
    lm.reset();
    if ids.is_empty() {
        return Err(Error::new(Code::EmptyPrompt).expected("at least one token"));
    }
    // The parts would be refused one by one, after much work.
    if ids.len() > lm.context() {
        return Err(Error::new(Code::ContextExceeded)
            .expected(format_args!("at most {} tokens", lm.context()))
            .found(format_args!("{} tokens in the prompt", ids.len()))
            .hint("shorten the prompt"));
    }
    let mut logits = Vec::new();
    for part in ids.chunks(PROMPT_STEP) {
        logits = lm.forward(part, Want::Last, &mut NoProbe)?.last().to_vec();
        let event = Event::Prompt { done: lm.position(), total: ids.len() };
        if on_event(event).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(logits))
}

/// State of one generation.
struct Run<'a> {
    sampler: Sampler,
    decoder: StreamDecoder<'a>,
    matcher: StopMatcher,
    ends: &'a BTreeSet<u32>,
    options: &'a GenerateOptions,
    /// Prompt and new tokens.
    history: Vec<u32>,
    generation: Generation,
}

impl Run<'_> {
    /// Chooses tokens until something ends it.
    fn answer(
        &mut self,
        lm: &mut dyn Lm,
        mut logits: Vec<f32>,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<FinishReason> {
        loop {
            if self.options.max_tokens.is_some_and(|max| self.generation.tokens.len() >= max) {
                return Ok(FinishReason::Length);
            }
            let id = self.sampler.pick(&logits, &self.history)?;
            if self.ends.contains(&id) {
                self.generation.end_token = Some(id);
                return Ok(FinishReason::Stop);
            }
            let text = self.take(id, &logits)?;
            if on_event(Event::Token { id, text: &text }).is_break() {
                return Ok(FinishReason::Cancelled);
            }
            if self.matcher.stopped() {
                return Ok(FinishReason::StopString);
            }
            if lm.position() == lm.context() {
                return Ok(FinishReason::Context);
            }
            let next = lm.forward(&[id], Want::Last, &mut NoProbe)?;
            logits.clear();
            logits.extend_from_slice(next.last());
        }
    }

    /// Keeps a chosen token; gives the text that is certain now.
    fn take(&mut self, id: u32, logits: &[f32]) -> Result<String> {
        if self.options.logprobs > 0 {
            self.generation.logprobs.push(step_logprobs(logits, id, self.options.logprobs));
        }
        self.generation.tokens.push(id);
        self.history.push(id);
        let piece = self.decoder.push(id)?;
        let text = self.matcher.push(&piece);
        self.generation.text.push_str(&text);
        Ok(text)
    }

    fn finish(
        mut self,
        reason: FinishReason,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Generation {
        let mut tail = self.matcher.push(&self.decoder.finish());
        tail.push_str(&self.matcher.finish());
        self.generation.text.push_str(&tail);
        self.generation.finish_reason = reason;
        // There is nothing left to break off.
        let _ = on_event(Event::End { text: &tail, reason });
        self.generation
    }
}

/// Probabilities of `chosen` and of the `count` best tokens.
fn step_logprobs(logits: &[f32], chosen: u32, count: usize) -> StepLogprobs {
    let all = log_softmax(logits);
    let alternative = |id: u32| Alternative {
        id,
        logprob: all.get(id as usize).copied().unwrap_or(f64::NEG_INFINITY),
    };
    let mut ids: Vec<u32> = (0u32..).zip(&all).map(|(id, _)| id).collect();
    let order = |a: &u32, b: &u32| all[*b as usize].total_cmp(&all[*a as usize]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    let top = ids.into_iter().map(alternative).collect();
    StepLogprobs { chosen: alternative(chosen), top }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_sorted_and_their_probabilities_sum_to_one() {
        let step = step_logprobs(&[0.0, 2.0, 1.0, 2.0], 2, 10);
        assert_eq!(step.top.iter().map(|a| a.id).collect::<Vec<_>>(), [1, 3, 2, 0]);
        let sum: f64 = step.top.iter().map(|a| a.logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert_eq!(step.chosen, step.top[2]);
        assert_eq!(step_logprobs(&[0.0, 2.0, 1.0, 2.0], 2, 1).top.len(), 1);
    }
}
