//! `apr tensors`: names, dtypes, shapes, places and, when asked, statistics of every tensor.

use apr_engine::TensorView;
use apr_engine::error::printable;
use apr_engine::format::Source;
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

/// Statistics over the finite values of a tensor.
#[derive(Debug, Serialize, JsonSchema)]
struct Stats {
    /// Values.
    count: u64,
    /// Values that are NaN.
    nan: u64,
    /// Values that are infinite.
    infinite: u64,
    /// Values that are zero.
    zeros: u64,
    /// Smallest finite value.
    min: f64,
    /// Largest finite value.
    max: f64,
    /// Mean of the finite values.
    mean: f64,
    /// Standard deviation of the finite values (population form).
    std: f64,
    /// Euclidean norm of the finite values.
    l2: f64,
}

impl Stats {
    /// One pass over the values (Welford, 1962).
    fn of(view: &TensorView<'_>) -> Result<Self, Failure> {
        let mut stats = Self {
            count: 0,
            nan: 0,
            infinite: 0,
            zeros: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            mean: 0.0,
            std: 0.0,
            l2: 0.0,
        };
        let (mut seen, mut spread, mut squares) = (0u64, 0.0, 0.0);
        let mut row_values = vec![0.0; view.cols()];
        for row in 0..view.rows() {
            view.dequantize_row(row, &mut row_values)?;
            for &value in &row_values {
                stats.count += 1;
                if value.is_nan() {
                    stats.nan += 1;
                    continue;
                }
                if value.is_infinite() {
                    stats.infinite += 1;
                    continue;
                }
                let value = f64::from(value);
                seen += 1;
                stats.zeros += u64::from(value.abs() == 0.0);
                stats.min = stats.min.min(value);
                stats.max = stats.max.max(value);
                let delta = value - stats.mean;
                stats.mean += delta / seen as f64;
                spread += delta * (value - stats.mean);
                squares += value * value;
            }
        }
        if seen == 0 {
            (stats.min, stats.max) = (0.0, 0.0);
        } else {
            stats.std = (spread / seen as f64).sqrt();
        }
        stats.l2 = squares.sqrt();
        Ok(stats)
    }
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
