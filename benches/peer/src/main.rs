//! `apr-peer measure` and `apr-peer quantize`; see ../../README.md.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the program's own terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use apr_harness::provenance;
use apr_peer::failure::{Failure, Result};
use apr_peer::measure::Options;
use apr_peer::report::Report;
use apr_peer::{built, files, llama, quantize};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Our engine against llama.cpp, in turns, in one process.
#[derive(Debug, Parser)]
#[command(name = "apr-peer", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures GGUF files; 0 when all answers are comparable, 1 when some are not, 2 for wrong usage, 3 for what fails.
    Measure(MeasureArgs),
    /// Quantises a GGUF file of 16 or 32 bits with llama.cpp's own code.
    Quantize(QuantizeArgs),
}

#[derive(Debug, Args)]
struct MeasureArgs {
    /// GGUF files.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    model: Vec<PathBuf>,
    /// Numbers of threads; each model is measured on each.
    #[arg(long, num_args = 1.., value_delimiter = ',', default_values_t = [1, 2], value_name = "N")]
    threads: Vec<usize>,
    /// Tokens of the long prompt.
    #[arg(long, default_value_t = 512, value_name = "N")]
    prompt_tokens: usize,
    /// Tokens of the prompt before the first token and before decoding.
    #[arg(long, default_value_t = 128, value_name = "N")]
    first_tokens: usize,
    /// Tokens that are decoded in a run.
    #[arg(long, default_value_t = 128, value_name = "N")]
    decode_tokens: usize,
    /// Rounds of A B B A for each measure; ten make twenty pairs.
    #[arg(long, default_value_t = 10, value_name = "N")]
    rounds: usize,
    /// Whether llama.cpp may copy weights into another layout: what is faster in a short trial, for each measure.
    #[arg(long, value_enum, default_value_t = Repack::Best)]
    repack: Repack,
    /// Quiet before each run, in milliseconds.
    #[arg(long, default_value_t = 50, value_name = "N")]
    settle_ms: u64,
    /// Where to write everything that was measured.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to write the report, in Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Repack {
    Best,
    On,
    Off,
}

impl Repack {
    fn settings(self) -> &'static [bool] {
        match self {
            Self::Best => &[true, false],
            Self::On => &[true],
            Self::Off => &[false],
        }
    }
}

#[derive(Debug, Args)]
struct QuantizeArgs {
    /// The file to read.
    input: PathBuf,
    /// The file to make; it must not be there.
    output: PathBuf,
    /// A mixture, such as `Q4_K_M`.
    file_type: String,
    /// Threads.
    #[arg(long, default_value_t = 2, value_name = "N")]
    threads: usize,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Measure(args) => measure(&args),
        Command::Quantize(args) => {
            quantize::quantize(&args.input, &args.output, &args.file_type, args.threads)
                .map(|()| ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 3 })
    })
}

fn measure(args: &MeasureArgs) -> Result<ExitCode> {
    built::fair()?;
    let options = Options {
        prompt: args.prompt_tokens,
        first: args.first_tokens,
        decode: args.decode_tokens,
        rounds: args.rounds,
        settle: Duration::from_millis(args.settle_ms),
    };
    let mut report = Report {
        started: provenance::now_rfc3339(),
        command: command_line(),
        commit: built::commit(),
        peer: built::peer(),
        peer_build: llama::system_info(),
        flags: built::flags(),
        machine: provenance::machine(),
        options,
        rows: Vec::new(),
    };
    println!("apr at {}; {}", report.commit, report.peer);
    let clock = clock();
    for model in &args.model {
        for &threads in &args.threads {
            let row = files::row(model, threads, args.repack.settings(), &options, &clock)?;
            println!("\n{}", row.text().trim_end());
            report.rows.push(row);
            // What was measured stays, also if the next model fails.
            save(args, &report)?;
        }
    }
    Ok(ExitCode::from(u8::from(!report.comparable())))
}

/// Writes the files that were asked for.
fn save(args: &MeasureArgs, report: &Report) -> Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| Failure::file(path, error))
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(report);
        let text = text.map_err(|error| Failure::file(path, error.into()))?;
        write(path, text + "\n")?;
    }
    if let Some(path) = &args.report {
        write(path, report.markdown())?;
    }
    Ok(())
}

/// The command without the folders it names: a report is read elsewhere.
fn command_line() -> Vec<String> {
    std::env::args()
        .map(|argument| match Path::new(&argument).file_name() {
            Some(name) if argument.contains('/') => name.to_string_lossy().into_owned(),
            _ => argument,
        })
        .collect()
}

/// Nanoseconds since now.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn clock() -> impl Fn() -> u64 {
    let start = Instant::now();
    move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
