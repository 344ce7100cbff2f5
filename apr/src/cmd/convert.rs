//! `apr convert`: a model in another format.

use std::path::Path;

use apr_engine::format::convert::{Precision, convert};
use apr_engine::format::{Format, Source, atomic};
use apr_engine::model::Model;
use apr_engine::{Code, Dtype};

use crate::cli::ConvertArgs;
use crate::failure::Failure;
use crate::gate::Admission;
use crate::render::Terminal;

pub(crate) fn run(
    args: &ConvertArgs,
    admission: &Admission,
    terminal: &Terminal,
) -> Result<u8, Failure> {
    let to = format_of(&args.output)?;
    if !args.force && args.output.symlink_metadata().is_ok() {
        let path = args.output.display();
        return Err(Failure::usage(format_args!("{path} exists; --force replaces it")));
    }
    let precision = args.dtype.as_deref().map_or(Ok(Precision::Stored), precision)?;
    let opened = match admission.model {
        Some(_) => None,
        None => Some(Source::open(&args.model.model)?),
    };
    let source = opened.as_ref().or(admission.model.as_ref().map(Model::source));
    let source = source.ok_or_else(|| Failure::broken("there is no model to convert"))?;
    let written = atomic::write(&args.output, |out| convert(source, to, precision, out));
    written.map_err(|error| match error.code() {
        // The request is wrong, not the model.
        Code::ConversionUnsupported => Failure::usage(error),
        _ => Failure::from(error),
    })?;
    terminal.fact("format", format_args!("{} to {}", source.format().name(), to.name()))?;
    terminal.notice(&format!("wrote {}", args.output.display()))?;
    Ok(0)
}

fn format_of(path: &Path) -> Result<Format, Failure> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let formats = [Format::Gguf, Format::SafeTensors, Format::Apr];
    formats.into_iter().find(|format| format.name() == extension).ok_or_else(|| {
        Failure::usage(format_args!(
            "{}: the extension decides the format: .apr, .gguf or .safetensors",
            path.display()
        ))
    })
}

fn precision(name: &str) -> Result<Precision, Failure> {
    let dtype = Dtype::from_name(name);
    let dtype = dtype.ok_or_else(|| {
        Failure::usage(format_args!("no dtype {name:?}; for example f32, f16, bf16, q8_0"))
    })?;
    Ok(Precision::Uniform(dtype))
}
