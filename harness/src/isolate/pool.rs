//! The parent's side: one worker at a time, which is replaced when it hangs or crashes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Answer, Isolation, Request, Setup};
use crate::contract::Gate;
use crate::judge::{JudgeContext, Planned};
use crate::runner::NEED_RUN;
use crate::score::EXIT_BROKEN;
use crate::subject::{ending, kill_group, start};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// How long a worker may take to build its context.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How soon an interruption is noticed.
const POLL: Duration = Duration::from_millis(50);
/// Lines of a crashed worker's error output that are kept.
const LAST_WORDS: usize = 8;

/// The workers of one run.
#[derive(Debug)]
pub struct Pool {
    isolation: Isolation,
    setup: Setup,
    stop: Arc<AtomicBool>,
    next: AtomicU64,
    worker: Mutex<Option<Arc<Worker>>>,
    /// Held for reading by cases that may run beside others, and for writing by one that must be alone.
    beside: RwLock<()>,
}

/// What became of a case that got no verdict.
#[derive(Clone, Debug)]
enum Lost {
    /// The worker did not answer in time.
    Hung(Duration),
    /// The worker was killed for the sake of another case.
    Killed,
    /// The worker ended by itself while it judged `together` cases.
    Crashed { end: End, together: usize },
    /// The run was interrupted.
    Interrupted,
}

/// How a worker ended.
#[derive(Clone, Debug)]
struct End {
    code: Option<i32>,
    how: String,
    last_words: Vec<String>,
}

impl Pool {
    /// Workers that judge as `ctx` does, until `stop` is set. None is started yet.
    pub fn new(isolation: Isolation, ctx: &JudgeContext, stop: Arc<AtomicBool>) -> Self {
        Self {
            isolation,
            setup: Setup::of(ctx),
            stop,
            next: AtomicU64::new(0),
            worker: Mutex::default(),
            beside: RwLock::default(),
        }
    }

    /// Judges `case` in a worker that is killed after `limit`.
    ///
    /// A case that was beside one that hung is judged again, and cases during which a worker crashed are judged again
    /// one by one: so the claim that is falsified is the one whose case did it.
    pub fn judge(&self, case: &Planned, limit: Duration) -> Verdict {
        let mut crowded = false;
        loop {
            let lost = if crowded {
                let _alone = self.beside.write().unwrap_or_else(PoisonError::into_inner);
                self.attempt(case, limit)
            } else {
                let _beside = self.beside.read().unwrap_or_else(PoisonError::into_inner);
                self.attempt(case, limit)
            };
            match lost {
                Ok(verdict) => return verdict,
                Err(Lost::Killed) => {}
                Err(Lost::Crashed { together, .. }) if together > 1 => crowded = true,
                Err(Lost::Crashed { end, .. }) => return crashed(end),
                Err(Lost::Hung(waited)) => return hung(waited, limit),
                Err(Lost::Interrupted) => {
                    return Verdict::skipped(NEED_RUN, "the run was interrupted");
                }
            }
        }
    }

    fn attempt(&self, case: &Planned, limit: Duration) -> Result<Verdict, Lost> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Lost::Interrupted);
        }
        let worker = match self.worker() {
            Ok(worker) => worker,
            Err(error) => return Ok(Verdict::broken(error)),
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = Request { id, case: case.info.clone(), gate: Gate::clone(&case.gate) };
        let answer = worker.ask(&request)?;
        let start = now();
        loop {
            match answer.recv_timeout(POLL) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => return Err(Lost::Killed),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let lost = match start.elapsed() {
                _ if self.stop.load(Ordering::Relaxed) => Lost::Interrupted,
                waited if waited >= limit => Lost::Hung(waited),
                _ => continue,
            };
            worker.kill();
            return Err(lost);
        }
    }

    /// The worker, started if there is none that lives.
    fn worker(&self) -> Result<Arc<Worker>, String> {
        let mut slot = lock(&self.worker);
        if let Some(worker) = slot.as_ref().filter(|worker| worker.lives()) {
            return Ok(Arc::clone(worker));
        }
        let worker = Worker::start(&self.isolation, &self.setup)?;
        *slot = Some(Arc::clone(&worker));
        Ok(worker)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(worker) = lock(&self.worker).take() {
            worker.kill();
        }
    }
}

/// A running worker.
#[derive(Debug)]
struct Worker {
    input: Mutex<ChildStdin>,
    /// Taken by the thread that waits for its end.
    child: Mutex<Option<Child>>,
    open: Mutex<Open>,
}

/// The cases that a worker judges.
#[derive(Debug, Default)]
struct Open {
    waiting: BTreeMap<u64, Sender<Result<Verdict, Lost>>>,
    /// Whether somebody has killed the worker: what it leaves open is no crash.
    killed: bool,
    ended: bool,
}

impl Worker {
    fn start(isolation: &Isolation, setup: &Setup) -> Result<Arc<Self>, String> {
        let named = |error: io::Error| format!("{}: {error}", isolation.program.display());
        let mut child =
            start(&isolation.program, &isolation.args, Path::new("."), None).map_err(named)?;
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("the worker has no streams".into());
        };
        let worker = Arc::new(Self {
            input: Mutex::new(input),
            child: Mutex::new(Some(child)),
            open: Mutex::default(),
        });
        let (ready, is_ready) = channel();
        let reader = Arc::clone(&worker);
        std::thread::spawn(move || reader.read(output, errors, &ready));
        worker.write(setup).map_err(named)?;
        match is_ready.recv_timeout(START_LIMIT) {
            Ok(Ok(())) => Ok(worker),
            Ok(Err(end)) => Err(format!("the worker does not start: {}", end.told())),
            Err(_) => {
                worker.kill();
                Err("the worker does not start".into())
            }
        }
    }

    fn lives(&self) -> bool {
        let open = lock(&self.open);
        !open.ended && !open.killed
    }

    /// Sends a case; the answer comes over the channel.
    fn ask(&self, request: &Request) -> Result<Receiver<Result<Verdict, Lost>>, Lost> {
        let (sender, receiver) = channel();
        {
            let mut open = lock(&self.open);
            if open.ended || open.killed {
                return Err(Lost::Killed);
            }
            open.waiting.insert(request.id, sender);
        }
        // A worker that cannot be written to has ended, and the reader says how.
        let _ended = self.write(request);
        Ok(receiver)
    }

    fn write(&self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let mut input = lock(&self.input);
        input.write_all(&line)?;
        input.flush()
    }

    /// Ends the worker and whatever it started.
    fn kill(&self) {
        lock(&self.open).killed = true;
        if let Some(child) = lock(&self.child).as_mut() {
            kill_group(child);
        }
    }

    /// Hands verdicts on until the worker ends, then says how it ended to all that wait.
    fn read(
        &self,
        output: impl Read,
        errors: impl Read + Send + 'static,
        ready: &Sender<Result<(), End>>,
    ) {
        let words = std::thread::spawn(move || last_words(errors));
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                // Whoever started the worker may have given up on it.
                Ok(Answer::Ready) => drop(ready.send(Ok(()))),
                Ok(Answer::Judged(id, verdict)) => {
                    if let Some(waiting) = lock(&self.open).waiting.remove(&id) {
                        drop(waiting.send(Ok(verdict)));
                    }
                }
                // Something else prints there: not ours to judge.
                Err(_) => {}
            }
        }
        let end = self.reap(words);
        let mut open = lock(&self.open);
        open.ended = true;
        let together = open.waiting.len();
        for waiting in std::mem::take(&mut open.waiting).into_values() {
            let lost = if open.killed {
                Lost::Killed
            } else {
                Lost::Crashed { end: end.clone(), together }
            };
            drop(waiting.send(Err(lost)));
        }
        drop(ready.send(Err(end)));
    }

    fn reap(&self, words: JoinHandle<Vec<String>>) -> End {
        let status = lock(&self.child).take().and_then(|mut child| {
            // One that has closed its output but lives is of no use.
            kill_group(&mut child);
            child.wait().ok()
        });
        let code = status.and_then(|status: ExitStatus| status.code());
        let last_words = words.join().unwrap_or_default();
        End { code, how: status.map_or_else(|| "lost".into(), ending), last_words }
    }
}

impl End {
    fn told(&self) -> String {
        let mut words = self.last_words.clone();
        words.insert(0, self.how.clone());
        words.join("; ")
    }
}

fn hung(waited: Duration, limit: Duration) -> Verdict {
    let seconds = limit.as_secs_f64();
    let evidence = Evidence::new(1, format!("hung: no answer within {seconds} s"));
    let measure = Measure::judged("seconds", waited.as_secs_f64(), Limit::AtMost(seconds));
    Verdict::Falsified(evidence.measure(measure.unit("s")))
}

fn crashed(end: End) -> Verdict {
    if end.code == Some(i32::from(EXIT_BROKEN)) {
        return Verdict::broken(format!("in the worker: {}", end.told()));
    }
    let evidence = Evidence::new(1, format!("crashed: {}", end.how)).measure(Measure::judged(
        "crashes",
        1.0,
        Limit::Exactly(0.0),
    ));
    Verdict::Falsified(end.last_words.into_iter().fold(evidence, Evidence::detail))
}

/// The last lines of an error output.
fn last_words(errors: impl Read) -> Vec<String> {
    let mut words = VecDeque::new();
    let mut reader = BufReader::new(errors);
    let mut line = Vec::new();
    while reader.by_ref().take(1 << 16).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if words.len() == LAST_WORDS {
            words.pop_front();
        }
        words.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    words.into()
}

/// A poisoned lock is as good as another: what it guards is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "a time limit needs a clock")]
fn now() -> Instant {
    Instant::now()
}
