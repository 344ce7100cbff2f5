//! `apr tensors`: names, dtypes, shapes, places and, when asked, statistics of every tensor.

use apr_engine::error::printable;
use apr_engine::format::Source;
use apr_harness::rosetta::statistics::Stats;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::TensorsArgs;
use crate::failure::Failure;
use crate::render::{Envelope, Terminal};

/// `tensors`: the tensors of a model in file order.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TensorsOutput {
    /// The model as it was named.
    path: String,
    /// Tensors of all files.
    tensors: Vec<TensorRow>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TensorRow {
    /// Name in the file.
    name: String,
    /// Index of the file; 0 unless the model is sharded.
    shard: usize,
    /// Element type.
    dtype: String,
    /// Dimensions, outermost first.
    shape: Vec<u64>,
    /// Byte offset of the first value from the start of the file.
    offset: u64,
    /// Stored bytes.
    bytes: u64,
    /// Statistics, when asked for and when the dtype is numeric.
    stats: Option<Stats>,
}

pub(crate) fn run(args: &TensorsArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let source = Source::open(&args.model.model)?;
    let mut tensors = Vec::new();
    for (shard, container) in source.containers()?.iter().enumerate() {
        for entry in &container.tensors {
            if args.filter.as_deref().is_some_and(|filter| !entry.name.contains(filter)) {
                continue;
            }
            // Integer tensors are stored but never computed with: they have no statistics.
            let stats = if args.stats { Stats::of(&entry.view).ok() } else { None };
            tensors.push(TensorRow {
                name: entry.name.to_string(),
                shard,
                dtype: entry.view.dtype().name().to_owned(),
                shape: entry.view.shape().dims().to_vec(),
                offset: entry.offset,
                bytes: entry.view.bytes().len() as u64,
                stats,
            });
        }
    }
    if terminal.json {
        let path = args.model.model.display().to_string();
        terminal.value(&Envelope::new("tensors", "tensors", TensorsOutput { path, tensors }))?;
    } else {
        table(&tensors, terminal)?;
    }
    Ok(0)
}

fn table(tensors: &[TensorRow], terminal: &Terminal) -> Result<(), Failure> {
    let width = tensors.iter().map(|row| printable(&row.name).chars().count()).max().unwrap_or(4);
    for row in tensors {
        let shape = format!("{:?}", row.shape);
        let mut line = format!("{:<width$}  {:<6} {shape:<16}", printable(&row.name), row.dtype);
        if let Some(stats) = &row.stats {
            let columns = format!(
                " min {:>10.4e} max {:>10.4e} mean {:>10.3e} std {:>9.3e} zeros {}/{} nan {}",
                stats.min, stats.max, stats.mean, stats.std, stats.zeros, stats.count, stats.nan
            );
            line.push_str(&columns);
        }
        terminal.line(line.trim_end())?;
    }
    if !terminal.quiet {
        let bytes: u64 = tensors.iter().map(|row| row.bytes).sum();
        terminal.line(&format!("{} tensors, {bytes} bytes", tensors.len()))?;
    }
    Ok(())
}
