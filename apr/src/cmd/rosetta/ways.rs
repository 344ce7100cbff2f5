//! `apr rosetta verify` and `apr rosetta chain`: a model through formats, each leg judged.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use apr_engine::Code;
use apr_engine::format::Format;
use apr_engine::format::convert::Progress;
use apr_engine::model::Model;
use apr_harness::report::file::write_atomically;
use apr_harness::rosetta::journey::{Journey, Station, travel};
use apr_harness::rosetta::way_page;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::rosetta::{ChainArgs, VerifyArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::gate::{Admission, ContractState};
use crate::interrupt::Interrupt;
use crate::render::{Envelope, Terminal};

/// `rosetta-verify` and `rosetta-chain`: what each leg of the way kept.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WayOutput {
    /// What is known of the model's contract.
    contract: ContractState,
    /// The model as it was named.
    model: String,
    /// Format of its weight files.
    format: String,
    #[serde(flatten)]
    journey: Journey,
    /// Whether everything was kept to the end.
    kept: bool,
    /// Exit code of the process.
    exit_code: u8,
}

/// A way that was asked for.
struct Way<'a> {
    schema: &'static str,
    model: &'a Path,
    stations: Vec<Station>,
    keep: Option<&'a Path>,
    html: Option<&'a Path>,
}

pub(super) fn chain(
    args: &ChainArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let contract = admission.contract();
    let model = loaded(admission, &args.model.model)?;
    let way = Way {
        schema: "rosetta-chain",
        model: &args.model.model,
        stations: args.stations.clone(),
        keep: args.results.keep.as_deref(),
        html: args.results.html.as_deref(),
    };
    run(&way, &model, contract, terminal, interrupt)
}

pub(super) fn verify(
    args: &VerifyArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let contract = admission.contract();
    let model = loaded(admission, &args.model.model)?;
    let home = Station { format: model.format(), dtype: None };
    let mut stations = args.via.clone();
    if stations.is_empty() {
        let others = [Format::Gguf, Format::Apr, Format::SafeTensors];
        let others = others.into_iter().filter(|format| *format != home.format);
        stations = others.map(|format| Station { format, dtype: None }).collect();
    }
    stations.push(home);
    let way = Way {
        schema: "rosetta-verify",
        model: &args.model.model,
        stations,
        keep: args.results.keep.as_deref(),
        html: args.results.html.as_deref(),
    };
    run(&way, &model, contract, terminal, interrupt)
}

fn loaded(admission: Admission, path: &Path) -> Result<Model, Failure> {
    admission.model.map_or_else(|| Ok(Model::load(path)?), Ok)
}

fn run(
    way: &Way<'_>,
    model: &Model,
    contract: ContractState,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let (folder, _scratch) = folder(way.keep)?;
    let bar = crate::cmd::convert::bar(terminal)?;
    let mut watch = |_: usize, progress: Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done.min(progress.total));
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let gone = travel(model, &way.stations, &folder, &mut watch);
    bar.finish_and_clear();
    let journey = gone.map_err(|error| match error.code() {
        Code::Cancelled => Failure::Interrupted,
        _ => Failure::from(error),
    })?;
    report(way, model, contract, journey, terminal)
}

/// Where the files of the way lie: a folder that is kept, or one that goes with the process.
fn folder(keep: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    if let Some(folder) = keep {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
        let mut entries = folder.read_dir().map_err(|error| Failure::file(folder, &error))?;
        if entries.next().is_some() {
            let shown = folder.display();
            return Err(Failure::usage(format_args!("--keep: {shown} is not empty")));
        }
        return Ok((folder.to_path_buf(), None));
    }
    let work = tempfile::Builder::new()
        .prefix("apr-rosetta-")
        .tempdir()
        .map_err(|error| Failure::broken(format_args!("no scratch directory: {error}")))?;
    Ok((work.path().to_path_buf(), Some(work)))
}

fn report(
    way: &Way<'_>,
    model: &Model,
    contract: ContractState,
    journey: Journey,
    terminal: &Terminal,
) -> Result<u8, Failure> {
    let name = way.model.display().to_string();
    if let Some(file) = way.html {
        let page = way_page::page(&journey, &name);
        write_atomically(file, page.as_bytes()).map_err(|error| Failure::file(file, &error))?;
        terminal.notice(&format!("wrote {}", file.display()))?;
    }
    let kept = journey.keeps();
    let exit_code = u8::from(if kept { Exit::Success } else { Exit::Falsified });
    if !terminal.json {
        terminal.text(&way_page::render(&journey))?;
        return Ok(exit_code);
    }
    let format = model.format().name().to_owned();
    let output = WayOutput { contract, model: name, format, journey, kept, exit_code };
    terminal.value(&Envelope::new(way.schema, "rosetta", output))?;
    Ok(exit_code)
}
