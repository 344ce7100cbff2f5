//! `generation-limits`: generation ends where it must, and not before.

use std::ops::ControlFlow;

use apr_engine::Code;
use apr_engine::generate::{Event, FinishReason, GenerateOptions, Generation, Sampling};
use apr_engine::model::{Lm, LmOptions, Model, Want};
use apr_engine::probe::NoProbe;
use apr_engine::text::{PreparedTokens, Tokenizer};

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::look::{Tokens, all_of, token_sets};
use crate::contract::check::{GenerationLimits, GenerationRule};
use crate::verdict::Verdict;

/// Context of the small models that are filled up.
const CONTEXT: usize = 24;
/// Tokens generated where a rule needs an answer of some length.
const ANSWER: usize = 24;

/// Everything a rule needs to generate.
struct Bench<'a> {
    ctx: &'a JudgeContext,
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    spec: BackendSpec,
    prompts: Vec<Tokens>,
}

/// A generation and what was streamed.
struct Seen {
    generation: Generation,
    pieces: Vec<String>,
    token_events: Vec<u32>,
    prompt_events: Vec<(usize, usize)>,
    end_events: Vec<FinishReason>,
    position: usize,
}

/// Judges `check` on `case`.
pub(super) fn judge(check: &GenerationLimits, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let text = ctx.text(form)?;
    let prompts = token_sets(ctx, form, &model, &[])?;
    let spec = BackendSpec::of(&case.info.cell);
    let bench = Bench { ctx, model: &model, tokenizer: &text.tokenizer, spec, prompts };
    match check.rule {
        GenerationRule::MaxTokens => bench.max_tokens(&[1, 2, 7, ANSWER]),
        GenerationRule::ZeroTokens => bench.max_tokens(&[0]),
        GenerationRule::ContextRefused => bench.context_refused(),
        GenerationRule::StopString => bench.stop_string(),
        GenerationRule::EndToken => bench.end_token(),
        GenerationRule::WholeCharacters => bench.whole_characters(),
        GenerationRule::ForeignToken => bench.foreign_token(),
        GenerationRule::EmptyPrompt => bench.empty_prompt(),
        GenerationRule::BadParameters => bench.bad_parameters(),
        GenerationRule::Counts => bench.counts(),
    }
}

fn endless(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), ignore_eos: true, ..Default::default() }
}

impl Bench<'_> {
    fn lm(&self, options: LmOptions) -> Look<Box<dyn Lm>> {
        self.ctx.lm(self.model, &self.spec, options)
    }

    fn prepared(&self, ids: &[u32]) -> Look<PreparedTokens> {
        let prepared = PreparedTokens::from_ids(ids, self.model.config().vocab);
        prepared.map_err(|error| refused("a prompt is refused", &error))
    }

    fn run(&self, lm: &mut dyn Lm, ids: &[u32], options: &GenerateOptions) -> Look<Seen> {
        let prompt = self.prepared(ids)?;
        let (mut pieces, mut token_events) = (Vec::new(), Vec::new());
        let (mut prompt_events, mut end_events) = (Vec::new(), Vec::new());
        let mut on_event = |event: Event<'_>| {
            match event {
                Event::Prompt { done, total } => prompt_events.push((done, total)),
                Event::Token { id, text } => {
                    token_events.push(id);
                    pieces.push(text.to_owned());
                }
                Event::End { text, reason } => {
                    pieces.push(text.to_owned());
                    end_events.push(reason);
                }
            }
            ControlFlow::Continue(())
        };
        let generation = self
            .ctx
            .generate(lm, self.tokenizer, &prompt, options, &mut on_event)
            .map_err(|error| refused("generation fails", &error))?;
        let position = lm.position();
        Ok(Seen { generation, pieces, token_events, prompt_events, end_events, position })
    }

    fn max_tokens(&self, limits: &[usize]) -> Look<Verdict> {
        let mut lm = self.lm(self.ctx.options())?;
        let mut wrong = Vec::new();
        let mut count = 0;
        for prompt in &self.prompts {
            for &limit in limits {
                let seen = self.run(&mut *lm, &prompt.ids, &endless(limit))?;
                let (found, finish) = (seen.generation.tokens.len(), seen.generation.finish_reason);
                count += 1;
                if found != limit || finish != FinishReason::Length {
                    let finish = finish.name();
                    wrong.push(format!(
                        "{}: {found} tokens of {limit}, ended by {finish}",
                        prompt.label
                    ));
                }
            }
        }
        Ok(all_of(count, "limits kept exactly", wrong))
    }

    /// A full context refuses more and names both numbers, by whichever way the tokens come; it never drops any.
    fn context_refused(&self) -> Look<Verdict> {
        let small = LmOptions { context: Some(CONTEXT), ..self.ctx.options() };
        let mut lm = self.lm(small)?;
        let long: Vec<u32> =
            self.prompts.iter().flat_map(|p| p.ids.clone()).cycle().take(CONTEXT + 5).collect();
        let mut wrong = Vec::new();
        if lm.context() != CONTEXT {
            wrong.push(format!("a context of {} instead of {CONTEXT}", lm.context()));
        }
        let mut none = |_: Event<'_>| ControlFlow::Continue(());
        let prompt = self.prepared(&long)?;
        let generated =
            self.ctx.generate(&mut *lm, self.tokenizer, &prompt, &endless(1), &mut none);
        refusal("a long prompt", generated.map(drop), long.len(), &mut wrong);
        lm.reset();
        let whole = lm.forward(&long, Want::Last, &mut NoProbe).map(drop);
        refusal("a long forward pass", whole, long.len(), &mut wrong);
        lm.reset();
        let first = lm.forward(&long[..CONTEXT], Want::Last, &mut NoProbe).map(drop);
        if let Err(error) = first {
            wrong.push(format!("exactly {CONTEXT} tokens are refused: {error}"));
        }
        let next = lm.forward(&long[..1], Want::Last, &mut NoProbe).map(drop);
        refusal("one token too many", next, CONTEXT + 1, &mut wrong);
        let half = &long[..CONTEXT / 2];
        let seen =
            self.run(&mut *lm, half, &GenerateOptions { ignore_eos: true, ..Default::default() })?;
        let total = half.len() + seen.generation.tokens.len();
        if seen.generation.finish_reason != FinishReason::Context
            || !(CONTEXT..=CONTEXT + 1).contains(&total)
        {
            let finish = seen.generation.finish_reason.name();
            wrong.push(format!("an open answer ended at {total} tokens by {finish}"));
        }
        Ok(all_of(6, "ways to fill a context end as they must", wrong))
    }

    /// Every piece of an answer of two to five characters, tried as a stop string.
    fn stop_string(&self) -> Look<Verdict> {
        let mut lm = self.lm(self.ctx.options())?;
        let mut wrong = Vec::new();
        let mut count = 0;
        for prompt in &self.prompts {
            let free = self.run(&mut *lm, &prompt.ids, &endless(ANSWER))?.generation.text;
            let starts: Vec<usize> = free.char_indices().map(|(at, _)| at).collect();
            for (index, &at) in starts.iter().enumerate().step_by(5) {
                let length = 2 + index % 4;
                let Some(&end) = starts.get(index + length) else { break };
                let stop = &free[at..end];
                let options = GenerateOptions { stop: vec![stop.to_owned()], ..endless(ANSWER) };
                let seen = self.run(&mut *lm, &prompt.ids, &options)?;
                let expected = free.find(stop).map_or(free.as_str(), |first| &free[..first]);
                count += 1;
                let finish = seen.generation.finish_reason;
                if seen.generation.text != expected || finish != FinishReason::StopString {
                    wrong.push(format!(
                        "stop {stop:?}: {:?} ({}) instead of {expected:?}",
                        seen.generation.text,
                        finish.name()
                    ));
                }
            }
        }
        Ok(all_of(count, "stop strings end the text before them", wrong))
    }

    /// Declares the first generated token an end token by asking a tokenizer's own: the answer must stop at one.
    fn end_token(&self) -> Look<Verdict> {
        let mut lm = self.lm(self.ctx.options())?;
        let ends = self.tokenizer.eos_set();
        let specials: Vec<&str> = self.tokenizer.special_strings().collect();
        let mut wrong = Vec::new();
        let mut count = 0;
        for prompt in &self.prompts {
            let all = self.run(&mut *lm, &prompt.ids, &endless(4 * ANSWER))?.generation.tokens;
            let options = GenerateOptions { ignore_eos: false, ..endless(4 * ANSWER) };
            let seen = self.run(&mut *lm, &prompt.ids, &options)?.generation;
            let until = all.iter().position(|id| ends.contains(id));
            let expected = &all[..until.unwrap_or(all.len())];
            count += 1;
            if seen.tokens != expected {
                let (found, wanted) = (seen.tokens.len(), expected.len());
                wrong.push(format!("{}: {found} tokens, the end stands at {wanted}", prompt.label));
            }
            if seen.end_token != until.map(|at| all[at]) {
                wrong.push(format!("{}: end token {:?} reported", prompt.label, seen.end_token));
            }
            if until.is_some() && specials.iter().any(|text| seen.text.contains(text)) {
                wrong.push(format!("{}: a marker in {:?}", prompt.label, seen.text));
            }
        }
        Ok(all_of(count, "answers end at their end token", wrong))
    }

    fn whole_characters(&self) -> Look<Verdict> {
        let mut lm = self.lm(self.ctx.options())?;
        let mut wrong = Vec::new();
        let mut count = 0u64;
        for prompt in &self.prompts {
            for max in [3, ANSWER, 2 * ANSWER] {
                let seen = self.run(&mut *lm, &prompt.ids, &endless(max))?;
                count += seen.pieces.len() as u64;
                let joined = seen.pieces.concat();
                if joined != seen.generation.text {
                    wrong.push(format!("streamed {joined:?}, returned {:?}", seen.generation.text));
                }
                let decoded = self.tokenizer.decode(&seen.generation.tokens, true);
                match decoded {
                    Ok(whole) if seen.generation.text == whole => {}
                    Ok(whole) if whole.trim_start() == seen.generation.text.trim_start() => {}
                    Ok(whole) => wrong.push(format!(
                        "streamed {:?}, decoded at once {whole:?}",
                        seen.generation.text
                    )),
                    Err(error) => wrong.push(error.to_string()),
                }
            }
        }
        Ok(all_of(count, "streamed pieces add up to the text", wrong))
    }

    fn foreign_token(&self) -> Look<Verdict> {
        let mut lm = self.lm(self.ctx.options())?;
        let vocab = self.model.config().vocab;
        let first = u32::try_from(vocab).unwrap_or(u32::MAX);
        let rows: [&[u32]; 4] = [&[first], &[u32::MAX], &[0, first], &[first, 0]];
        let mut wrong = Vec::new();
        for ids in rows {
            let name = format!("ids {ids:?} of {vocab}");
            let forward = lm.forward(ids, Want::Last, &mut NoProbe).map(drop);
            expect(&name, forward, Code::TokenId, &mut wrong);
            if lm.position() != 0 {
                wrong.push(format!("{name}: {} tokens stay in the cache", lm.position()));
                lm.reset();
            }
        }
        Ok(all_of(rows.len() as u64, "foreign tokens refused", wrong))
    }

    fn empty_prompt(&self) -> Look<Verdict> {
        let mut lm = self.lm(self.ctx.options())?;
        let mut none = |_: Event<'_>| ControlFlow::Continue(());
        let prompt = self.prepared(&[])?;
        let generated =
            self.ctx.generate(&mut *lm, self.tokenizer, &prompt, &endless(1), &mut none);
        let mut wrong = Vec::new();
        expect("an empty prompt", generated.map(drop), Code::EmptyPrompt, &mut wrong);
        let forward = lm.forward(&[], Want::Last, &mut NoProbe).map(drop);
        expect("an empty forward pass", forward, Code::EmptyPrompt, &mut wrong);
        Ok(all_of(2, "empty prompts refused", wrong))
    }

    fn bad_parameters(&self) -> Look<Verdict> {
        let good = Sampling { temperature: 1.0, ..Sampling::default() };
        let bad = [
            ("temperature -1", Sampling { temperature: -1.0, ..good }),
            ("temperature NaN", Sampling { temperature: f32::NAN, ..good }),
            ("temperature infinite", Sampling { temperature: f32::INFINITY, ..good }),
            ("top_p 0", Sampling { top_p: 0.0, ..good }),
            ("top_p 1.5", Sampling { top_p: 1.5, ..good }),
            ("top_p NaN", Sampling { top_p: f32::NAN, ..good }),
            ("min_p -0.1", Sampling { min_p: -0.1, ..good }),
            ("min_p 2", Sampling { min_p: 2.0, ..good }),
            ("repeat_penalty 0", Sampling { repeat_penalty: 0.0, ..good }),
            ("repeat_penalty NaN", Sampling { repeat_penalty: f32::NAN, ..good }),
        ];
        let mut lm = self.lm(self.ctx.options())?;
        let prompt = self.prepared(&self.prompts[0].ids)?;
        let mut wrong = Vec::new();
        for (name, sampling) in bad {
            let options = GenerateOptions { sampling, ..endless(1) };
            let mut none = |_: Event<'_>| ControlFlow::Continue(());
            let generated =
                self.ctx.generate(&mut *lm, self.tokenizer, &prompt, &options, &mut none);
            expect(name, generated.map(drop), Code::SamplerValue, &mut wrong);
        }
        Ok(all_of(10, "parameters out of range refused", wrong))
    }

    fn counts(&self) -> Look<Verdict> {
        let mut lm = self.lm(self.ctx.options())?;
        let mut wrong = Vec::new();
        for prompt in &self.prompts {
            let options = GenerateOptions { logprobs: 2, ..endless(ANSWER) };
            let seen = self.run(&mut *lm, &prompt.ids, &options)?;
            let (tokens, total) = (&seen.generation.tokens, prompt.ids.len());
            let mut check = |right: bool, what: String| {
                if !right {
                    wrong.push(format!("{}: {what}", prompt.label));
                }
            };
            check(seen.token_events == *tokens, "streamed ids are not the returned ones".into());
            check(
                seen.prompt_events.last() == Some(&(total, total)),
                format!("prompt progress {:?} of {total}", seen.prompt_events.last()),
            );
            check(seen.end_events.len() == 1, format!("{} ends", seen.end_events.len()));
            check(
                seen.generation.logprobs.len() == tokens.len(),
                format!(
                    "{} steps of {} have probabilities",
                    seen.generation.logprobs.len(),
                    tokens.len()
                ),
            );
            let fed = total + tokens.len();
            check(
                (fed.saturating_sub(1)..=fed).contains(&seen.position),
                format!("position {} after {fed} tokens", seen.position),
            );
            let chosen = seen.generation.logprobs.iter().zip(tokens);
            let greedy = chosen.filter(|(step, id)| {
                step.chosen.id == **id && step.top.first().is_some_and(|top| top.id == **id)
            });
            let greedy = greedy.count();
            check(
                greedy == tokens.len(),
                format!("{greedy} of {} tokens are the best", tokens.len()),
            );
        }
        Ok(all_of(6 * self.prompts.len() as u64, "counts agree with each other", wrong))
    }
}

/// The call must be refused as too long, naming the context and the number of tokens.
fn refusal(what: &str, result: apr_engine::Result<()>, tokens: usize, wrong: &mut Vec<String>) {
    match result {
        Ok(()) => wrong.push(format!("{what} of {tokens} tokens is accepted")),
        Err(error) => {
            let text = error.to_string();
            let both = [CONTEXT, tokens].iter().all(|n| super::has_word(&text, &n.to_string()));
            if error.code() != Code::ContextExceeded || !both {
                wrong.push(format!("{what}: {text} does not name {CONTEXT} and {tokens}"));
            }
        }
    }
}

fn expect(what: &str, result: apr_engine::Result<()>, code: Code, wrong: &mut Vec<String>) {
    match result {
        Ok(()) => wrong.push(format!("{what} is accepted")),
        Err(error) if error.code() == code => {}
        Err(error) => wrong.push(format!("{what}: {error}")),
    }
}
