//! Splitting work over threads without letting the split show in the numbers.
//!
//! Every task writes a range of its own and computes each value as it would alone, so the number of
//! threads and the order of tasks change nothing.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Code, Error, Result};

/// Most threads of one backend.
const THREADS_MAX: usize = 1024;
/// Below this many multiply-adds waking a second thread costs more than it saves.
const WORK_MIN: usize = 1 << 14;
/// Tasks per thread, so that a thread that was held up does not hold up the rest.
const TASKS_PER_THREAD: usize = 4;

/// A fixed number of threads.
#[derive(Debug)]
pub(super) struct Pool {
    /// `None` when the calling thread is the only one.
    threads: Option<ThreadPool>,
    count: usize,
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
        let threads = if count == 1 {
            None
        } else {
            let builder = ThreadPoolBuilder::new().num_threads(count);
            let named = builder.thread_name(|index| format!("simd-{index}"));
            Some(named.build().map_err(|cause| error().expected("threads").found(cause))?)
        };
        Ok(Self { threads, count })
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
        match &self.threads {
            Some(threads) if work >= WORK_MIN && items.len() > 1 => {
                threads.install(|| items.into_par_iter().with_max_len(1).try_for_each(task))
            }
            _ => items.into_iter().try_for_each(task),
        }
    }
}
