//! Each operation against the scalar oracle on the same inputs.
//!
//! Mathematical invariants miss what keeps them: a norm that subtracts the mean still gives rows of length one. The oracle
//! recomputes every operation from the very values that the judged backend had in front of it, so an error is seen where it is
//! made, not where it ends up.

use apr_engine::model::{Role, Slot};
use apr_engine::probe::Site;

use super::super::context::BackendSpec;
use super::Pass;
use crate::compare::RowError;
use crate::contract::check::MatchesOracle;
use crate::recording::Recording;
use crate::rosetta::allowance::product;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// The row that comes nearest to its limit, or goes furthest beyond.
struct Nearest {
    error: f64,
    limit: f64,
    place: String,
}

impl Pass<'_> {
    pub(super) fn matches_oracle(
        &self,
        oracle: &Recording,
        spec: &BackendSpec,
        check: &MatchesOracle,
    ) -> Verdict {
        let mut worst = Nearest { error: 0.0, limit: check.nmse_plain.get(), place: String::new() };
        let (mut rows, mut values) = (0u64, 0usize);
        for site in self.seen.in_order() {
            if !check.ops.iter().any(|name| name.0 == site.op) {
                continue;
            }
            let rounds = self.rounds_activations(site, spec);
            let limit = if rounds { check.nmse_blocks } else { check.nmse_plain }.get();
            let expected = oracle.rows(site);
            for (position, found) in self.rows(site).iter().enumerate() {
                let reference = expected.get(position).map(Vec::as_slice).unwrap_or_default();
                // No row of the oracle is as wrong as can be.
                let error =
                    RowError::new(reference, found).map_or(f64::INFINITY, |error| error.nmse);
                rows += 1;
                values += found.len();
                if worst.place.is_empty() || error / limit > worst.error / worst.limit {
                    worst = Nearest { error, limit, place: format!("{site} row {position}") };
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

    /// Whether a backend other than the oracle rounds what it multiplies the weights of `site` with.
    fn rounds_activations(&self, site: Site, spec: &BackendSpec) -> bool {
        let Some(role) = product(site.op) else { return false };
        let tied = role == Role::Head && self.model.weights().tied();
        let role = if tied { Role::Embed } else { role };
        let weight = self.model.weights().get(Slot { layer: site.layer, role });
        spec.backend != "scalar" && weight.is_some_and(|entry| entry.tensor.dtype().is_quantized())
    }
}
