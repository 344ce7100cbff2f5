//! Greedy answers against those of `transformers` and llama.cpp, and the ways in which an answer ends.

use std::ops::ControlFlow;

use apr_engine::Code;
use apr_engine::backend::Device;
use apr_engine::generate::{Event, FinishReason, GenerateOptions, Generation, Sampling, generate};
use apr_engine::model::{Lm, LmOptions, Model};
use apr_engine::text::PreparedTokens;
use serde_json::Value;

use crate::fixture::{F32_CACHE, model, path};

/// Prompt ids, expected ids, gap between the first and the second logit at each step.
struct Greedy {
    prompt: Vec<u32>,
    expected: Vec<u32>,
    gaps: Vec<f64>,
}

/// The recorded answers of `name` by `engine`: weights, noise, answers.
fn recorded(name: &str, engine: &str) -> Vec<(String, f64, Vec<Greedy>)> {
    let text = std::fs::read(path(&format!("oracle/greedy/{name}.json"))).expect("recording");
    let json: Value = serde_json::from_slice(&text).expect("JSON");
    let ids = |value: &Value| serde_json::from_value::<Vec<u32>>(value.clone()).expect("ids");
    let items = |value: &Value| value.as_array().expect("array").clone();
    let runs = items(&json["runs"]).into_iter().filter(|run| run["engine"] == engine);
    runs.map(|run| {
        let answers = items(&json["prompts"]).into_iter().zip(items(&run["outputs"])).map(
            |(prompt, output)| Greedy {
                prompt: ids(&prompt["ids"]),
                expected: ids(&output["ids"]),
                gaps: serde_json::from_value(output["gaps"].clone()).expect("gaps"),
            },
        );
        let weights = run["weights"].as_str().expect("weights").to_owned();
        (weights, run["noise"].as_f64().expect("noise"), answers.collect())
    })
    .collect()
}

fn answer(model: &Model, device: &Device, prompt: &[u32], options: &GenerateOptions) -> Generation {
    let lm = model.lm_on(device, LmOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    answer_of(lm, model, prompt, options)
}

fn answer_of(
    mut lm: Box<dyn Lm>,
    model: &Model,
    prompt: &[u32],
    options: &GenerateOptions,
) -> Generation {
    let prompt = PreparedTokens::from_ids(prompt, model.config().vocab).expect("ids");
    let tokenizer = model.tokenizer().unwrap_or_else(|e| panic!("{e}"));
    let mut go_on = |_: Event<'_>| ControlFlow::Continue(());
    generate(&mut *lm, tokenizer, &prompt, options, &mut go_on).unwrap_or_else(|e| panic!("{e}"))
}

fn endless(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), ignore_eos: true, ..GenerateOptions::default() }
}

/// Steps until the first difference, which must be one where the recording's own gap is small.
fn agreeing_steps(found: &[u32], greedy: &Greedy, gap_max: f64, what: &str) -> usize {
    let steps = found.iter().zip(&greedy.expected).take_while(|(a, b)| a == b).count();
    if let Some(gap) = greedy.gaps.get(steps) {
        assert!(*gap <= gap_max, "{what}: differs at step {steps}, where the gap is {gap}");
    }
    steps
}

#[test]
fn the_oracle_backend_answers_as_transformers_does() {
    let (mut agreed, mut recorded_steps) = (0, 0);
    for name in [
        "qwen2-tied",
        "llama3-gqa",
        "mistral",
        "llama-mha",
        "apr-interop",
        "qwen3",
        "phi3",
        "longrope",
        "gemma2",
        "gemma2-wide",
        "gemma3",
    ] {
        for (weights, _, answers) in recorded(name, "transformers") {
            let model = model(&weights);
            for greedy in answers {
                let options = endless(greedy.expected.len());
                let lm = model.lm_on(&Device::Scalar, F32_CACHE).unwrap();
                let found = answer_of(lm, &model, &greedy.prompt, &options);
                // Below a gap of 0.001 two float orders may choose differently.
                agreed += agreeing_steps(&found.tokens, &greedy, 0.001, &weights);
                recorded_steps += greedy.expected.len();
            }
        }
    }
    assert!(agreed * 100 >= recorded_steps * 95, "{agreed} of {recorded_steps} steps compared");
    assert!(recorded_steps > 400, "{recorded_steps}");
}

#[test]
fn the_fast_backend_answers_as_llama_cpp_does() {
    let (mut agreed, mut recorded_steps) = (0, 0);
    for name in [
        "qwen2-tied",
        "llama3-gqa",
        "mistral",
        "llama-mha",
        "qwen3",
        "longrope",
        "gemma2",
        "gemma3",
    ] {
        for (weights, noise, answers) in recorded(name, "llama.cpp") {
            let model = model(&weights);
            for greedy in answers {
                let options = endless(greedy.expected.len());
                let found = answer(&model, &Device::SIMD, &greedy.prompt, &options);
                // Both round activations, differently: each may be off by the recorded noise, and
                // differences of two logits by more: llama.cpp and float arithmetic part at up to 3.9 times.
                agreed += agreeing_steps(&found.tokens, &greedy, 8.0 * noise, &weights);
                recorded_steps += greedy.expected.len();
            }
        }
    }
    assert!(agreed * 2 >= recorded_steps, "{agreed} of {recorded_steps} steps compared");
}

const PROMPT: [u32; 4] = [51, 71, 68, 220];

#[test]
fn an_answer_ends_at_its_length() {
    let found = answer(&model("pygmy/mistral"), &Device::SIMD, &PROMPT, &endless(5));
    assert_eq!((found.tokens.len(), found.finish_reason), (5, FinishReason::Length));
    let none = answer(&model("pygmy/mistral"), &Device::SIMD, &PROMPT, &endless(0));
    assert_eq!((none.tokens.len(), none.text.as_str()), (0, ""));
}

#[test]
fn an_answer_ends_when_the_context_is_full_and_says_so() {
    let model = model("pygmy/mistral");
    let mut lm = model
        .lm_on(&Device::SIMD, LmOptions { context: Some(6), chunk: 4, ..LmOptions::default() })
        .unwrap();
    let prompt = PreparedTokens::from_ids(&PROMPT, 320).unwrap();
    let options = GenerateOptions { max_tokens: None, ..endless(0) };
    let mut go_on = |_: Event<'_>| ControlFlow::Continue(());
    let tokenizer = model.tokenizer().unwrap();
    let found = generate(&mut *lm, tokenizer, &prompt, &options, &mut go_on).unwrap();
    assert_eq!(found.finish_reason, FinishReason::Context);
    assert_eq!(found.tokens.len(), 3, "two fit behind the prompt, the third is not read back");
    let long = PreparedTokens::from_ids(&[1; 7], 320).unwrap();
    let error = generate(&mut *lm, tokenizer, &long, &options, &mut go_on).unwrap_err();
    assert_eq!(error.code(), Code::ContextExceeded);
    assert!(error.expected_text().contains('6') && error.found_text().contains('7'), "{error}");
}

#[test]
fn an_end_token_ends_the_answer_and_is_not_part_of_it() {
    let model = model("pygmy/mistral");
    let free = answer(&model, &Device::SIMD, &PROMPT, &endless(12));
    // An end token of this model: its first own choice.
    let mut tokenizer = apr_engine::text::Tokenizer::from_json(
        &std::fs::read(path("pygmy/mistral/tokenizer.json")).unwrap(),
        None,
    )
    .unwrap();
    tokenizer.add_ends([free.tokens[3]]).unwrap();
    let mut lm = model.lm_on(&Device::SIMD, LmOptions::default()).unwrap();
    let prompt = PreparedTokens::from_ids(&PROMPT, 320).unwrap();
    let options = GenerateOptions { ignore_eos: false, ..endless(12) };
    let mut go_on = |_: Event<'_>| ControlFlow::Continue(());
    let found = generate(&mut *lm, &tokenizer, &prompt, &options, &mut go_on).unwrap();
    assert_eq!(found.finish_reason, FinishReason::Stop);
    assert_eq!(found.end_token, Some(free.tokens[3]));
    assert_eq!(found.tokens, free.tokens[..3]);
}

#[test]
fn a_stop_string_across_token_borders_ends_the_answer_before_it() {
    let model = model("pygmy/mistral");
    let free = answer(&model, &Device::SIMD, &PROMPT, &endless(24));
    let characters: Vec<char> = free.text.chars().collect();
    // Three characters of random bytes belong to at least two tokens.
    let stop: String = characters[8..11].iter().collect();
    let before = free.text.find(&stop).unwrap();
    let options = GenerateOptions { stop: vec![stop], ..endless(24) };
    let found = answer(&model, &Device::SIMD, &PROMPT, &options);
    assert_eq!(found.finish_reason, FinishReason::StopString);
    assert_eq!(found.text, free.text[..before]);
}

#[test]
fn events_tell_the_same_text_and_the_caller_can_break_off() {
    let model = model("pygmy/qwen2-tied");
    let mut lm = model.lm_on(&Device::SIMD, LmOptions::default()).unwrap();
    let prompt = PreparedTokens::from_ids(&PROMPT, 320).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let (mut streamed, mut ids, mut read) = (String::new(), Vec::new(), 0);
    let mut listen = |event: Event<'_>| {
        match event {
            Event::Prompt { done, total } => read = total - done,
            Event::Token { id, text } => {
                ids.push(id);
                streamed.push_str(text);
            }
            Event::End { text, .. } => streamed.push_str(text),
        }
        if ids.len() == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let found = generate(&mut *lm, tokenizer, &prompt, &endless(20), &mut listen).unwrap();
    assert_eq!((found.finish_reason, read), (FinishReason::Cancelled, 0));
    assert_eq!((&found.text, &found.tokens), (&streamed, &ids));
    assert_eq!(ids.len(), 9);
}

#[test]
fn recorded_probabilities_name_the_greedy_choice_first() {
    let options = GenerateOptions { logprobs: 3, ..endless(6) };
    let found = answer(&model("pygmy/llama-mha"), &Device::SIMD, &PROMPT, &options);
    assert_eq!(found.logprobs.len(), found.tokens.len());
    for (step, token) in found.logprobs.iter().zip(&found.tokens) {
        assert_eq!(step.chosen.id, *token);
        assert_eq!(step.top[0], step.chosen);
        assert!(step.top.len() == 3 && step.top[0].logprob < 0.0);
    }
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let model = model("pygmy/llama-mha");
    let run = |seed| {
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let options = GenerateOptions { sampling, ..endless(16) };
        answer(&model, &Device::SIMD, &PROMPT, &options).tokens
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
