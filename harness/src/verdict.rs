//! What a judge says about a case, and the numbers behind it.
//!
//! Only [`Verdict::Corroborated`] is evidence for a claim, and it cannot be made without a denominator: an
//! [`Evidence`] over zero comparisons becomes [`Verdict::Broken`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number that was measured, with the limit it was held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measure {
    /// What was measured, for example `nmse-worst-row`.
    pub name: String,
    /// The value; `None` when it was not finite (JSON has no NaN, and a NaN is never a value).
    pub value: Option<f64>,
    /// Unit, empty for a pure number.
    #[serde(default)]
    pub unit: String,
    /// The limit, when the measure is judged.
    #[serde(default)]
    pub limit: Option<Limit>,
}

/// The bound of a judged measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The value must not be above.
    AtMost(f64),
    /// The value must not be below.
    AtLeast(f64),
    /// The value must be exactly this.
    Exactly(f64),
}

impl Limit {
    /// Whether `value` keeps the limit; a NaN keeps none.
    #[expect(clippy::float_cmp, reason = "an exact limit is exact")]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Exactly(limit) => value == limit,
        }
    }

    /// How much of the allowed room is left, 1 = all, 0 = none, negative = broken; only for `AtMost` with a positive limit
    /// and `AtLeast` with a positive value.
    pub fn margin(self, value: f64) -> Option<f64> {
        match self {
            Self::AtMost(limit) if limit > 0.0 => Some(1.0 - value / limit),
            Self::AtLeast(limit) if value > 0.0 => Some(1.0 - limit / value),
            Self::AtMost(_) | Self::AtLeast(_) | Self::Exactly(_) => None,
        }
    }
}

impl Measure {
    /// A judged measure.
    pub fn judged(name: impl Into<String>, value: f64, limit: Limit) -> Self {
        Self { name: name.into(), value: finite(value), unit: String::new(), limit: Some(limit) }
    }

    /// A measure that is only reported.
    pub fn noted(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value: finite(value), unit: String::new(), limit: None }
    }

    /// Adds the unit.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// Whether the measure keeps its limit. No limit always holds; a value that was not finite never does.
    pub fn holds(&self) -> bool {
        match (self.limit, self.value) {
            (None, _) => true,
            (Some(limit), Some(value)) => limit.holds(value),
            (Some(_), None) => false,
        }
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// The numbers behind a verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// One line for a person, with the denominator: "worst NMSE 3.1e-6 of 1e-4 over 2048 rows".
    pub summary: String,
    /// How many things were compared. Zero is never evidence.
    pub comparisons: u64,
    /// The measured numbers.
    #[serde(default)]
    pub measures: Vec<Measure>,
    /// Further lines: the first counterexamples, outputs, paths.
    #[serde(default)]
    pub details: Vec<String>,
}

impl Evidence {
    /// Evidence over `comparisons` comparisons.
    pub fn new(comparisons: u64, summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), comparisons, measures: Vec::new(), details: Vec::new() }
    }

    /// Adds a measure.
    #[must_use]
    pub fn measure(mut self, measure: Measure) -> Self {
        self.measures.push(measure);
        self
    }

    /// Adds a detail line.
    #[must_use]
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// The verdict that this evidence supports: broken without comparisons, falsified when a judged measure fails
    /// its limit, corroborated otherwise.
    pub fn verdict(self) -> Verdict {
        if self.comparisons == 0 {
            return Verdict::broken(format!("nothing was compared: {}", self.summary));
        }
        let judged = self.measures.iter().any(|measure| measure.limit.is_some());
        if !judged {
            return Verdict::broken(format!(
                "no measure was held against a limit: {}",
                self.summary
            ));
        }
        if self.measures.iter().all(Measure::holds) {
            Verdict::Corroborated(self)
        } else {
            Verdict::Falsified(self)
        }
    }
}

/// What a judge says about a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The claim was exposed to refutation and survived.
    Corroborated(Evidence),
    /// The claim was refuted; the evidence is the counterexample.
    Falsified(Evidence),
    /// The measurement could not decide (noise, budget).
    Inconclusive(Evidence),
    /// A need was not met, so nothing was measured.
    Skipped {
        /// The machine-readable need, for example `cuda`.
        need: String,
        /// Why it is not met.
        why: String,
    },
    /// A falsification that somebody has accepted until a date.
    Waived {
        /// Who.
        owner: String,
        /// Why.
        reason: String,
        /// Last day, `YYYY-MM-DD`.
        expires: String,
        /// What was falsified.
        evidence: Evidence,
    },
    /// The harness or the environment failed: never evidence either way.
    Broken {
        /// What failed.
        error: String,
    },
}

/// The name of a [`Verdict`] without its contents.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictKind {
    /// See [`Verdict::Corroborated`].
    Corroborated,
    /// See [`Verdict::Falsified`].
    Falsified,
    /// See [`Verdict::Inconclusive`].
    Inconclusive,
    /// See [`Verdict::Skipped`].
    Skipped,
    /// See [`Verdict::Waived`].
    Waived,
    /// See [`Verdict::Broken`].
    Broken,
}

impl VerdictKind {
    /// Every kind, in report order.
    pub const ALL: [Self; 6] = [
        Self::Corroborated,
        Self::Falsified,
        Self::Inconclusive,
        Self::Skipped,
        Self::Waived,
        Self::Broken,
    ];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corroborated => "corroborated",
            Self::Falsified => "falsified",
            Self::Inconclusive => "inconclusive",
            Self::Skipped => "skipped",
            Self::Waived => "waived",
            Self::Broken => "broken",
        }
    }
}

impl Verdict {
    /// A broken verdict.
    pub fn broken(error: impl Into<String>) -> Self {
        Self::Broken { error: error.into() }
    }

    /// A skip that names its unmet need.
    pub fn skipped(need: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Skipped { need: need.into(), why: why.into() }
    }

    /// The kind.
    pub const fn kind(&self) -> VerdictKind {
        match self {
            Self::Corroborated(_) => VerdictKind::Corroborated,
            Self::Falsified(_) => VerdictKind::Falsified,
            Self::Inconclusive(_) => VerdictKind::Inconclusive,
            Self::Skipped { .. } => VerdictKind::Skipped,
            Self::Waived { .. } => VerdictKind::Waived,
            Self::Broken { .. } => VerdictKind::Broken,
        }
    }

    /// The evidence, when the verdict rests on some.
    pub const fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Corroborated(evidence)
            | Self::Falsified(evidence)
            | Self::Inconclusive(evidence)
            | Self::Waived { evidence, .. } => Some(evidence),
            Self::Skipped { .. } | Self::Broken { .. } => None,
        }
    }

    /// The verdict, unless it is a corroboration that its own evidence does not support: then the judge is broken. What
    /// returns verdicts may be wrong like anything else, so a green one is weighed once more before it counts.
    #[must_use]
    pub fn weighed(self) -> Self {
        let Self::Corroborated(evidence) = self else { return self };
        match evidence.clone().verdict() {
            Self::Corroborated(_) => Self::Corroborated(evidence),
            Self::Broken { error } => Self::broken(format!("corroborated although {error}")),
            _ => {
                let summary = &evidence.summary;
                Self::broken(format!("corroborated although the evidence refutes it: {summary}"))
            }
        }
    }

    /// One line for a person.
    pub fn summary(&self) -> String {
        match self {
            Self::Corroborated(evidence)
            | Self::Falsified(evidence)
            | Self::Inconclusive(evidence) => evidence.summary.clone(),
            Self::Skipped { need, why } => format!("needs {need}: {why}"),
            Self::Waived { owner, reason, expires, evidence } => {
                format!("{} (waived by {owner} until {expires}: {reason})", evidence.summary)
            }
            Self::Broken { error } => error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_without_comparisons_is_broken_not_corroborated() {
        let evidence = Evidence::new(0, "0 of 0 kernel pairs").measure(Measure::judged(
            "error",
            0.0,
            Limit::AtMost(1.0),
        ));
        assert_eq!(evidence.verdict().kind(), VerdictKind::Broken);
    }

    #[test]
    fn evidence_without_a_judged_measure_is_broken() {
        let evidence = Evidence::new(7, "seven things").measure(Measure::noted("seen", 7.0));
        assert_eq!(evidence.verdict().kind(), VerdictKind::Broken);
    }

    #[test]
    fn a_nan_measure_falsifies() {
        for limit in [Limit::AtMost(1.0), Limit::AtLeast(0.0), Limit::Exactly(0.0)] {
            let evidence =
                Evidence::new(1, "one").measure(Measure::judged("error", f64::NAN, limit));
            assert_eq!(evidence.verdict().kind(), VerdictKind::Falsified);
        }
    }

    #[test]
    fn a_corroboration_that_its_evidence_does_not_support_is_broken() {
        let judged = |value| Measure::judged("error", value, Limit::AtMost(1.0));
        let none = Evidence::new(0, "none").measure(judged(0.5));
        let unjudged = Evidence::new(1, "one");
        let refuted = Evidence::new(1, "one").measure(judged(2.0));
        let nan = Evidence::new(1, "one").measure(judged(f64::NAN));
        for evidence in [none, unjudged, refuted, nan] {
            let weighed = Verdict::Corroborated(evidence.clone()).weighed();
            assert_eq!(weighed.kind(), VerdictKind::Broken, "{evidence:?}");
        }
        let supported = Verdict::Corroborated(Evidence::new(1, "one").measure(judged(0.5)));
        assert_eq!(supported.clone().weighed(), supported);
        assert_eq!(Verdict::skipped("a", "b").weighed(), Verdict::skipped("a", "b"));
    }

    #[test]
    fn a_kept_limit_corroborates() {
        let evidence =
            Evidence::new(1, "one").measure(Measure::judged("e", 0.5, Limit::AtMost(1.0)));
        assert_eq!(evidence.verdict().kind(), VerdictKind::Corroborated);
    }
}
