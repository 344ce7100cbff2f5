//! The runner: planned cases in, events and a record out.
//!
//! [`run`] judges every case of a plan and tells its sinks; [`run_with`] does the same with a judge of the caller's, which is how gates
//! are proved. The plan fixes the denominator: each of its cases has an outcome in the record, also after an interruption.
//! The runner knows nothing of formats, models or terminals.

mod lanes;
mod merge;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use merge::{MergeError, merge};

use crate::case::CaseInfo;
use crate::contract::waiver::Waiver;
use crate::event::{Event, Outcome, Provenance, RunRecord, Shard, Sink};
use crate::isolate::{self, Isolation, Pool};
use crate::journal::{self, Journal};
use crate::judge::{self, JudgeContext, Planned};
use crate::kill::KillMatrix;
use crate::score::{self, Standing, standing};
use crate::verdict::Verdict;

use lanes::{Lane, Step};

/// The need under which a case is skipped that the run did not get to.
pub const NEED_RUN: &str = "run";

/// How a plan is run.
#[derive(Debug)]
pub struct RunOptions {
    /// Suite name, for the record.
    pub suite: String,
    /// Where the run comes from; see [`crate::provenance::gather`].
    pub provenance: Provenance,
    /// Cases judged at the same time; exclusive cases run alone whatever it says.
    pub jobs: usize,
    /// Run only one part of the plan; see [`shard`].
    pub shard: Option<Shard>,
    /// Begin nothing more after the first red case.
    pub fail_fast: bool,
    /// Where finished cases are noted, and taken over from when it was resumed.
    pub journal: Option<Journal>,
    /// Accepted falsifications.
    pub waivers: Vec<Waiver>,
    /// Which gates have shown that they can fail; without it the score says that nobody looked.
    pub kill_matrix: Option<KillMatrix>,
    /// How a worker process is started for cases that can hang or crash; without it they are judged in place, without a
    /// time limit.
    pub isolation: Option<Isolation>,
    /// Time limit of a case in a worker whose gate sets none; without it one that grows with the model.
    pub limit: Option<Duration>,
    /// Set by whoever handles interrupts: workers end at once, cases that have begun in place are finished, nothing more is
    /// begun, the record is written.
    pub stop: Arc<AtomicBool>,
    /// What the record's notes begin with, for example gates that found no cell.
    pub notes: Vec<String>,
}

impl RunOptions {
    /// One job, no shard, no journal, no waivers, no isolation.
    pub fn new(suite: impl Into<String>, provenance: Provenance) -> Self {
        Self {
            suite: suite.into(),
            provenance,
            jobs: 1,
            shard: None,
            fail_fast: false,
            journal: None,
            waivers: Vec::new(),
            kill_matrix: None,
            isolation: None,
            limit: None,
            stop: Arc::default(),
            notes: Vec::new(),
        }
    }
}

/// Runs `cases` in `ctx`, tells `sinks`, and returns the record.
///
/// Cases that can hang or crash are judged in a worker process when `options` say how to start one.
pub fn run(
    cases: &[Planned],
    ctx: &JudgeContext,
    sinks: &mut [Box<dyn Sink + '_>],
    options: RunOptions,
) -> RunRecord {
    let (isolation, limit) = (options.isolation.clone(), options.limit);
    let pool = isolation.map(|isolation| Pool::new(isolation, ctx, Arc::clone(&options.stop)));
    let judge = |case: &Planned| match &pool {
        Some(pool) if isolate::wants_worker(&case.gate.check) => {
            pool.judge(case, isolate::limit(case, limit))
        }
        _ => judge::run(case, ctx),
    };
    run_with(cases, &judge, sinks, options)
}

/// Runs `cases` with a judge of the caller's.
pub fn run_with(
    cases: &[Planned],
    judge: &(dyn Fn(&Planned) -> Verdict + Sync),
    sinks: &mut [Box<dyn Sink + '_>],
    options: RunOptions,
) -> RunRecord {
    let cases: Vec<&Planned> = match options.shard {
        Some(part) => shard(cases, part).collect(),
        None => cases.iter().collect(),
    };
    let plan: Vec<CaseInfo> = cases.iter().map(|case| case.info.clone()).collect();
    let mut run = Run::new(&cases, sinks, options);
    let provenance = run.options.provenance.clone();
    run.tell(&Event::Started { plan: &plan, provenance: &provenance });
    run.take_over();
    for exclusive in [false, true] {
        run.lane(exclusive, judge);
    }
    let mut record = run.record(&plan);
    run.tell(&Event::Finished(&record));
    record.notes = run.options.notes;
    record
}

/// The part of a plan that belongs to `part`: every `of`-th case, so that neighbours, which cost alike, are spread.
pub fn shard<T>(plan: &[T], part: Shard) -> impl Iterator<Item = &T> {
    plan.iter().skip(part.index.saturating_sub(1)).step_by(part.of.max(1))
}

/// Reads `i/n` for a plan of `cases` cases.
///
/// # Errors
/// When the text is not of that form, or `i` does not lie in `1..=n`.
pub fn parse_shard(text: &str, cases: usize) -> Result<Shard, String> {
    let parsed = text
        .split_once('/')
        .and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)))
        .filter(|(index, of): &(usize, usize)| (1..=*of).contains(index));
    let wrong = || format!("shard is {text:?}, expected i/n with i from 1 to n, such as 2/5");
    parsed.map(|(index, of)| Shard { index, of, cases }).ok_or_else(wrong)
}

/// The text of a panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    lanes::reason(panic)
}

struct Run<'a, 's> {
    cases: &'a [&'a Planned],
    keys: Vec<String>,
    sinks: Vec<Option<&'a mut Box<dyn Sink + 's>>>,
    options: RunOptions,
    outcomes: BTreeMap<usize, Outcome>,
    red_seen: Arc<AtomicBool>,
}

impl<'a, 's> Run<'a, 's> {
    fn new(
        cases: &'a [&'a Planned],
        sinks: &'a mut [Box<dyn Sink + 's>],
        mut options: RunOptions,
    ) -> Self {
        let keys = cases.iter().map(|case| key(case, &options.provenance)).collect();
        if let Some(lines) = options.journal.as_ref().map(Journal::unreadable).filter(|n| *n > 0) {
            options.notes.push(format!("journal: {lines} unreadable lines, their cases run again"));
        }
        let sinks = sinks.iter_mut().map(Some).collect();
        Self { cases, keys, sinks, options, outcomes: BTreeMap::new(), red_seen: Arc::default() }
    }

    /// Tells every sink; one that fails is noted and left alone from then on.
    fn tell(&mut self, event: &Event<'_>) {
        for slot in &mut self.sinks {
            if let Some(Err(error)) = slot.as_mut().map(|sink| sink.on(event)) {
                self.options.notes.push(error.to_string());
                *slot = None;
            }
        }
    }

    /// Takes verdicts over that the journal knows.
    fn take_over(&mut self) {
        for index in 0..self.cases.len() {
            let known =
                self.options.journal.as_ref().and_then(|journal| journal.known(&self.keys[index]));
            let Some(known) = known.cloned() else { continue };
            let case = self.cases[index].info.clone();
            let (verdict, duration_ms) = (known.verdict, known.duration_ms);
            let verdict = waive(&case, verdict, &self.options.waivers);
            self.finish(index, Outcome { case, verdict, duration_ms, resumed: true });
        }
    }

    fn lane(&mut self, exclusive: bool, judge: &(dyn Fn(&Planned) -> Verdict + Sync)) {
        let wanted = |index: &usize| {
            self.cases[*index].gate.check.is_exclusive() == exclusive
                && !self.outcomes.contains_key(index)
        };
        let indices: Vec<usize> = (0..self.cases.len()).filter(wanted).collect();
        let cases = self.cases;
        let (waivers, day) = (self.options.waivers.clone(), self.day().to_owned());
        let (stop, red) = (Arc::clone(&self.options.stop), Arc::clone(&self.red_seen));
        let fail_fast = self.options.fail_fast;
        let lane = Lane {
            indices: &indices,
            workers: if exclusive { 1 } else { self.options.jobs },
            judge: &|index| judge(cases[index]),
            seen: &|index, verdict| {
                let case = cases[index].info.clone();
                let verdict = waive(&case, verdict.clone(), &waivers);
                let outcome = Outcome { case, verdict, duration_ms: 0.0, resumed: false };
                if standing(&outcome, &day) == Standing::Red {
                    red.store(true, Ordering::Relaxed);
                }
            },
            stop: &|| stop.load(Ordering::Relaxed) || (fail_fast && red.load(Ordering::Relaxed)),
        };
        lane.run(&mut |step| match step {
            Step::Started(index) => self.tell(&Event::CaseStarted(&cases[index].info)),
            Step::Finished(index, verdict, duration) => {
                self.judged(index, verdict, duration.as_secs_f64() * 1000.0);
            }
        });
    }

    fn day(&self) -> &str {
        self.options.provenance.started.get(..10).unwrap_or_default()
    }

    fn judged(&mut self, index: usize, verdict: Verdict, duration_ms: f64) {
        let case = self.cases[index].info.clone();
        let mut outcome = Outcome { case, verdict, duration_ms, resumed: false };
        if let Some(journal) = &mut self.options.journal
            && let Err(error) = journal.append(&self.keys[index], &outcome)
        {
            self.options.notes.push(format!("journal: {error}; nothing more is noted in it"));
            self.options.journal = None;
        }
        // Waivers come and go without the subject changing, so the journal keeps what was seen.
        outcome.verdict = waive(&outcome.case, outcome.verdict, &self.options.waivers);
        self.finish(index, outcome);
    }

    fn finish(&mut self, index: usize, mut outcome: Outcome) {
        // Children, journals and judges of the caller's are no more to be trusted than the judges at home.
        outcome.verdict = outcome.verdict.weighed();
        if standing(&outcome, self.day()) == Standing::Red {
            self.red_seen.store(true, Ordering::Relaxed);
        }
        self.tell(&Event::CaseFinished(&outcome));
        self.outcomes.insert(index, outcome);
    }

    /// The record: every planned case has an outcome, in plan order.
    fn record(&mut self, plan: &[CaseInfo]) -> RunRecord {
        let interrupted = self.options.stop.load(Ordering::Relaxed);
        let why = if interrupted { "the run was interrupted" } else { "an earlier case was red" };
        let cases: Vec<Outcome> = (0..plan.len())
            .map(|index| {
                self.outcomes.remove(&index).unwrap_or_else(|| Outcome {
                    case: plan[index].clone(),
                    verdict: Verdict::skipped(NEED_RUN, why),
                    duration_ms: 0.0,
                    resumed: false,
                })
            })
            .collect();
        let mut record = RunRecord {
            suite: self.options.suite.clone(),
            provenance: self.options.provenance.clone(),
            cases,
            counts: score::counts(&[]),
            score: score::score(&[], &[], None, ""),
            required_green: false,
            exit_code: 0,
            interrupted,
            shard: self.options.shard,
            notes: self.options.notes.clone(),
            kill_matrix: self.options.kill_matrix.clone(),
        };
        settle(&mut record);
        record
    }
}

/// Computes everything in a record that follows from its cases.
fn settle(record: &mut RunRecord) {
    let day = record.day().to_owned();
    let plan: Vec<CaseInfo> = record.cases.iter().map(|outcome| outcome.case.clone()).collect();
    let proven = record.kill_matrix.as_ref().map(KillMatrix::proven);
    record.counts = score::counts(&record.cases);
    record.score = score::score(&plan, &record.cases, proven.as_ref(), &day);
    record.required_green = score::required_green(&record.cases, &day);
    record.exit_code = score::exit_code(record);
}

/// Turns an accepted falsification into a waived one; whether the waiver still holds is for the score to say.
fn waive(case: &CaseInfo, verdict: Verdict, waivers: &[Waiver]) -> Verdict {
    let Verdict::Falsified(evidence) = verdict else { return verdict };
    match waivers.iter().find(|waiver| waiver.covers(&case.id)) {
        None => Verdict::Falsified(evidence),
        Some(waiver) => Verdict::Waived {
            owner: waiver.owner.clone(),
            reason: waiver.reason.text().to_owned(),
            expires: waiver.expires.clone(),
            evidence,
        },
    }
}

fn key(case: &Planned, provenance: &Provenance) -> String {
    let model = case.info.cell.model.as_ref();
    let model = model
        .and_then(|model| provenance.models.get(&format!("{}.{}", model.model, model.form)))
        .map_or("", String::as_str);
    // A gate that could be read can be written: an error here would only make the case run again.
    let gate = serde_json::to_string(&*case.gate).unwrap_or_else(|error| error.to_string());
    journal::key(&case.info.id, &gate, model, &provenance.binary_sha256, provenance.seed)
}

#[cfg(test)]
pub(crate) use tests::planned_for_tests;

#[cfg(test)]
mod tests;
