//! Counts of instructions against their baseline.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Instructions by kernel.
pub type Counts = BTreeMap<String, u64>;

/// Largest growth of a count, as a share.
const GROWTH_AT_MOST: f64 = 0.005;

/// A line per kernel, and whether all are held: none has grown by more than half a per cent, none is new, none is gone, and
/// there is one.
pub fn compared(counts: &Counts, baseline: &Counts) -> (String, bool) {
    let (mut table, mut held) = (String::new(), !counts.is_empty());
    for (name, &count) in counts {
        let growth = baseline.get(name).map(|before| count as f64 / *before as f64 - 1.0);
        let kept = growth.is_some_and(|growth| growth <= GROWTH_AT_MOST);
        held &= kept;
        let growth = growth.map_or("no baseline".to_owned(), |g| format!("{:+.2} %", 100.0 * g));
        let verdict = if kept { "" } else { "  RED" };
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{name:<20} {count:>12} {growth:>12}{verdict}");
    }
    for name in baseline.keys().filter(|name| !counts.contains_key(*name)) {
        held = false;
        let _ = writeln!(table, "{name:<20} {:>12} {:>12}  RED", "-", "not counted");
    }
    (table, held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_kernel_may_shrink_and_grow_by_half_a_per_cent_and_no_more() {
        let held = |count| compared(&counts(&[("a", count)]), &counts(&[("a", 1000)])).1;
        assert_eq!([500, 1000, 1005, 1006, 2000].map(held), [true, true, true, false, false]);
    }

    #[test]
    fn a_kernel_without_a_baseline_a_lost_one_and_no_kernel_at_all_are_red() {
        let two = counts(&[("a", 1), ("b", 1)]);
        assert!(!compared(&two, &counts(&[("a", 1)])).1);
        assert!(!compared(&counts(&[("a", 1)]), &two).1);
        assert!(!compared(&Counts::new(), &Counts::new()).1);
        // Nothing can be said of a count against nothing.
        assert!(!compared(&counts(&[("a", 1)]), &counts(&[("a", 0)])).1);
    }

    #[test]
    fn the_table_names_what_is_red() {
        let (table, _) = compared(&counts(&[("a", 1), ("b", 9)]), &counts(&[("a", 1), ("b", 1)]));
        let red: Vec<&str> = table.lines().filter(|line| line.ends_with("RED")).collect();
        assert_eq!(red.len(), 1);
        assert!(red[0].starts_with('b') && red[0].contains("+800.00 %"), "{table}");
    }
}
