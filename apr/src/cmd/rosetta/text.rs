//! `apr rosetta compare-inference` with an engine behind an address: what both sides say, and how sure they are.

use std::ops::ControlFlow;
use std::path::Path;

use apr_engine::generate::{Event, GenerateOptions, generate};
use apr_engine::model::LmOptions;
use apr_harness::rosetta::generated::{self, Generated, Step, TextComparison};
use schemars::JsonSchema;
use serde::Serialize;

use super::remote::{self, Request};
use super::side::{Loaded, plant};
use crate::cli::rosetta::CompareArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Envelope, Terminal};

/// Likely tokens that are compared at each step.
const TOP: usize = 5;

/// `rosetta-compare-text`: what two engines say to one prompt.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TextOutput {
    /// What both sides were given.
    prompt: String,
    /// Text and probabilities.
    comparison: TextComparison,
    /// Whether they differ by more than rounding.
    diverges: bool,
    /// Exit code of the process.
    exit_code: u8,
}

pub(super) fn run(args: &CompareArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let Some(target) = &args.target else {
        return Err(Failure::usage("one engine: give a TARGET to compare it with"));
    };
    let needs_sites = args.html.is_some()
        || args.against_oracle.is_some()
        || args.diff_threshold.is_some()
        || !args.tokens.is_empty();
    if needs_sites {
        return Err(Failure::usage(
            "an engine over HTTP shows text alone: --html, --against-oracle, --diff-threshold and --tokens need two models",
        ));
    }
    let plant = plant(args)?;
    let source = spoken(&args.source, args, &|path| Loaded::source(path, args))?;
    let planted = |path: &Path| Loaded::target(path, args, plant.clone());
    let target = spoken(target, args, &planted)?;
    let found = TextComparison::new(source, target, args.logprob_threshold);
    let exit = match (found.compared(), found.diverges()) {
        (false, _) => Exit::Broken,
        (true, true) => Exit::Falsified,
        (true, false) => Exit::Success,
    };
    let exit_code = u8::from(exit);
    if terminal.json {
        let diverges = found.diverges();
        let output =
            TextOutput { prompt: args.prompt.clone(), comparison: found, diverges, exit_code };
        terminal.value(&Envelope::new("rosetta-compare-text", "rosetta", output))?;
    } else {
        terminal.text(&generated::render(&found))?;
    }
    Ok(exit_code)
}

/// What a side says to the prompt: an engine at an address, or a model that is run here.
fn spoken(
    side: &Path,
    args: &CompareArgs,
    load: &dyn Fn(&Path) -> Result<Loaded, Failure>,
) -> Result<Generated, Failure> {
    match remote::address(side) {
        Some(address) => remote::generate(
            address,
            Request {
                prompt: &args.prompt,
                chat: args.chat,
                tokens: args.max_tokens,
                top: TOP,
                model: &args.model_name,
            },
        ),
        None => here(&load(side)?, args),
    }
}

fn here(loaded: &Loaded, args: &CompareArgs) -> Result<Generated, Failure> {
    let prepared = loaded.prepare(args)?;
    let mut lm = loaded.start(LmOptions::default())?;
    let tokenizer = loaded.model.tokenizer()?;
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens),
        logprobs: TOP,
        ..GenerateOptions::default()
    };
    let mut on = |_: Event<'_>| ControlFlow::Continue(());
    let said = generate(&mut *lm, tokenizer, &prepared, &options, &mut on)?;
    let text = |id: u32| -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(tokenizer.token_bytes(id)?).into_owned())
    };
    let mut steps = Vec::new();
    for step in &said.logprobs {
        let top = step.top.iter().map(|other| Ok((text(other.id)?, other.logprob)));
        steps.push(Step {
            text: text(step.chosen.id)?,
            logprob: step.chosen.logprob,
            top: top.collect::<Result<_, Failure>>()?,
        });
    }
    Ok(Generated { name: loaded.name.clone(), text: said.text, steps })
}
