//! `apr report`: put the records of shards together again.

use std::path::Path;

use apr_harness::event::RunRecord;
use apr_harness::report::{Format, file, json};
use apr_harness::runner;

use crate::cli::ReportArgs;
use crate::failure::Failure;
use crate::render::Terminal;

/// The files that are written.
const FORMATS: [Format; 5] =
    [Format::Json, Format::Junit, Format::Markdown, Format::Html, Format::Sarif];

pub(crate) fn run(args: &ReportArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let mut records = Vec::new();
    for path in &args.files {
        records.push(read(path)?);
    }
    let record = runner::merge(records).map_err(Failure::usage)?;
    std::fs::create_dir_all(&args.output).map_err(|error| Failure::file(&args.output, &error))?;
    for format in FORMATS {
        let path = args.output.join(format.file_name());
        let text = format.render(&record).map_err(|error| Failure::file(&path, &error))?;
        file::write_atomically(&path, text.as_bytes())
            .map_err(|error| Failure::file(&path, &error))?;
    }
    terminal.notice(&format!("reports: {}", args.output.display()))?;
    Ok(record.exit_code)
}

fn read(path: &Path) -> Result<RunRecord, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
    json::read(&text).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
}
