//! What a forward pass computed, site by site.

use std::collections::BTreeMap;

use apr_engine::probe::{Probe, Site, Tap};

/// Values of the wanted sites of a forward pass, rows in token order.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// Site → `[tokens, width]`.
    pub(crate) sites: BTreeMap<Site, Rows>,
}

/// Rows of one site. Attention probabilities have rows of different widths when a prompt is read in chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// One per token.
    pub(crate) rows: Vec<Vec<f32>>,
}

/// Records the wanted sites.
pub(crate) struct Recorder<'w> {
    pub(crate) wanted: &'w dyn Fn(Site) -> bool,
    pub(crate) seen: Recording,
}

impl Probe for Recorder<'_> {
    fn wants(&self, site: Site) -> bool {
        (self.wanted)(site)
    }

    fn tap(&mut self, tap: Tap<'_>) {
        let rows = &mut self.seen.sites.entry(tap.site).or_default().rows;
        let width = tap.values.len() / tap.rows.max(1);
        if width > 0 {
            rows.extend(tap.values.chunks_exact(width).map(<[f32]>::to_vec));
        }
    }
}
