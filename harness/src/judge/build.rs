//! Building a form out of another one, once per run.

use std::fs::{self, File};
use std::io::{BufWriter, Error, Write as _};
use std::path::Path;

use apr_engine::Dtype;
use apr_engine::format::convert::{Precision, convert};
use apr_engine::format::{Format, Source};

use crate::suite::Build;

/// Converts the model at `from` to `to` as `recipe` says. Nothing stands at `to` unless it is whole.
pub(super) fn build(recipe: &Build, from: &Path, to: &Path) -> std::io::Result<()> {
    let failed = |error: apr_engine::Error| Error::other(error.to_string());
    let format = [Format::Gguf, Format::SafeTensors, Format::Apr]
        .into_iter()
        .find(|format| format.name() == recipe.format)
        .ok_or_else(|| Error::other(format!("no format is called {}", recipe.format)))?;
    let precision = match &recipe.dtype {
        None => Precision::Stored,
        Some(name) => Precision::Uniform(
            Dtype::from_name(name)
                .ok_or_else(|| Error::other(format!("no dtype is called {name}")))?,
        ),
    };
    let source = Source::open(from).map_err(failed)?;
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    // Parallel cases and processes may build the same form: each writes its own file, the last rename wins with equal bytes.
    let temporary = to.with_extension(format!("{}.part", std::process::id()));
    let mut out = BufWriter::new(File::create(&temporary)?);
    let written = convert(&source, format, precision, &mut out).map_err(failed);
    let done = written.and_then(|()| out.flush()).and_then(|()| fs::rename(&temporary, to));
    if done.is_err() {
        // The error itself is what matters; a file that cannot be removed is no worse than one that is left.
        let _left = fs::remove_file(&temporary);
    }
    done
}
