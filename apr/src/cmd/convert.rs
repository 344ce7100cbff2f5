//! `apr convert`, `import`, `export` and `quantize`: a model in another format, in another dtype, or both.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use apr_engine::format::Format;
use apr_engine::format::convert::{Precision, Progress, Recipe, Summary, convert_file};
use apr_engine::model::Model;
use apr_engine::{Code, Dtype};
use indicatif::ProgressBar;
use schemars::JsonSchema;
use serde::Serialize;

use super::steps;
use crate::cli::{ConvertArgs, ExportArgs, FormatName, ImportArgs, QuantizeArgs, Target};
use crate::failure::Failure;
use crate::gate::{Admission, ContractState};
use crate::interrupt::Interrupt;
use crate::render::{Envelope, Terminal};

/// Files that a Hugging Face directory holds; one with others is never replaced.
const DIRECTORY_FILES: &[&str] = &["json", "jinja", "safetensors"];

/// `convert`: what was read and what was written.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConvertOutput {
    /// What is known of the source's contract.
    contract: ContractState,
    /// The model that was read.
    source: Side,
    /// The model that was written.
    output: Side,
    /// Tensors that were written.
    tensors: usize,
    /// Tensors whose stored bytes passed through untouched (rows may come in another order).
    untouched: usize,
    /// Tensors that were quantised before and were rounded a second time.
    requantised: usize,
    /// Dtype → number of written tensors.
    dtypes: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Side {
    /// As it was named.
    path: String,
    /// `gguf`, `safetensors` or `apr`.
    format: String,
    /// Bytes of the weight files.
    bytes: u64,
    /// SHA-256 of the weight files.
    sha256: String,
    /// Model family.
    architecture: String,
}

/// A conversion that was asked for.
struct Job<'a> {
    command: &'static str,
    model: &'a Path,
    to: Format,
    precision: Precision,
    target: &'a Target,
}

pub(crate) fn convert(
    args: &ConvertArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let to = chosen(args.format, &args.target)?;
    let precision = optional(args.dtype.as_deref())?;
    let (model, target) = (&args.model.model, &args.target);
    run(&Job { command: "convert", model, to, precision, target }, admission, terminal, interrupt)
}

pub(crate) fn import(
    args: &ImportArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let precision = optional(args.dtype.as_deref())?;
    let (model, target) = (&args.model.model, &args.target);
    let job = Job { command: "import", model, to: Format::Apr, precision, target };
    run(&job, admission, terminal, interrupt)
}

pub(crate) fn export(
    args: &ExportArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let precision = optional(args.dtype.as_deref())?;
    let (model, target) = (&args.model.model, &args.target);
    let job = Job { command: "export", model, to: args.format.into(), precision, target };
    run(&job, admission, terminal, interrupt)
}

pub(crate) fn quantize(
    args: &QuantizeArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let to = chosen(args.format, &args.target)?;
    let precision = precision(&args.dtype)?;
    let (model, target) = (&args.model.model, &args.target);
    run(&Job { command: "quantize", model, to, precision, target }, admission, terminal, interrupt)
}

fn run(
    job: &Job<'_>,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    check_target(job.target, job.to)?;
    let contract = admission.contract();
    let model = match admission.model {
        Some(model) => model,
        None => Model::load(job.model)?,
    };
    let output = &job.target.output;
    let bar = bar(terminal)?;
    let mut watch = |progress: Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done.min(progress.total));
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let written = convert_file(&model, job.to, job.precision, output, &mut watch);
    bar.finish_and_clear();
    let summary = written.map_err(|error| match error.code() {
        // The request is wrong, not the model.
        Code::ConversionUnsupported => Failure::usage(error),
        Code::Cancelled => Failure::Interrupted,
        _ => Failure::from(error),
    })?;
    report(job, &model, contract, &summary, terminal)?;
    Ok(0)
}

/// Refuses to write over what is there, unless the user insists; a directory that is no model is never replaced.
fn check_target(target: &Target, to: Format) -> Result<(), Failure> {
    let path = &target.output;
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    let shown = path.display();
    if !target.force {
        return Err(Failure::usage(format_args!("{shown} exists; --force replaces it")));
    }
    if found.is_dir() != (to == Format::SafeTensors) {
        let wanted = if found.is_dir() { "a file" } else { "a directory" };
        return Err(Failure::usage(format_args!("{shown} exists and is not {wanted}")));
    }
    if !found.is_dir() {
        return Ok(());
    }
    for entry in path.read_dir().map_err(|error| Failure::file(path, &error))? {
        let entry = entry.map_err(|error| Failure::file(path, &error))?;
        let name = entry.file_name();
        let extension = Path::new(&name).extension().and_then(|extension| extension.to_str());
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !extension.is_some_and(|extension| DIRECTORY_FILES.contains(&extension)) {
            return Err(Failure::usage(format_args!(
                "{shown} holds {}, which is no part of a model; name another directory",
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// The bar of a conversion, hidden where none is wanted.
pub(super) fn bar(terminal: &Terminal) -> Result<ProgressBar, Failure> {
    steps::line(
        terminal,
        "{bar:40} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
    )
}

fn report(
    job: &Job<'_>,
    model: &Model,
    contract: ContractState,
    summary: &Summary,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let path = &job.target.output;
    terminal.fact("format", format_args!("{} to {}", model.format().name(), job.to.name()))?;
    terminal.fact("tensors", summary.tensors)?;
    terminal.fact("untouched", summary.untouched)?;
    for (dtype, count) in &summary.dtypes {
        terminal.fact(dtype.name(), count)?;
    }
    if summary.requantised > 0 {
        terminal.notice(&format!(
            "{} tensors were quantised already and are rounded a second time; start from the original for better weights",
            summary.requantised
        ))?;
    }
    if !terminal.json {
        return terminal.notice(&format!("wrote {}", path.display()));
    }
    let dtypes = summary.dtypes.iter();
    let body = ConvertOutput {
        contract,
        source: side(job.model, model),
        output: side(path, &Model::load(path)?),
        tensors: summary.tensors,
        untouched: summary.untouched,
        requantised: summary.requantised,
        dtypes: dtypes.map(|(dtype, count)| (dtype.name().to_owned(), *count)).collect(),
    };
    terminal.value(&Envelope::new("convert", job.command, body))
}

fn side(path: &Path, model: &Model) -> Side {
    Side {
        path: path.display().to_string(),
        format: model.format().name().to_owned(),
        bytes: model.source().bytes_total(),
        sha256: model.sha256(),
        architecture: model.config().family.name.to_owned(),
    }
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Gguf => Self::Gguf,
            FormatName::Safetensors => Self::SafeTensors,
            FormatName::Apr => Self::Apr,
        }
    }
}

/// The format that is named, else the one that the path says.
fn chosen(name: Option<FormatName>, target: &Target) -> Result<Format, Failure> {
    name.map_or_else(|| format_of(&target.output), |name| Ok(name.into()))
}

/// What a path says: an extension, or a slash at its end for a Hugging Face directory.
fn format_of(path: &Path) -> Result<Format, Failure> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_directory = path.to_string_lossy().ends_with(std::path::MAIN_SEPARATOR);
    match extension {
        _ if is_directory => Ok(Format::SafeTensors),
        "gguf" => Ok(Format::Gguf),
        "apr" => Ok(Format::Apr),
        _ => Err(Failure::usage(format_args!(
            "{}: which format? a file ends in .apr or .gguf, a Hugging Face directory with SafeTensors in a slash; or name it with --format",
            path.display()
        ))),
    }
}

fn optional(name: Option<&str>) -> Result<Precision, Failure> {
    name.map_or(Ok(Precision::Stored), precision)
}

fn precision(name: &str) -> Result<Precision, Failure> {
    Precision::from_name(name).ok_or_else(|| {
        let plain = [Dtype::F32, Dtype::F16, Dtype::BF16].map(Dtype::name);
        let names = plain.into_iter().chain(Recipe::ALL.iter().map(|recipe| recipe.name));
        let names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
        Failure::usage(format_args!("no dtype {name:?}; there are {}", names.join(", ")))
    })
}
