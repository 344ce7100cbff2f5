//! One look at every value of a file in the page cache, against a plain loop over the same bytes in the same run.
//!
//! Not a criterion bench: what counts is the ratio, so both sides run in turns, A B B A, and the median of the
//! ratios of neighbours is printed. After `--`, `bytes=N` sets the size of the file (256 MiB), `rounds=N` the number of
//! rounds, `folder=PATH` where the file is made (the system's temporary folder), and a TYPE picks one file. `file=PATH` takes a
//! model of one file instead.

#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use apr_engine::backend::simd::Kernels;
use apr_engine::format::write::{Outgoing, write_gguf};
use apr_engine::format::{Source, Value};
use apr_engine::{Dtype, Shape, Tensor, TensorView, quant};

/// Threads of both sides.
const THREADS: usize = 2;
/// Rows that are quantised for real; a tensor repeats them.
const ROWS: u64 = 64;
const COLS: u64 = 4096;
/// How often a tensor repeats its rows.
const REPEATS: u64 = 32;

/// What the tensors of a file are stored as, in turns.
const FILES: &[(&str, &[Dtype])] = &[
    ("Q4_K_M", &[Dtype::Q4K, Dtype::Q4K, Dtype::Q4K, Dtype::Q4K, Dtype::Q4K, Dtype::Q6K]),
    ("Q4_K", &[Dtype::Q4K]),
    ("Q5_K", &[Dtype::Q5K]),
    ("Q6_K", &[Dtype::Q6K]),
    ("Q8_0", &[Dtype::Q8_0]),
    ("Q4_0", &[Dtype::Q4_0]),
    ("Q5_0", &[Dtype::Q5_0]),
    ("Q2_K", &[Dtype::Q2K]),
    ("Q3_K", &[Dtype::Q3K]),
    ("Q4_1", &[Dtype::Q4_1]),
    ("Q5_1", &[Dtype::Q5_1]),
    ("F16", &[Dtype::F16]),
    ("BF16", &[Dtype::BF16]),
    ("F32", &[Dtype::F32]),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |name: &str| {
        let values = arguments.iter().filter_map(|argument| argument.strip_prefix(name));
        values.filter_map(|value| value.strip_prefix('=')).next_back()
    };
    let number = |name: &str, default: u64| {
        named(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let test = arguments.iter().any(|argument| argument == "--test");
    let wanted = arguments.iter().find(|one| !one.starts_with('-') && !one.contains('='));
    let size = if test { 4 << 20 } else { number("bytes", 256 << 20) };
    let rounds = if test { 1 } else { number("rounds", 15) };
    println!(
        "{:<8} {:>6} {:>10} {:>10} {:>16} {:>16} {:>10}",
        "file", "MiB", "read", "survey", "ratio", "from opening", "beyond map"
    );
    if let Some(path) = named("file") {
        return measure(path, Path::new(path), rounds);
    }
    let folder = named("folder").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder).expect("a temporary folder");
    for (name, dtypes) in FILES {
        if wanted.is_some_and(|wanted| name != wanted) {
            continue;
        }
        let path = folder.path().join(format!("{name}.gguf"));
        make(&path, dtypes, size);
        measure(name, &path, rounds);
        std::fs::remove_file(&path).expect("the file that was made");
    }
}

/// Writes a file of about `size` bytes whose tensors repeat a few rows of normal weights.
fn make(path: &Path, dtypes: &[Dtype], size: u64) {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    // The sum of uniform numbers is nearly normal.
    let values: Vec<f32> =
        (0..ROWS * COLS).map(|_| 0.02 * ((0..6).map(|_| uniform()).sum::<f32>() - 3.0)).collect();
    let shape = Shape::new(&[ROWS * REPEATS, COLS]).expect("a small shape");
    let kinds: Vec<Tensor> = dtypes
        .iter()
        .map(|&dtype| {
            let rows = quant::quantize(dtype, COLS as usize, &values).expect("finite values");
            Tensor::new(dtype, shape, rows.repeat(REPEATS as usize).into()).expect("whole rows")
        })
        .collect();
    let mut tensors = Vec::new();
    let mut bytes = 0;
    for kind in kinds.iter().cycle() {
        if bytes >= size {
            break;
        }
        bytes += kind.bytes().len() as u64;
        tensors.push(Outgoing::unchanged(
            format!("blk.{}.ffn_up.weight", tensors.len()),
            kind.clone(),
        ));
    }
    let pairs = [("general.architecture".to_owned(), Value::Str("llama"))];
    let mut file = std::io::BufWriter::new(File::create(path).expect("a new file"));
    write_gguf(&mut file, &pairs, &tensors).expect("a valid file");
}

/// Sums up all words, by halves.
fn read(bytes: &[u8]) -> u64 {
    let sum = |bytes: &[u8]| {
        let mut lanes = [0u64; 8];
        for words in bytes.as_chunks::<8>().0.as_chunks::<8>().0 {
            for (lane, &word) in lanes.iter_mut().zip(words) {
                *lane = lane.wrapping_add(u64::from_le_bytes(word));
            }
        }
        lanes.iter().fold(0, |sum: u64, lane| sum.wrapping_add(*lane))
    };
    let share = bytes.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            bytes.chunks(share).map(|part| scope.spawn(move || sum(part))).collect();
        parts.into_iter().fold(0, |sum: u64, part| sum.wrapping_add(part.join().expect("no panic")))
    })
}

/// The tensors of a file, behind its metadata, which may be as much as a vocabulary.
fn tensors(source: &Source) -> Vec<TensorView<'_>> {
    let containers = source.containers().expect("a valid file");
    containers.iter().flat_map(|container| &container.tensors).map(|entry| entry.view).collect()
}

/// Looks at every value; returns how many there were.
fn survey(kernels: &Kernels, views: &[TensorView<'_>]) -> u64 {
    let statistics = kernels.survey(views, THREADS).expect("threads");
    assert_eq!(statistics.len(), views.len(), "a record for each");
    let (mut seen, mut stored) = (0, 0);
    for (view, statistics) in views.iter().zip(statistics) {
        // Tensors of integers, which no model computes with, have none.
        if let Some(statistics) = statistics {
            seen += statistics.values;
            stored += (view.rows() * view.cols()) as u64;
        }
    }
    assert!(seen > 0 && seen == stored, "{seen} values of {stored} were looked at");
    seen
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn measure(name: &str, path: &Path, rounds: u64) {
    let kernels = Kernels::best();
    let source = Source::open(path).expect("a model");
    let bytes = source.bytes_total();
    let [file] = source.files() else { panic!("a model of one file") };
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    // What is measured first would pay for mapping the pages.
    black_box(read(file.bytes()));
    let views = tensors(&source);
    let mut warm = Pairs::default();
    for _ in 0..rounds {
        warm.round(
            &mut || {
                time(&mut || {
                    black_box(read(file.bytes()));
                })
            },
            &mut || {
                time(&mut || {
                    black_box(survey(&kernels, &views));
                })
            },
        );
    }
    // Pages of a file that is mapped twice would count twice.
    drop(views);
    drop(source);
    forget_peak_memory();
    let mut cold = Pairs::default();
    for _ in 0..rounds {
        cold.round(
            &mut || {
                time(&mut || {
                    let source = Source::open(path).expect("the file");
                    black_box(read(source.files()[0].bytes()));
                })
            },
            &mut || {
                time(&mut || {
                    let source = Source::open(path).expect("the file");
                    black_box(survey(&kernels, &tensors(&source)));
                })
            },
        );
    }
    let rate = |seconds: f64| format!("{:.2} GB/s", bytes as f64 / seconds / 1e9);
    let beyond = peak_memory().map_or("unknown".to_owned(), |peak| {
        format!("{:.1} MiB", peak.saturating_sub(bytes) as f64 / f64::from(1 << 20))
    });
    println!(
        "{name:<8} {:>6} {:>10} {:>10} {:>16} {:>16} {beyond:>10}",
        bytes >> 20,
        rate(median(&mut warm.first)),
        rate(median(&mut warm.second)),
        warm.ratio(),
        cold.ratio(),
    );
}

/// Times of two sides that ran in turns.
#[derive(Default)]
struct Pairs {
    first: Vec<f64>,
    second: Vec<f64>,
    ratios: Vec<f64>,
}

impl Pairs {
    /// A B B A: drift between neighbours cancels out.
    fn round(&mut self, first: &mut dyn FnMut() -> f64, second: &mut dyn FnMut() -> f64) {
        let (a, b) = (first(), second());
        let (c, d) = (second(), first());
        self.first.extend([a, d]);
        self.second.extend([b, c]);
        self.ratios.extend([a / b, d / c]);
    }

    /// Median of the ratios of speed, and its quartiles.
    fn ratio(&mut self) -> String {
        let middle = median(&mut self.ratios);
        let quarter = |share: usize| self.ratios[self.ratios.len() * share / 4];
        format!("{middle:.2} ({:.2}-{:.2})", quarter(1), quarter(3))
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Begins a new high-water mark, where the system can: memory that made the file is not that of the survey.
fn forget_peak_memory() {
    // Without it the figure is only larger.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

/// The high-water mark of resident memory, mapped file pages included, where the system keeps one.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
