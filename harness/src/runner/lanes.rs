//! Two lanes: cases that share the machine, then cases that want it alone.
//!
//! Finished cases are handed on in the order in which they were taken up, whatever order they end in, so that reports of one plan
//! read alike. A panic of a judge is a broken case, never a lost one.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::verdict::Verdict;

/// What happens to the case with this index.
pub(super) enum Step {
    /// It begins.
    Started(usize),
    /// It ended.
    Finished(usize, Verdict, Duration),
}

/// Cases that run beside each other, and how. All of it is shared by the workers.
#[derive(Clone, Copy)]
pub(super) struct Lane<'a> {
    /// The cases, in the order in which they are taken up.
    pub(super) indices: &'a [usize],
    /// Threads.
    pub(super) workers: usize,
    /// Looks at the case with this index; may panic.
    pub(super) judge: &'a (dyn Fn(usize) -> Verdict + Sync),
    /// Hears of a verdict before the worker takes up another case.
    pub(super) seen: &'a (dyn Fn(usize, &Verdict) + Sync),
    /// Whether nothing more is to be taken up.
    pub(super) stop: &'a (dyn Fn() -> bool + Sync),
}

impl Lane<'_> {
    /// Runs the lane until it is done or stopped; cases that were taken up are finished.
    pub(super) fn run(&self, on: &mut dyn FnMut(Step)) {
        let next = AtomicUsize::new(0);
        let (send, receive) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.workers.clamp(1, self.indices.len().max(1)) {
                let (send, next) = (send.clone(), &next);
                scope.spawn(move || {
                    self.work(next, &mut |position, step| {
                        // The receiver lives until every sender is gone.
                        let _sent = send.send((position, step));
                    });
                });
            }
            drop(send);
            in_order(receive, on);
        });
    }

    fn work(&self, next: &AtomicUsize, on: &mut dyn FnMut(usize, Step)) {
        while !(self.stop)() {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(&index) = self.indices.get(position) else { return };
            on(position, Step::Started(index));
            let (verdict, duration) = look(index, self.judge);
            (self.seen)(index, &verdict);
            on(position, Step::Finished(index, verdict, duration));
        }
    }
}

/// Holds finished cases back until all that were taken up before them have been handed on.
fn in_order(receive: mpsc::Receiver<(usize, Step)>, on: &mut dyn FnMut(Step)) {
    let (mut held, mut due) = (BTreeMap::new(), 0);
    for (position, step) in receive {
        if matches!(step, Step::Started(_)) {
            on(step);
            continue;
        }
        held.insert(position, step);
        while let Some(step) = held.remove(&due) {
            on(step);
            due += 1;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the runner times its cases")]
fn look(index: usize, judge: &(dyn Fn(usize) -> Verdict + Sync)) -> (Verdict, Duration) {
    let start = Instant::now();
    // A judge owns nothing that outlives its panic but its context, whose locks are poison-tolerant.
    let verdict = catch_unwind(AssertUnwindSafe(|| judge(index))).unwrap_or_else(|panic| {
        Verdict::broken(format!("the judge panicked: {}", reason(&*panic)))
    });
    (verdict, start.elapsed())
}

pub(crate) fn reason(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn finished(
        indices: &[usize],
        workers: usize,
        judge: &(dyn Fn(usize) -> Verdict + Sync),
        stop: &AtomicBool,
    ) -> Vec<(usize, Verdict)> {
        let mut seen = Vec::new();
        let stop = || stop.load(Ordering::Relaxed);
        let lane = Lane { indices, workers, judge, seen: &|_, _| {}, stop: &stop };
        lane.run(&mut |step| {
            if let Step::Finished(index, verdict, _) = step {
                seen.push((index, verdict));
            }
        });
        seen
    }

    #[test]
    fn cases_are_handed_on_in_plan_order_even_when_the_first_ends_last() {
        let barrier = Barrier::new(2);
        // Case 5 cannot end before case 7 has begun.
        let judge = |index: usize| {
            barrier.wait();
            Verdict::broken(index.to_string())
        };
        let seen = finished(&[5, 7, 1, 3], 2, &judge, &AtomicBool::new(false));
        assert_eq!(seen.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [5, 7, 1, 3]);
    }

    #[test]
    fn a_panic_is_a_broken_case_and_the_others_run() {
        let judge = |index: usize| match index {
            1 => panic!("row {index}"),
            _ => Verdict::skipped("x", "y"),
        };
        let seen = finished(&[0, 1, 2], 1, &judge, &AtomicBool::new(false));
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1].1, Verdict::broken("the judge panicked: row 1"));
    }

    #[test]
    fn a_stop_finishes_what_was_begun_and_begins_nothing() {
        let stop = AtomicBool::new(false);
        let judge = |index: usize| {
            stop.store(index == 1, Ordering::Relaxed);
            Verdict::skipped("x", "y")
        };
        assert_eq!(finished(&[0, 1, 2, 3], 1, &judge, &stop).len(), 2);
    }

    #[test]
    fn more_workers_than_cases_is_fine_and_so_is_no_case() {
        let judge = |_: usize| Verdict::skipped("x", "y");
        assert_eq!(finished(&[4], 8, &judge, &AtomicBool::new(false)).len(), 1);
        assert!(finished(&[], 0, &judge, &AtomicBool::new(false)).is_empty());
    }
}
