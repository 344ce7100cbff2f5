//! `apr bench`: how fast a model is here and now, with its noise.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use apr_engine::backend::Device;
use apr_engine::backend::simd::{Isa, Kernels};
use apr_engine::model::{LmOptions, Model};
use apr_engine::{Code, Error};
use apr_harness::bench::{self, Bench, Likeness, Opened, Options, Processor, Ratio, Watch};
use apr_harness::provenance;
use apr_harness::report::bench as text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::steps::Steps;
use crate::cli::CacheTypeName;
use crate::cli::bench::BenchArgs;
use crate::device;
use crate::failure::Failure;
use crate::gate::{self, Admission, ContractState};
use crate::interrupt::Interrupt;
use crate::memory;
use crate::render::{Envelope, Terminal};

/// Tokens of the long prompt, of the short one, and decoded, where the context has room for them.
const PROMPT: usize = 512;
const FIRST: usize = 128;
const TOKENS: usize = 100;

/// `bench`: speed, noise and what they are held against.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BenchOutput {
    /// The model as it was named.
    path: String,
    /// Format of the weights.
    format: String,
    /// SHA-256 of the weight files.
    sha256: String,
    /// Bytes of the weight files.
    file_bytes: u64,
    /// Whether the model's contract was looked at before.
    contract: ContractState,
    /// What is known of the machine.
    machine: BTreeMap<String, String>,
    #[serde(flatten)]
    bench: Bench,
    /// High-water mark of resident memory, mapped files included.
    peak_memory_bytes: Option<u64>,
    /// The other side, when one was asked for.
    against: Option<Against>,
    /// Exit code of the process.
    exit_code: u8,
}

/// How this model is to another one, or this build to another one.
#[derive(Debug, Serialize, JsonSchema)]
struct Against {
    /// The other model, or the other program.
    name: String,
    /// What both models answered; none for another program with the same model.
    likeness: Option<Likeness>,
    /// Reading the long prompt.
    prefill: Option<Ratio>,
    /// Decoding.
    decode: Option<Ratio>,
}

pub(crate) fn run(
    args: &BenchArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let contract = admission.contract();
    if let Some(other) = args.vs.as_deref().filter(|_| !admission.skipped) {
        gate::admitted(other)?;
    }
    let skipped = admission.skipped;
    let model = match admission.model {
        Some(model) => model,
        None => Model::load(&args.model.model)?,
    };
    let device = device::choose(&args.device)?;
    let options = options(args, model.config().context, &device);
    let steps = Steps::new(terminal)?;
    let watch = Watch {
        clock: &clock(),
        stopped: &|| interrupt.requested(),
        tell: &|step| steps.tell(step),
    };
    let how = LmOptions {
        context: Some(options.positions()),
        sequences: options.sequences,
        ..device::options(args.cache)
    };
    let open = |path: &Path| open(path, &device, how);
    let bench = bench::measure(&|| open(&args.model.model), &options, &watch).map_err(failure)?;
    let peak_memory_bytes = memory::peak();
    let against = match (&args.vs, &args.baseline) {
        (Some(other), _) => {
            let ((_model, mut own), (_other, mut theirs)) =
                (open(&args.model.model)?, open(other)?);
            let likeness = bench::likeness(&mut *own, &mut *theirs, &options);
            let likeness = Some(likeness.map_err(failure)?);
            let ratios = bench::against(&mut *own, &mut *theirs, &options, &watch);
            let [prefill, decode] = ratios.map_err(failure)?;
            Some(Against { name: other.display().to_string(), likeness, prefill, decode })
        }
        (None, Some(program)) => {
            Some(against_program(args, program, &options, skipped, (&steps, interrupt))?)
        }
        (None, None) => None,
    };
    drop(steps);
    let exit = u8::from(args.stat_check && !bench.accepted());
    if terminal.json {
        let output = BenchOutput {
            path: args.model.model.display().to_string(),
            format: model.format().name().to_owned(),
            sha256: model.sha256(),
            file_bytes: model.source().bytes_total(),
            contract,
            machine: provenance::machine(),
            bench,
            peak_memory_bytes,
            against,
            exit_code: exit,
        };
        terminal.value(&Envelope::new("bench", "bench", output))?;
        return Ok(exit);
    }
    terminal.text(&text::render(&bench))?;
    if let Some(peak) = peak_memory_bytes {
        terminal.text(&text::memory(peak, model.source().bytes_total(), bench.cache_bytes))?;
    }
    if let Some(against) = against {
        let ratios = [("prefill", against.prefill), ("decode", against.decode)];
        terminal.text(&text::ratios(&against.name, against.likeness.as_ref(), &ratios))?;
    }
    Ok(exit)
}

pub(super) fn failure(error: Error) -> Failure {
    if error.code() == Code::Cancelled { Failure::Interrupted } else { Failure::Engine(error) }
}

/// Nanoseconds since now.
#[expect(clippy::disallowed_methods, reason = "the command line owns the clock")]
pub(super) fn clock() -> impl Fn() -> u64 {
    let start = Instant::now();
    move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What was asked for; what was not, as far as a context of `room` tokens goes.
fn options(args: &BenchArgs, room: usize, device: &Device) -> Options {
    let asked = |asked: Option<u32>, usual: usize, most: usize| {
        asked.map_or_else(|| usual.min(most).max(1), |asked| asked as usize)
    };
    let first = asked(args.first_tokens, FIRST, room / 4);
    let left = room.saturating_sub(first + bench::WARM_UP);
    Options {
        prompt: asked(args.prompt_tokens, PROMPT, room),
        first,
        tokens: asked(args.tokens, TOKENS, left),
        samples: args.samples as usize,
        sequences: args.sequences as usize,
        processor: match device {
            Device::Scalar => Some(Processor { threads: processors(), isa: Isa::Portable }),
            Device::Simd { isa, threads } => Some(Processor {
                threads: threads.unwrap_or_else(processors),
                isa: isa.unwrap_or_else(|| Kernels::best().isa()),
            }),
            Device::Cuda(_) => None,
        },
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A model on `device`, with a cache that has room for what is measured.
fn open(path: &Path, device: &Device, how: LmOptions) -> apr_engine::Result<Opened> {
    let model = Model::load(path)?;
    let lm = model.lm_on(device, how)?;
    Ok((model, lm))
}

/// What another build of this program says of itself.
#[derive(Deserialize)]
struct Told {
    prefill: ToldPhase,
    decode: ToldPhase,
}

#[derive(Deserialize)]
struct ToldPhase {
    time: ToldTime,
}

#[derive(Deserialize)]
struct ToldTime {
    median_ms: f64,
}

/// Runs this program and `program` in turns, as processes of their own, so that neither has a warmer start.
fn against_program(
    args: &BenchArgs,
    program: &Path,
    options: &Options,
    skipped: bool,
    (steps, interrupt): (&Steps, &Interrupt),
) -> Result<Against, Failure> {
    let own = std::env::current_exe()?;
    let ratios = bench::programs(|step, own_turn| {
        if interrupt.requested() {
            return Err(Failure::Interrupted);
        }
        steps.tell(step);
        let told = ask(if own_turn { &own } else { program }, args, options, skipped)?;
        Ok([told.prefill.time.median_ms, told.decode.time.median_ms])
    })?;
    let [prefill, decode] = ratios;
    Ok(Against { name: program.display().to_string(), likeness: None, prefill, decode })
}

fn ask(
    program: &Path,
    args: &BenchArgs,
    options: &Options,
    skipped: bool,
) -> Result<Told, Failure> {
    let mut command = Command::new(program);
    command.arg("bench").arg(&args.model.model).args(["--json", "--samples", "2"]);
    let numbers = [
        ("--prompt-tokens", options.prompt),
        ("--first-tokens", options.first),
        ("--tokens", options.tokens),
    ];
    for (name, number) in numbers {
        command.args([name, &number.to_string()]);
    }
    let spec = device::spec(&device::choose(&args.device)?);
    command.args(["--backend", &spec.backend]);
    if let Some(threads) = spec.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    command.args(spec.isa.iter().flat_map(|isa| ["--isa", isa]));
    // An older build may not know the option, and is judged by its default.
    if args.cache.cache_type != CacheTypeName::F16 {
        command.args(["--cache-type", device::cache_type(args.cache.cache_type).name()]);
    }
    if skipped {
        command.arg("--skip-contract");
    }
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Failure::file(program, &error))?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default().to_owned();
        Failure::broken(format_args!(
            "{} bench: no measurements ({error}); {} {said}",
            program.display(),
            output.status
        ))
    })
}
