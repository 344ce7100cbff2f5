//! A running model under observation.

use std::fmt;

use apr_engine::Result;
use apr_engine::model::{Config, Lm, LogitRows, Want};
use apr_engine::probe::Probe;

use super::Tracer;

/// A running model whose every step is traced. The tracer takes the place of the caller's probe.
pub struct Observed<'a, 'm> {
    lm: &'a mut dyn Lm,
    tracer: &'a mut Tracer<'m>,
}

impl<'a, 'm> Observed<'a, 'm> {
    /// `lm`, told by `tracer`.
    pub fn new(lm: &'a mut dyn Lm, tracer: &'a mut Tracer<'m>) -> Self {
        Self { lm, tracer }
    }
}

impl fmt::Debug for Observed<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.lm.backend_name();
        f.debug_struct("Observed").field("lm", &name).field("tracer", &self.tracer).finish()
    }
}

impl Lm for Observed<'_, '_> {
    fn config(&self) -> &Config {
        self.lm.config()
    }

    fn backend_name(&self) -> String {
        self.lm.backend_name()
    }

    fn context(&self) -> usize {
        self.lm.context()
    }

    fn position(&self) -> usize {
        self.lm.position()
    }

    fn truncate(&mut self, len: usize) {
        self.lm.truncate(len);
    }

    fn forward(&mut self, tokens: &[u32], want: Want, _: &mut dyn Probe) -> Result<LogitRows<'_>> {
        self.tracer.begin(self.lm.position(), tokens, self.lm.context());
        match self.lm.forward(tokens, want, &mut *self.tracer) {
            Ok(rows) => {
                self.tracer.end(rows.last());
                Ok(rows)
            }
            Err(error) => {
                self.tracer.fail();
                Err(error)
            }
        }
    }
}
