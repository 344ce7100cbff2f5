//! Checks of what a model says and where it stops.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::numbers::CacheTypeName;
use crate::contract::tolerance::{Positive, Share, Why};

/// Parameters of `golden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Golden {
    /// The recorded prompts under the fixtures; `{model}` stands for the model's name.
    #[serde(default = "goldens")]
    pub file: PathBuf,
    /// Which prompts, by id; all of the kind when empty.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// What is looked for.
    #[serde(default)]
    pub kind: GoldenKind,
    /// A wrong token is a falsification only where the recorded lead of the right one is more than this many times the
    /// measured noise; below, it is a coin flip and reported as one.
    #[serde(default)]
    pub lead_above_noise: Option<Positive>,
    /// What keys and values are cached as where leads are measured; what the run was told when absent.
    #[serde(default)]
    pub cache_type: Option<CacheTypeName>,
}

/// Where golden prompts are recorded.
fn goldens() -> PathBuf {
    PathBuf::from("{model}/goldens.json")
}

/// What a golden gate looks for in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GoldenKind {
    /// The recorded words, at word boundaries.
    #[default]
    Answers,
    /// The recorded token ids.
    Tokens,
    /// No garbage: no replacement characters, control characters, runaway repetition or template markers.
    Clean,
    /// The recorded lead of each token is there.
    Certificate,
}

/// Parameters of `continuation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Continuation {
    /// The recorded continuations under the fixtures; `{model}` stands for the model's name.
    pub file: PathBuf,
    /// The engine whose recorded run is the reference.
    pub engine: String,
    /// How far log-probabilities may be from the recorded ones.
    pub within: Within,
    /// What keys and values are cached as; what the run was told when absent.
    #[serde(default)]
    pub cache_type: Option<CacheTypeName>,
    /// Why that far.
    pub why: Why,
}

/// How far log-probabilities may be from recorded ones, and from which recorded lead on a choice must be the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Within {
    /// None is further away than this; choices count from a lead of twice as much.
    Absolute(Positive),
    /// In multiples of the RMS distance that the recording states between its own two engines.
    Noises {
        /// Largest RMS distance.
        rms: Positive,
        /// Lead from which on a choice counts.
        lead: Positive,
    },
}

/// Parameters of `arithmetic`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Arithmetic {
    /// Prompt with `{a}` and `{b}`.
    pub prompt: String,
    /// Whether the prompt goes through the chat template.
    #[serde(default)]
    pub chat: bool,
    /// Both summands run from 0 to this.
    pub up_to: u32,
    /// Share of right sums that is demanded.
    pub right_at_least: Share,
    /// Why that share.
    pub why: Why,
}

/// Parameters of `generation-limits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GenerationLimits {
    /// The rule.
    pub rule: GenerationRule,
}

/// A rule about the end of generation or its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GenerationRule {
    /// Never more tokens than asked for, and exactly as many when nothing else stops.
    MaxTokens,
    /// Zero tokens asked for gives zero tokens.
    ZeroTokens,
    /// A prompt longer than the context is refused with both numbers; nothing is cut silently.
    ContextRefused,
    /// A stop string ends the text before it, also when it straddles token borders.
    StopString,
    /// The end-of-sequence token ends the text and is not part of it.
    EndToken,
    /// Streamed pieces are whole UTF-8 and add up to the text.
    WholeCharacters,
    /// A token id outside the vocabulary is refused, and nothing is appended.
    ForeignToken,
    /// An empty prompt is refused.
    EmptyPrompt,
    /// Sampling parameters out of range are refused.
    BadParameters,
    /// The reported counts are the counts of the ids.
    Counts,
}

/// Parameters of `sampler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sampler {
    /// The property.
    pub property: SamplerProperty,
    /// Seeded random cases.
    pub cases: u32,
}

/// A property of the sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SamplerProperty {
    /// Temperature 0 chooses the largest logit, the lowest id on ties.
    Greedy,
    /// Top-k never chooses outside the k largest.
    TopK,
    /// Top-p never chooses outside the smallest set that holds the mass.
    TopP,
    /// Min-p never chooses below that share of the best probability.
    MinP,
    /// The same seed chooses the same tokens.
    Seeded,
    /// A repetition penalty never raises a seen token.
    Penalty,
    /// Sampled frequencies follow the softmax (chi-square).
    Distribution,
    /// A NaN logit is an error, not a token.
    Nan,
    /// The argmax is never dropped by any filter.
    KeepsBest,
}
