//! What a forward pass computed, site by site, and what it computes when each operation is given another pass's inputs.
//!
//! A recording never fails: a pass that ends early keeps what it had seen until then, together with the reason.

use std::collections::BTreeMap;

use apr_engine::model::{Lm, Want};
use apr_engine::probe::{Op, Probe, Site, Tap};

/// Tokens at the end of a stepped pass that are fed one by one.
const SINGLE: usize = 3;

/// Values of the wanted sites of a forward pass, rows in token order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording {
    /// Site → `[tokens, width]`.
    pub(crate) sites: BTreeMap<Site, Rows>,
    /// Why the pass ended before its last token, if it did.
    pub(crate) ended: Option<apr_engine::Error>,
}

/// Rows of one site. Attention probabilities have rows of different widths when a prompt is read in chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// One per token.
    pub(crate) rows: Vec<Vec<f32>>,
}

impl Recording {
    /// The rows of a site; none when it was not seen.
    pub(crate) fn rows(&self, site: Site) -> &[Vec<f32>] {
        self.sites.get(&site).map_or(&[], |rows| &rows.rows)
    }

    /// Bytes of all values.
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.sites.values().flat_map(|site| &site.rows);
        rows.map(|row| size_of_val(row.as_slice())).sum()
    }

    /// The sites in the order of the forward pass.
    pub(crate) fn in_order(&self) -> Vec<Site> {
        let mut sites: Vec<Site> = self.sites.keys().copied().collect();
        sites.sort_unstable_by_key(|site| order(*site));
        sites
    }
}

/// Sorts sites as the forward pass comes by them.
pub(crate) fn order(site: Site) -> (usize, Op) {
    let layer = match (site.layer, site.op) {
        (Some(layer), _) => layer + 1,
        (None, Op::Embed) => 0,
        (None, _) => usize::MAX,
    };
    (layer, site.op)
}

/// Feeds all tokens at once.
pub(crate) fn whole(ids: &[u32]) -> Vec<&[u32]> {
    vec![ids]
}

/// Feeds two parts and then single tokens, so that positions in the cache, a second part of a prompt and decoding are all
/// gone through.
pub(crate) fn stepped(ids: &[u32]) -> Vec<&[u32]> {
    let (prompt, single) = ids.split_at(ids.len().saturating_sub(SINGLE));
    let (first, second) = prompt.split_at(prompt.len().div_ceil(2));
    let parts = [first, second].into_iter().filter(|part| !part.is_empty());
    parts.chain(single.chunks(1)).collect()
}

/// Runs `parts` one after the other from an empty cache and records the wanted sites, and always the logits.
pub(crate) fn record(
    lm: &mut dyn Lm,
    parts: &[&[u32]],
    wanted: &dyn Fn(Site) -> bool,
) -> Recording {
    let mut probe = Recorder { wanted, given: None, last: None, seen: Recording::default() };
    run(lm, parts, &mut probe);
    probe.seen
}

/// As [`record`] of every site, but each operation works on what `given` has for its inputs: what is recorded
/// is the operation's result on those inputs, and its distance from `given` is its own. What `given` does not have is
/// computed from what comes before.
pub(crate) fn record_given(lm: &mut dyn Lm, parts: &[&[u32]], given: &Recording) -> Recording {
    let wanted = |_| true;
    let seen = Recording::default();
    let mut probe = Recorder { wanted: &wanted, given: Some(given), last: None, seen };
    run(lm, parts, &mut probe);
    probe.seen
}

fn run(lm: &mut dyn Lm, parts: &[&[u32]], probe: &mut Recorder<'_>) {
    lm.reset();
    for part in parts {
        if let Err(error) = lm.forward(part, Want::All, probe) {
            probe.seen.ended = Some(error);
            return;
        }
    }
}

/// Records the wanted sites, and gives another recording's values back when there is one.
struct Recorder<'w> {
    wanted: &'w dyn Fn(Site) -> bool,
    given: Option<&'w Recording>,
    /// The rows of the other recording that belong to the last tap.
    last: Option<Vec<f32>>,
    seen: Recording,
}

impl Probe for Recorder<'_> {
    fn wants(&self, site: Site) -> bool {
        site.op == Op::Logits || (self.wanted)(site)
    }

    fn tap(&mut self, tap: Tap<'_>) {
        let rows = &mut self.seen.sites.entry(tap.site).or_default().rows;
        let width = tap.values.len() / tap.rows.max(1);
        if width > 0 {
            rows.extend(tap.values.chunks_exact(width).map(<[f32]>::to_vec));
        }
        self.last = self.given.and_then(|given| {
            let rows = given.rows(tap.site).get(tap.position..tap.position + tap.rows)?.concat();
            (rows.len() == tap.values.len()).then_some(rows)
        });
    }

    fn replacement(&mut self, _: Site) -> Option<&[f32]> {
        self.last.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_pass_has_two_parts_and_single_tokens_and_loses_none() {
        let ids: Vec<u32> = (0..10).collect();
        let lengths = |ids: &[u32]| stepped(ids).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&ids), [4, 3, 1, 1, 1]);
        assert_eq!(lengths(&ids[..2]), [1, 1]);
        assert_eq!(lengths(&ids[..4]), [1, 1, 1, 1]);
        assert_eq!(stepped(&ids).concat(), ids);
        assert!(stepped(&[]).is_empty());
    }

    #[test]
    fn the_order_of_sites_is_that_of_the_forward_pass() {
        let mut sites = [
            Site::model(Op::Logits),
            Site::layer(1, Op::AttnNorm),
            Site::layer(0, Op::Down),
            Site::model(Op::FinalNorm),
            Site::model(Op::Embed),
        ];
        sites.sort_unstable_by_key(|site| order(*site));
        let names: Vec<String> = sites.iter().map(Site::to_string).collect();
        assert_eq!(names, ["embed", "layers.0.down", "layers.1.attn_norm", "final_norm", "logits"]);
    }
}
