//! Options of `apr profile`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{CacheArgs, DeviceArgs, ModelArg};

#[derive(Args, Debug)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = PhaseName::Decode, value_name = "PHASE")]
    pub(crate) phase: PhaseName,
    /// Tokens of the prompt; default: 512 for prefill and 128 before decoding, or what fits the context.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prompt_tokens: Option<u32>,
    /// Passes that are measured, each with one beside it that is not; default: 8 prompts or 100 tokens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) passes: Option<u32>,
    /// Also write the JSON value into FILE.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also draw layers and operations as wide as the time they take.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PhaseName {
    /// A prompt at once.
    Prefill,
    /// One token after the other.
    Decode,
}
