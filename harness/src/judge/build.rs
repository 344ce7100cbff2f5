//! Building a form out of another one, once per run.

use std::fs;
use std::io::Error;
use std::ops::ControlFlow;
use std::path::Path;

use apr_engine::Code;
use apr_engine::format::Format;
use apr_engine::format::convert::{Precision, convert_file};
use apr_engine::model::Model;

use super::context::{JudgeContext, Look};
use super::relaid::relay;
use crate::case::ModelRef;
use crate::suite::Build;
use crate::verdict::Verdict;

impl JudgeContext {
    /// Builds `path` unless it exists, and before it the form that it is built from.
    pub(super) fn build_chain(&self, path: &Path) -> std::io::Result<()> {
        match self.builds.get(path) {
            Some((recipe, source)) if !path.exists() => {
                self.build_chain(source)?;
                build(recipe, source, path)
            }
            _ => Ok(()),
        }
    }

    /// A skip, when `form` is, or is built from, a published model that is absent.
    pub(super) fn published_is_here(&self, form: &ModelRef) -> Look<()> {
        let mut origin = &form.path;
        while let Some((_, source)) = self.builds.get(origin) {
            origin = source;
        }
        let published = self.published.as_ref().is_some_and(|folder| origin.starts_with(folder));
        if !published || origin.exists() {
            return Ok(());
        }
        let why = format!(
            "{} is not there; python scripts/fetch_real_models.py {}",
            origin.display(),
            form.model
        );
        Err(Box::new(Verdict::skipped("real-model", why)))
    }
}

/// Converts the form at `from` to `to` as `recipe` says.
fn build(recipe: &Build, from: &Path, to: &Path) -> std::io::Result<()> {
    let failed = |error: apr_engine::Error| Error::other(error.to_string());
    let format = [Format::Gguf, Format::SafeTensors, Format::Apr]
        .into_iter()
        .find(|format| format.name() == recipe.format)
        .ok_or_else(|| Error::other(format!("no format is called {}", recipe.format)))?;
    let precision = match &recipe.dtype {
        None => Precision::Stored,
        Some(name) => Precision::from_name(name)
            .ok_or_else(|| Error::other(format!("no dtype is called {name}")))?,
    };
    if let Some(layout) = &recipe.layout {
        return relay(from, layout, to).map_err(failed);
    }
    Model::load(from).and_then(|model| convert(&model, format, precision, to)).map_err(failed)
}

/// Writes `model` at `to`, whose folder is made when it is missing.
///
/// Cases and processes side by side may want the same form. Files replace each other in one step; of directories the
/// first stays, and the others, which hold the same bytes, go.
pub(super) fn convert(
    model: &Model,
    format: Format,
    precision: Precision,
    to: &Path,
) -> apr_engine::Result<()> {
    let io = |error: Error| apr_engine::Error::new(Code::Io).found(error).in_file(to);
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(io)?;
    let mut go_on = |_| ControlFlow::Continue(());
    if format != Format::SafeTensors {
        return convert_file(model, format, precision, to, &mut go_on).map(drop);
    }
    let own = tempfile::tempdir_in(folder).map_err(io)?;
    let directory = own.path().join("model");
    convert_file(model, format, precision, &directory, &mut go_on)?;
    match fs::rename(&directory, to) {
        Err(error) if !to.is_dir() => Err(io(error)),
        _ => Ok(()),
    }
}
