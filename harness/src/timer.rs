//! How long the forward pass takes from one site to the next.
//!
//! A probe that wants nothing is still asked at every site, so the time between two questions is that of the operations in
//! between, and nothing is copied.

use std::cell::{Cell, RefCell};

use apr_engine::probe::{Op, Probe, Site, Tap};

/// Tells nanoseconds since some moment.
pub type Clock<'c> = &'c dyn Fn() -> u64;

/// A probe that writes down when it is asked for which site, and wants none.
pub(crate) struct Timer<'c> {
    clock: Clock<'c>,
    last: Cell<u64>,
    spans: RefCell<Vec<(Site, u64)>>,
}

impl<'c> Timer<'c> {
    /// A timer that starts now.
    pub(crate) fn start(clock: Clock<'c>) -> Self {
        Self { clock, last: Cell::new(clock()), spans: RefCell::default() }
    }

    /// The sites that were passed, each with the nanoseconds since the one before.
    pub(crate) fn spans(self) -> Vec<(Site, u64)> {
        self.spans.into_inner()
    }
}

impl Probe for Timer<'_> {
    fn wants(&self, site: Site) -> bool {
        // Probabilities are asked for in front of attention, not behind it.
        if site.op != Op::AttnScores {
            let now = (self.clock)();
            self.spans.borrow_mut().push((site, now.saturating_sub(self.last.get())));
            self.last.set(now);
        }
        false
    }

    fn tap(&mut self, _: Tap<'_>) {}
}
