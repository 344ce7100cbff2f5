//! `golden` and `arithmetic`: what the model says.

use std::ops::ControlFlow;
use std::path::Path;

use apr_engine::generate::{FinishReason, GenerateOptions, Generation};
use apr_engine::text::{Message, PreparedTokens, Tokenizer, prepare_raw};
use regex::Regex;
use serde::Deserialize;

use super::Planned;
use super::certificate;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use super::look::all_of;
use super::pattern::has_word;
use super::text::Text;
use crate::case::ModelRef;
use crate::contract::check::{self, GoldenKind};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// How often one token may stand in a row, or one group of tokens be repeated, before it is a loop. The longest honest
/// repetition of the golden texts is two.
const REPEATS_MAX: usize = 6;
/// Longest group of tokens that is looked at for loops.
const LOOP_TOKENS_MAX: usize = 16;

/// A file of golden prompts.
#[derive(Debug, Deserialize)]
struct Goldens {
    goldens: Vec<GoldenPrompt>,
}

/// One golden prompt as it is recorded.
#[derive(Clone, Debug, Deserialize)]
struct GoldenPrompt {
    id: String,
    /// A conversation, where the prompt is one.
    #[serde(default)]
    messages: Vec<Said>,
    /// The raw text otherwise.
    #[serde(default)]
    prompt: String,
    prompt_ids: Vec<u32>,
    expected: String,
    answer_regex: String,
    max_tokens: usize,
    finish: String,
    right: bool,
}

/// A message of a recorded conversation.
#[derive(Clone, Debug, Deserialize)]
struct Said {
    role: String,
    content: String,
}

/// A golden prompt and what the subject said.
#[derive(Clone, Debug)]
struct Answer {
    prompt: GoldenPrompt,
    generation: Generation,
}

/// Judges `check` on `case`.
pub(super) fn judge(check: &check::Golden, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    match check.kind {
        GoldenKind::Answers => {
            let answers = answers(check, case, ctx)?;
            weigh("golden prompts answered", said(&answers)?, check, case, ctx)
        }
        GoldenKind::Clean => {
            let tokenizer = ctx.text(ctx.form(case)?)?.tokenizer;
            let answers = answers(check, case, ctx)?;
            weigh("answers clean and ended", clean(&answers, &tokenizer), check, case, ctx)
        }
        GoldenKind::Tokens => certificate::tokens(check, case, ctx),
        GoldenKind::Certificate => certificate::leads(check, case, ctx),
    }
}

/// The answers to all wanted prompts; generated once for all gates of a cell.
fn answers(check: &check::Golden, case: &Planned, ctx: &JudgeContext) -> Look<Vec<Answer>> {
    let form = ctx.form(case)?;
    let spec = BackendSpec::of(&case.info.cell);
    let all = ctx.remember(&format!("answers {} {spec:?}", check.file.display()), form, || {
        generate_all(&read(ctx, form, &check.file)?, form, &spec, ctx)
    })?;
    let wanted =
        |answer: &&Answer| check.prompts.is_empty() || check.prompts.contains(&answer.prompt.id);
    let chosen: Vec<Answer> = all.iter().filter(wanted).cloned().collect();
    if let Some(lost) =
        check.prompts.iter().find(|id| !chosen.iter().any(|answer| answer.prompt.id == **id))
    {
        return Err(Box::new(Verdict::broken(format!("no golden prompt is called {lost}"))));
    }
    Ok(chosen)
}

fn read(ctx: &JudgeContext, form: &ModelRef, file: &Path) -> Look<Vec<GoldenPrompt>> {
    let bytes = ctx.fixture(file, Some(form), "golden")?;
    let goldens: Goldens = serde_json::from_slice(&bytes).map_err(|error| {
        Box::new(Verdict::broken(format!("{} cannot be read: {error}", file.display())))
    })?;
    // What the model itself gets wrong is no measure of an engine.
    Ok(goldens.goldens.into_iter().filter(|golden| golden.right).collect())
}

fn generate_all(
    prompts: &[GoldenPrompt],
    form: &ModelRef,
    spec: &BackendSpec,
    ctx: &JudgeContext,
) -> Look<Vec<Answer>> {
    let model = ctx.model(form)?;
    let text = ctx.text(form)?;
    let mut lm = ctx.lm(&model, spec, ctx.options())?;
    let mut answers = Vec::new();
    for prompt in prompts {
        let failed = |error| refused(&format!("golden prompt {}", prompt.id), &error);
        let tokens = prepare(prompt, &text)?;
        let options =
            GenerateOptions { max_tokens: Some(prompt.max_tokens), ..GenerateOptions::default() };
        let mut go_on = |_: apr_engine::generate::Event<'_>| ControlFlow::Continue(());
        let generation = ctx.generate(&mut *lm, &text.tokenizer, &tokens, &options, &mut go_on);
        answers.push(Answer { prompt: prompt.clone(), generation: generation.map_err(failed)? });
    }
    Ok(answers)
}

/// The prompt on the way that every user's prompt takes: template, then tokenizer. The ids must be the recorded ones,
/// or everything after would be judged on another question.
fn prepare(prompt: &GoldenPrompt, text: &Text) -> Look<PreparedTokens> {
    let tokens = if prompt.messages.is_empty() {
        prepare_raw(&text.tokenizer, &prompt.prompt)
            .map_err(|error| refused(&format!("golden prompt {}", prompt.id), &error))?
    } else {
        let message = |said: &Said| Message::new(said.role.clone(), said.content.clone());
        let messages: Vec<Message> = prompt.messages.iter().map(message).collect();
        text.conversation(&messages, true)?
    };
    if tokens.ids() == prompt.prompt_ids {
        return Ok(tokens);
    }
    let summary =
        format!("golden prompt {}: the prompt's ids are not the recorded ones", prompt.id);
    let evidence = Evidence::new(prompt.prompt_ids.len() as u64, summary)
        .measure(Measure::judged("prompts-misread", 1.0, Limit::Exactly(0.0)))
        .detail(format!("found {:?}", tokens.ids()))
        .detail(format!("recorded {:?}", prompt.prompt_ids));
    Err(Box::new(evidence.verdict()))
}

/// An answer and what is wrong with it.
type Judged<'a> = (&'a Answer, Option<String>);

/// Each answer has its recorded words, where the pattern says they stand.
fn said(answers: &[Answer]) -> Look<Vec<Judged<'_>>> {
    let judge = |answer: &Answer| -> Look<Option<String>> {
        let Answer { prompt, generation } = answer;
        let pattern = Regex::new(&prompt.answer_regex)
            .map_err(|error| Box::new(Verdict::broken(format!("{}: {error}", prompt.id))))?;
        let right = pattern.is_match(&generation.text);
        Ok((!right).then(|| {
            format!("{}: {:?} instead of {:?}", prompt.id, generation.text, prompt.expected)
        }))
    };
    answers.iter().map(|answer| Ok((answer, judge(answer)?))).collect()
}

/// No answer is garbage, and each ends as the recorded one.
fn clean<'a>(answers: &'a [Answer], tokenizer: &Tokenizer) -> Vec<Judged<'a>> {
    let markers: Vec<&str> = tokenizer.special_strings().filter(|text| text.len() > 2).collect();
    let judge = |answer: &Answer| {
        let Answer { prompt, generation } = answer;
        let finish = generation.finish_reason;
        match garbage(&generation.text, &generation.tokens, &markers) {
            Some(what) => Some(format!("{}: {what} in {:?}", prompt.id, generation.text)),
            None if prompt.finish == "stop" && finish != FinishReason::Stop => {
                Some(format!("{}: ended by {} instead of stop", prompt.id, finish.name()))
            }
            None => None,
        }
    };
    answers.iter().map(|answer| (answer, judge(answer))).collect()
}

/// The verdict: coin flips are taken out of the denominator and told, everything else that is wrong is wrong.
fn weigh(
    what: &str,
    judged: Vec<Judged<'_>>,
    check: &check::Golden,
    case: &Planned,
    ctx: &JudgeContext,
) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let (mut wrong, mut coins) = (Vec::new(), Vec::new());
    let count = judged.len();
    for (answer, fault) in judged {
        let Some(fault) = fault else { continue };
        let mut tokens = answer.generation.tokens.clone();
        tokens.extend(answer.generation.end_token);
        match certificate::coin_flip(check, form, ctx, &answer.prompt.id, &tokens) {
            Some(coin) => coins.push(coin),
            None => wrong.push(fault),
        }
    }
    let decided = (count - coins.len()) as u64;
    let what = match coins.first() {
        None => what.to_owned(),
        Some(first) => format!("{what} ({} more undecided: {first})", coins.len()),
    };
    Ok(all_of(decided, &what, wrong))
}

/// What makes a text garbage, if anything.
pub(super) fn garbage(text: &str, tokens: &[u32], markers: &[&str]) -> Option<String> {
    if text.trim().is_empty() {
        return Some("nothing".into());
    }
    if text.contains('\u{FFFD}') {
        return Some("a replacement character".into());
    }
    if let Some(c) = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
        return Some(format!("the control character {c:?}"));
    }
    if let Some(marker) = markers.iter().find(|marker| text.contains(**marker)) {
        return Some(format!("the marker {marker}"));
    }
    repetition(tokens)
}

/// A group of tokens that ends the text more than [`REPEATS_MAX`] times in a row.
fn repetition(tokens: &[u32]) -> Option<String> {
    for length in 1..=LOOP_TOKENS_MAX.min(tokens.len()) {
        let group = &tokens[tokens.len() - length..];
        let repeats = tokens.rchunks_exact(length).take_while(|&earlier| earlier == group).count();
        if repeats > REPEATS_MAX {
            return Some(format!("the same {length} tokens {repeats} times in a row"));
        }
    }
    None
}

/// Judges `arithmetic`: every sum of two numbers up to a bound.
pub(super) fn arithmetic(
    check: &check::Arithmetic,
    case: &Planned,
    ctx: &JudgeContext,
) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let spec = BackendSpec::of(&case.info.cell);
    let model = ctx.model(form)?;
    let text = ctx.text(form)?;
    let mut lm = ctx.lm(&model, &spec, ctx.options())?;
    let options = GenerateOptions { max_tokens: Some(16), ..GenerateOptions::default() };
    let (mut count, mut wrong) = (0u64, Vec::new());
    for a in 0..=check.up_to {
        for b in 0..=check.up_to {
            let asked = check.prompt.replace("{a}", &a.to_string()).replace("{b}", &b.to_string());
            let failed = |error| refused(&asked, &error);
            let tokens = if check.chat {
                text.chat(&asked)?
            } else {
                prepare_raw(&text.tokenizer, &asked).map_err(failed)?
            };
            let mut go_on = |_: apr_engine::generate::Event<'_>| ControlFlow::Continue(());
            let answer = ctx.generate(&mut *lm, &text.tokenizer, &tokens, &options, &mut go_on);
            let answer = answer.map_err(failed)?.text;
            count += 1;
            if !has_word(&answer, &(a + b).to_string()) {
                wrong.push(format!("{asked} {answer:?}"));
            }
        }
    }
    let right = 1.0 - wrong.len() as f64 / count as f64;
    let bound = check.right_at_least.get();
    let summary = format!(
        "{} of {count} sums right, {:.1} % wanted",
        count - wrong.len() as u64,
        100.0 * bound
    );
    let mut evidence = Evidence::new(count, summary).measure(Measure::judged(
        "right",
        right,
        Limit::AtLeast(bound),
    ));
    evidence.details = wrong.into_iter().take(8).collect();
    Ok(evidence.verdict())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_garbage_and_an_honest_list_is_not() {
        let alphabet: Vec<u32> = (0..52).map(|i| if i % 2 == 0 { 7 } else { 100 + i }).collect();
        assert_eq!(garbage("A B C", &alphabet, &[]), None);
        assert!(garbage("!!!!!!!", &[0; 7], &[]).is_some());
        let pair: Vec<u32> = [3, 4].repeat(8);
        assert!(garbage("no no", &pair, &[]).is_some_and(|what| what.contains("2 tokens")));
    }

    #[test]
    fn silence_broken_characters_and_markers_are_garbage() {
        assert!(garbage(" \n", &[1], &[]).is_some());
        assert!(garbage("caf\u{FFFD}", &[1], &[]).is_some());
        assert!(garbage("\u{1b}[31m", &[1], &[]).is_some());
        assert!(garbage("4<|im_end|>", &[1], &["<|im_end|>"]).is_some());
        assert_eq!(garbage("2+2 is 4.\n\t", &[1, 2], &["<|im_end|>"]), None);
    }
}
