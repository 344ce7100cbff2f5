//! A converted model as files: written beside the target, read back and compared, then given its name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use super::verify::verify;
use super::{Plan, Precision, safetensors};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::format::write::{Checksums, Outgoing};
use crate::format::{Format, Source, atomic};
use crate::model::Model;

/// Written bytes after which pages of the source are given back.
const RELEASE_EVERY: u64 = 32 << 20;

/// How far a conversion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written.
    pub done: u64,
    /// Bytes of all tensors.
    pub total: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Tensors.
    pub tensors: usize,
    /// Tensors whose stored bytes were not touched, rows in another order included.
    pub untouched: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Tensors per dtype.
    pub dtypes: BTreeMap<Dtype, usize>,
    /// Tensors that were quantised before and are now rounded once more.
    pub requantised: usize,
}

/// Writes `model` in format `to` at `path`: a file, or for SafeTensors a Hugging Face directory.
///
/// What was written is loaded and compared with `model` before it gets its name. `watch` hears of the progress and may
/// stop; whatever goes wrong, nothing is left at `path` that was not there before.
///
/// # Errors
/// As [`super::convert`]; [`Code::Cancelled`] when `watch` stops, [`Code::FileChanged`] when the source changed meanwhile,
/// [`Code::ConversionMismatch`] when what was written reads back as another model.
pub fn convert_file(
    model: &Model,
    to: Format,
    precision: Precision,
    path: &Path,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Summary> {
    let plan = Plan::new(model, to, precision)?;
    let summary = Summary::new(plan.tensors())?;
    let mut fill = |out: &mut BufWriter<File>| {
        let mut watched = Watched::new(out, model.source(), summary.bytes, watch);
        let written = plan.write(&mut watched);
        if watched.stopped {
            return Err(Error::new(Code::Cancelled));
        }
        model.source().check_unchanged()?;
        written
    };
    match &plan {
        Plan::SafeTensors { side_files, .. } => {
            atomic::write_directory(path, |folder| {
                let mut checksums = Checksums::new();
                atomic::write(&folder.join(safetensors::WEIGHTS), |out| {
                    checksums = fill(out)?;
                    Ok(())
                })?;
                for (name, bytes) in side_files {
                    atomic::write(&folder.join(name), |out| {
                        out.write_all(bytes).map_err(|error| Error::new(Code::Io).found(error))
                    })?;
                }
                verify(model, folder, &checksums)
            })?;
        }
        Plan::Gguf { .. } | Plan::Apr { .. } => {
            let check = |written: &Path, checksums| verify(model, written, &checksums);
            atomic::write_checked(path, fill, check)?;
        }
    }
    Ok(summary)
}

impl Summary {
    fn new(tensors: &[Outgoing]) -> Result<Self> {
        let sizes: Result<Vec<u64>> = tensors.iter().map(Outgoing::size).collect();
        let mut dtypes = BTreeMap::new();
        for tensor in tensors {
            *dtypes.entry(tensor.dtype).or_default() += 1;
        }
        let untouched = tensors.iter().filter(|tensor| tensor.passes_through());
        let requantised = tensors.iter().filter(|tensor| {
            let twice = tensor.dtype.is_quantized() && tensor.tensor.dtype().is_quantized();
            twice && !tensor.passes_through()
        });
        Ok(Self {
            tensors: tensors.len(),
            untouched: untouched.count(),
            bytes: sizes?.iter().sum(),
            dtypes,
            requantised: requantised.count(),
        })
    }
}

/// Counts what goes through, tells `watch`, and keeps the source from filling the memory.
struct Watched<'a, W> {
    inner: W,
    source: &'a Source,
    progress: Progress,
    released: u64,
    watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    stopped: bool,
}

impl<'a, W: Write> Watched<'a, W> {
    fn new(
        inner: W,
        source: &'a Source,
        total: u64,
        watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Self {
        let progress = Progress { done: 0, total };
        Self { inner, source, progress, released: 0, watch, stopped: false }
    }
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.watch)(self.progress).is_break() {
            self.stopped = true;
            return Err(io::Error::other("stopped"));
        }
        let written = self.inner.write(bytes)?;
        self.progress.done += written as u64;
        if self.progress.done - self.released >= RELEASE_EVERY {
            self.released = self.progress.done;
            self.source.release_pages();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
