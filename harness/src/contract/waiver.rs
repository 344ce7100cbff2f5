//! Waivers: falsifications somebody has accepted, with name, reason and last day.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tolerance::Why;

/// A file of waivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Waivers {
    pub(super) waivers: Vec<Waiver>,
}

/// One accepted falsification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Waiver {
    /// Case id, or gate (`contract/gate`) for all its cells.
    pub case: String,
    /// Who accepts.
    pub owner: String,
    /// Why.
    pub reason: Why,
    /// Last day, `YYYY-MM-DD`.
    pub expires: String,
}

impl Waiver {
    /// Whether the waiver speaks of the case `id`.
    pub fn covers(&self, id: &str) -> bool {
        id == self.case || id.strip_prefix(&self.case).is_some_and(|rest| rest.starts_with('@'))
    }

    /// Whether the last day lies before `today` (`YYYY-MM-DD`): dates of this form compare as text.
    pub fn is_expired(&self, today: &str) -> bool {
        self.expires.as_str() < today
    }

    /// What is wrong with the waiver itself.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.owner.trim().is_empty() {
            return Err("a waiver without an owner is nobody's".into());
        }
        if !self.case.contains('/') {
            return Err(format!("{:?} is neither a gate nor a case id", self.case));
        }
        if !is_date(&self.expires) {
            return Err(format!("expires: {:?} is not a date YYYY-MM-DD", self.expires));
        }
        Ok(())
    }
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str, digits: usize| {
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u32>().ok())
            .flatten()
    };
    match parts.as_slice() {
        [year, month, day] => {
            number(year, 4).is_some()
                && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
                && number(day, 2).is_some_and(|day| (1..=31).contains(&day))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_waivers;
    use std::path::Path;

    fn waiver(expires: &str) -> String {
        format!(
            "waivers:\n  - case: parity/simd\n    owner: someone\n    \
             reason: known rounding of one kernel\n    expires: {expires}\n"
        )
    }

    #[test]
    fn a_waiver_covers_its_gate_on_every_cell_and_no_other_gate() {
        let waivers = load_waivers(&waiver("2027-01-31"), Path::new("w.yaml")).unwrap();
        assert!(waivers[0].covers("parity/simd"));
        assert!(waivers[0].covers("parity/simd@golden.apr.simd"));
        assert!(!waivers[0].covers("parity/simd-two@golden"));
    }

    #[test]
    fn a_waiver_ends_after_its_last_day() {
        let waivers = load_waivers(&waiver("2027-01-31"), Path::new("w.yaml")).unwrap();
        assert!(!waivers[0].is_expired("2027-01-31"));
        assert!(waivers[0].is_expired("2027-02-01"));
    }

    #[test]
    fn a_waiver_without_a_real_date_is_refused() {
        for bad in ["never", "2027-13-01", "27-1-1"] {
            let error = load_waivers(&waiver(bad), Path::new("w.yaml")).unwrap_err();
            assert!(error.to_string().contains("not a date"), "{error}");
        }
    }
}
