//! `apr explain`: what an error code means.

use apr_engine::Code;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::ExplainArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Envelope, Terminal};

/// `explain`: error codes and their meaning.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExplainOutput {
    codes: Vec<CodeRow>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct CodeRow {
    /// Printed code.
    code: String,
    /// Name of the broken invariant.
    name: String,
    /// The invariant.
    meaning: String,
    /// Exit code of a command that fails with it.
    exit_code: u8,
}

impl From<Code> for CodeRow {
    fn from(code: Code) -> Self {
        Self {
            code: code.number().to_owned(),
            name: code.name().to_owned(),
            meaning: code.meaning().to_owned(),
            exit_code: Exit::of(code).into(),
        }
    }
}

pub(crate) fn run(args: &ExplainArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let wanted = args.code.as_deref();
    let codes: Vec<CodeRow> = Code::ALL
        .iter()
        .copied()
        .filter(|code| wanted.is_none_or(|text| code.number().eq_ignore_ascii_case(text)))
        .map(CodeRow::from)
        .collect();
    if let (Some(wanted), true) = (wanted, codes.is_empty()) {
        return Err(Failure::usage(format_args!(
            "unknown error code {wanted:?}; `apr explain` lists all codes"
        )));
    }
    if terminal.json {
        terminal.value(&Envelope::new("explain", "explain", ExplainOutput { codes }))?;
    } else {
        for row in codes {
            terminal.line(&format!("{}  {}  (exit {})", row.code, row.meaning, row.exit_code))?;
        }
    }
    Ok(0)
}
