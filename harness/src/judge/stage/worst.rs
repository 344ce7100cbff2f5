//! The worst of many values and where it stands.

use crate::contract::tolerance::{AtLeast, AtMost};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// The worst value of a measure over many places, and where it stands.
pub(super) struct Worst {
    value: f64,
    place: String,
    count: u64,
    larger_is_worse: bool,
}

impl Worst {
    pub(super) fn largest() -> Self {
        Self { value: f64::NEG_INFINITY, place: String::new(), count: 0, larger_is_worse: true }
    }

    pub(super) fn smallest() -> Self {
        Self { value: f64::INFINITY, larger_is_worse: false, ..Self::largest() }
    }

    /// Takes one more value; a NaN is the worst of all and stays.
    pub(super) fn add(&mut self, value: f64, place: impl FnOnce() -> String) {
        self.count += 1;
        let worse = if self.larger_is_worse { value > self.value } else { value < self.value };
        if (worse || value.is_nan()) && !self.value.is_nan() {
            self.value = value;
            self.place = place();
        }
    }

    pub(super) fn at_most(self, name: &str, bound: &AtMost) -> Verdict {
        self.judge(name, Limit::AtMost(bound.at_most.get()), bound.at_most.get())
    }

    pub(super) fn at_least(self, name: &str, bound: &AtLeast) -> Verdict {
        self.judge(name, Limit::AtLeast(bound.at_least.get()), bound.at_least.get())
    }

    pub(super) fn judge(self, name: &str, limit: Limit, bound: f64) -> Verdict {
        let summary = format!(
            "worst {name} {:.3e}, bound {bound:.1e}, over {} places, at {}",
            self.value, self.count, self.place
        );
        Evidence::new(self.count, summary)
            .measure(Measure::judged(name, self.value, limit))
            .verdict()
    }
}
