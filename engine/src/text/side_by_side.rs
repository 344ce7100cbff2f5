//! The parts of a large vocabulary, read on two threads.

/// Entries of a vocabulary that are worth a thread, which costs time and, with its stack, memory.
const MANY: usize = 1 << 14;

/// What both return. The second runs on a thread of its own where `entries` are many and one can be had: vocabularies have a
/// hundred thousand entries and more.
pub(super) fn side_by_side<A, B: Send>(
    entries: usize,
    first: impl FnOnce() -> A,
    second: impl Fn() -> B + Sync,
) -> (A, B) {
    if entries < MANY {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        let Ok(other) = std::thread::Builder::new().spawn_scoped(scope, &second) else {
            return (first(), second());
        };
        let first = first();
        (first, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
