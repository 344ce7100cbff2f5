//! What the processors did besides us: a busy neighbour does not slow both sides alike.

use std::fs;

/// Clock ticks of all processors, busy or not, those that were busy, and our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    all: u64,
    busy: u64,
    own: u64,
}

impl Ticks {
    /// So far; `None` where the system does not tell.
    pub fn now() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    fn parse(machine: &str, own: &str) -> Option<Self> {
        let line = machine.lines().next()?.strip_prefix("cpu ")?;
        // User, nice, system, idle, waiting, interrupts, soft interrupts, stolen; guests are in the first two already.
        let ticks: Vec<u64> =
            line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let all = ticks.iter().sum();
        let idle: u64 = ticks.get(3..5)?.iter().sum();
        // The name stands in brackets and may hold anything; user and system time are eleven fields behind the state.
        let fields: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self { all, busy: all - idle, own: field(11)? + field(12)? })
    }

    /// The share of the processors that others took since `before`.
    pub fn others_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let busy = self.busy.saturating_sub(before.busy);
        let others = busy.saturating_sub(self.own.saturating_sub(before.own));
        Some(others as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_took_is_told_apart_from_our_own() {
        let own = |ticks: u64| format!("7 (a) b) R 1 1 1 0 -1 0 0 0 0 0 {ticks} 5 0 0 20 0");
        let before = Ticks::parse("cpu  100 0 0 900 0 0 0 0 9 9\ncpu0 1\n", &own(10)).unwrap();
        let after = Ticks::parse("cpu  180 10 10 1000 0 0 0 0 9 9\ncpu0 1\n", &own(60)).unwrap();
        // Two hundred ticks went by, a hundred of them busy, fifty of these ours.
        assert!((after.others_since(before).unwrap() - 0.25).abs() < 1e-12);
        assert_eq!(after.others_since(after), None);
        assert_eq!(Ticks::parse("nothing", &own(1)), None);
    }
}
