//! Two sides in turns, A B B A: drift between neighbours cancels out.

use apr_harness::bench::Ratio;
use serde::Serialize;

use crate::failure::Result;

/// Nanoseconds of runs in turns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turns {
    /// Ours.
    pub ours: Vec<f64>,
    /// Theirs.
    pub theirs: Vec<f64>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Our engine's.
    Ours,
    /// The other side's.
    Theirs,
}

/// The turns of a round: two pairs, the second mirrored.
pub const ROUND: [Turn; 4] = [Turn::Ours, Turn::Theirs, Turn::Theirs, Turn::Ours];

impl Turns {
    /// One round of runs, each of which tells its nanoseconds.
    ///
    /// # Errors
    /// Those of a run; the round then counts for nothing.
    pub fn round(&mut self, mut run: impl FnMut(Turn) -> Result<f64>) -> Result<()> {
        let mut times = [0.0; ROUND.len()];
        for (time, turn) in times.iter_mut().zip(ROUND) {
            *time = run(turn)?;
        }
        for (time, turn) in times.into_iter().zip(ROUND) {
            match turn {
                Turn::Ours => self.ours.push(time),
                Turn::Theirs => self.theirs.push(time),
            }
        }
        Ok(())
    }

    /// How many times as fast we are, over the pairs: the first of ours stands beside the first of theirs, and so on.
    pub fn ratio(&self) -> Option<Ratio> {
        let pairs = self.ours.iter().zip(&self.theirs);
        let slowdowns: Vec<f64> = pairs.map(|(ours, theirs)| (ours / theirs).ln()).collect();
        Ratio::of(&slowdowns)
    }
}

/// A median between its quartiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quartiles {
    /// A quarter lies below.
    pub lower: f64,
    /// Half lies below.
    pub median: f64,
    /// Three quarters lie below.
    pub upper: f64,
}

impl Quartiles {
    /// Of `values`, between neighbours in proportion; `None` without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let low = place.floor() as usize;
            let high = (low + 1).min(last);
            sorted[low] + (place - low as f64) * (sorted[high] - sorted[low])
        };
        Some(Self { lower: at(0.25), median: at(0.5), upper: at(0.75) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn a_round_goes_a_b_b_a_and_pairs_stand_side_by_side() {
        let mut order = Vec::new();
        let mut turns = Turns::default();
        for _ in 0..2 {
            turns
                .round(|turn| {
                    order.push(turn);
                    Ok(order.len() as f64)
                })
                .unwrap();
        }
        let one = [Turn::Ours, Turn::Theirs, Turn::Theirs, Turn::Ours];
        assert_eq!(order, [one, one].concat());
        assert_eq!(turns.ours, [1.0, 4.0, 5.0, 8.0]);
        assert_eq!(turns.theirs, [2.0, 3.0, 6.0, 7.0]);
    }

    #[test]
    fn a_steady_drift_is_not_taken_for_a_difference() {
        let (mut turns, mut now) = (Turns::default(), 100.0);
        for _ in 0..10 {
            turns
                .round(|_| {
                    now *= 1.05;
                    Ok(now)
                })
                .unwrap();
        }
        let ratio = turns.ratio().unwrap();
        assert!((ratio.ratio - 1.0).abs() < 1e-9, "{ratio:?}");
        assert_eq!(ratio.pairs, 20);
    }

    #[test]
    fn half_the_time_is_twice_as_fast() {
        let mut turns = Turns::default();
        for _ in 0..8 {
            turns.round(|turn| Ok(if turn == Turn::Ours { 5.0 } else { 10.0 })).unwrap();
        }
        assert!((turns.ratio().unwrap().ratio - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_round_that_failed_counts_for_nothing() {
        let mut turns = Turns::default();
        let mut left = 3;
        let run = |_| {
            left -= 1;
            if left == 0 { Err(Failure::Usage("no more".to_owned())) } else { Ok(1.0) }
        };
        assert!(turns.round(run).is_err());
        assert_eq!(turns, Turns::default());
        assert_eq!(turns.ratio(), None);
    }

    #[test]
    fn quartiles_are_those_of_the_sorted_values() {
        let found = Quartiles::of([4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!(found, Quartiles { lower: 2.0, median: 3.0, upper: 4.0 });
        let alone = Quartiles { lower: 7.0, median: 7.0, upper: 7.0 };
        assert_eq!(Quartiles::of([7.0]), Some(alone));
        assert_eq!(Quartiles::of([]), None);
    }
}
