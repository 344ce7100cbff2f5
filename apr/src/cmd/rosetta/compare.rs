//! `apr rosetta compare-inference`: two models, formats or backends, and where they part.

use std::path::Path;

use apr_engine::model::LmOptions;
use apr_harness::report::file::write_atomically;
use apr_harness::rosetta::{Comparison, Options, Recorded, Source, Tokens, compare, page, table};
use schemars::JsonSchema;
use serde::Serialize;

use super::side::{Loaded, plant};
use crate::cli::rosetta::CompareArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Envelope, Terminal};

/// `rosetta-compare-inference`: where two sides part.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CompareOutput {
    /// What both sides were given.
    prompt: String,
    /// The two sides, site by site.
    comparison: Comparison,
    /// Each side against the recorded values that were given besides.
    recorded: Vec<Comparison>,
    /// Whether any of them differ by more than rounding.
    diverges: bool,
    /// Whether the two sides are the same in every bit.
    identical: bool,
    /// Exit code of the process.
    exit_code: u8,
}

pub(super) fn run(args: &CompareArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let recorded = args.against_oracle.as_deref().map(|file| read_recorded(file, args));
    let recorded = recorded.transpose()?;
    let plant = plant(args)?;
    let options = Options {
        max_abs: args.diff_threshold,
        fault: plant.as_ref().and_then(|plant| plant.harness()),
        ..Options::default()
    };
    let Some(target) = &args.target else {
        let recorded = recorded
            .ok_or_else(|| Failure::usage("one model: give a TARGET, or --against-oracle FILE"))?;
        let target = Loaded::target(&args.source, args, plant)?;
        return finish(args, with_recorded(recorded, &target, options)?, Vec::new(), terminal);
    };
    let source = Loaded::source(&args.source, args)?;
    let target = Loaded::target(target, args, plant)?;
    let mut besides = Vec::new();
    let tokens = match recorded {
        Some(recorded) => {
            let tokens = same(&recorded.tokens);
            let again = Recorded::clone(&recorded);
            besides.push(with_recorded(recorded, &source, options)?);
            besides.push(with_recorded(again, &target, options)?);
            tokens
        }
        None => Tokens { source: source.ids(args)?, target: target.ids(args)? },
    };
    let main = of_two(&source, &target, tokens, options)?;
    finish(args, main, besides, terminal)
}

fn read_recorded(file: &Path, args: &CompareArgs) -> Result<Recorded, Failure> {
    let bytes = std::fs::read(file).map_err(|error| Failure::file(file, &error))?;
    let name = file.display().to_string();
    Recorded::parse(&name, &bytes, &args.oracle_logits, &|_| true)
        .map_err(|what| Failure::new(Exit::Contract, format_args!("{name}: {what}")))
}

/// Ids that nobody's tokenizer made.
fn same(ids: &[u32]) -> Tokens {
    Tokens { source: ids.to_vec(), target: ids.to_vec() }
}

fn room(tokens: &Tokens) -> LmOptions {
    LmOptions { context: Some(tokens.source.len().max(1)), ..LmOptions::default() }
}

fn of_two(
    source: &Loaded,
    target: &Loaded,
    tokens: Tokens,
    options: Options,
) -> Result<Comparison, Failure> {
    let room = room(&tokens);
    let (first, second) = (|| source.start(room), || target.start(room));
    let source = Source::Model(source.side(&first));
    Ok(compare(&source, &target.side(&second), tokens, options)?)
}

fn with_recorded(
    recorded: Recorded,
    target: &Loaded,
    options: Options,
) -> Result<Comparison, Failure> {
    let tokens = same(&recorded.tokens);
    let room = room(&tokens);
    let start = || target.start(room);
    Ok(compare(&Source::Recorded(recorded), &target.side(&start), tokens, options)?)
}

/// The exit that all comparisons together cause: what was not compared to the end is never agreement.
fn exit(all: &[&Comparison]) -> Exit {
    if all.iter().any(|comparison| comparison.rows == 0) {
        Exit::Broken
    } else if all.iter().any(|comparison| comparison.diverges()) {
        Exit::Falsified
    } else if all.iter().all(|comparison| comparison.is_complete()) {
        Exit::Success
    } else {
        Exit::Broken
    }
}

fn finish(
    args: &CompareArgs,
    main: Comparison,
    besides: Vec<Comparison>,
    terminal: &Terminal,
) -> Result<u8, Failure> {
    if let Some(file) = &args.html {
        let page = page::render(&main, &args.prompt);
        write_atomically(file, page.as_bytes()).map_err(|error| Failure::file(file, &error))?;
        terminal.notice(&format!("wrote {}", file.display()))?;
    }
    let all: Vec<&Comparison> = std::iter::once(&main).chain(&besides).collect();
    let exit_code = exit(&all).into();
    if terminal.json {
        let output = CompareOutput {
            prompt: args.prompt.clone(),
            diverges: all.iter().any(|comparison| comparison.diverges()),
            identical: main.is_zero(),
            comparison: main,
            recorded: besides,
            exit_code,
        };
        terminal.value(&Envelope::new("rosetta-compare-inference", "rosetta", output))?;
        return Ok(exit_code);
    }
    for other in &besides {
        let conclusion = table::conclusion(other);
        terminal.line(&format!("{} against {}: {conclusion}", other.target, other.source))?;
    }
    if terminal.quiet {
        terminal.line(&table::conclusion(&main))?;
    } else {
        terminal.text(&table::render(&main, &args.prompt, terminal.verbose))?;
    }
    Ok(exit_code)
}
