//! The `apr` program: parse, dispatch, one place that turns a failure into an exit code.

mod cli;
mod cmd;
mod device;
mod exit;
mod failure;
mod gate;
mod interrupt;
mod memory;
mod render;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use apr_harness::runner::panic_message;
use clap::{CommandFactory, FromArgMatches};

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::gate::Admission;
use crate::interrupt::Interrupt;
use crate::render::Terminal;

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let skip = cli.global.skip_contract;
    let terminal = Terminal::new(&cli.global);
    apr_engine::format::mmap::guard::install();
    let name = name(&cli.command);
    // Panics of third-party parsers are contained where they happen: only one that gets here is worth a line.
    std::panic::set_hook(Box::new(|_| {}));
    let command = AssertUnwindSafe(|| {
        let interrupt = Interrupt::install()?;
        let admission = gate::pass(&matches, skip, &terminal)?;
        dispatch(cli.command, admission, &terminal, &interrupt)
    });
    let result = std::panic::catch_unwind(command).unwrap_or_else(|panic| {
        Err(Failure::broken(format_args!("internal error: {}", panic_message(&*panic))))
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            terminal.failure(name, &failure);
            ExitCode::from(u8::from(failure.exit()))
        }
    }
}

/// Runs a command; the number is the exit code.
fn dispatch(
    command: Command,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    match command {
        Command::Inspect(args) => cmd::inspect::run(&args, terminal),
        Command::Tensors(args) => cmd::tensors::run(&args, terminal),
        Command::Schema(args) => cmd::schema::run(&args, terminal),
        Command::Explain(args) => cmd::explain::run(&args, terminal),
        Command::Completions(args) => cmd::manual::completions(&args, terminal),
        Command::Man => cmd::manual::page(terminal),
        Command::Qa(args) => cmd::qa::run(*args, terminal, interrupt),
        Command::Run(args) => cmd::run::run(&args, admission, terminal, interrupt),
        Command::Report(args) => cmd::report::run(&args, terminal),
        Command::Worker => cmd::qa::worker(),
        Command::Validate(args) => cmd::validate::run(&args, terminal),
        Command::Check(args) => cmd::check::run(&args, terminal, interrupt),
        Command::Score(args) => cmd::score::run(&args, terminal, interrupt),
        Command::Bench(args) => cmd::bench::run(&args, admission, terminal, interrupt),
        Command::Profile(args) => cmd::profile::run(&args, admission, terminal, interrupt),
        Command::Convert(args) => cmd::convert::convert(&args, admission, terminal, interrupt),
        Command::Import(args) => cmd::convert::import(&args, admission, terminal, interrupt),
        Command::Export(args) => cmd::convert::export(&args, admission, terminal, interrupt),
        Command::Quantize(args) => cmd::convert::quantize(&args, admission, terminal, interrupt),
        Command::Rosetta(args) => cmd::rosetta::run(*args, admission, terminal, interrupt),
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Qa(_) => "qa",
        Command::Run(_) => "run",
        Command::Validate(_) => "validate",
        Command::Check(_) => "check",
        Command::Score(_) => "score",
        Command::Bench(_) => "bench",
        Command::Profile(_) => "profile",
        Command::Rosetta(_) => "rosetta",
        Command::Inspect(_) => "inspect",
        Command::Tensors(_) => "tensors",
        Command::Convert(_) => "convert",
        Command::Import(_) => "import",
        Command::Export(_) => "export",
        Command::Quantize(_) => "quantize",
        Command::Report(_) => "report",
        Command::Schema(_) => "schema",
        Command::Explain(_) => "explain",
        Command::Completions(_) => "completions",
        Command::Man => "man",
        Command::Worker => "__worker",
    }
}
