//! A contest on a file: what both sides open, and what is told of it.

use std::collections::BTreeMap;
use std::path::Path;

use apr_engine::Dtype;
use apr_engine::backend::simd::Kernels;
use apr_engine::model::Model;
use apr_harness::bench::bandwidth;
use apr_harness::bench::compute::Work;
use apr_harness::timer::Clock;

use crate::answers;
use crate::elsewhere::Ticks;
use crate::failure::{Failure, Result};
use crate::llama::{Llama, Setup};
use crate::measure::{Contest, Options, measure};
use crate::report::Row;
use crate::side::{Open, Ours, Side};

/// Measures the GGUF file `path` on `threads` threads, against llama.cpp in each of the repack settings `repack`.
///
/// # Errors
/// Those of loading on either side and of [`measure`].
pub fn row(
    path: &Path,
    threads: usize,
    repack: &[bool],
    options: &Options,
    clock: Clock<'_>,
) -> Result<Row> {
    let room = options.room();
    let ours = || Ours::open(path, threads, room).map(|side| Box::new(side) as Box<dyn Side>);
    judged(path, threads, &ours, repack, options, clock)
}

/// As [`row`], with another side in the place of our engine: `open` opens it.
pub fn judged(
    path: &Path,
    threads: usize,
    open: &Open<'_>,
    repack: &[bool],
    options: &Options,
    clock: Clock<'_>,
) -> Result<Row> {
    if threads == 0 {
        return Err(Failure::Usage("threads must be at least 1".to_owned()));
    }
    let model = Model::load(path)?;
    let weights = bandwidth::weights(&model);
    let (dtypes, types) = types(&model);
    let room = options.room();
    let settings: Vec<Box<Open<'_>>> = repack
        .iter()
        .map(|&repack| {
            let setup = Setup { threads, room, repack };
            let open = move || Llama::open(path, &setup).map(|it| Box::new(it) as Box<dyn Side>);
            Box::new(open) as Box<Open<'_>>
        })
        .collect();
    let theirs: Vec<&Open<'_>> = settings.iter().map(|open| &**open).collect();
    let bound = answers::bound(&dtypes);
    let exact = || Ours::exact(&model, room).map(|side| Box::new(side) as Box<dyn Side>);
    let contest = Contest {
        ours: open,
        theirs: &theirs,
        exact: &exact,
        weights: &weights,
        work: Work::of_prompt(&model, options.prompt),
        threads,
        isa: Kernels::best().isa(),
        bound,
    };
    let before = Ticks::now();
    let outcome = measure(&contest, options, clock)?;
    let elsewhere = Ticks::now().zip(before).and_then(|(now, before)| now.others_since(before));
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(Row {
        model: name.to_string_lossy().into_owned(),
        sha256: model.sha256(),
        types,
        threads,
        elsewhere,
        outcome,
    })
}

/// The types of the weights that products read, and the share of each in the bytes of all weights, largest first.
fn types(model: &Model) -> (Vec<Dtype>, Vec<(String, f64)>) {
    let mut bytes: BTreeMap<&str, (Dtype, usize)> = BTreeMap::new();
    for (_, named) in model.weights().iter() {
        let dtype = named.tensor.dtype();
        bytes.entry(dtype.name()).or_insert((dtype, 0)).1 += named.tensor.bytes().len();
    }
    let total: usize = bytes.values().map(|(_, bytes)| bytes).sum();
    let mut shares: Vec<(String, f64)> = bytes
        .iter()
        .map(|(name, (_, bytes))| ((*name).to_owned(), *bytes as f64 / total.max(1) as f64))
        .collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    (bytes.into_values().map(|(dtype, _)| dtype).collect(), shares)
}
