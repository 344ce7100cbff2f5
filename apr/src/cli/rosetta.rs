//! The command line of `apr rosetta`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use apr_harness::rosetta::journey::Station;

use super::{BackendName, CacheTypeName, ConvertArgs, ModelArg};

#[derive(Args, Debug)]
pub(crate) struct RosettaArgs {
    #[command(subcommand)]
    pub(crate) action: RosettaAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RosettaAction {
    /// Run two models, formats or backends on the same tokens and name the first site of the forward pass where they part.
    CompareInference(Box<CompareArgs>),
    /// Show architecture, hyper-parameters, tokenizer and storage of a model.
    Inspect(ModelArg),
    /// Name what differs between two models at rest: hyper-parameters, tokenizer, and each weight with its first differing byte.
    Diff(DiffArgs),
    /// Hash the weights of models: equal for equal weights in any container.
    Fingerprint(FingerprintArgs),
    /// Convert a model into another format or dtype.
    Convert(ConvertArgs),
    /// Take a model through other formats and back to its own, and judge what comes back: by bytes where nothing is rounded.
    Verify(VerifyArgs),
    /// Take a model through formats one after the other, and name the first leg that loses something.
    Chain(ChainArgs),
}

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// A model.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    /// Another one.
    #[arg(value_name = "TARGET")]
    pub(crate) target: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct FingerprintArgs {
    /// Models; with several, whether they are the same is said too.
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Formats on the way, separated by commas, each with a dtype where weights are to be rounded (`gguf:q8_0,apr`);
    /// default: the other formats.
    #[arg(long, value_name = "FORMATS", value_delimiter = ',')]
    pub(crate) via: Vec<Station>,
    #[command(flatten)]
    pub(crate) results: WayResults,
}

#[derive(Args, Debug)]
pub(crate) struct ChainArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Formats in the order of the way (`gguf`, `safetensors`, `apr`), each with a dtype where weights are to be rounded
    /// (`gguf:q4_k_m`).
    #[arg(required = true, value_name = "FORMAT")]
    pub(crate) stations: Vec<Station>,
    #[command(flatten)]
    pub(crate) results: WayResults,
}

/// What is left of a way through formats.
#[derive(Args, Debug)]
pub(crate) struct WayResults {
    /// Keep the files of every leg in this folder, which must be empty; default: they go when the command ends.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep: Option<PathBuf>,
    /// Write the judgement of each leg into one HTML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The side that is compared with: a model file (GGUF, SafeTensors, APR), a Hugging Face directory, or the address
    /// of an engine that speaks as OpenAI's does (`http://localhost:8080`), which shows text and probabilities alone.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    /// The side that is compared; it may be left out with --against-oracle.
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<PathBuf>,
    /// The text that both sides read.
    #[arg(long, value_name = "TEXT", default_value = "What is 2+2?")]
    pub(crate) prompt: String,
    /// Render the prompt as a user's message with the chat template of each side.
    #[arg(long, conflicts_with = "tokens")]
    pub(crate) chat: bool,
    /// Token ids in place of a prompt, separated by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) tokens: Vec<u32>,
    /// Compare at most this many positions.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) positions: usize,
    /// A SafeTensors file of tokens and sites that another implementation recorded: each model is compared with it, on its
    /// tokens.
    #[arg(long, value_name = "FILE")]
    pub(crate) against_oracle: Option<PathBuf>,
    /// Tensor that holds the recorded logits.
    #[arg(long, value_name = "NAME", default_value = "logits", requires = "against_oracle")]
    pub(crate) oracle_logits: String,
    /// Judge each site by the largest difference of any value; default: by the error that its operation adds, and what the
    /// dtypes of both sides round.
    #[arg(long, value_name = "X")]
    pub(crate) diff_threshold: Option<f64>,
    /// Draw the divergence by layer and position into one HTML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Plant one fault in the target (the comparison must find it).
    #[arg(long, value_name = "FAULT")]
    pub(crate) plant: Option<String>,
    /// Most tokens to generate when a side is an address.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 16)]
    pub(crate) max_tokens: usize,
    /// Largest difference of a chosen token's probability, in nats, when a side is an address.
    #[arg(long, value_name = "X", default_value_t = 0.25)]
    pub(crate) logprob_threshold: f64,
    /// What the engine at an address calls the model.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) model_name: String,
    #[command(flatten)]
    pub(crate) devices: SideDevices,
}

/// Where each side computes.
#[derive(Args, Clone, Debug)]
pub(crate) struct SideDevices {
    /// Backend of the source; default: the fastest that is available.
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) source_backend: Option<BackendName>,
    /// Threads of the source's simd backend.
    #[arg(long, value_name = "N")]
    pub(crate) source_threads: Option<usize>,
    /// Instruction set of the source's simd backend.
    #[arg(long, value_name = "ISA")]
    pub(crate) source_isa: Option<String>,
    /// Type of the source's cached keys and values; default: f16, or f32 with --against-oracle, as what is recorded is.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) source_cache_type: Option<CacheTypeName>,
    /// Backend of the target.
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) target_backend: Option<BackendName>,
    /// Threads of the target's simd backend.
    #[arg(long, value_name = "N")]
    pub(crate) target_threads: Option<usize>,
    /// Instruction set of the target's simd backend.
    #[arg(long, value_name = "ISA")]
    pub(crate) target_isa: Option<String>,
    /// Type of the target's cached keys and values; default: as of the source.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) target_cache_type: Option<CacheTypeName>,
}
