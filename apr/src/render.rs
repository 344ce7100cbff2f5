//! The only place that writes to the terminal: results to standard output, everything else to standard error.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use apr_harness::validate::Violation;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::{ColorChoice, Global};
use crate::failure::Failure;

/// What the user's terminal can show and the user wants to see.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one answer about the terminal")]
pub(crate) struct Terminal {
    /// One JSON value instead of text.
    pub(crate) json: bool,
    /// Result and errors only.
    pub(crate) quiet: bool,
    /// Facts about what was done.
    pub(crate) verbose: bool,
    /// Colour on standard output.
    pub(crate) color: bool,
    /// Columns of a line.
    pub(crate) width: usize,
    /// Progress lines on standard error make sense.
    pub(crate) progress: bool,
    /// Standard output is a terminal, which obeys control characters.
    screen: bool,
    /// The one JSON value of this call has been written.
    answered: AtomicBool,
}

#[expect(clippy::unused_self, reason = "to write is the right of who was given the terminal")]
impl Terminal {
    /// Decides from the options, the terminal and `NO_COLOR`.
    pub(crate) fn new(global: &Global) -> Self {
        let color = match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => io::stdout().is_terminal() && !no_color(),
        };
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            color: color && !global.json,
            width: columns(),
            progress: io::stderr().is_terminal() && !global.quiet && !global.json,
            screen: io::stdout().is_terminal(),
            answered: AtomicBool::new(false),
        }
    }

    /// Writes text to standard output, followed by nothing.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Writes text that a model made. A terminal gets its control characters spelled out; a pipe or a file gets every
    /// byte as it is.
    pub(crate) fn model_text(&self, text: &str) -> Result<(), Failure> {
        if self.screen { self.text(&harmless(text)) } else { self.text(text) }
    }

    /// Writes one line to standard output.
    pub(crate) fn line(&self, line: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(())
    }

    /// Writes one JSON value to standard output.
    pub(crate) fn value<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        self.answered.store(true, Ordering::Relaxed);
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, value)
            .map_err(|error| Failure::from(io::Error::from(error)))?;
        writeln!(out)?;
        Ok(())
    }

    /// Writes a fact to standard error when the user asked for facts.
    pub(crate) fn fact(&self, name: &str, value: impl std::fmt::Display) -> Result<(), Failure> {
        if self.verbose {
            writeln!(io::stderr().lock(), "{name}: {value}")?;
        }
        Ok(())
    }

    /// Writes a notice to standard error unless the user wants quiet.
    pub(crate) fn notice(&self, text: &str) -> Result<(), Failure> {
        if !self.quiet {
            writeln!(io::stderr().lock(), "{text}")?;
        }
        Ok(())
    }

    /// Writes a warning to standard error, also for a user who wants quiet.
    pub(crate) fn warning(&self, text: &str) -> Result<(), Failure> {
        writeln!(io::stderr().lock(), "apr: warning: {text}")?;
        Ok(())
    }

    /// Reports a failed command: one line on standard error, and with `--json` one value on standard output.
    pub(crate) fn failure(&self, command: &str, failure: &Failure) {
        if matches!(failure, Failure::ClosedPipe) {
            return;
        }
        // A call that was interrupted behind its answer has given its one value already.
        if self.json && !self.answered.load(Ordering::Relaxed) {
            // Nobody is left to tell when this write fails too.
            let _untold = self.value(&Envelope::new("error", command, ErrorOutput::from(failure)));
        }
        let _untold = writeln!(io::stderr().lock(), "apr: {failure}");
    }
}

/// `text` with every character spelled out that would steer a terminal or reorder what stands around it, except line
/// breaks and tabs.
fn harmless(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Columns of the terminal; 100 where there is none.
fn columns() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0))
}

#[expect(
    clippy::disallowed_methods,
    reason = "NO_COLOR is an agreement between all terminal programs"
)]
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// The frame of every `--json` output.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Envelope<T> {
    /// Name and version of the schema of this value, for example `apr/run/1`.
    pub(crate) schema: String,
    /// Version of the tool.
    pub(crate) apr_version: String,
    /// The command that wrote it.
    pub(crate) command: String,
    /// The fields of the command.
    #[serde(flatten)]
    pub(crate) body: T,
}

impl<T> Envelope<T> {
    /// Wraps `body`, described by schema `name`.
    pub(crate) fn new(name: &str, command: &str, body: T) -> Self {
        Self {
            schema: format!("apr/{name}/1"),
            apr_version: env!("CARGO_PKG_VERSION").to_owned(),
            command: command.to_owned(),
            body,
        }
    }
}

/// `error`: why a command failed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorOutput {
    /// The failure.
    error: ErrorBody,
    /// Exit code of the process.
    exit_code: u8,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
struct ErrorBody {
    /// Stable code, for example `E0101`; absent for usage errors.
    code: Option<String>,
    /// The whole message.
    message: String,
    /// The file, when one is involved.
    file: Option<String>,
    /// Byte offset, field, tensor or site.
    place: Option<String>,
    /// What was expected.
    expected: Option<String>,
    /// What was found.
    found: Option<String>,
    /// What to do.
    hint: Option<String>,
    /// What the model violates, when that is why nothing was done.
    contract: Option<ContractOutput>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ContractOutput {
    /// Every violation.
    violations: Vec<Violation>,
    /// Tensors of which something is wrong.
    violated: usize,
    /// Tensors of the model.
    tensors: u64,
}

impl From<&Failure> for ErrorOutput {
    fn from(failure: &Failure) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut error = ErrorBody { message: failure.to_string(), ..ErrorBody::default() };
        if let Failure::Engine(engine) = failure {
            error.code = Some(engine.code().number().to_owned());
            error.file = engine.file().map(|path| path.display().to_string());
            error.place = some(&engine.location().to_string());
            error.expected = some(engine.expected_text());
            error.found = some(engine.found_text());
            error.hint = some(engine.hint_text());
        }
        if let Failure::Contract { path, breach } = failure {
            // The first rule stands for all; of a model that does not parse it is its error code.
            error.code = breach.violations.first().map(|one| one.rule.clone());
            error.file = Some(path.display().to_string());
            error.contract = Some(ContractOutput {
                violations: breach.violations.clone(),
                violated: breach.violated(),
                tensors: breach.tensors,
            });
        }
        Self { error, exit_code: failure.exit().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_writes_cannot_steer_the_terminal() {
        for (text, shown) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("2+2 is\u{1b}]52;c;aGk=\u{7}4", "2+2 is\\u{1b}]52;c;aGk=\\u{7}4"),
            ("over\rwritten \u{9b}2J \u{7f}", "over\\u{d}written \\u{9b}2J \\u{7f}"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
            ("שלום 👩\u{200d}💻 你好", "שלום 👩\u{200d}💻 你好"),
        ] {
            assert_eq!(harmless(text), shown);
        }
    }
}
