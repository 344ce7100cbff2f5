//! Why nothing was measured.

use std::path::{Path, PathBuf};

/// What stops a measurement; what is measured but not comparable is a row of the report instead.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Our engine refused.
    #[error("apr: {0}")]
    Engine(#[from] apr_engine::Error),
    /// llama.cpp refused; `said` is what it logged as errors.
    #[error("llama.cpp: {what}{}{said}", if said.is_empty() { "" } else { ": " })]
    Llama {
        /// What it was asked for.
        what: String,
        /// Its own words.
        said: String,
    },
    /// What was asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Failure {
    /// An error of the file `path`.
    pub fn file(path: &Path, error: std::io::Error) -> Self {
        Self::File { path: path.to_path_buf(), error }
    }
}

/// What a measurement gives.
pub type Result<T> = std::result::Result<T, Failure>;
