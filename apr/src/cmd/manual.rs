//! `apr completions` and `apr man`, generated from the same definitions as `--help`.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::failure::Failure;
use crate::render::Terminal;

pub(crate) fn completions(args: &CompletionsArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "apr", &mut script);
    terminal.text(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

pub(crate) fn page(terminal: &Terminal) -> Result<u8, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    terminal.text(&String::from_utf8_lossy(&page))?;
    Ok(0)
}
