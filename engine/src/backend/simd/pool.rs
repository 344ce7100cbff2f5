//! Splitting work over threads without letting the split show in the numbers.
//!
//! Every task writes a range of its own and computes each value as it would alone, so the number of
//! threads and the order of tasks change nothing.
//!
//! A token is a few hundred short pieces of work, some of a few microseconds: waking a thread from sleep takes longer than
//! most of them. So the calling thread takes part, and its helpers go on looking for the next piece for a
//! while before they sleep.

#![expect(unsafe_code, reason = "helpers borrow from the caller, who waits for them")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{Builder, JoinHandle};
use std::vec;

use crate::error::{Code, Error, Result};

/// Most threads of one backend.
const THREADS_MAX: usize = 1024;
/// Below this many multiply-adds a second thread is not worth its call: on a quiet machine a quarter is gained at most, and
/// where anything else runs, be it the listener of a trace, the caller waits for a helper that is not on a processor, and twice
/// the time goes (a model 256 wide, measured; at 896 and up no difference is seen).
pub(super) const WORK_MIN: usize = 1 << 19;
/// Tasks per thread, so that a thread that was held up does not hold up the rest.
const TASKS_PER_THREAD: usize = 4;
/// Looks for the next piece of work before a helper sleeps: some tens of microseconds.
const LOOKS: usize = 1 << 10;
/// Looks of the caller for the end of its helpers before it lets others have the processor.
const LOOKS_FOR_THE_END: usize = 1 << 12;

/// A fixed number of threads: the caller's and its helpers.
pub(super) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    count: usize,
}

/// What every thread does of a piece of work.
type Work<'a> = &'a (dyn Fn() + Sync);

#[derive(Default)]
struct Shared {
    /// Held by whoever has work done.
    busy: Mutex<()>,
    /// Number of the piece of work.
    number: AtomicUsize,
    work: Mutex<Option<Work<'static>>>,
    /// Helpers that have not finished it.
    left: AtomicUsize,
    /// What a helper panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    end: AtomicBool,
}

impl Pool {
    /// A pool of `count` threads.
    ///
    /// # Errors
    /// [`Code::DeviceUnavailable`] when the number is out of range or the threads cannot be started.
    pub(super) fn new(count: usize) -> Result<Self> {
        let error = || Error::new(Code::DeviceUnavailable).field("threads");
        if count == 0 || count > THREADS_MAX {
            return Err(error().expected(format_args!("1 to {THREADS_MAX}")).found(count));
        }
        let mut pool = Self { shared: Arc::default(), helpers: Vec::new(), count };
        for index in 1..count {
            let shared = Arc::clone(&pool.shared);
            let named = Builder::new().name(format!("simd-{index}"));
            let helper = named.spawn(move || shared.help());
            pool.helpers.push(helper.map_err(|cause| error().expected("threads").found(cause))?);
        }
        Ok(pool)
    }

    /// Number of threads.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Outputs per task when `outputs` of them are shared out.
    pub(super) fn tile(&self, outputs: usize) -> usize {
        outputs.div_ceil(self.count * TASKS_PER_THREAD).max(1)
    }

    /// Runs `task` on every item; in parallel when `work`, in multiply-adds, is worth it.
    pub(super) fn each<T: Send>(
        &self,
        items: Vec<T>,
        work: usize,
        task: impl Fn(T) -> Result<()> + Send + Sync,
    ) -> Result<()> {
        if self.helpers.is_empty() || work < WORK_MIN || items.len() < 2 {
            return items.into_iter().try_for_each(task);
        }
        let _busy = match self.shared.busy.try_lock() {
            Ok(busy) => busy,
            // Work that panicked has ended all the same.
            Err(TryLockError::Poisoned(busy)) => busy.into_inner(),
            // Of two callers at once, the second does its work alone.
            Err(TryLockError::WouldBlock) => return items.into_iter().try_for_each(task),
        };
        let queue =
            Queue { items: Mutex::new(items.into_iter().enumerate()), error: Mutex::default() };
        self.shared.run(self.helpers.len(), &|| queue.empty(&task));
        queue
            .error
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), |it| Err(it.1))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Release);
        self.shared.call();
        for helper in self.helpers.drain(..) {
            // It ends by itself; what it panicked with went to its caller.
            drop(helper.join());
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Items that threads take one after the other.
struct Queue<T> {
    items: Mutex<std::iter::Enumerate<vec::IntoIter<T>>>,
    /// The error of the first item that has one.
    error: Mutex<Option<(usize, Error)>>,
}

impl<T> Queue<T> {
    /// Takes items until there are none.
    fn empty(&self, task: &impl Fn(T) -> Result<()>) {
        while let Some((index, item)) = { hold(&self.items).next() } {
            if let Err(error) = task(item) {
                let mut first = hold(&self.error);
                if first.as_ref().is_none_or(|(other, _)| index < *other) {
                    *first = Some((index, error));
                }
            }
        }
    }
}

/// A panic elsewhere leaves nothing half done that is held here.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Has `work` done once by the caller and once by each of `helpers`.
    fn run(&self, helpers: usize, work: Work<'_>) {
        // SAFETY: helpers use the reference between being called and counting `left` down, and this function
        // returns, or unwinds, only when all of them have.
        let shared_work = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
        *hold(&self.work) = Some(shared_work);
        self.left.store(helpers, Ordering::Relaxed);
        self.number.fetch_add(1, Ordering::Release);
        self.call();
        let own = catch_unwind(AssertUnwindSafe(work));
        let mut looks = 0usize;
        while self.left.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks < LOOKS_FOR_THE_END {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        *hold(&self.work) = None;
        if let Err(cause) = own {
            resume_unwind(cause);
        }
        let theirs = hold(&self.panic).take();
        if let Some(cause) = theirs {
            resume_unwind(cause);
        }
    }

    /// Wakes helpers that sleep.
    fn call(&self) {
        // Ordered behind the number and the end: who goes to sleep looks at them after it has counted itself.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) > 0 {
            drop(hold(&self.sleep));
            self.wake.notify_all();
        }
    }

    /// Does pieces of work until the end.
    fn help(&self) {
        let mut done = 0;
        while let Some(number) = self.next(done) {
            done = number;
            let work = *hold(&self.work);
            if let Some(work) = work
                && let Err(cause) = catch_unwind(AssertUnwindSafe(work))
            {
                *hold(&self.panic) = Some(cause);
            }
            self.left.fetch_sub(1, Ordering::Release);
        }
    }

    /// The number of a piece of work behind `done`; `None` at the end.
    fn next(&self, done: usize) -> Option<usize> {
        let look = || {
            let number = self.number.load(Ordering::Acquire);
            (number != done).then_some(number)
        };
        for _ in 0..LOOKS {
            if let Some(number) = look() {
                return Some(number);
            }
            if self.end.load(Ordering::Acquire) {
                return None;
            }
            std::hint::spin_loop();
        }
        self.asleep.fetch_add(1, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        let mut sleep = hold(&self.sleep);
        let found = loop {
            if let Some(number) = look() {
                break Some(number);
            }
            if self.end.load(Ordering::Acquire) {
                break None;
            }
            sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        };
        drop(sleep);
        self.asleep.fetch_sub(1, Ordering::Relaxed);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_taken_once_by_any_number_of_threads_as_often_as_it_is_asked() {
        for count in [1, 2, 3, 7] {
            let pool = Pool::new(count).unwrap();
            let mut out = vec![0usize; 1000];
            for round in 1..200 {
                let items: Vec<_> = out.iter_mut().enumerate().collect();
                let task = |(index, value): (usize, &mut usize)| {
                    *value += index;
                    Ok(())
                };
                pool.each(items, WORK_MIN, task).unwrap();
                assert!(out.iter().enumerate().all(|(index, value)| *value == index * round));
            }
        }
    }

    #[test]
    fn the_error_is_that_of_the_first_item_with_one() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..100 {
            let task = |item: u32| match item {
                5 | 50 => Err(Error::new(Code::TokenId).found(item)),
                _ => Ok(()),
            };
            let error = pool.each((0..100).collect(), WORK_MIN, task).unwrap_err();
            assert!(error.to_string().contains('5') && !error.to_string().contains("50"));
        }
    }

    #[test]
    fn a_panic_of_any_thread_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(4).unwrap();
        for bad in [0, 17, 63] {
            let run = || {
                pool.each((0..64).collect(), WORK_MIN, |item: i32| {
                    assert!(item != bad, "item {item}");
                    Ok(())
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
        pool.each((0..64).collect(), WORK_MIN, |_: i32| Ok(())).unwrap();
    }

    #[test]
    fn a_task_may_have_work_of_its_own_done_by_the_same_pool() {
        let pool = Pool::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        let inner = |item: usize| {
            sum.fetch_add(item, Ordering::Relaxed);
            Ok(())
        };
        let outer = |_: usize| pool.each((0..10).collect(), WORK_MIN, inner);
        pool.each((0..10).collect(), WORK_MIN, outer).unwrap();
        assert_eq!(sum.into_inner(), 10 * 45);
    }

    #[test]
    fn helpers_that_sleep_are_woken() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..20 {
            while pool.shared.asleep.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            pool.each((0..8).collect(), WORK_MIN, |_: i32| Ok(())).unwrap();
        }
    }
}
