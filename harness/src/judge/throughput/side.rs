//! One side of a speed comparison: an engine with a script of tokens and a clock.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use apr_engine::generate::greedy;
use apr_engine::model::{Lm, Model, Want};
use apr_engine::probe::NoProbe;

use super::super::context::{Look, refused};
use super::paired::{Sample, Side, Step};
use crate::contract::check::{Clock, Phase};
use crate::stats::SplitMix;
use crate::trace::{HistoryEvent, Observed, Options, Tracer};
use crate::verdict::Verdict;

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) phase: Phase,
    pub(super) tokens: usize,
    pub(super) clock: Clock,
}

/// A running model that is timed.
pub(super) struct Engine {
    lm: Box<dyn Lm>,
    task: Task,
    /// The first token is read before the clock starts when decoding.
    ids: Vec<u32>,
    /// The model, when every run is traced.
    traced: Option<Arc<Model>>,
}

impl Engine {
    /// `lm` on the beginning of `script`, which has more tokens than the task.
    pub(super) fn new(lm: Box<dyn Lm>, task: Task, script: &[u32]) -> Self {
        let ids = script[..script.len().min(task.tokens + 1)].to_vec();
        Self { lm, task, ids, traced: None }
    }

    /// Traces every site of every run of `model`, and writes the events to nowhere.
    pub(super) fn trace(&mut self, model: Arc<Model>) {
        self.traced = Some(model);
    }

    /// Forwards the script and shows each row of logits that the task sees to `seen`.
    fn forward(&mut self, seen: &mut dyn FnMut(usize, &[f32])) -> Look<Sample> {
        let Self { lm, task, ids, traced } = self;
        let Some(model) = traced else { return forward(&mut **lm, *task, ids, seen) };
        // Writing an event is a part of tracing; where it goes is not.
        let sink = |event: HistoryEvent| {
            serde_json::to_writer(io::sink(), &event).map_err(io::Error::from)
        };
        let options = Options::all(model.config());
        let mut tracer = Tracer::new(model, options, Box::new(sink), || 0);
        // Told at once: what is told behind a run would not be in its time.
        let mut observed = Observed::new(&mut **lm, &mut tracer);
        let sample = forward(&mut observed, *task, ids, seen)?;
        if tracer.values() == 0 {
            return Err(Box::new(Verdict::broken("the tracer was shown nothing")));
        }
        Ok(sample)
    }
}

/// Forwards `ids` as the task has it and times what belongs to it.
fn forward(
    lm: &mut dyn Lm,
    task: Task,
    ids: &[u32],
    seen: &mut dyn FnMut(usize, &[f32]),
) -> Look<Sample> {
    lm.reset();
    let failed = |error: apr_engine::Error| refused("the forward pass fails", &error);
    let (first, rest) = match task.phase {
        Phase::Prefill => (None, &ids[..ids.len() - 1]),
        Phase::Decode => (Some(&ids[..1]), &ids[1..]),
    };
    if let Some(first) = first {
        lm.forward(first, Want::Last, &mut NoProbe).map_err(failed)?;
    }
    let start = Started::now(task.clock)?;
    match task.phase {
        Phase::Prefill => {
            let rows = lm.forward(rest, Want::Last, &mut NoProbe).map_err(failed)?;
            seen(rest.len() - 1, rows.last());
        }
        Phase::Decode => {
            for (at, id) in rest.iter().enumerate() {
                let rows = lm.forward(&[*id], Want::Last, &mut NoProbe).map_err(failed)?;
                seen(at + 1, rows.last());
            }
        }
    }
    Ok(start.elapsed(rest.len()))
}

impl Side for Engine {
    fn label(&self) -> String {
        let (phase, tokens) = (super::phase_name(self.task.phase), self.task.tokens);
        format!("{phase} of {tokens} tokens on {}", self.lm.backend_name())
    }

    fn observe(&mut self) -> Look<Vec<Step>> {
        let mut steps = Vec::new();
        self.forward(&mut |position, row| {
            steps.push(Step { position, id: greedy(row), lead: lead(row) });
        })?;
        Ok(steps)
    }

    fn measure(&mut self) -> Look<(Sample, Vec<u32>)> {
        let mut ids = Vec::with_capacity(self.task.tokens);
        // Choosing the token belongs to decoding, so it is timed on both sides.
        let sample = self.forward(&mut |_, row| ids.push(greedy(row)))?;
        Ok((sample, ids))
    }
}

/// `tokens + 1` tokens that `lm` itself continues greedily: text that it is sure of has clear answers.
pub(super) fn script(lm: &mut dyn Lm, tokens: usize, seed: u64) -> Look<Vec<u32>> {
    let vocab = lm.config().vocab;
    let mut ids = vec![SplitMix::new(seed).below(vocab) as u32];
    lm.reset();
    while ids.len() <= tokens {
        let last = &ids[ids.len() - 1..];
        let rows = lm
            .forward(last, Want::Last, &mut NoProbe)
            .map_err(|error| refused("the forward pass fails", &error))?;
        ids.push(greedy(rows.last()));
    }
    Ok(ids)
}

/// By how many standard deviations of the row the highest logit leads the second highest.
fn lead(row: &[f32]) -> f64 {
    let (mut first, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let (mut sum, mut squares) = (0.0, 0.0);
    for value in row.iter().copied().map(f64::from) {
        (first, second) = if value > first { (value, first) } else { (first, second.max(value)) };
        sum += value;
        squares += value * value;
    }
    let mean = sum / row.len() as f64;
    let deviation = (squares / row.len() as f64 - mean * mean).max(0.0).sqrt();
    if deviation > 0.0 { (first - second) / deviation } else { 0.0 }
}

/// A started pair of clocks.
struct Started {
    clock: Clock,
    cpu: f64,
    wall: Instant,
}

impl Started {
    #[expect(clippy::disallowed_methods, reason = "measuring speed needs a clock")]
    fn now(clock: Clock) -> Look<Self> {
        let cpu = cpu_seconds();
        if clock == Clock::Cpu && cpu.is_nan() {
            let why = "this system gives no CPU time of the process";
            return Err(Box::new(Verdict::skipped("linux", why)));
        }
        Ok(Self { clock, cpu, wall: Instant::now() })
    }

    /// Seconds per token, by the clock that is judged and by the wall.
    fn elapsed(self, tokens: usize) -> Sample {
        let wall = self.wall.elapsed().as_secs_f64();
        let judged = match self.clock {
            Clock::Cpu => cpu_seconds() - self.cpu,
            Clock::Wall => wall,
        };
        let tokens = tokens as f64;
        Sample { judged: judged / tokens, wall: wall / tokens }
    }
}

/// CPU time of all threads of this process: what other tenants of the machine do is not in it. NaN where the system gives none.
#[cfg(unix)]
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(not(unix))]
fn cpu_seconds() -> f64 {
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_is_counted_in_deviations_of_its_row() {
        let row = [1.0, 0.0, 0.0, 0.0];
        let scaled = row.map(|value| value * 100.0);
        assert!((lead(&row) - lead(&scaled)).abs() < 1e-9);
        assert!(lead(&row) > 2.0);
        assert!(lead(&[1.0, 1.0, 0.0]).abs() < 1e-9);
        assert!(lead(&[1.0; 4]).abs() < 1e-9);
    }

    #[cfg(unix)]
    #[test]
    fn work_takes_cpu_time_and_the_clock_never_runs_backwards() {
        let start = cpu_seconds();
        let mut sum = 0_u64;
        while cpu_seconds() <= start {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_seconds() > start);
    }
}
