//! What a step showed, kept to be told later and elsewhere: a run is held up by a copy of a row per site, and by nothing
//! else.

use std::ops::Range;
use std::sync::Arc;

use apr_engine::probe::{Probe, Site, Tap};

use super::Options;
use super::history::Clock;
use super::moments::Moments;

/// The record of one step: of one call of a running model.
#[derive(Debug)]
pub struct Step {
    options: Arc<Options>,
    clock: Clock,
    /// Position of the first token, and the room of the cache.
    pub(super) position: usize,
    pub(super) context: usize,
    pub(super) tokens: Vec<u32>,
    /// When it began and ended, in milliseconds since 1970.
    pub(super) began: u64,
    pub(super) ended: u64,
    /// Whether there was no error.
    pub(super) whole: bool,
    marks: Vec<Mark>,
    /// The last rows of all sites, one behind the other.
    values: Vec<f32>,
}

/// One site.
#[derive(Debug)]
struct Mark {
    at: u64,
    site: Site,
    position: usize,
    rows: usize,
    /// Of all rows; absent where there is one, which is kept.
    moments: Option<Moments>,
    last: Range<usize>,
}

/// What was seen of a site.
pub(super) struct Seen<'a> {
    /// When, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) site: Site,
    /// Position of the first row in the context.
    pub(super) position: usize,
    pub(super) rows: usize,
    /// Of the values of all rows.
    pub(super) moments: Moments,
    pub(super) last: &'a [f32],
}

impl Step {
    pub(super) fn new(options: Arc<Options>, clock: Clock) -> Self {
        Self {
            options,
            clock,
            position: 0,
            context: 0,
            tokens: Vec::new(),
            began: 0,
            ended: 0,
            whole: false,
            marks: Vec::new(),
            values: Vec::new(),
        }
    }

    /// An empty one of the same kind, with as much room.
    pub(super) fn another(&self) -> Self {
        let mut step = Self::new(Arc::clone(&self.options), self.clock);
        step.marks.reserve_exact(self.marks.capacity());
        step.values.reserve_exact(self.values.capacity());
        step
    }

    /// Sees to room for another step like `other`.
    pub(super) fn grow_to(&mut self, other: &Self) {
        self.marks.reserve(other.marks.len());
        self.values.reserve(other.values.len());
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
            + size_of_val(self.marks.as_slice())
            + size_of_val(self.tokens.as_slice())
    }

    /// Forgets the step before; `tokens` are about to be read from `position` on, in a cache of `context` positions.
    pub(super) fn begin(&mut self, position: usize, tokens: &[u32], context: usize) {
        (self.position, self.context) = (position, context);
        self.tokens.clear();
        self.tokens.extend_from_slice(tokens);
        self.marks.clear();
        self.values.clear();
        self.began = (self.clock)();
    }

    pub(super) fn end(&mut self, whole: bool) {
        self.whole = whole;
        self.ended = (self.clock)();
    }

    /// The sites, in their order.
    pub(super) fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.marks.iter().map(|mark| {
            let last = self.values.get(mark.last.clone()).unwrap_or_default();
            let &Mark { at, site, position, rows, moments, .. } = mark;
            let moments = moments.unwrap_or_else(|| Moments::of(last));
            Seen { at, site, position, rows, moments, last }
        })
    }

    /// The last row at `site`, where it was seen last.
    pub(super) fn last(&self, site: Site) -> Option<&[f32]> {
        let mark = self.marks.iter().rev().find(|mark| mark.site == site)?;
        self.values.get(mark.last.clone())
    }
}

impl Probe for Step {
    fn wants(&self, site: Site) -> bool {
        self.options.has(site)
    }

    fn tap(&mut self, tap: Tap<'_>) {
        let Tap { site, position, rows, values } = tap;
        let width = values.len() / rows.max(1);
        let start = self.values.len();
        self.values.extend_from_slice(&values[values.len() - width..]);
        let moments = (rows != 1).then(|| Moments::of(values));
        let last = start..self.values.len();
        self.marks.push(Mark { at: (self.clock)(), site, position, rows, moments, last });
    }
}
