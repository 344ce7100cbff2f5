//! A running model under observation.

use std::{fmt, io};

use apr_engine::backend::{Arithmetic, CacheType};
use apr_engine::model::{Config, Lm, LogitRows, SequenceTokens, Want};
use apr_engine::probe::Probe;
use apr_engine::{Code, Error, Result};

use super::Step;

/// Hears of a run, step by step.
pub trait Listener: Send {
    /// Room for the record of a step.
    ///
    /// # Errors
    /// When nobody listens any more.
    fn room(&mut self) -> io::Result<Step>;

    /// A step was recorded.
    ///
    /// # Errors
    /// When nobody listens any more.
    fn hear(&mut self, step: Step) -> io::Result<()>;
}

/// A running model whose every step is recorded. The record takes the place of the caller's probe.
pub struct Observed<'a> {
    lm: &'a mut dyn Lm,
    listener: &'a mut dyn Listener,
}

impl<'a> Observed<'a> {
    /// `lm`, of which `listener` hears.
    pub fn new(lm: &'a mut dyn Lm, listener: &'a mut dyn Listener) -> Self {
        Self { lm, listener }
    }
}

impl fmt::Debug for Observed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("lm", &self.lm.backend_name()).finish_non_exhaustive()
    }
}

impl Lm for Observed<'_> {
    fn config(&self) -> &Config {
        self.lm.config()
    }

    fn backend_name(&self) -> String {
        self.lm.backend_name()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.lm.arithmetic()
    }

    fn context(&self) -> usize {
        self.lm.context()
    }

    fn sequences(&self) -> usize {
        self.lm.sequences()
    }

    fn cache_type(&self) -> CacheType {
        self.lm.cache_type()
    }

    fn cache_bytes(&self) -> usize {
        self.lm.cache_bytes()
    }

    fn position_of(&self, sequence: usize) -> usize {
        self.lm.position_of(sequence)
    }

    fn truncate_sequence(&mut self, sequence: usize, len: usize) {
        self.lm.truncate_sequence(sequence, len);
    }

    fn forward(&mut self, tokens: &[u32], want: Want, _: &mut dyn Probe) -> Result<LogitRows<'_>> {
        let unheard = |error: io::Error| Error::new(Code::Io).found(error);
        let mut step = self.listener.room().map_err(unheard)?;
        step.begin(self.lm.position(), tokens, self.lm.context());
        let rows = self.lm.forward(tokens, want, &mut step);
        step.end(rows.is_ok());
        let heard = self.listener.hear(step);
        let rows = rows?;
        heard.map_err(unheard)?;
        Ok(rows)
    }

    /// Passes of several sequences are not recorded: a record has one position.
    fn forward_batch(&mut self, batch: &[SequenceTokens<'_>]) -> Result<LogitRows<'_>> {
        self.lm.forward_batch(batch)
    }
}
