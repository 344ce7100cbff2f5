//! The table of engine faults.

use std::sync::Arc;

use apr_engine::model::{Lm, LmOptions, Model};

use super::super::library::{Fault, info};
use super::super::{FaultInfo, Plant};
use super::{EngineFault, faulty_lm};
use crate::judge::BackendSpec;

/// A fault of the engine.
#[derive(Clone, Copy, Debug)]
pub(in crate::fault) struct Engine {
    info: FaultInfo,
    fault: EngineFault,
}

impl Plant for Engine {
    fn id(&self) -> &str {
        self.info.id
    }

    fn lm(
        &self,
        model: &Model,
        spec: &BackendSpec,
        options: LmOptions,
    ) -> Option<apr_engine::Result<Box<dyn Lm>>> {
        Some(faulty_lm(self.fault, None, model, spec, options))
    }
}

impl From<Engine> for Fault {
    fn from(fault: Engine) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

/// The control: overrides no seam, so every gate must stay as it is.
pub(in crate::fault) fn nothing() -> Fault {
    Engine { info: info("control/nothing", "nothing is wrong", &[]), fault: EngineFault::Nothing }
        .into()
}

const fn defect(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    fault: EngineFault,
) -> Engine {
    let mut info = info(id, what, incidents);
    info.op = fault.op();
    Engine { info, fault }
}

/// Every engine fault.
pub(in crate::fault) const ALL: &[Engine] = &[
    defect(
        "engine/layernorm",
        "norms subtract the mean",
        &["FI-01", "FI-02"],
        EngineFault::LayerNorm,
    ),
    defect("engine/rms-eps", "norms use an epsilon of 1e-3", &["FI-20"], EngineFault::RmsEps),
    defect(
        "engine/ffn-norm-skipped",
        "the feed-forward block reads the raw residual",
        &["FI-07"],
        EngineFault::FfnNormSkipped,
    ),
    defect(
        "engine/qk-norm-skipped",
        "query and key heads are not normalised",
        &["FI-07"],
        EngineFault::QkNormSkipped,
    ),
    defect(
        "engine/attn-post-norm-skipped",
        "what attention gives is not normalised",
        &["FI-07"],
        EngineFault::AttnPostNormSkipped,
    ),
    defect(
        "engine/ffn-post-norm-skipped",
        "what the feed-forward block gives is not normalised",
        &["FI-07"],
        EngineFault::FfnPostNormSkipped,
    ),
    defect(
        "engine/gain-offset-missing",
        "every gain of a norm is one too small",
        &["FI-01"],
        EngineFault::GainOffsetMissing,
    ),
    defect(
        "engine/gate-up-swapped",
        "up projection and gate change places",
        &["FI-28"],
        EngineFault::GateUpSwapped,
    ),
    defect(
        "engine/keys-are-values",
        "values are stored as keys",
        &["FI-28"],
        EngineFault::KeysAreValues,
    ),
    defect(
        "engine/qkv-bias-dropped",
        "query, key and value biases are dropped",
        &["FI-03", "FI-05"],
        EngineFault::QkvBiasDropped,
    ),
    defect(
        "engine/rope-skipped",
        "one layer does not rotate",
        &["FI-12"],
        EngineFault::RopeSkipped { layer: 1 },
    ),
    defect(
        "engine/rope-skipped-in-cache",
        "nothing rotates once the cache holds positions",
        &["FI-08", "FI-09"],
        EngineFault::RopeSkippedInCache,
    ),
    defect("engine/rope-twice", "keys are rotated twice", &["FI-10"], EngineFault::RopeTwice),
    defect(
        "engine/rope-style",
        "pairs are taken in the other style",
        &["FI-11"],
        EngineFault::RopeStyle,
    ),
    defect(
        "engine/rope-theta",
        "the base is a hundred times larger",
        &["FI-13"],
        EngineFault::RopeTheta,
    ),
    defect("engine/rope-scaled", "rotation also stretches", &["FI-10"], EngineFault::RopeScaled),
    defect(
        "engine/position-off-by-one",
        "positions are one too large in the cache",
        &["FI-08"],
        EngineFault::PositionOffByOne,
    ),
    defect(
        "engine/gqa-modulo",
        "query heads read key heads modulo their number",
        &["FI-14"],
        EngineFault::GqaModulo,
    ),
    defect("engine/causal-mask-off", "rows see the future", &["FI-19"], EngineFault::CausalMaskOff),
    defect("engine/scale-missing", "scores are not scaled", &["FI-61"], EngineFault::ScaleMissing),
    defect(
        "engine/attention-collapsed",
        "every row attends to itself only",
        &["FI-60"],
        EngineFault::AttentionCollapsed,
    ),
    defect(
        "engine/softmax-unnormalised",
        "attention probabilities sum to more than one",
        &["FI-21"],
        EngineFault::SoftmaxUnnormalised,
    ),
    defect(
        "engine/stale-key",
        "a decode step stores the keys of the step before",
        &["FI-70"],
        EngineFault::StaleKey,
    ),
    defect(
        "engine/caches-shared",
        "sequences computed together read the cache of the first",
        &["FI-70"],
        EngineFault::CachesShared,
    ),
    defect(
        "engine/positions-shared",
        "sequences computed together are rotated at the position of the first",
        &["FI-08", "FI-70"],
        EngineFault::PositionsShared,
    ),
    defect(
        "engine/residual-doubled",
        "the attention residual is added twice",
        &["FI-07"],
        EngineFault::ResidualDoubled,
    ),
    defect(
        "engine/layer-skipped",
        "one layer adds nothing",
        &["FI-77"],
        EngineFault::LayerSkipped { layer: 1 },
    ),
    defect(
        "engine/up-dropped",
        "the up projection takes no part",
        &["FI-46"],
        EngineFault::UpDropped,
    ),
    defect(
        "engine/activation-swapped",
        "the activation is another one",
        &["FI-02"],
        EngineFault::ActivationSwapped,
    ),
    defect(
        "engine/nan-at-layer",
        "a NaN appears in one layer",
        &["FI-21", "FI-33"],
        EngineFault::NanAtLayer { layer: 1 },
    ),
    defect(
        "engine/tile-zero",
        "a tile of one product stays zero",
        &["FI-80"],
        EngineFault::TileZero { layer: 0 },
    ),
    defect(
        "engine/output-off",
        "one output of a product is a hundredth too large",
        &["FI-80"],
        EngineFault::OutputOff,
    ),
    defect(
        "engine/misdeclared",
        "activations are rounded in other blocks than declared",
        &["FI-80"],
        EngineFault::Misdeclared,
    ),
    defect(
        "engine/row-swap",
        "two rows of a product are exchanged",
        &["FI-68"],
        EngineFault::RowSwap,
    ),
    defect(
        "engine/column-major",
        "a matrix is read column by column",
        &["FI-25"],
        EngineFault::ColumnMajor,
    ),
    defect(
        "engine/embedding-constant",
        "every token has the same embedding",
        &["FI-26"],
        EngineFault::EmbeddingConstant,
    ),
    defect(
        "engine/logits-permuted",
        "logits are shifted by one id",
        &["FI-126"],
        EngineFault::LogitsPermuted,
    ),
    defect(
        "engine/logits-constant",
        "all logits are equal",
        &["FI-46", "FI-116"],
        EngineFault::LogitsConstant,
    ),
    defect(
        "engine/head-reversed",
        "the head is read backwards",
        &["FI-24"],
        EngineFault::HeadReversed,
    ),
    defect(
        "engine/logits-flattened",
        "logits are a hundred times too flat",
        &["FI-92"],
        EngineFault::LogitsFlattened,
    ),
    defect(
        "engine/logits-one-hot",
        "logits are a thousand times too steep",
        &["FI-87"],
        EngineFault::LogitsOneHot,
    ),
    defect(
        "engine/generation-garbage",
        "every step speaks of something else",
        &["FI-06", "FI-25"],
        EngineFault::LogitsScrambled,
    ),
    defect(
        "engine/generation-random",
        "results change from call to call",
        &["FI-72"],
        EngineFault::LogitsScrambled,
    ),
    defect(
        "engine/nondeterministic",
        "sums differ a little from call to call",
        &["FI-72"],
        EngineFault::Nondeterministic,
    ),
    defect(
        "engine/chunk-forgotten",
        "a second chunk forgets the first",
        &["FI-73"],
        EngineFault::ChunkForgotten,
    ),
    defect(
        "engine/stop-after-one",
        "generation ends after one token",
        &["FI-57"],
        EngineFault::StopAfterOne,
    ),
    defect("engine/end-token-never", "the end token never wins", &["FI-50"], EngineFault::EndNever),
    defect(
        "engine/slow",
        "products are computed sixteen times over",
        &["FI-82", "FI-89"],
        EngineFault::Slow,
    ),
    defect(
        "engine/twentieth-slower",
        "every pass takes a twentieth longer",
        &["FI-82"],
        EngineFault::TwentiethSlower,
    ),
    defect(
        "engine/reset-ignored",
        "a reset leaves the cache as it is",
        &["FI-72"],
        EngineFault::ResetIgnored,
    ),
    defect(
        "engine/context-cut",
        "a prompt beyond the context is cut silently",
        &["FI-62"],
        EngineFault::ContextCut,
    ),
    defect(
        "engine/threads-race",
        "several threads lose a tile of a product",
        &["FI-80"],
        EngineFault::ThreadsRace,
    ),
    defect(
        "engine/isa-differs",
        "the portable kernels lose a tile of a product",
        &["FI-80"],
        EngineFault::IsaDiffers,
    ),
    defect(
        "engine/allocation-matters",
        "a context of a given size loses a tile of a product",
        &["FI-80"],
        EngineFault::AllocationMatters,
    ),
    defect(
        "engine/observed-differs",
        "attention is not scaled while its probabilities are observed",
        &["FI-61"],
        EngineFault::ObservedDiffers,
    ),
    defect(
        "engine/observed-slow",
        "attention is computed over and over while its probabilities are observed",
        &["FI-82"],
        EngineFault::ObservedSlow,
    ),
    defect(
        "engine/feed-forward-bypassed",
        "the feed-forward block gives back what it was given",
        &["FI-07"],
        EngineFault::FeedForwardBypassed,
    ),
    defect(
        "engine/token-lost",
        "the last of several tokens is lost",
        &["FI-62"],
        EngineFault::TokenLost,
    ),
    defect(
        "engine/best-yields",
        "the two best logits are exchanged where they are near",
        &["FI-126", "FI-66"],
        EngineFault::BestYields,
    ),
    defect(
        "engine/nan-reported",
        "a trace shows a NaN where a number was computed",
        &["FI-21", "FI-128"],
        EngineFault::NanReported,
    ),
    defect(
        "engine/memory-kept",
        "every forward pass keeps some memory for ever",
        &["FI-85"],
        EngineFault::MemoryKept,
    ),
    defect(
        "engine/cache-type-ignored",
        "keys and values are cached in f32, whatever was asked for",
        &["FI-85"],
        EngineFault::CacheTypeIgnored,
    ),
    defect(
        "engine/cache-coarse",
        "a cache in f16 keeps eight significant bits",
        &["FI-70"],
        EngineFault::CacheCoarse,
    ),
    defect(
        "engine/cache-swapped",
        "neighbouring values of a cache in f16 change places",
        &["FI-70"],
        EngineFault::CacheSwapped,
    ),
    defect(
        "engine/token-wrapped",
        "a token id outside the vocabulary is taken for another one",
        &["FI-62"],
        EngineFault::TokenWrapped,
    ),
];
