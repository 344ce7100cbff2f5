//! Checks of the forward pass: invariants, parity, path equality, determinism.

use std::path::PathBuf;

use apr_engine::backend::CacheType;
use apr_engine::probe::Op;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::tolerance::{AtLeast, AtMost, Parity, Positive, Why};

/// Parameters of `stage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stage {
    /// What must hold.
    pub invariant: Invariant,
    /// The text that is run; a built-in one when absent.
    #[serde(default)]
    pub prompt: Option<String>,
}

/// An invariant measured on a real forward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Invariant {
    /// Every activation of every site is finite.
    Finite,
    /// No activation of any site is larger than this.
    Bounded(AtMost),
    /// Within each row of these sites the values have at least this standard deviation.
    RowSpread(RowSpread),
    /// Given the very inputs that the backend had, the scalar oracle computes the values of these sites too.
    MatchesOracle(MatchesOracle),
    /// Embedded tokens are not zero, and different tokens differ.
    EmbeddingVaries,
    /// After division by the norm's weight, each normalised row has a root mean square of one, within this.
    NormRms(AtMost),
    /// Attention probabilities of each row and head sum to one, within this.
    AttentionSums(AtMost),
    /// No attention probability lies on a later position.
    AttentionCausal,
    /// The mean entropy of the attention probabilities of each layer, in nats, behind the first few positions.
    AttentionEntropy(AtLeast),
    /// Rotation keeps the length of each head's query and key, relatively within this.
    RopeNorm(AtMost),
    /// Rotation changes queries and keys at every position but the first.
    RopeMoves,
    /// Every pair is turned by its position times the frequency that the hyper-parameters give it, within this many radians.
    RopeAngles(AtMost),
    /// Base, scaling and rotated width of the model that runs are those that its file states.
    RopeAsStated,
    /// The dot product of two rotated vectors depends on the distance of their positions alone, within this.
    RopeRelative(AtMost),
    /// Each layer changes the residual stream by at least this share of its norm, and not by nothing.
    LayersWork(AtLeast),
    /// `activation(gate) * up` is what the recorded gate and up give, within this.
    Swiglu(AtMost),
    /// What the feed-forward block adds is not what it was given: the cosine of the two stays below this.
    FeedForwardTurns(AtMost),
    /// There is one row of logits for each token, and one logit for each entry of the vocabulary.
    LogitsPerToken,
    /// No token id, above all not the first, has the largest logit at more than this share of the positions.
    NoFavourite(AtMost),
    /// The logits of each row have at least this standard deviation.
    LogitSpread(AtLeast),
    /// The probabilities of each row sum to one, within this.
    ProbabilitySums(AtMost),
    /// The entropy of the next token stays below this share of `ln(vocab)` at some position.
    EntropyBelow(AtMost),
    /// Logits at different positions differ.
    PositionsDiffer,
    /// Greedy sampling chooses the largest logit, the lowest id on ties.
    GreedyIsArgmax,
    /// The same tokens once more, behind a reset, give the same logits and the same choices.
    GreedyRepeats,
}

/// Parameters of `row-spread`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RowSpread {
    /// Points of the forward pass, as `q`; all that hold activations when empty.
    #[serde(default)]
    pub ops: Vec<OpName>,
    /// The smallest standard deviation that is accepted.
    pub at_least: Positive,
    /// Why.
    pub why: Why,
}

/// Parameters of `matches-oracle`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MatchesOracle {
    /// Points of the forward pass, as `q`.
    pub ops: Vec<OpName>,
    /// Largest normalised mean squared error of a row. The oracle rounds activations as the backend declares that it
    /// does, so one bound holds for plain weights and for blocks.
    pub nmse: Positive,
    /// Why this bound.
    pub why: Why,
}

/// A point of the forward pass by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct OpName(pub Op);

impl TryFrom<String> for OpName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Op::from_name(&name).map(Self).ok_or_else(|| {
            let known: Vec<&str> = Op::ALL.iter().map(|op| op.name()).collect();
            format!("{name:?} is no point of the forward pass; known are {}", known.join(", "))
        })
    }
}

impl From<OpName> for String {
    fn from(name: OpName) -> Self {
        name.0.name().to_owned()
    }
}

/// Parameters of `logits-close`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogitsClose {
    /// The reference.
    pub against: Against,
    /// Texts that are run; a built-in set when empty. Recorded references bring their own.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// Sites to compare, as `layers.0.attn_norm` or `layers.*.attn_norm`; the logits when empty.
    #[serde(default)]
    pub sites: Vec<String>,
    /// What keys and values are cached as, on both sides, one type after the other; what the run was told when empty.
    #[serde(default)]
    pub cache_types: Vec<CacheTypeName>,
    /// The bounds.
    pub tolerance: Parity,
}

/// What logits are compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Against {
    /// The scalar backend on the same form.
    Scalar,
    /// Values recorded from an independent implementation.
    Oracle(Oracle),
    /// The same backend on another form of the same model.
    Form(String),
    /// The same backend on the same form, with keys and values cached as another type.
    CacheType(CacheTypeName),
}

/// What keys and values are cached as, by its name: `f16` or `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct CacheTypeName(pub CacheType);

impl TryFrom<String> for CacheTypeName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        CacheType::from_name(&name).map(Self).ok_or_else(|| {
            let known: Vec<&str> = CacheType::ALL.iter().map(|one| one.name()).collect();
            format!("{name:?} is no cache type; known are {}", known.join(", "))
        })
    }
}

impl From<CacheTypeName> for String {
    fn from(name: CacheTypeName) -> Self {
        name.0.name().to_owned()
    }
}

/// Parameters of `cache-size`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CacheSize {
    /// What keys and values are cached as, one type after the other.
    pub cache_types: Vec<CacheTypeName>,
}

/// A SafeTensors file of recorded tokens, logits and activations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Oracle {
    /// The file under the fixtures; `{model}`, `{form}` and `{stem}` (of the form's path) are filled in.
    pub file: PathBuf,
    /// Tensor that holds the logits.
    #[serde(default = "logits")]
    pub logits: String,
}

fn logits() -> String {
    "logits".into()
}

/// Parameters of `path-equal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PathEqual {
    /// The path that is compared with one prefill of the whole text.
    pub path: Path,
    /// How equal.
    pub class: Class,
    /// What keys and values are cached as on both paths; what the run was told when absent.
    #[serde(default)]
    pub cache_type: Option<CacheTypeName>,
    /// The text; a built-in one when absent.
    #[serde(default)]
    pub prompt: Option<String>,
}

/// An execution path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Path {
    /// One token at a time, on the cache.
    Cached,
    /// Prefill in chunks of these lengths.
    Chunked(Vec<usize>),
    /// This many threads against one.
    Threads(usize),
    /// Each instruction set of the machine against the best.
    Isa,
    /// After a reset of a used cache.
    Reset,
    /// After cutting the cache back to a prefix.
    Truncated,
    /// Under a trace of every site: the whole text at once, and token by token.
    Traced,
    /// In a context allocated for more tokens.
    Allocation(usize),
    /// Every prefix on a fresh cache.
    Prefixes,
    /// This many other texts side by side, each begun when the one before has run a token: against each alone.
    Sequences(usize),
}

/// How equal two paths must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Class {
    /// The same bits.
    Bitwise,
    /// Within these bounds.
    Within(Parity),
}

/// Parameters of `determinism`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Determinism {
    /// What is repeated.
    pub of: Repeated,
    /// How often, at least 2.
    pub runs: usize,
}

/// What a determinism gate repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Repeated {
    /// Logits of a prefill, bit by bit.
    Logits,
    /// Greedy tokens.
    Greedy,
    /// Sampled tokens under one seed; and two seeds must not always agree.
    Sampled,
    /// Loading the model and running it.
    Load,
}
