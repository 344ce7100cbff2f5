//! Options of `apr bench`.

use std::path::PathBuf;

use clap::Args;

use super::{CacheArgs, DeviceArgs, ModelArg};

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// Tokens of the long prompt; default: 512, or what fits the context.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prompt_tokens: Option<u32>,
    /// Tokens of the prompt before the first token and before decoding; default: 128, or what fits.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) first_tokens: Option<u32>,
    /// Decoded tokens of a round; default: 100, or what fits.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) tokens: Option<u32>,
    /// Loads, long prompts and first tokens of a round.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) samples: u32,
    /// Also decode this many sequences together, in turns with one alone, and tell the ratio of the speeds.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) sequences: u32,
    /// Also run this model on the same backend, in turns, and tell whether both answer alike and the ratio of the speeds.
    #[arg(long, value_name = "MODEL", conflicts_with = "baseline")]
    pub(crate) vs: Option<PathBuf>,
    /// Also run this build of apr on the same model, in turns, and tell the ratio of the speeds.
    #[arg(long, value_name = "BINARY")]
    pub(crate) baseline: Option<PathBuf>,
    /// Exit with 1 when a measurement varies by more than 5 % in every round.
    #[arg(long)]
    pub(crate) stat_check: bool,
}
