//! The command line: exactly what the user typed, nothing computed.

pub(crate) mod bench;
pub(crate) mod device;
pub(crate) mod profile;
pub(crate) mod rosetta;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use device::{BackendName, CacheArgs, CacheTypeName, DeviceArgs};

use crate::exit;

/// Falsification toolkit for language-model inference, bundled with its own engine.
#[derive(Debug, Parser)]
#[command(name = "apr", version, after_help = exit::TABLE, propagate_version = true, infer_long_args = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options every command takes.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub(crate) struct Global {
    /// Print one JSON value on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print the result and errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print what was loaded, on which backend, and how long it took (to standard error).
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Do not check the model's contract before acting on it.
    #[arg(long, global = true)]
    pub(crate) skip_contract: bool,
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub(crate) color: ColorChoice,
}

/// When to colour the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Falsify a model gate by gate; without MODEL the carried fixture in every format and on every backend.
    Qa(Box<QaArgs>),
    /// Generate text.
    Run(Box<RunArgs>),
    /// Check a model file; list every violation.
    Validate(ValidateArgs),
    /// Check the ten stages of the pipeline on a real forward pass, from tokenizer to sampler.
    Check(CheckArgs),
    /// Score a model by the claims of the format sheet and by the times of its operations, each point with its evidence.
    Score(ScoreArgs),
    /// Measure how fast a model loads, reads a prompt and decodes, here and now.
    Bench(Box<bench::BenchArgs>),
    /// Measure where the time of a forward pass goes, operation by operation.
    Profile(Box<profile::ProfileArgs>),
    /// Compare two models, formats or backends, and find where they part.
    Rosetta(Box<rosetta::RosettaArgs>),
    /// Show architecture, hyper-parameters, tokenizer and storage of a model.
    Inspect(ModelArg),
    /// List the tensors of a model.
    Tensors(TensorsArgs),
    /// Convert a model into another format or dtype; all that it carries comes along.
    Convert(ConvertArgs),
    /// Convert a GGUF file or a Hugging Face directory into an APR file.
    Import(ImportArgs),
    /// Convert a model into a format that other programs read.
    Export(ExportArgs),
    /// Store the weights of a model with fewer bits, as llama.cpp does.
    Quantize(QuantizeArgs),
    /// Merge reports of shards.
    Report(ReportArgs),
    /// Print the JSON Schema of a command's --json output.
    Schema(SchemaArgs),
    /// Explain an error code.
    Explain(ExplainArgs),
    /// Print a shell completion script.
    Completions(CompletionsArgs),
    /// Print the manual page.
    Man,
    /// Judge cases for the parent process: cases on standard input, verdicts on standard output.
    #[command(name = "__worker", hide = true)]
    Worker,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArg {
    /// A model file (GGUF, SafeTensors, APR) or a Hugging Face directory.
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// The prompt; read from standard input when it is a pipe and no prompt is given.
    #[arg(value_name = "PROMPT", conflicts_with = "prompt_option")]
    pub(crate) prompt: Option<String>,
    /// The prompt, as an option.
    #[arg(long = "prompt", id = "prompt_option", value_name = "TEXT")]
    pub(crate) prompt_option: Option<String>,
    /// System message.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Complete the text as it is: no chat template.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Most tokens to generate.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 256,
        allow_negative_numbers = true
    )]
    pub(crate) max_tokens: usize,
    /// Sampling temperature; 0 is greedy.
    #[arg(short, long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Keep the K most likely tokens; 0 keeps all.
    #[arg(long, value_name = "K", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) top_k: usize,
    /// Keep the smallest set of tokens with this probability mass.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) top_p: f32,
    /// Drop tokens less likely than this share of the most likely one.
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) min_p: f32,
    /// Divide the logits of tokens already seen by this; 1 is off.
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) repeat_penalty: f32,
    /// Seed of the sampler.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Stop before this text; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Report the K most likely tokens of each step (with --json).
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub(crate) logprobs: Option<usize>,
    /// Largest context in tokens; default: the model's own.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) context: Option<usize>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// What is told of the way to the answer.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tracing")]
pub(crate) struct TraceArgs {
    /// Trace these sites: ops (`attn_norm`, `swiglu`, …) or `activation`, `attention`, `logit`, `transformer_block`, `all`.
    #[arg(id = "trace", long = "trace", value_name = "SITES", num_args = 0..=1, require_equals = true, default_missing_value = "all", value_delimiter = ',')]
    pub(crate) sites: Option<Vec<String>>,
    /// Trace these layers only, from 0; default: all.
    #[arg(
        id = "trace_layers",
        long = "trace-layers",
        value_name = "A,B",
        value_delimiter = ',',
        requires = "trace"
    )]
    pub(crate) layers: Vec<usize>,
    /// Write the trace into this file; default: to standard error.
    #[arg(id = "trace_output", long = "trace-output", value_name = "FILE", requires = "trace")]
    pub(crate) output: Option<PathBuf>,
    /// Also tell the first values of each site.
    #[arg(id = "trace_verbose", long = "trace-verbose", requires = "trace")]
    pub(crate) verbose: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Also check the values of every tensor: density, NaN, norm, variation.
    #[arg(long)]
    pub(crate) quality: bool,
    /// What is legal but odd is a violation too: missing footer, trailing bytes, gaps, no tokenizer.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// How gates of the catalogue are run on one model.
#[derive(Args, Debug)]
pub(crate) struct CatalogueArgs {
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Folder with contracts/ and suites/; default: found upwards from here, else those inside the executable.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// Plant one fault (the stage that it concerns must turn red).
    #[arg(long, value_name = "FAULT")]
    pub(crate) plant: Option<String>,
    #[command(flatten)]
    pub(crate) catalogue: CatalogueArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// Exit with 1 when the format score is below N, or when there is none; N is 90 when not given.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "90", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) check: Option<u32>,
    /// Plant one fault (the claims that it refutes must lose their points).
    #[arg(long, value_name = "FAULT")]
    pub(crate) plant: Option<String>,
    #[command(flatten)]
    pub(crate) catalogue: CatalogueArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TensorsArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Only tensors whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Also compute minimum, maximum, mean, standard deviation and zero share.
    #[arg(long)]
    pub(crate) stats: bool,
}

/// Where to write.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The file to write; for SafeTensors a Hugging Face directory.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Replace what is there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// A container format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// One file that carries everything, for llama.cpp and its friends.
    Gguf,
    /// A Hugging Face directory.
    Safetensors,
    /// One file that carries everything.
    Apr,
}

#[derive(Args, Debug)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Format; default: what PATH says (.apr, .gguf, or a slash at the end for a Hugging Face directory).
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<FormatName>,
    /// Dtype of the matrices: `f32`, `f16`, `bf16`, or a mixture of llama.cpp (`q8_0`, `q4_0`, `q4_k_m`, `q5_k_m`,
    /// `q6_k`); default: as stored.
    #[arg(long, value_name = "DTYPE")]
    pub(crate) dtype: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Dtype of the matrices, as for convert; default: as stored.
    #[arg(long, value_name = "DTYPE")]
    pub(crate) dtype: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Format.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: FormatName,
    /// Dtype of the matrices, as for convert; default: as stored.
    #[arg(long, value_name = "DTYPE")]
    pub(crate) dtype: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct QuantizeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Dtype or mixture: `q4_k_m`, `q5_k_m`, `q6_k`, `q8_0`, `q4_0`, `f16`, `bf16`, `f32`.
    #[arg(long = "type", value_name = "DTYPE")]
    pub(crate) dtype: String,
    /// Format; default: what PATH says (.apr, .gguf, or a slash at the end for a Hugging Face directory).
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<FormatName>,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct QaArgs {
    #[command(subcommand)]
    pub(crate) action: Option<QaAction>,
    #[command(flatten)]
    pub(crate) options: QaOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QaAction {
    /// List the cases that would run, or the parameters of their contracts.
    List(Box<QaListArgs>),
    /// Show which claims the gates cover, and write reports/coverage.md and reports/coverage.json.
    Coverage(CoverageArgs),
    /// Print the JSON Schema of contract and suite files.
    Schema {
        /// Which file kind.
        #[arg(value_enum, default_value_t = CatalogueFile::Contract)]
        file: CatalogueFile,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct QaListArgs {
    /// List the parameters with their values instead of the cases.
    #[arg(long)]
    pub(crate) parameters: bool,
    #[command(flatten)]
    pub(crate) options: QaOptions,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CoverageArgs {
    /// Folder for the reports.
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Write no report files.
    #[arg(long, conflicts_with = "report")]
    pub(crate) no_report: bool,
    /// Folder with contracts/ and suites/; default: found upwards from here, else those inside the executable.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CatalogueFile {
    /// `contracts/*.yaml`.
    Contract,
    /// `suites/*.yaml`.
    Suite,
    /// `contracts/claims/*.yaml`.
    Claims,
}

#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub(crate) struct QaOptions {
    /// The model to judge; without it the carried fixture.
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Suite name or file.
    #[arg(long, value_name = "SUITE")]
    pub(crate) suite: Option<String>,
    /// Filter expression, for example `contract(parity) & !tag(slow)`, or a part of a case id.
    #[arg(short, long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
    /// Run exactly this case; may be repeated.
    #[arg(long, value_name = "ID")]
    pub(crate) case: Vec<String>,
    /// Plant each named fault and demand that its gates turn red; write the kill matrix.
    #[arg(long)]
    pub(crate) prove: bool,
    /// Plant one fault for the whole run, which must turn red; --filter 'kill(=FAULT)' runs only the gates that name it.
    #[arg(long, value_name = "FAULT", conflicts_with = "prove")]
    pub(crate) plant: Option<String>,
    /// A skip of a case with this need is red.
    #[arg(long, value_name = "NEED")]
    pub(crate) require: Vec<String>,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// Folder for the reports; default: apr-report in the working directory.
    #[arg(long = "report-dir", alias = "report", value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Write no report files.
    #[arg(long, conflicts_with = "report")]
    pub(crate) no_report: bool,
    /// Cases at a time.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Seconds after which a case counts as hung; default: 5 minutes, and 30 more for each billion parameters.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) time_limit: Option<u64>,
    /// Stop at the first red case.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Continue an interrupted run from its journal.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Run only part I of N of the matrix.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<String>,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Give a parameter of a contract another value (`apr qa list --parameters` names them); may be repeated.
    #[arg(long, value_name = "CONTRACT.NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Waiver file.
    #[arg(long, value_name = "FILE")]
    pub(crate) waivers: Option<PathBuf>,
    /// Folder with contracts/ and suites/; default: found upwards from here, else those inside the executable.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Folder of the published models that suites/real.yaml judges; default: the one that `APR_REAL_MODELS` names, else
    /// apr/real-models in the user's cache folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
    /// Folder in which the forms that a suite builds are kept, and in which they are looked for before they are built.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep_forms: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// `report.json` files of the shards.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Folder for the merged reports.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct SchemaArgs {
    /// Command whose output is described; without it the names are listed.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// An error code, for example E0101; without it all are listed.
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
