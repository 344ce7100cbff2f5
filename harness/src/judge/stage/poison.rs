//! Values that no healthy pass gives: exploding, collapsed, constant, always the same winner.

use std::collections::BTreeMap;

use apr_engine::probe::Op;

use super::Pass;
use super::worst::Worst;
use crate::compare::lead;
use crate::contract::check::RowSpread;
use crate::contract::tolerance::{AtLeast, AtMost};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Rows at the front whose attention has too little to choose from.
const FEW_POSITIONS: usize = 4;

impl Pass<'_> {
    pub(super) fn bounded(&self, bound: &AtMost) -> Verdict {
        let mut worst = Worst::largest();
        for site in self.seen.in_order() {
            for (position, row) in self.rows(site).iter().enumerate() {
                // Unlike a maximum over floats, this keeps a NaN.
                let largest = row.iter().fold(0.0f64, |largest, value| {
                    let size = f64::from(value.abs());
                    if size > largest || size.is_nan() { size } else { largest }
                });
                worst.add(largest, || format!("{site} row {position}"));
            }
        }
        worst.at_most("magnitude", bound)
    }

    /// The standard deviation within each row; probabilities are no activations.
    pub(super) fn row_spread(&self, check: &RowSpread) -> Verdict {
        let mut worst = Worst::smallest();
        for site in self.seen.in_order() {
            let named = check.ops.iter().any(|name| name.0 == site.op);
            if site.op == Op::AttnScores || !(named || check.ops.is_empty()) {
                continue;
            }
            for (position, row) in self.rows(site).iter().enumerate() {
                worst.add(deviation(row), || format!("{site} row {position}"));
            }
        }
        let bound = AtLeast { at_least: check.at_least, why: check.why.clone() };
        worst.at_least("standard deviation within a row", &bound)
    }

    /// The mean entropy over rows and heads of each layer; the least of the layers.
    pub(super) fn attention_entropy(&self, bound: &AtLeast) -> Verdict {
        let mut worst = Worst::smallest();
        for (site, rows) in self.layers(Op::AttnScores) {
            let (mut sum, mut count) = (0.0, 0u32);
            for row in rows.iter().skip(FEW_POSITIONS) {
                for scores in row.chunks_exact((row.len() / self.config.heads).max(1)) {
                    let plain = scores.iter().map(|score| f64::from(*score));
                    // A weight of zero adds nothing; one that is not a number must not vanish.
                    let term = |score: f64| if score == 0.0 { 0.0 } else { -score * score.ln() };
                    sum += plain.map(term).sum::<f64>();
                    count += 1;
                }
            }
            if count > 0 {
                worst.add(sum / f64::from(count), || site.to_string());
            }
        }
        worst.at_least("mean entropy of a layer in nats", bound)
    }

    /// The largest share of positions at which one and the same id has the largest logit.
    pub(super) fn no_favourite(&self, bound: &AtMost) -> Verdict {
        let mut wins: BTreeMap<usize, u32> = BTreeMap::new();
        let rows = self.logits();
        for best in rows.iter().filter_map(|row| lead(row)) {
            *wins.entry(best.0).or_default() += 1;
        }
        let most = wins.iter().max_by_key(|(_, wins)| **wins);
        let (id, wins) = most.map_or((0, 0), |(id, wins)| (*id, *wins));
        let share = f64::from(wins) / rows.len() as f64;
        let summary =
            format!("id {id} has the largest logit at {wins} of {} positions", rows.len());
        // One position has one winner, whatever the model.
        let compared = if rows.len() > 1 { rows.len() as u64 } else { 0 };
        Evidence::new(compared, summary)
            .measure(Measure::judged("share of one id", share, Limit::AtMost(bound.at_most.get())))
            .verdict()
    }
}

/// Standard deviation of the values of a row.
pub(super) fn deviation(row: &[f32]) -> f64 {
    let count = row.len() as f64;
    let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let squares = row.iter().map(|value| (f64::from(*value) - mean).powi(2));
    (squares.sum::<f64>() / count).sqrt()
}
