//! What is measured, seen from the stopwatch: tokens in, the last row of logits out.

use std::ops::ControlFlow;
use std::path::Path;

use apr_engine::Dtype;
use apr_engine::backend::{CacheType, Device};
use apr_engine::format::Format;
use apr_engine::format::convert::{Precision, convert_file};
use apr_engine::model::{Lm, LmOptions, Model, Want};
use apr_engine::probe::NoProbe;
use tempfile::TempDir;

use crate::failure::{Failure, Result};

/// An engine with a model and a cache.
pub trait Side {
    /// Its name, with what sets this one apart.
    fn name(&self) -> String;

    /// Logits of a row.
    fn vocab(&self) -> usize;

    /// Forgets all tokens.
    fn reset(&mut self);

    /// Appends `tokens` and returns the logits of the last one.
    ///
    /// # Errors
    /// Those of the engine.
    fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]>;
}

/// Opens one side anew: model, context and all.
pub type Open<'a> = dyn Fn() -> Result<Box<dyn Side>> + 'a;

/// Our engine.
pub struct Ours {
    name: &'static str,
    lm: Box<dyn Lm>,
    /// Kept, so that closing it is not part of opening.
    _model: Model,
    /// Holds the model's file, where that is made for this side alone.
    _folder: Option<TempDir>,
}

impl std::fmt::Debug for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ours").field("backend", &self.lm.backend_name()).finish_non_exhaustive()
    }
}

impl Ours {
    /// Opens the model `path` with the fastest kernels that this processor has, with room for `room` positions. The tokenizer,
    /// which could wait until there is text, is made too: llama.cpp never opens a model without.
    pub fn open(path: &Path, threads: usize, room: usize) -> Result<Self> {
        let model = Model::load(path)?;
        let device = Device::Simd { isa: None, threads: Some(threads) };
        let options = LmOptions { context: Some(room), ..LmOptions::default() };
        let lm = model.lm_on(&device, options)?;
        model.tokenizer()?;
        Ok(Self { name: "apr", lm, _model: model, _folder: None })
    }

    /// Exact arithmetic, as far as numbers of 32 bits are: the weights of `model` widened into a temporary file, four bytes
    /// each, and no activation, key or value rounded to fewer.
    pub fn exact(model: &Model, room: usize) -> Result<Self> {
        let folder =
            tempfile::tempdir().map_err(|error| Failure::file(&std::env::temp_dir(), error))?;
        let path = folder.path().join("exact.gguf");
        let precision = Precision::Uniform(Dtype::F32);
        convert_file(model, Format::Gguf, precision, &path, &mut |_| ControlFlow::Continue(()))?;
        let model = Model::load(&path)?;
        let device = Device::Simd { isa: None, threads: None };
        let options =
            LmOptions { context: Some(room), cache_type: CacheType::F32, ..LmOptions::default() };
        let lm = model.lm_on(&device, options)?;
        Ok(Self { name: "exact", lm, _model: model, _folder: Some(folder) })
    }
}

impl Side for Ours {
    fn name(&self) -> String {
        format!("{} ({})", self.name, self.lm.backend_name())
    }

    fn vocab(&self) -> usize {
        self.lm.config().vocab
    }

    fn reset(&mut self) {
        self.lm.reset();
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        Ok(self.lm.forward(tokens, Want::Last, &mut NoProbe)?.last())
    }
}
