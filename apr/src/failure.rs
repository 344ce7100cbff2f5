//! How a command fails: one error, one exit code.

use std::fmt;
use std::path::Path;

use crate::exit::Exit;

/// A failed command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An engine error; the exit follows from its code.
    Engine(apr_engine::Error),
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
            Self::Other { message, .. } => f.write_str(message),
            Self::ClosedPipe => f.write_str("the output was closed"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}
