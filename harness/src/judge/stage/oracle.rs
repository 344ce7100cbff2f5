//! Each operation against the scalar oracle on the same inputs.
//!
//! Mathematical invariants miss what keeps them: a norm that subtracts the mean still gives rows of length one. The oracle
//! recomputes every operation from the very values that the judged backend had in front of it, and rounds activations as that
//! backend declares that it does. What is left between the two is the order of sums in f32, whatever outliers a model has; an
//! error is seen where it is made, not where it ends up.

use super::{Pass, rounding};
use crate::compare::RowError;
use crate::contract::check::MatchesOracle;
use crate::recording::Recording;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// The row that comes nearest to its limit, or goes furthest beyond.
struct Nearest {
    error: f64,
    limit: f64,
    place: String,
}

impl Nearest {
    fn share(&self) -> f64 {
        self.error / self.limit
    }
}

impl Pass<'_> {
    pub(super) fn matches_oracle(&self, oracle: &Recording, check: &MatchesOracle) -> Verdict {
        let mut worst = Nearest { error: 0.0, limit: check.nmse.get(), place: String::new() };
        let (mut rows, mut values) = (0u64, 0usize);
        for site in self.seen.in_order() {
            if !check.ops.iter().any(|name| name.0 == site.op) {
                continue;
            }
            let expected = oracle.rows(site);
            for (position, found) in self.rows(site).iter().enumerate() {
                let reference = expected.get(position).map(Vec::as_slice).unwrap_or_default();
                // No row of the oracle is as wrong as can be.
                let error =
                    RowError::new(reference, found).map_or(f64::INFINITY, |error| error.nmse);
                rows += 1;
                values += found.len();
                let scores = rounding::of_scores(self, oracle, site, position);
                let limit = check.nmse.get() + scores;
                let here = Nearest { error, limit, place: String::new() };
                let worse = here.share() > worst.share() || here.share().is_nan();
                if worst.place.is_empty() || worse && !worst.share().is_nan() {
                    worst = Nearest { place: format!("{site} row {position}"), ..here };
                }
            }
        }
        let Nearest { error, limit, place } = worst;
        let summary = format!(
            "worst NMSE {error:.2e} of {limit:.1e} over {rows} rows ({values} values) against the oracle on the same inputs, at {place}"
        );
        Evidence::new(rows, summary)
            .measure(Measure::judged("nmse-worst-row", error, Limit::AtMost(limit)))
            .verdict()
    }
}
