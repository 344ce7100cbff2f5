//! Instructions of every kernel, counted by valgrind: unlike a time, a count is the same on a busy machine.
//!
//! Not a criterion bench. It runs itself once under `valgrind --tool=callgrind`, which counts inside one function alone and
//! writes a file whenever that is left; then it holds the counts against `reports/baselines/instructions.json`.
//! After `--`: nothing prints the table and fails on a kernel that executes more than half a per cent more
//! instructions than its baseline, or that has none; `record` writes the baseline; `--test` runs every kernel
//! once without valgrind.
//!
//! Counts belong to one compiler, one instruction set and one size; these stand in the file, and others are an error.

#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use apr_benches::counts::{Counts, compared};
use apr_benches::{DTYPES, wave};
use apr_engine::backend::simd::{Isa, Kernels};
use apr_engine::quant::quantize;
use apr_engine::{Dtype, Shape, TensorView};
use serde_json::{Value, json};

/// The instruction set that is counted.
const ISA: Isa = Isa::Avx2;
/// Weight rows of a call, and values of a row.
const ROWS: usize = 64;
const COLS: usize = 1024;
/// Activation rows that share the weights.
const MANY: usize = 16;
/// What valgrind looks for in the names of functions.
const COUNTED: &str = "instructions::counted";

/// The kernels by id, each with a call of it.
type Calls = Vec<(String, Box<dyn FnMut()>)>;

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    let asked = asked.first().map_or("", String::as_str);
    let done = match asked {
        "run" | "--test" => run().map(|()| true),
        "record" => count().and_then(|counts| record(&counts)).map(|()| true),
        "" => count().and_then(|counts| hold(&counts)),
        _ => Err(format!("{asked:?} is not known; there are: record, --test")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("instructions: {why}");
            ExitCode::from(3)
        }
    }
}

/// The one function in which instructions are counted.
#[inline(never)]
fn counted(call: &mut dyn FnMut()) {
    call();
}

/// Runs every kernel once.
fn run() -> Result<(), String> {
    let mut calls = calls()?;
    for (_, call) in &mut calls {
        // What a first call sets up is not of the kernel.
        call();
    }
    for (_, call) in &mut calls {
        counted(call.as_mut());
    }
    Ok(())
}

fn calls() -> Result<Calls, String> {
    let kernels = Kernels::for_isa(ISA).map_err(|error| error.to_string())?;
    let weights = wave(ROWS * COLS);
    let mut calls = Calls::new();
    for &dtype in DTYPES {
        let bytes = quantize(dtype, COLS, &weights).map_err(|error| error.to_string())?;
        let bytes: &'static [u8] = bytes.leak();
        let shape = Shape::new(&[ROWS as u64, COLS as u64]).map_err(|error| error.to_string())?;
        let view = TensorView::new(dtype, shape, bytes).map_err(|error| error.to_string())?;
        for rows in [1, MANY] {
            calls.push((format!("product/{rows}/{dtype}"), product(kernels, view, rows)));
        }
        let look = move || {
            let seen = kernels.survey(&[view], 1);
            let whole = |seen: &[_]| matches!(seen, [Some(_)]);
            assert!(seen.is_ok_and(|seen| whole(&black_box(seen))), "a survey of whole rows");
        };
        calls.push((format!("survey/{dtype}"), Box::new(look)));
    }
    for dtype in [Dtype::Q8_0, Dtype::Q4K] {
        let x = wave(COLS);
        let round = move || {
            let rounded = black_box(kernels.activations(&x, COLS, &[dtype]));
            assert!(rounded.is_ok(), "a whole row");
        };
        calls.push((format!("rounding/{dtype}"), Box::new(round)));
    }
    Ok(calls)
}

fn product(kernels: Kernels, view: TensorView<'static>, rows: usize) -> Box<dyn FnMut()> {
    let x: &'static [f32] = wave(rows * COLS).leak();
    let acts = kernels.activations(x, COLS, &[view.dtype()]).ok();
    let mut out = vec![0.0; rows * ROWS];
    Box::new(move || {
        let done = acts.as_ref().map(|acts| kernels.product(&view, 0..ROWS, acts, &mut out));
        assert!(matches!(black_box(done), Some(Ok(()))), "a product of sizes that fit");
    })
}

/// Counts the instructions of every kernel.
fn count() -> Result<Counts, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let out = folder.path().join("counts");
    let status = Command::new("valgrind")
        // Every byte that is set by a string instruction counts as one, and whether memory is set at all when it is given
        // out depends on what was there before: it always is here, sixteen and more bytes at a time.
        .env(
            "GLIBC_TUNABLES",
            "glibc.malloc.perturb=255:glibc.cpu.x86_rep_stosb_threshold=1073741824",
        )
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(own)
        .arg("run")
        .status()
        .map_err(|error| format!("valgrind: {error}; it is a package of most systems"))?;
    if !status.success() {
        return Err(format!("valgrind: {status}"));
    }
    let names = calls()?.into_iter().map(|(name, _)| name);
    names.zip(1..).map(|(name, file)| Ok((name, total(&out, file)?))).collect()
}

/// What callgrind counted up to the end of call `number`, and since the one before.
fn total(out: &Path, number: usize) -> Result<u64, String> {
    let file = PathBuf::from(format!("{}.{number}", out.display()));
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("{}: {error}; was a call not counted?", file.display()))?;
    let counted = text.lines().find_map(|line| {
        line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:"))?.trim().parse().ok()
    });
    match counted {
        None | Some(0) => Err(format!("{}: nothing was counted", file.display())),
        Some(counted) => Ok(counted),
    }
}

/// Where the baseline is.
fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/baselines/instructions.json")
}

fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the counts are of: others cannot be held against them.
fn conditions() -> Result<Value, String> {
    let (compiler, isa) = (compiler()?, ISA.name());
    Ok(json!({ "compiler": compiler, "isa": isa, "weight_rows": ROWS, "many": MANY, "cols": COLS }))
}

fn record(counts: &Counts) -> Result<(), String> {
    let value = json!({ "conditions": conditions()?, "instructions": counts });
    let path = baseline();
    let mut text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
    text.push('\n');
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{} kernels in {}", counts.len(), path.display());
    Ok(())
}

/// Whether no kernel has grown; prints all of them.
fn hold(counts: &Counts) -> Result<bool, String> {
    let path = baseline();
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let (recorded, now) = (&value["conditions"], conditions()?);
    if *recorded != now {
        return Err(format!("the baseline is of {recorded}, this is {now}: record it anew"));
    }
    let baseline: Counts = serde_json::from_value(value["instructions"].clone())
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let (table, held) = compared(counts, &baseline);
    print!("{table}");
    Ok(held)
}
