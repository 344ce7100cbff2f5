//! Engine faults: a model or a backend that computes one thing wrongly.
//!
//! Each fault retells a defect that shipped somewhere.

mod backend;
mod defects;
pub(super) mod misread;
mod spoil;

use std::time::Instant;

use apr_engine::backend::simd::{Isa, Simd};
use apr_engine::backend::{Arithmetic, CacheType, Scalar};
use apr_engine::model::{
    Config, Lm, LmOptions, LogitRows, Model, Role, SequenceTokens, Slot, Transformer, Want,
};
use apr_engine::probe::{Op, Probe, Site, Tap};
use apr_engine::{Code, Error, Result};

pub use self::backend::Faulty;
pub(super) use self::defects::{ALL, nothing};
use crate::judge::BackendSpec;

/// What a faulty backend does wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EngineFault {
    /// Nothing: the control that every gate must survive.
    Nothing,
    /// Norms subtract the mean first (`LayerNorm` in place of RMSNorm).
    LayerNorm,
    /// Norms use an epsilon of 1e-3.
    RmsEps,
    /// The norm in front of the feed-forward block is skipped.
    FfnNormSkipped,
    /// Heads of queries and keys are not normalised.
    QkNormSkipped,
    /// What attention gives is added without its norm.
    AttnPostNormSkipped,
    /// What the feed-forward block gives is added without its norm.
    FfnPostNormSkipped,
    /// Every gain of a norm is one too small, as in files that store it so.
    GainOffsetMissing,
    /// Up projection and gate change places.
    GateUpSwapped,
    /// Values are stored as keys, and keys as values.
    KeysAreValues,
    /// Biases of the query, key and value projections are dropped.
    QkvBiasDropped,
    /// No rotation at one layer.
    RopeSkipped {
        /// The layer.
        layer: usize,
    },
    /// No rotation once the cache holds positions.
    RopeSkippedInCache,
    /// Keys are rotated twice.
    RopeTwice,
    /// Pairs are taken in the other style.
    RopeStyle,
    /// The base is a hundred times larger than declared.
    RopeTheta,
    /// Positions are one too large once the cache holds positions.
    PositionOffByOne,
    /// Query head `h` reads key-value head `h mod kv_heads`.
    GqaModulo,
    /// Rows see the future.
    CausalMaskOff,
    /// Scores are not scaled by the head dimension.
    ScaleMissing,
    /// Every row attends to itself only.
    AttentionCollapsed,
    /// A decode step stores the keys of the step before.
    StaleKey,
    /// The residual after attention is added twice.
    ResidualDoubled,
    /// The up projection does not take part.
    UpDropped,
    /// The activation is another one than declared.
    ActivationSwapped,
    /// A NaN appears at the down projection of one layer.
    NanAtLayer {
        /// The layer.
        layer: usize,
    },
    /// A block of 32 outputs of one layer's down projection stays zero.
    TileZero {
        /// The layer.
        layer: usize,
    },
    /// One output of the gate projections is a hundredth too large.
    OutputOff,
    /// The backend declares another rounding of activations than its own.
    Misdeclared,
    /// Two neighbouring rows of the output projection are exchanged.
    RowSwap,
    /// The query matrix of layer 0 is read column by column.
    ColumnMajor,
    /// The logits are those of the next token id (a permutation keeps every norm).
    LogitsPermuted,
    /// All logits are equal.
    LogitsConstant,
    /// The language-model head uses the rows of the matrix in reverse order.
    HeadReversed,
    /// Results differ a little from call to call.
    Nondeterministic,
    /// The prefill of a second chunk forgets the first.
    ChunkForgotten,
    /// Products are computed sixteen times over.
    Slow,
    /// Every pass takes a twentieth longer.
    TwentiethSlower,
    /// Every token has the same embedding.
    EmbeddingConstant,
    /// The reported attention probabilities sum to more than one.
    SoftmaxUnnormalised,
    /// Rotation also stretches.
    RopeScaled,
    /// One layer adds nothing to the residual stream.
    LayerSkipped {
        /// The layer.
        layer: usize,
    },
    /// Logits are a hundred times too flat.
    LogitsFlattened,
    /// Logits are a thousand times too steep.
    LogitsOneHot,
    /// Logits are those of another, ever changing, token.
    LogitsScrambled,
    /// The end token wins after the first decode step.
    StopAfterOne,
    /// The end token can never win.
    EndNever,
    /// A reset leaves the cache as it is.
    ResetIgnored,
    /// A prompt beyond the context is cut silently.
    ContextCut,
    /// Several threads lose a tile of a product.
    ThreadsRace,
    /// The portable kernels lose a tile of a product.
    IsaDiffers,
    /// A context that was asked for by size loses a tile of a product.
    AllocationMatters,
    /// Attention is not scaled while its probabilities are observed.
    ObservedDiffers,
    /// Attention is computed over and over while its probabilities are observed.
    ObservedSlow,
    /// The feed-forward block gives back what it was given.
    FeedForwardBypassed,
    /// The last of several tokens is lost.
    TokenLost,
    /// The two best logits of a row are exchanged where they are near each other.
    BestYields,
    /// Probes are shown a NaN where the engine computed a number.
    NanReported,
    /// Every forward pass keeps some memory for ever.
    MemoryKept,
    /// A token id outside the vocabulary is taken for another one.
    TokenWrapped,
    /// Keys and values are cached in f32, whatever was asked for.
    CacheTypeIgnored,
    /// A cache in f16 keeps the eight significant bits of bf16.
    CacheCoarse,
    /// In a cache in f16 neighbouring values change places.
    CacheSwapped,
    /// Sequences that are computed together read the cache of the first of them.
    CachesShared,
    /// Rows of sequences that are computed together are rotated as if all stood where the first does.
    PositionsShared,
}

impl EngineFault {
    /// The first point of the forward pass that the defect changes; `None` when it changes no value of a pass of one
    /// sequence that fits into the context.
    pub const fn op(self) -> Option<Op> {
        Some(match self {
            Self::Nothing
            | Self::Slow
            | Self::TwentiethSlower
            | Self::ObservedSlow
            | Self::ResetIgnored
            | Self::ContextCut
            | Self::TokenLost
            | Self::NanReported
            | Self::MemoryKept
            | Self::TokenWrapped
            | Self::CachesShared
            | Self::PositionsShared
            | Self::Misdeclared => return None,
            Self::EmbeddingConstant => Op::Embed,
            Self::LayerNorm | Self::RmsEps | Self::GainOffsetMissing => Op::AttnNorm,
            Self::QkvBiasDropped | Self::ColumnMajor => Op::Q,
            Self::RopeSkipped { .. }
            | Self::RopeSkippedInCache
            | Self::RopeStyle
            | Self::RopeTheta
            | Self::RopeScaled
            | Self::PositionOffByOne => Op::RopeQ,
            Self::QkNormSkipped => Op::QNorm,
            Self::OutputOff => Op::Gate,
            Self::RopeTwice => Op::RopeK,
            Self::GqaModulo
            | Self::CausalMaskOff
            | Self::ScaleMissing
            | Self::ObservedDiffers
            | Self::AttentionCollapsed
            | Self::StaleKey
            | Self::KeysAreValues
            | Self::ChunkForgotten
            | Self::CacheTypeIgnored
            | Self::CacheCoarse
            | Self::CacheSwapped
            | Self::SoftmaxUnnormalised => Op::AttnScores,
            Self::RowSwap | Self::Nondeterministic => Op::OProj,
            Self::ResidualDoubled | Self::LayerSkipped { .. } => Op::AttnResidual,
            Self::AttnPostNormSkipped => Op::AttnPostNorm,
            Self::FfnNormSkipped => Op::FfnNorm,
            Self::FfnPostNormSkipped => Op::FfnPostNorm,
            Self::UpDropped | Self::ActivationSwapped | Self::GateUpSwapped => Op::Swiglu,
            Self::NanAtLayer { .. }
            | Self::TileZero { .. }
            | Self::ThreadsRace
            | Self::IsaDiffers
            | Self::AllocationMatters
            | Self::FeedForwardBypassed => Op::Down,
            Self::LogitsPermuted
            | Self::LogitsConstant
            | Self::HeadReversed
            | Self::LogitsFlattened
            | Self::LogitsOneHot
            | Self::LogitsScrambled
            | Self::StopAfterOne
            | Self::EndNever
            | Self::BestYields => Op::Logits,
        })
    }

    /// Every defect of one layer or of the model as a whole that a pass shows on any backend, each once.
    pub const ALL: &[Self] = &[
        Self::EmbeddingConstant,
        Self::LayerNorm,
        Self::RmsEps,
        Self::GainOffsetMissing,
        Self::ColumnMajor,
        Self::QkvBiasDropped,
        Self::QkNormSkipped,
        Self::RopeSkipped { layer: 0 },
        Self::RopeSkippedInCache,
        Self::RopeTwice,
        Self::RopeStyle,
        Self::RopeTheta,
        Self::RopeScaled,
        Self::PositionOffByOne,
        Self::GqaModulo,
        Self::CausalMaskOff,
        Self::ScaleMissing,
        Self::AttentionCollapsed,
        Self::SoftmaxUnnormalised,
        Self::StaleKey,
        Self::ChunkForgotten,
        Self::KeysAreValues,
        Self::RowSwap,
        Self::Nondeterministic,
        Self::AttnPostNormSkipped,
        Self::ResidualDoubled,
        Self::LayerSkipped { layer: 0 },
        Self::FfnNormSkipped,
        Self::UpDropped,
        Self::GateUpSwapped,
        Self::ActivationSwapped,
        Self::NanAtLayer { layer: 0 },
        Self::TileZero { layer: 0 },
        Self::FeedForwardBypassed,
        Self::FfnPostNormSkipped,
        Self::LogitsPermuted,
        Self::LogitsConstant,
        Self::HeadReversed,
        Self::LogitsFlattened,
        Self::LogitsOneHot,
        Self::LogitsScrambled,
        Self::EndNever,
        Self::BestYields,
    ];

    /// Whether `model` has what the defect spoils.
    pub fn shows_on(self, model: &Model) -> bool {
        let config = model.config();
        match self {
            Self::QkvBiasDropped => model.weights().get(Slot::layer(0, Role::QBias)).is_some(),
            Self::GqaModulo => config.kv_heads > 1 && config.heads > config.kv_heads,
            Self::EndNever => !model.generation().eos.is_empty(),
            fault => fault.op().is_some_and(|op| config.has_site(op)),
        }
    }

    /// The same defect in `layer`, where it is one of a single layer.
    #[must_use]
    pub const fn moved(self, layer: usize) -> Self {
        match self {
            Self::RopeSkipped { .. } => Self::RopeSkipped { layer },
            Self::NanAtLayer { .. } => Self::NanAtLayer { layer },
            Self::TileZero { .. } => Self::TileZero { layer },
            Self::LayerSkipped { .. } => Self::LayerSkipped { layer },
            other => other,
        }
    }
}

/// Sets `model` up on the backend of `spec` with `fault` inside, in `layer` alone when one is given.
///
/// # Errors
/// As [`Model::lm_on`]; a backend that cannot be decorated is unavailable.
pub fn faulty_lm(
    fault: EngineFault,
    layer: Option<usize>,
    model: &Model,
    spec: &BackendSpec,
    options: LmOptions,
) -> Result<Box<dyn Lm>> {
    let fault = layer.map_or(fault, |layer| fault.moved(layer));
    set_up(fault, layer, model.config(), model, spec, options)
}

/// Sets the weights of `model` up with the hyper-parameters `config`, and with `fault` inside.
fn set_up(
    fault: EngineFault,
    layer: Option<usize>,
    config: &Config,
    model: &Model,
    spec: &BackendSpec,
    options: LmOptions,
) -> Result<Box<dyn Lm>> {
    let end = model.generation().eos.clone();
    let fault = in_effect(fault, spec, &options);
    let lm: Box<dyn Lm> = match spec.backend.as_str() {
        "scalar" => {
            let backend = Faulty::new(Scalar::default(), fault, end).in_layer(layer);
            Box::new(Transformer::new(config, model.weights(), backend, options)?)
        }
        "simd" => {
            let isa = match &spec.isa {
                Some(name) => Some(
                    Isa::from_name(name)
                        .ok_or_else(|| Error::new(Code::IsaUnavailable).found(name))?,
                ),
                None => None,
            };
            let threads = spec.threads.unwrap_or_else(|| {
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
            });
            let simd = Simd::new(isa, threads)?;
            // What decorates operations costs time, which is all that this one is about.
            if fault == EngineFault::TwentiethSlower {
                Box::new(Transformer::new(config, model.weights(), simd, options)?)
            } else {
                let backend = Faulty::new(simd, fault, end).in_layer(layer);
                Box::new(Transformer::new(config, model.weights(), backend, options)?)
            }
        }
        other => return Err(Error::new(Code::DeviceUnavailable).found(other)),
    };
    Ok(Box::new(FaultyLm { inner: lm, fault }))
}

/// The defect that shows itself under `spec` and `options`: some need threads, an instruction set, an allocation or a cache
/// in f16.
fn in_effect(fault: EngineFault, spec: &BackendSpec, options: &LmOptions) -> EngineFault {
    let shows = match fault {
        EngineFault::ThreadsRace => spec.threads.is_some_and(|threads| threads > 1),
        EngineFault::IsaDiffers => spec.isa.as_deref() == Some(Isa::Portable.name()),
        EngineFault::AllocationMatters => options.context.is_some(),
        EngineFault::CacheCoarse | EngineFault::CacheSwapped => {
            let halves = options.cache_type == CacheType::F16;
            return if halves { fault } else { EngineFault::Nothing };
        }
        _ => return fault,
    };
    if shows { EngineFault::TileZero { layer: 0 } } else { EngineFault::Nothing }
}

/// Bytes that a pass with [`EngineFault::MemoryKept`] never gives back.
const KEPT_BYTES: usize = 8 << 10;

/// A running model whose bookkeeping has a defect.
struct FaultyLm {
    inner: Box<dyn Lm>,
    fault: EngineFault,
}

impl Lm for FaultyLm {
    fn config(&self) -> &Config {
        self.inner.config()
    }

    fn backend_name(&self) -> String {
        self.inner.backend_name()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.inner.arithmetic()
    }

    fn context(&self) -> usize {
        self.inner.context()
    }

    fn sequences(&self) -> usize {
        self.inner.sequences()
    }

    fn cache_type(&self) -> CacheType {
        self.inner.cache_type()
    }

    fn cache_bytes(&self) -> usize {
        self.inner.cache_bytes()
    }

    fn position_of(&self, sequence: usize) -> usize {
        self.inner.position_of(sequence)
    }

    fn truncate_sequence(&mut self, sequence: usize, len: usize) {
        // The oldest half stays: a cache that was never emptied.
        let kept = match self.fault {
            EngineFault::ResetIgnored => self.inner.position_of(sequence) / 2,
            _ => 0,
        };
        self.inner.truncate_sequence(sequence, len.max(kept));
    }

    fn forward_batch(&mut self, batch: &[SequenceTokens<'_>]) -> Result<LogitRows<'_>> {
        self.inner.forward_batch(batch)
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        want: Want,
        probe: &mut dyn Probe,
    ) -> Result<LogitRows<'_>> {
        let room = self.inner.context() - self.inner.position();
        if self.fault == EngineFault::ContextCut && tokens.len() > room {
            return self.inner.forward(&tokens[tokens.len() - room..], want, probe);
        }
        match (self.fault, tokens) {
            (EngineFault::TwentiethSlower, _) => {
                let start = now();
                let rows = self.inner.forward(tokens, want, probe)?;
                let end = start.elapsed() * 21 / 20;
                while start.elapsed() < end {
                    std::hint::spin_loop();
                }
                Ok(rows)
            }
            (EngineFault::TokenLost, [kept @ .., _]) if !kept.is_empty() => {
                self.inner.forward(kept, want, probe)
            }
            (EngineFault::MemoryKept, _) => {
                // Written to, so that it is really taken.
                std::mem::forget(std::hint::black_box(vec![1u8; KEPT_BYTES]));
                self.inner.forward(tokens, want, probe)
            }
            (EngineFault::TokenWrapped, _) => {
                let vocab = u32::try_from(self.inner.config().vocab).unwrap_or(u32::MAX);
                let ids: Vec<u32> = tokens.iter().map(|id| id % vocab).collect();
                self.inner.forward(&ids, want, probe)
            }
            (EngineFault::NanReported, _) => self.inner.forward(tokens, want, &mut NanProbe(probe)),
            _ => self.inner.forward(tokens, want, probe),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a fault in time needs a clock")]
fn now() -> Instant {
    Instant::now()
}

/// Shows the probe behind it a NaN at the first value of everything it wants.
struct NanProbe<'a>(&'a mut dyn Probe);

impl Probe for NanProbe<'_> {
    fn wants(&self, site: Site) -> bool {
        self.0.wants(site)
    }

    fn tap(&mut self, tap: Tap<'_>) {
        let mut values = tap.values.to_vec();
        if let Some(first) = values.first_mut() {
            *first = f32::NAN;
        }
        self.0.tap(Tap { values: &values, ..tap });
    }

    fn replacement(&mut self, site: Site) -> Option<&[f32]> {
        self.0.replacement(site)
    }
}
