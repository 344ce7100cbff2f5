//! What the texts of a history hold: the JSON inside `input` and `output`.
//!
//! Every list is bounded: a trace tells about values, it does not carry them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::moments::Statistics;
use crate::contract::check::CacheTypeName;

/// Version of this description.
pub const SCHEMA: &str = "apr/trace/1";
/// Tokens that are listed of a longer sequence.
pub const TOKENS_LISTED: usize = 32;
/// Anomalies that are listed at the end of a run; the rest is counted.
pub const ANOMALIES_LISTED: usize = 64;

/// The content of one `input` or `output`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Payload {
    /// Input of the run.
    Run(Box<Run>),
    /// Input of `tokenize`.
    Text {
        /// Characters of the prompt.
        characters: usize,
    },
    /// Input of a step: the tokens it reads.
    Tokens(Tokens),
    /// Output of `embed`.
    Sites {
        /// What was seen.
        sites: Vec<SiteTrace>,
    },
    /// Input of a layer: its values come from the layer before.
    Rows {
        /// Position of the first row in the context.
        position: usize,
        /// Rows.
        rows: usize,
    },
    /// Output of a layer.
    Layer(Box<LayerTrace>),
    /// Output of `layers`: the key-value cache after the step.
    Cache(KvState),
    /// Output of `lm_head`.
    Head(Box<HeadTrace>),
    /// Output of `sample`.
    Sample {
        /// The token that was chosen.
        token: u32,
        /// Its place among all logits, 1 is the highest; absent where the logits were not traced.
        rank: Option<usize>,
        /// Natural logarithm of its probability.
        logprob: Option<f64>,
    },
    /// Output of the run.
    Summary(Box<Summary>),
    /// Stands for a payload that is longer than the interface allows.
    LeftOut {
        /// Its length.
        characters: usize,
    },
}

/// What runs, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// Version of this description.
    pub schema: String,
    /// `arn:apr:execution:local:…`, from model, prompt and time.
    pub execution_arn: String,
    /// Version of the tool.
    pub apr_version: String,
    /// The model.
    pub model: ModelFacts,
    /// The run.
    pub configuration: Configuration,
    /// Sites that are traced, by op.
    pub sites: Vec<String>,
    /// Layers that are traced.
    pub layers: Vec<usize>,
    /// Weights whose products are recomputed, and how many outputs of each.
    pub outputs_recomputed: usize,
}

/// The model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelFacts {
    /// As it was named.
    pub path: String,
    /// Format of the weights.
    pub format: String,
    /// Family.
    pub architecture: String,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Tokens.
    pub vocab_size: usize,
}

/// How it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    /// Backend with its instruction set.
    pub backend: String,
    /// What keys and values are cached as.
    pub cache_type: CacheTypeName,
    /// Positions that fit.
    pub context: usize,
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// Sampling temperature.
    pub temperature: f32,
    /// Seed of the sampler.
    pub seed: u64,
}

/// A sequence of tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tokens {
    /// Position of the first.
    pub position: usize,
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: Vec<u32>,
}

impl Tokens {
    /// The beginning of `ids`, which stand from `position` on.
    pub fn of(position: usize, ids: &[u32]) -> Self {
        let first = ids.iter().copied().take(TOKENS_LISTED).collect();
        Self { position, count: ids.len(), first }
    }
}

/// What was seen at one site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteTrace {
    /// `layers.3.attn_norm`, `embed`.
    pub site: String,
    /// Rows and values per row.
    pub shape: [usize; 2],
    /// Of all values of all rows.
    pub statistics: Statistics,
    /// What is odd about them.
    pub anomalies: Vec<Anomaly>,
    /// The first values of the last row, when asked for; null where one is not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Option<f32>>>,
}

/// What was seen in one layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerTrace {
    /// In the order of computation.
    pub sites: Vec<SiteTrace>,
    /// One per head, of the last row.
    pub attention: Vec<HeadAttention>,
    /// Root mean square of what attention adds, divided by that of the stream behind it.
    pub attention_ratio: Option<f64>,
    /// The same of the feed-forward block.
    pub feed_forward_ratio: Option<f64>,
    /// One per projection, of the last row.
    pub quantization: Vec<ProductError>,
}

/// Where one head looks from the last row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadAttention {
    /// The query head.
    pub head: usize,
    /// Position of the row.
    pub query: usize,
    /// The largest weights, largest first.
    pub top: Vec<Weight>,
    /// Sum of all weights; absent when it is not finite.
    pub sum: Option<f64>,
    /// Entropy of the weights in nats, 0 to `ln(context)`; absent when it is not finite.
    pub entropy: Option<f64>,
}

/// A position and what falls on it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Weight {
    /// Position in the context.
    pub position: usize,
    /// Attention probability.
    pub weight: f32,
}

/// How far a product with a stored weight is from the same product in f32 values and f64 sums: what rounding of weights
/// in blocks does to activations on this backend. Of some outputs of the last row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProductError {
    /// The site of the product.
    pub site: String,
    /// Dtype of the weight.
    pub dtype: String,
    /// Outputs that were recomputed.
    pub outputs: usize,
    /// Mean squared error.
    pub mse: f64,
    /// Largest error.
    pub max_abs: f64,
    /// Cosine of the two; absent when one is zero.
    pub cosine: Option<f64>,
    /// Signal to noise in decibel; absent when there is no noise at all, or no signal.
    pub snr_db: Option<f64>,
}

/// The key-value cache after a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KvState {
    /// Step, from 0.
    pub step: usize,
    /// Positions stored.
    pub size: usize,
    /// Positions that fit.
    pub capacity: usize,
    /// Layers.
    pub layers: usize,
    /// Values per position and layer, of keys and of values each.
    pub width: usize,
    /// Values stored, keys and values of all layers.
    pub values: u64,
    /// Positions that were there before the step, as a share of those after it.
    pub hit_rate: f64,
    /// Positions that were dropped; this cache drops none, it refuses.
    pub evictions: u64,
    /// Positions beyond the sliding window, stored and no longer seen.
    pub unseen: usize,
}

/// What was seen behind the layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadTrace {
    /// Final norm and logits.
    pub sites: Vec<SiteTrace>,
    /// Of the head.
    pub quantization: Vec<ProductError>,
    /// How the answer came to be.
    pub evolution: Option<Evolution>,
    /// What is odd about it.
    pub anomalies: Vec<Anomaly>,
}

/// Logits of a few tokens after each layer: its residual stream through final norm and head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evolution {
    /// The tokens with the highest final logits, highest first.
    pub tokens: Vec<u32>,
    /// Their final logits.
    pub logits: Vec<f32>,
    /// Their final probabilities.
    pub probabilities: Vec<f64>,
    /// One per traced layer.
    pub layers: Vec<LensLayer>,
    /// The first traced layer from which on the first token leads the others.
    pub decisive_layer: Option<usize>,
    /// Largest difference between the last layer's lens and the logits, as a share of the logits' standard deviation;
    /// absent when the last layer is not traced.
    pub mismatch: Option<f64>,
}

/// One layer through the lens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LensLayer {
    /// The layer.
    pub layer: usize,
    /// Logits of [`Evolution::tokens`].
    pub logits: Vec<f64>,
    /// Place of the first token among them, 1 is the highest.
    pub rank: usize,
}

/// What is odd.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Oddity {
    /// A NaN.
    Nan,
    /// An infinity.
    Infinity,
    /// A magnitude above 1e6.
    Explosion,
    /// All values the same.
    Collapse,
    /// Attention probabilities that do not sum to one.
    AttentionSum,
    /// Nearly all attention of a head on the first position.
    AttentionSink,
    /// Attention spread evenly.
    AttentionUniform,
    /// A token that falls or rises by many places from one layer to the next.
    RankJump,
    /// The lens at the last layer is not what the head computed.
    LensMismatch,
}

/// Something odd, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anomaly {
    /// What.
    pub oddity: Oddity,
    /// Site, head or layer.
    pub place: String,
    /// How much: a count, a magnitude, a share.
    pub found: Option<f64>,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Summary {
    /// Why it ended.
    pub finish_reason: String,
    /// New tokens.
    pub tokens: usize,
    /// Steps.
    pub steps: usize,
    /// Values whose statistics were taken.
    pub values: u64,
    /// Odd things, listed or not.
    pub anomalies_total: u64,
    /// The first of them.
    pub anomalies: Vec<Anomaly>,
}
