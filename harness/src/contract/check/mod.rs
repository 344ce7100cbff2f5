//! The closed set of things that can be checked, each with its typed parameters.
//!
//! In YAML a check is a one-key map: `check: { logits-close: { against: scalar, … } }`. One judge in [`crate::judge`]
//! belongs to each variant.

mod answers;
mod conversion;
mod files;
mod numbers;
mod outside;
mod sides;
mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use answers::{
    Arithmetic, Continuation, GenerationLimits, GenerationRule, Golden, GoldenKind, Sampler,
    SamplerProperty, Within,
};
pub use conversion::{Conversion, ConversionRule};
pub use files::{
    Concern, DequantOracle, FormatIntegrity, IntegrityRule, LayoutRule, Metadata, MetadataRule,
    QuantizeRoundtrip, TensorLayout, TensorQuality, Validation,
};
pub use numbers::{
    Against, CacheSize, CacheTypeName, Class, Determinism, Invariant, LogitsClose, MatchesOracle,
    OpName, Oracle, Path, PathEqual, Repeated, RowSpread, Stage,
};
pub use outside::{
    Cli, CliExpect, Clock, ConvertRun, History, HistoryRule, Hostile, JsonExpect, JsonTest, Phase,
    PrivateMemory, Rival, SteadyMemory, Target, Throughput,
};
pub use sides::{CompareInference, OtherSide, Placements};
pub use text::{ChatRule, ChatTemplate, IdSource, TokenIds, TokenizerRoundtrip};

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Check {
    /// The file is what its format says a file is.
    FormatIntegrity(FormatIntegrity),
    /// Hyper-parameters, tokenizer and tensors agree.
    Metadata(Metadata),
    /// The numbers in the tensors can be those of a trained model.
    TensorQuality(TensorQuality),
    /// The validation of a model file lists nothing of a kind.
    Validation(Validation),
    /// The tensors are the ones the architecture needs, in the right shape and orientation.
    TensorLayout(TensorLayout),
    /// Text survives encoding and decoding.
    TokenizerRoundtrip(TokenizerRoundtrip),
    /// Token ids are the recorded ones.
    TokenIds(TokenIds),
    /// The chat template renders what it must.
    ChatTemplate(ChatTemplate),
    /// An invariant of one stage of a real forward pass.
    Stage(Stage),
    /// Logits or activations are close to those of a reference.
    LogitsClose(LogitsClose),
    /// Two sides are compared at every site.
    CompareInference(CompareInference),
    /// Two execution paths give the same numbers.
    PathEqual(PathEqual),
    /// The cache takes the bytes of its type.
    CacheSize(CacheSize),
    /// The same call gives the same result again.
    Determinism(Determinism),
    /// The model's answers are the recorded ones.
    Golden(Golden),
    /// The model continues recorded prompts as an independent engine did.
    Continuation(Continuation),
    /// The model adds as well as it was measured to.
    Arithmetic(Arithmetic),
    /// Generation ends where it must, and not before.
    GenerationLimits(GenerationLimits),
    /// A property of the sampler on synthetic logits.
    Sampler(Sampler),
    /// The executable does what its command line promises.
    Cli(Cli),
    /// The trace of a run is whole and true.
    History(History),
    /// A converted model generates what its source generates.
    ConvertRun(ConvertRun),
    /// What a conversion carries over, and what stops it.
    Conversion(Conversion),
    /// Hostile files give their error, quickly and without a crash.
    Hostile(Hostile),
    /// Dequantised blocks equal an independent implementation's.
    DequantOracle(DequantOracle),
    /// Quantising and dequantising stays within the bound of the block type.
    QuantizeRoundtrip(QuantizeRoundtrip),
    /// The engine is not slower than a baseline that runs now.
    Throughput(Throughput),
    /// Inference after inference takes no more memory.
    SteadyMemory(SteadyMemory),
}

/// Which dimensions of the matrix a check depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// One case, whatever the models.
    Once,
    /// One case per model form.
    Form,
    /// One case per model form and backend.
    FormBackend,
}

impl Check {
    /// Name of the kind, as written in YAML.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::FormatIntegrity(_) => "format-integrity",
            Self::Metadata(_) => "metadata",
            Self::TensorQuality(_) => "tensor-quality",
            Self::Validation(_) => "validation",
            Self::TensorLayout(_) => "tensor-layout",
            Self::TokenizerRoundtrip(_) => "tokenizer-roundtrip",
            Self::TokenIds(_) => "token-ids",
            Self::ChatTemplate(_) => "chat-template",
            Self::Stage(_) => "stage",
            Self::LogitsClose(_) => "logits-close",
            Self::CompareInference(_) => "compare-inference",
            Self::PathEqual(_) => "path-equal",
            Self::CacheSize(_) => "cache-size",
            Self::Determinism(_) => "determinism",
            Self::Golden(_) => "golden",
            Self::Continuation(_) => "continuation",
            Self::Arithmetic(_) => "arithmetic",
            Self::GenerationLimits(_) => "generation-limits",
            Self::Sampler(_) => "sampler",
            Self::Cli(_) => "cli",
            Self::History(_) => "history",
            Self::ConvertRun(_) => "convert-run",
            Self::Conversion(_) => "conversion",
            Self::Hostile(_) => "hostile",
            Self::DequantOracle(_) => "dequant-oracle",
            Self::QuantizeRoundtrip(_) => "quantize-roundtrip",
            Self::Throughput(_) => "throughput",
            Self::SteadyMemory(_) => "steady-memory",
        }
    }

    /// Which dimensions matter.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Sampler(_)
            | Self::Hostile(_)
            | Self::DequantOracle(_)
            | Self::QuantizeRoundtrip(_) => Scope::Once,
            Self::FormatIntegrity(_)
            | Self::Metadata(_)
            | Self::TensorQuality(_)
            | Self::Validation(_)
            | Self::TensorLayout(_)
            | Self::TokenizerRoundtrip(_)
            | Self::TokenIds(_)
            | Self::ChatTemplate(_)
            | Self::ConvertRun(_)
            | Self::Conversion(_) => Scope::Form,
            Self::Cli(cli) => cli.scope(),
            Self::Stage(_)
            | Self::LogitsClose(_)
            | Self::CompareInference(_)
            | Self::PathEqual(_)
            | Self::CacheSize(_)
            | Self::Determinism(_)
            | Self::Golden(_)
            | Self::Continuation(_)
            | Self::Arithmetic(_)
            | Self::GenerationLimits(_)
            | Self::History(_)
            | Self::Throughput(_)
            | Self::SteadyMemory(_) => Scope::FormBackend,
        }
    }

    /// Whether the case must have the machine for itself.
    pub const fn is_exclusive(&self) -> bool {
        matches!(self, Self::Throughput(_) | Self::SteadyMemory(_))
    }
}
