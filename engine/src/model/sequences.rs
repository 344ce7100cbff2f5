//! Sequences that are computed side by side: their state, and which rows of a pass are whose.

use std::ops::Range;

use super::lm::SequenceTokens;

/// A sequence of tokens in a cache of its own.
#[derive(Debug)]
pub(super) struct Sequence<K> {
    pub(super) kv: K,
    /// The tokens in the cache; the next one stands at the position behind them.
    pub(super) seen: Vec<u32>,
    /// Whether the keys in the cache were rotated as those of a long text.
    pub(super) long: bool,
}

impl<K> Sequence<K> {
    /// Nothing in `kv` yet.
    pub(super) fn new(kv: K) -> Self {
        Self { kv, seen: Vec::new(), long: false }
    }

    /// `rows` rows from row `first_row` on, behind what this sequence, number `sequence`, has seen.
    pub(super) fn run(&self, sequence: usize, first_row: usize, rows: usize) -> Run {
        Run { sequence, first_row, rows, position: self.seen.len(), long: self.long }
    }
}

/// Rows of a pass, one behind the other, that belong to one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Number of the sequence.
    pub(super) sequence: usize,
    /// First row in the pass.
    pub(super) first_row: usize,
    /// Rows; at least 1.
    pub(super) rows: usize,
    /// Position of the first row in the sequence.
    pub(super) position: usize,
    /// Whether the sequence is a long text.
    pub(super) long: bool,
}

impl Run {
    /// Its rows in the pass.
    pub(super) fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.rows
    }
}

/// Tokens of several sequences that are computed together.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) tokens: Vec<u32>,
    /// Whose they are, in order.
    pub(super) runs: Vec<Run>,
    /// Rows whose logits are wanted: those of the last tokens.
    pub(super) wanted: Vec<Range<usize>>,
}

/// Cuts a batch into passes of a limited number of rows, in its order.
pub(super) struct Packing<'a> {
    left: Vec<SequenceTokens<'a>>,
    rows_max: usize,
}

impl<'a> Packing<'a> {
    /// Passes of at most `rows_max` rows, which must not be 0.
    pub(super) fn new(batch: &[SequenceTokens<'a>], rows_max: usize) -> Self {
        let mut left = batch.to_vec();
        left.reverse();
        Self { left, rows_max }
    }

    /// The next pass, behind what `sequences` have seen; `None` when all is packed.
    pub(super) fn next<K>(&mut self, sequences: &[Sequence<K>]) -> Option<Packed> {
        let mut packed = Packed::default();
        while let Some(part) = self.left.pop() {
            let (first_row, room) = (packed.tokens.len(), self.rows_max - packed.tokens.len());
            let (now, later) = part.tokens.split_at(part.tokens.len().min(room));
            if !now.is_empty() {
                packed.tokens.extend_from_slice(now);
                let run = sequences[part.sequence].run(part.sequence, first_row, now.len());
                packed.runs.push(run);
            }
            if !later.is_empty() {
                self.left.push(SequenceTokens { tokens: later, ..part });
                break;
            }
            want(&mut packed.wanted, packed.tokens.len() - 1);
        }
        (!packed.tokens.is_empty()).then_some(packed)
    }
}

/// Takes `row` in, together with the row before it.
fn want(wanted: &mut Vec<Range<usize>>, row: usize) {
    match wanted.last_mut() {
        Some(rows) if rows.end == row => rows.end = row + 1,
        _ => wanted.push(row..row + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of runs by sequence, and first and last of the rows whose logits are wanted, pass by pass.
    type Passes = Vec<(Vec<(usize, usize)>, Vec<(usize, usize)>)>;

    fn passes(lengths: &[usize], rows_max: usize) -> Passes {
        let mut sequences: Vec<Sequence<()>> = lengths.iter().map(|_| Sequence::new(())).collect();
        let tokens = [7; 16];
        let batch: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(sequence, &len)| SequenceTokens { sequence, tokens: &tokens[..len] })
            .collect();
        let mut packing = Packing::new(&batch, rows_max);
        let mut all = Vec::new();
        while let Some(packed) = packing.next(&sequences) {
            for run in &packed.runs {
                assert_eq!(run.position, sequences[run.sequence].seen.len());
                sequences[run.sequence].seen.extend_from_slice(&packed.tokens[run.rows()]);
            }
            let runs = packed.runs.iter().map(|run| (run.sequence, run.rows)).collect();
            let wanted = packed.wanted.iter().map(|rows| (rows.start, rows.end - 1)).collect();
            all.push((runs, wanted));
        }
        let seen: Vec<usize> = sequences.iter().map(|sequence| sequence.seen.len()).collect();
        assert_eq!(seen, lengths, "every token once");
        all
    }

    #[test]
    fn single_tokens_share_a_pass_and_their_rows_of_logits_lie_together() {
        assert_eq!(passes(&[1, 1, 1], 8), [(vec![(0, 1), (1, 1), (2, 1)], vec![(0, 2)])]);
    }

    #[test]
    fn a_long_part_is_cut_and_only_its_end_has_logits() {
        let first = (vec![(0, 1), (1, 3)], vec![(0, 0)]);
        let second = (vec![(1, 2), (2, 2)], vec![(1, 1), (3, 3)]);
        assert_eq!(passes(&[1, 5, 2], 4), [first, second]);
    }

    #[test]
    fn a_pass_that_is_full_leaves_the_next_sequence_to_the_next() {
        let (first, second) = ((vec![(0, 2)], vec![(1, 1)]), (vec![(1, 2)], vec![(1, 1)]));
        assert_eq!(passes(&[2, 2], 2), [first, second]);
        assert_eq!(passes(&[], 2), []);
    }
}
