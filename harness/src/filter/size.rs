//! Bounds of numbers: `<1e9`, `>=500M`, `=22`.

use std::fmt;

/// A bound and the side of it that is meant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Size {
    comparison: Comparison,
    bound: f64,
}

/// How a number is compared with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtMost,
    AtLeast,
    Below,
    Above,
    Exactly,
}

/// The longer signs first: each is tried in this order.
const SIGNS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Below),
    (">", Comparison::Above),
    ("=", Comparison::Exactly),
];

/// Powers of a thousand.
const UNITS: [(&str, f64); 4] = [("k", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12)];

impl Size {
    /// The bound that `text` is; without a sign the number itself is meant. `None` when it is no finite number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let signed =
            |(sign, it): &(&str, Comparison)| text.strip_prefix(sign).map(|rest| (rest, *it));
        let (number, comparison) =
            SIGNS.iter().find_map(signed).unwrap_or((text, Comparison::Exactly));
        let number = number.trim();
        let scaled = |(unit, it): &(&str, f64)| number.strip_suffix(unit).map(|rest| (rest, *it));
        let (digits, unit) = UNITS.iter().find_map(scaled).unwrap_or((number, 1.0));
        let bound = digits.trim().parse::<f64>().ok()? * unit;
        bound.is_finite().then_some(Self { comparison, bound })
    }

    /// Whether `number` is on the side that is meant.
    pub(super) fn holds(&self, number: f64) -> bool {
        match self.comparison {
            Comparison::Below => number < self.bound,
            Comparison::AtMost => number <= self.bound,
            Comparison::Above => number > self.bound,
            Comparison::AtLeast => number >= self.bound,
            Comparison::Exactly => number.total_cmp(&self.bound).is_eq(),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = SIGNS.iter().find(|(_, comparison)| *comparison == self.comparison);
        write!(f, "{}{}", sign.map_or("", |(sign, _)| sign), self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_compared_as_numbers() {
        let holds = |text: &str| Size::parse(text).unwrap().holds(494_032_768.0);
        for yes in ["<1e9", "< 1B", ">=494M", "<=494032768", "494032768"] {
            assert!(holds(yes), "{yes}");
        }
        for no in [">1e9", "<400M", "=494M", ">=1T"] {
            assert!(!holds(no), "{no}");
        }
        for wrong in ["small", "", "<", "<inf", "M", "<1e400"] {
            assert_eq!(Size::parse(wrong), None, "{wrong}");
        }
    }
}
