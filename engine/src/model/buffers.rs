//! What the forward pass computes into: one set of activations for as many tokens as are computed together.

use super::config::Config;
use crate::backend::Backend;
use crate::error::{Code, Error, Result};

/// Rows of logits computed in one product, so that the buffer stays small with large vocabularies.
pub(super) const HEAD_ROWS: usize = 16;

/// Activations of one chunk. `rows` is the chunk length.
#[derive(Debug)]
pub(super) struct Buffers<T> {
    /// Residual stream, `[rows, hidden]`.
    pub(super) x: T,
    /// Normalised stream, `[rows, hidden]`.
    pub(super) norm: T,
    /// `[rows, heads * head_dim]`.
    pub(super) q: T,
    /// `[rows, kv_heads * head_dim]`.
    pub(super) k: T,
    /// `[rows, kv_heads * head_dim]`.
    pub(super) v: T,
    /// Normalised keys, `[rows, kv_heads * head_dim]`; empty where keys are not normalised.
    pub(super) k_normed: T,
    /// Attention output before projection, `[rows, heads * head_dim]`.
    pub(super) mixed: T,
    /// What a block adds to the stream, `[rows, hidden]`.
    pub(super) delta: T,
    /// `[rows, intermediate]`.
    pub(super) gate: T,
    /// `[rows, intermediate]`.
    pub(super) up: T,
    /// `[min(rows, HEAD_ROWS), vocab]`.
    pub(super) logits: T,
}

impl<T> Buffers<T> {
    /// Buffers for `rows` tokens.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`] and what the backend adds.
    pub(super) fn new<B: Backend<Buf = T>>(
        backend: &B,
        config: &Config,
        rows: usize,
    ) -> Result<Self> {
        let wide = |width: usize| {
            let len = rows.checked_mul(width).ok_or_else(|| Error::new(Code::OutOfMemory))?;
            backend.alloc(len)
        };
        Ok(Self {
            x: wide(config.hidden)?,
            norm: wide(config.hidden)?,
            q: wide(config.q_width())?,
            k: wide(config.kv_width())?,
            v: wide(config.kv_width())?,
            k_normed: wide(if config.qk_norm { config.kv_width() } else { 0 })?,
            mixed: wide(config.q_width())?,
            delta: wide(config.hidden)?,
            gate: wide(config.intermediate)?,
            up: wide(config.intermediate)?,
            logits: backend.alloc(rows.min(HEAD_ROWS) * config.vocab)?,
        })
    }
}
