//! What everyone outside the engine sees of a running model: tokens in, logits out.

use super::config::Config;
use crate::backend::{Arithmetic, CacheType};
use crate::error::Result;
use crate::probe::Probe;

/// Which rows of logits a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// One row per token.
    All,
    /// The row of the last token.
    Last,
}

/// Tokens to append to one of several sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceTokens<'a> {
    /// Number of the sequence, from 0.
    pub sequence: usize,
    /// The tokens; at least one.
    pub tokens: &'a [u32],
}

/// Rows of logits, one per wanted token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitRows<'a> {
    values: &'a [f32],
    vocab: usize,
}

impl<'a> LogitRows<'a> {
    /// Rows of `vocab` values each.
    pub(super) fn new(values: &'a [f32], vocab: usize) -> Self {
        Self { values, vocab }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocab
    }

    /// Logits per row.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Row `row`, `[vocab]`; `None` beyond the last.
    pub fn row(&self, row: usize) -> Option<&'a [f32]> {
        self.values.chunks_exact(self.vocab).nth(row)
    }

    /// The row of the last token, `[vocab]`.
    pub fn last(&self) -> &'a [f32] {
        self.values.rchunks_exact(self.vocab).next().unwrap_or_default()
    }

    /// All rows, `[rows, vocab]`.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }
}

/// A model on a backend, with the key-value caches of its sequences. Generics end here.
///
/// Methods that name no sequence speak of sequence 0, the only one unless more were asked for.
pub trait Lm: Send {
    /// Hyper-parameters.
    fn config(&self) -> &Config;

    /// Name of the backend, for reports.
    fn backend_name(&self) -> String;

    /// What the backend rounds in its products.
    fn arithmetic(&self) -> Arithmetic;

    /// Most positions this instance takes.
    fn context(&self) -> usize;

    /// Sequences that are kept apart, at least 1.
    fn sequences(&self) -> usize;

    /// Tokens in the cache of `sequence`; 0 when there is no such sequence.
    fn position_of(&self, sequence: usize) -> usize;

    /// Forgets the tokens of `sequence` from `len` on; does nothing when there are not as many.
    fn truncate_sequence(&mut self, sequence: usize, len: usize);

    /// Tokens in the cache; the next token stands at this position.
    fn position(&self) -> usize {
        self.position_of(0)
    }

    /// What keys and values are cached as.
    fn cache_type(&self) -> CacheType;

    /// Bytes of the keys and values in memory: twice `layers * kv_width` for each position computed so far, by the bytes of
    /// the cache type. What is forgotten is overwritten, not given back.
    fn cache_bytes(&self) -> usize;

    /// Forgets the tokens from `len` on; does nothing when there are not as many.
    fn truncate(&mut self, len: usize) {
        self.truncate_sequence(0, len);
    }

    /// Forgets all tokens.
    fn reset(&mut self) {
        self.truncate(0);
    }

    /// Appends `tokens` and computes logits.
    ///
    /// # Errors
    /// [`crate::Code::EmptyPrompt`], [`crate::Code::TokenId`], [`crate::Code::ContextExceeded`] with both
    /// numbers, [`crate::Code::NonFinite`] with the site. After an error the position is that of the
    /// last whole chunk.
    fn forward(
        &mut self,
        tokens: &[u32],
        want: Want,
        probe: &mut dyn Probe,
    ) -> Result<LogitRows<'_>>;

    /// Appends tokens to several sequences, computed together, so that weights are read once for all of them. Row `i` of
    /// the logits is that of the last token of `batch[i]`.
    ///
    /// # Errors
    /// As [`Lm::forward`], and [`crate::Code::SequenceNumber`] for a sequence that there is not or that is named twice.
    /// After an error each sequence ends where the last whole pass left it.
    fn forward_batch(&mut self, batch: &[SequenceTokens<'_>]) -> Result<LogitRows<'_>>;
}
