//! Where a run's reports go: the terminal and a folder of files.

use std::fs::{File, TryLockError};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use apr_harness::event::Sink;
use apr_harness::kill::KillMatrix;
use apr_harness::report::file::ReportFile;
use apr_harness::report::term::{Detail, Style, Terminal as TerminalSink};
use apr_harness::report::{Format, file};
use serde::{Deserialize, Serialize};

use crate::cli::QaOptions;
use crate::failure::Failure;
use crate::render::Terminal;

/// The files of every run.
const FORMATS: [Format; 5] =
    [Format::Json, Format::Junit, Format::Markdown, Format::Html, Format::Sarif];

/// The kill matrix on disk, bound to the catalogue it proves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proven {
    /// SHA-256 of the catalogue; another catalogue voids the proof.
    pub(super) catalogue_sha256: String,
    /// The matrix.
    pub(super) matrix: KillMatrix,
}

/// Where reports go when nobody says otherwise: below the working directory.
pub(super) const FOLDER: &str = "apr-report";
/// The file that a run holds while it writes beside it.
const LOCK: &str = ".lock";

/// A folder for report files that no other run writes to while this value lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Closing the file gives the lock back, also when the process dies.
    _lock: File,
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// The folder for report files, made if need be; `None` when no files are wanted.
///
/// # Errors
/// When the folder cannot be written, or another run is writing to it.
pub(super) fn folder(options: &QaOptions) -> Result<Option<Folder>, Failure> {
    if options.no_report {
        return Ok(None);
    }
    let path = options.report.clone().unwrap_or_else(|| PathBuf::from(FOLDER));
    let place = |error| {
        let failure = Failure::file(&path, &error);
        Failure::new(
            failure.exit(),
            format_args!("{failure}; give another place with --report-dir, or --no-report"),
        )
    };
    std::fs::create_dir_all(&path).map_err(place)?;
    let lock = File::create(path.join(LOCK)).map_err(place)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Folder { path, _lock: lock })),
        Err(TryLockError::WouldBlock) => Err(Failure::usage(format_args!(
            "another run is writing its reports to {}; give this one another place with --report-dir",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(place(error)),
    }
}

/// The terminal as a sink: on standard output, or on standard error when standard output is for JSON.
pub(super) fn terminal(terminal: &Terminal) -> Box<dyn Sink> {
    let style = style(terminal);
    if terminal.json {
        Box::new(TerminalSink::new(std::io::stderr(), style))
    } else {
        Box::new(TerminalSink::new(std::io::stdout(), style))
    }
}

/// How the harness may write to the terminal.
pub(crate) fn style(terminal: &Terminal) -> Style {
    let detail = match (terminal.quiet || terminal.json, terminal.verbose) {
        (true, _) => Detail::Quiet,
        (_, true) => Detail::Verbose,
        _ => Detail::Normal,
    };
    Style { colour: terminal.color, width: terminal.width, progress: terminal.progress, detail }
}

/// Prepares one file sink per format, so that a place that cannot be written is found before the run.
pub(super) fn files(folder: &Path, sinks: &mut Vec<Box<dyn Sink>>) -> Result<(), Failure> {
    for format in FORMATS {
        let path = folder.join(format.file_name());
        let sink = ReportFile::prepare(format, &path)
            .map_err(|error| Failure::broken(format_args!("{error}")))?;
        sinks.push(Box::new(sink));
    }
    Ok(())
}

fn matrix_file(folder: &Path) -> PathBuf {
    folder.join("kill-matrix.json")
}

/// The kill matrix of an earlier proof of the same catalogue.
pub(super) fn kill_matrix(folder: &Path, catalogue_sha256: &str) -> Option<KillMatrix> {
    let bytes = std::fs::read(matrix_file(folder)).ok()?;
    let proven: Proven = serde_json::from_slice(&bytes).ok()?;
    (proven.catalogue_sha256 == catalogue_sha256).then_some(proven.matrix)
}

/// Writes the kill matrix.
pub(super) fn write_kill_matrix(folder: &Path, proven: &Proven) -> Result<PathBuf, Failure> {
    let path = matrix_file(folder);
    let bytes = serde_json::to_vec_pretty(proven)
        .map_err(|error| Failure::broken(format_args!("kill matrix: {error}")))?;
    file::write_atomically(&path, &bytes).map_err(|error| Failure::file(&path, &error))?;
    Ok(path)
}
