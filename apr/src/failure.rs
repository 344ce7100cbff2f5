//! How a command fails: one error, one exit code.

use std::fmt;
use std::path::{Path, PathBuf};

use apr_harness::admission::Breach;

use crate::exit::Exit;

/// A failed command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An engine error; the exit follows from its code.
    Engine(apr_engine::Error),
    /// The model violates its contract; nothing was done with it.
    Contract {
        /// The model as it was named.
        path: PathBuf,
        /// What is wrong.
        breach: Breach,
    },
    /// Anything else, with the exit it causes.
    Other {
        /// Exit of the process.
        exit: Exit,
        /// What happened, where, and what to do.
        message: String,
    },
    /// The reader of our output went away; not an error.
    ClosedPipe,
    /// The user interrupted.
    Interrupted,
}

impl Failure {
    /// A failure with this exit.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self::Other { exit, message: message.to_string() }
    }

    /// A usage error.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A broken environment.
    pub(crate) fn broken(message: impl fmt::Display) -> Self {
        Self::new(Exit::Broken, message)
    }

    /// A failed file operation.
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Self::broken(format_args!("{}: {error}", path.display()))
    }

    /// The exit of the process.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Engine(error) => Exit::of(error.code()),
            Self::Contract { .. } => Exit::Contract,
            Self::Other { exit, .. } => *exit,
            Self::ClosedPipe => Exit::Success,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

impl From<apr_engine::Error> for Failure {
    fn from(error: apr_engine::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::broken(format_args!("output: {error}"))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Contract { path, breach } => contract(path, breach, f),
            Self::Other { message, .. } => f.write_str(message),
            Self::ClosedPipe => f.write_str("the output was closed"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Violations that are shown at once.
const SHOWN: usize = 5;

/// The count, the first ones, and the way to the rest.
fn contract(path: &Path, breach: &Breach, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (count, path) = (breach.violations.len(), path.display());
    let plural = if count == 1 { "" } else { "s" };
    write!(f, "{path} violates its contract: {count} violation{plural} in ")?;
    match (breach.violated(), breach.tensors) {
        (0, _) | (_, 0) => write!(f, "the files as a whole")?,
        (violated, tensors) => write!(f, "{violated} of {tensors} tensors")?,
    }
    for one in breach.violations.iter().take(SHOWN) {
        write!(f, "\n  {}: {}: expected {}", one.rule, one.place, one.expected)?;
        for (name, text) in [("found", &one.found), ("hint:", &one.hint)] {
            if !text.is_empty() {
                write!(f, "; {name} {text}")?;
            }
        }
    }
    if count > SHOWN {
        write!(f, "\n  and {} more", count - SHOWN)?;
    }
    write!(
        f,
        "\n  to see all: apr validate --quality {path}; to go on all the same: --skip-contract"
    )
}
