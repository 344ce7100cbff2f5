//! The transformer, once: every family and every backend runs through this file and `pass.rs`.
//!
//! Knows which tokens are computed together and what of their logits is wanted, nothing of formats or of how an operation
//! is computed.

use std::ops::Range;

use super::buffers::{Buffers, HEAD_ROWS};
use super::config::Config;
use super::lm::{Lm, LogitRows, SequenceTokens, Want};
use super::pass::Pass;
use super::rotation::Rotation;
use super::sequences::{Packing, Run, Sequence};
use super::weights::{Resident, Weights};
use crate::backend::{Arithmetic, Backend, CacheType, KvCache as _, KvShape};
use crate::error::{Code, Error, Result};
use crate::format::mmap::guard;
use crate::probe::{NoProbe, Op, Probe, Site};

/// How a model is set up on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LmOptions {
    /// Most positions; `None` takes the model's context. More than the model's is cut to it.
    pub context: Option<usize>,
    /// Tokens computed together while a prompt is read; at least 1.
    pub chunk: usize,
    /// What keys and values are cached as.
    pub cache_type: CacheType,
    /// Sequences that are kept apart, each with a cache of its own; at least 1.
    pub sequences: usize,
}

impl Default for LmOptions {
    fn default() -> Self {
        Self { context: None, chunk: 256, cache_type: CacheType::default(), sequences: 1 }
    }
}

/// A model on backend `B`.
#[derive(Debug)]
pub struct Transformer<B: Backend> {
    config: Config,
    backend: B,
    weights: Resident<B::Weight>,
    sequences: Vec<Sequence<B::Kv>>,
    buffers: Buffers<B::Buf>,
    rotation: Rotation,
    /// That of the layers with a window, where they have their own.
    local_rotation: Option<Rotation>,
    context: usize,
    chunk: usize,
    cache_type: CacheType,
    /// Logits of the last call, `[wanted, vocab]`.
    logits: Vec<f32>,
}

impl<B: Backend> Transformer<B> {
    /// Makes the weights resident and the caches empty.
    ///
    /// # Errors
    /// [`Code::WeightDtype`], [`Code::OutOfMemory`] and what the backend adds.
    pub fn new(config: &Config, weights: &Weights, backend: B, options: LmOptions) -> Result<Self> {
        let context = options.context.unwrap_or(config.context).clamp(1, config.context);
        let chunk = options.chunk.clamp(1, context);
        let kv = KvShape {
            layers: config.layers,
            width: config.kv_width(),
            capacity: context,
            cache_type: options.cache_type,
        };
        Ok(Self {
            weights: weights.upload(config, &backend)?,
            sequences: (0..options.sequences.max(1))
                .map(|_| Ok(Sequence::new(backend.kv_alloc(kv)?)))
                .collect::<Result<_>>()?,
            buffers: Buffers::new(&backend, config, chunk)?,
            rotation: Rotation::new(&config.rope, weights)?,
            local_rotation: match &config.local_rope {
                Some(rope) => Some(Rotation::new(rope, weights)?),
                None => None,
            },
            context,
            chunk,
            cache_type: options.cache_type,
            logits: Vec::new(),
            config: config.clone(),
            backend,
        })
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Refuses what cannot be computed, before anything changes.
    fn check(&self, sequence: usize, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::new(Code::EmptyPrompt).expected("at least one token"));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= self.config.vocab) {
            return Err(Error::new(Code::TokenId)
                .expected(format_args!("below {}", self.config.vocab))
                .found(token));
        }
        let position = self.position_of(sequence);
        if tokens.len() > self.context - position {
            return Err(Error::new(Code::ContextExceeded)
                .expected(format_args!("at most {} tokens", self.context))
                .found(format_args!("{} tokens", position.saturating_add(tokens.len())))
                .hint("shorten the prompt or ask for fewer tokens"));
        }
        Ok(())
    }

    /// Refuses sequences that there are not, or that are named twice, before anything changes.
    fn check_batch(&self, batch: &[SequenceTokens<'_>]) -> Result<()> {
        let mut named = vec![false; self.sequences.len()];
        for part in batch {
            match named.get_mut(part.sequence) {
                Some(named) if !*named => *named = true,
                Some(_) => {
                    return Err(Error::new(Code::SequenceNumber)
                        .expected("each sequence once")
                        .found(format_args!("sequence {} twice", part.sequence)));
                }
                None => {
                    return Err(Error::new(Code::SequenceNumber)
                        .expected(format_args!("below {}", self.sequences.len()))
                        .found(part.sequence));
                }
            }
            self.check(part.sequence, part.tokens)?;
        }
        Ok(())
    }

    /// Computes `tokens`, of which each of `runs` has its rows; keeps the logits of the rows in `wanted`.
    fn run_pass(
        &mut self,
        tokens: &[u32],
        runs: &[Run],
        wanted: &[Range<usize>],
        probe: &mut dyn Probe,
    ) -> Result<()> {
        let rows = tokens.len();
        let (backend, buffers) = (&self.backend, &mut self.buffers);
        let site = Site::model(Op::Embed);
        backend.embed(site, &mut buffers.x, &self.weights.embed, tokens)?;
        if let Some(factor) = self.config.embedding_scale {
            backend.scale(site, &mut buffers.x, factor, rows * self.config.hidden)?;
        }
        let mut pass = Pass {
            config: &self.config,
            backend,
            rotation: &self.rotation,
            local_rotation: self.local_rotation.as_ref(),
            runs,
            rows,
            probe,
        };
        pass.tap(site, &mut buffers.x, self.config.hidden)?;
        for (index, layer) in self.weights.layers.iter().enumerate() {
            pass.attention_block(index, layer, buffers, &mut self.sequences)?;
            pass.feed_forward_block(index, layer, buffers)?;
            pass.check_finite(Site::layer(index, Op::FfnResidual), &buffers.x)?;
        }
        let head = self.weights.head.as_ref().unwrap_or(&self.weights.embed);
        for wanted in wanted {
            for first in wanted.clone().step_by(HEAD_ROWS) {
                let count = HEAD_ROWS.min(wanted.end - first);
                let norm = &self.weights.final_norm;
                pass.head(norm, head, buffers, first, count, &mut self.logits)?;
            }
        }
        for run in runs {
            self.sequences[run.sequence].seen.extend_from_slice(&tokens[run.rows()]);
        }
        Ok(())
    }

    /// Runs one chunk of `sequence`; keeps the logits of its last `wanted` rows.
    fn run_chunk(
        &mut self,
        sequence: usize,
        tokens: &[u32],
        wanted: usize,
        probe: &mut dyn Probe,
    ) -> Result<()> {
        let rows = tokens.len();
        let run = self.sequences[sequence].run(sequence, 0, rows);
        let wanted = rows - wanted..rows;
        self.run_pass(tokens, &[run], std::slice::from_ref(&wanted), probe)
    }

    /// Where a text becomes a long one, or after forgetting a short one again, the keys in the cache carry another
    /// rotation than the new ones would: they are computed again.
    fn rotate_for(&mut self, sequence: usize, tokens: usize) -> Result<()> {
        let state = &mut self.sequences[sequence];
        let long = self.rotation.is_long(state.seen.len() + tokens);
        if long == state.long {
            return Ok(());
        }
        state.long = long;
        let seen = std::mem::take(&mut state.seen);
        seen.chunks(self.chunk)
            .try_for_each(|chunk| self.run_chunk(sequence, chunk, 0, &mut NoProbe))
    }
}

impl<B: Backend> Lm for Transformer<B> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn backend_name(&self) -> String {
        self.backend.name()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.backend.arithmetic()
    }

    fn context(&self) -> usize {
        self.context
    }

    fn sequences(&self) -> usize {
        self.sequences.len()
    }

    fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    fn cache_bytes(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.kv.bytes()).sum()
    }

    fn position_of(&self, sequence: usize) -> usize {
        self.sequences.get(sequence).map_or(0, |sequence| sequence.seen.len())
    }

    fn truncate_sequence(&mut self, sequence: usize, len: usize) {
        if let Some(sequence) = self.sequences.get_mut(sequence) {
            sequence.seen.truncate(len);
        }
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        want: Want,
        probe: &mut dyn Probe,
    ) -> Result<LogitRows<'_>> {
        self.check(0, tokens)?;
        self.logits.clear();
        self.rotate_for(0, tokens.len())?;
        let chunks = tokens.len().div_ceil(self.chunk);
        for (index, chunk) in tokens.chunks(self.chunk).enumerate() {
            let wanted = match want {
                Want::All => chunk.len(),
                Want::Last => usize::from(index + 1 == chunks),
            };
            let done = self.run_chunk(0, chunk, wanted, probe);
            // Bytes that a file lost read as zeros: whatever they made of the numbers, that is the error to report.
            guard::check()?;
            done?;
        }
        Ok(LogitRows::new(&self.logits, self.config.vocab))
    }

    fn forward_batch(&mut self, batch: &[SequenceTokens<'_>]) -> Result<LogitRows<'_>> {
        self.check_batch(batch)?;
        self.logits.clear();
        for part in batch {
            self.rotate_for(part.sequence, part.tokens.len())?;
        }
        let mut packing = Packing::new(batch, self.chunk);
        while let Some(packed) = packing.next(&self.sequences) {
            let done = self.run_pass(&packed.tokens, &packed.runs, &packed.wanted, &mut NoProbe);
            guard::check()?;
            done?;
        }
        Ok(LogitRows::new(&self.logits, self.config.vocab))
    }
}
