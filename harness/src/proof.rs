//! Proof that gates can go red: every fault a gate names is planted in front of it.
//!
//! For each gate a case that is green is looked for; it must stay green under the fault that changes nothing, and
//! the gate must turn red under each fault it names, for what the fault is and not because the file fell apart.
//! Gates are proved side by side, except those that need the machine alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use crate::contract::{Aim, Check, Severity};
use crate::fault::library::{self, Fault};
use crate::judge::{JudgeContext, Planned};
use crate::kill::{Kill, KillCell, KillMatrix};
use crate::score::gate_key;
use crate::verdict::{Verdict, VerdictKind};

/// Green cells on which one fault is tried before it counts as survived.
const CELLS_TRIED: usize = 4;

/// Judges a case in a context.
pub type Judge<'a> = dyn Fn(&Planned, &JudgeContext) -> Verdict + Sync + 'a;

/// A step of a proof, for progress.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// `contract/gate`.
    pub gate: &'a str,
    /// The planted fault.
    pub fault: &'a str,
    /// What happened.
    pub kill: Kill,
    /// What was seen.
    pub note: &'a str,
}

/// Plants the faults that the gates of `cases` name, judging with `judge` in `jobs` threads.
///
/// `judge` is the ordinary judge of a case in a context; `progress` hears of every planted fault and may end the
/// proof by returning `false`: gates that were not reached then are not in the matrix.
pub fn prove(
    cases: &[Planned],
    ctx: &JudgeContext,
    judge: &Judge<'_>,
    jobs: usize,
    progress: &mut dyn FnMut(Step<'_>) -> bool,
) -> KillMatrix {
    let gates = by_gate(cases);
    let stop = AtomicBool::new(false);
    let mut proofs: BTreeMap<usize, GateProof> = BTreeMap::new();
    for alone in [false, true] {
        let wanted: Vec<usize> =
            (0..gates.len()).filter(|&index| needs_machine(&gates[index].1) == alone).collect();
        let jobs = if alone { 1 } else { jobs.clamp(1, wanted.len().max(1)) };
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            for _ in 0..jobs {
                let worker = Worker { ctx, judge, stop: &stop, sender: sender.clone() };
                let (gates, wanted, next) = (&gates, &wanted, &next);
                scope.spawn(move || {
                    while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if stop_asked(worker.stop) {
                            break;
                        }
                        worker.gate(index, &gates[index].0, &gates[index].1);
                    }
                });
            }
            drop(sender);
            for (index, news) in receiver {
                let proof = proofs.entry(index).or_default();
                match news {
                    News::Control(red) => proof.red_under_no_op = red,
                    News::Cell(cell) => {
                        let step = Step {
                            gate: &cell.gate,
                            fault: &cell.fault,
                            kill: cell.kill,
                            note: &cell.note,
                        };
                        if !progress(step) {
                            stop.store(true, Ordering::Relaxed);
                        }
                        proof.cells.push(cell);
                    }
                }
            }
        });
    }
    matrix(&gates, proofs)
}

fn stop_asked(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

/// What is known of one gate.
#[derive(Default)]
struct GateProof {
    cells: Vec<KillCell>,
    red_under_no_op: Option<String>,
}

/// What a worker tells.
enum News {
    /// The control ran; the case that turned red under it, if one did.
    Control(Option<String>),
    /// A fault was planted.
    Cell(KillCell),
}

/// The proofs of all gates in plan order.
fn matrix(gates: &[(String, Vec<&Planned>)], proofs: BTreeMap<usize, GateProof>) -> KillMatrix {
    let mut matrix = KillMatrix::default();
    for (index, proof) in proofs {
        matrix.gates.push(gates[index].0.clone());
        matrix.red_under_no_op.extend(proof.red_under_no_op);
        matrix.cells.extend(proof.cells);
    }
    let mut faults: Vec<String> = matrix.cells.iter().map(|cell| cell.fault.clone()).collect();
    faults.sort();
    faults.dedup();
    matrix.faults = faults;
    matrix
}

/// The cases of each gate, in plan order of their first case; the cheap backends first inside a gate, and one case of each
/// model before a second of any: a model that a fault cannot touch must not use up every try.
fn by_gate(cases: &[Planned]) -> Vec<(String, Vec<&Planned>)> {
    let mut order: Vec<(String, Vec<&Planned>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for case in cases {
        let key = gate_key(&case.info);
        let place = *places.entry(key.clone()).or_insert_with(|| {
            order.push((key, Vec::new()));
            order.len() - 1
        });
        order[place].1.push(case);
    }
    let cost = |case: &&Planned| match case.info.cell.backend.as_deref() {
        None | Some("simd") => 0,
        Some("scalar") => 1,
        Some(_) => 2,
    };
    for (_, cases) in &mut order {
        let mut turns: BTreeMap<_, usize> = BTreeMap::new();
        let ranked = cases.iter().map(|case| {
            let model = case.info.cell.model.as_ref().map(|form| form.model.as_str());
            let turn = turns.entry((cost(case), model)).or_default();
            *turn += 1;
            ((cost(case), *turn), *case)
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        *cases = ranked.into_iter().map(|(_, case)| case).collect();
    }
    order
}

fn needs_machine(cases: &[&Planned]) -> bool {
    cases.first().is_some_and(|case| case.gate.needs.iter().any(|need| need == "exclusive"))
}

struct Worker<'a> {
    ctx: &'a JudgeContext,
    judge: &'a Judge<'a>,
    stop: &'a AtomicBool,
    sender: Sender<(usize, News)>,
}

impl Worker<'_> {
    /// Proves one gate.
    fn gate(&self, index: usize, gate: &str, cases: &[&Planned]) {
        let Some(first) = cases.first() else { return };
        let mut plain = Plain { worker: self, known: BTreeMap::new() };
        self.tell(index, News::Control(self.control(cases, &mut plain)));
        for aim in &first.gate.kills {
            if stop_asked(self.stop) {
                return;
            }
            let mut cell = match library::by_id(&aim.fault) {
                Some(fault) => self.fault(&fault, aim, cases, &mut plain),
                None => not_run(&aim.fault, "no such fault is known"),
            };
            gate.clone_into(&mut cell.gate);
            self.tell(index, News::Cell(cell));
        }
    }

    fn tell(&self, index: usize, news: News) {
        // Nobody listens any more only when the proof has been given up.
        self.sender.send((index, news)).ok();
    }

    /// A verdict; a judge that panics is broken.
    fn judge(&self, case: &Planned, ctx: &JudgeContext) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| (self.judge)(case, ctx)))
            .unwrap_or_else(|_| Verdict::broken("the judge panicked"))
    }

    /// The fault that changes nothing must not turn a green case red: the case that it did turn.
    fn control(&self, cases: &[&Planned], plain: &mut Plain<'_>) -> Option<String> {
        let case = cases.iter().find(|case| plain.not_green(case).is_none())?;
        let control = if needs_machine(cases) { library::untouched() } else { library::nothing() };
        let planted = self.ctx.planted(control.plant);
        let kind = self.judge(case, &planted).kind();
        // A measurement that cannot decide has not gone red.
        let fine = matches!(kind, VerdictKind::Corroborated | VerdictKind::Inconclusive);
        (!fine).then(|| case.info.id.clone())
    }

    /// Plants `fault` in front of the gate's green cases until one turns red as it was aimed at.
    fn fault(
        &self,
        fault: &Fault,
        aim: &Aim,
        cases: &[&Planned],
        plain: &mut Plain<'_>,
    ) -> KillCell {
        let planted = self.ctx.planted(fault.plant.clone());
        let mut cell = not_run(fault.info.id, "the fault changes none of the gate's cases");
        let mut tried = 0;
        for case in cases {
            if tried == CELLS_TRIED || stop_asked(self.stop) {
                break;
            }
            if !takes(fault, case, self.ctx) {
                continue;
            }
            if let Some(why) = plain.not_green(case) {
                if tried == 0 {
                    cell.note = why;
                }
                continue;
            }
            tried += 1;
            let (kill, note) = self.reading(fault, aim, case, &planted);
            if kill == Kill::Killed {
                cell.kill = kill;
                cell.first_red = Some(case.info.id.clone());
                cell.note = note;
                break;
            }
            if cell.kill != Kill::Survived {
                cell.kill = kill;
                cell.note = note;
            }
        }
        cell
    }

    /// What `case` makes of `fault`, and what was seen.
    fn reading(
        &self,
        fault: &Fault,
        aim: &Aim,
        case: &Planned,
        planted: &JudgeContext,
    ) -> (Kill, String) {
        let Some(hidden) = fault.plant.hidden() else {
            return reading(fault, aim, case, &self.judge(case, planted));
        };
        // A defect of the harness must hide something that is seen without it.
        let seen = self.judge(case, &self.ctx.planted(hidden));
        if seen.kind() != VerdictKind::Falsified {
            let note = format!("there is nothing to hide: {}", told(&seen));
            return (Kill::NotRun, note);
        }
        let verdict = self.judge(case, planted);
        let note = told(&verdict);
        match verdict.kind() {
            VerdictKind::Corroborated | VerdictKind::Waived => (Kill::Survived, note),
            // A skip that nobody requires is passed over in silence.
            VerdictKind::Skipped if !case.info.required => (Kill::Survived, note),
            VerdictKind::Falsified => (Kill::WrongReason, format!("nothing was hidden: {note}")),
            VerdictKind::Broken | VerdictKind::Skipped | VerdictKind::Inconclusive => {
                (Kill::Killed, note)
            }
        }
    }
}

/// What the cases of a gate are without any fault, each judged at most once.
struct Plain<'a> {
    worker: &'a Worker<'a>,
    /// Case → why it is not green, if it is not.
    known: BTreeMap<String, Option<String>>,
}

impl Plain<'_> {
    /// Why `case` is not green without any fault; `None` when it is.
    fn not_green(&mut self, case: &Planned) -> Option<String> {
        let Self { worker, known } = self;
        let judged = || {
            let verdict = worker.judge(case, worker.ctx);
            let green = verdict.kind() == VerdictKind::Corroborated;
            (!green).then(|| format!("{} without any fault: {}", case.info.id, told(&verdict)))
        };
        known.entry(case.info.id.clone()).or_insert_with(judged).clone()
    }
}

/// A verdict in one line.
fn told(verdict: &Verdict) -> String {
    format!("{}: {}", verdict.kind().name(), verdict.summary())
}

fn not_run(id: &str, note: &str) -> KillCell {
    KillCell {
        gate: String::new(),
        fault: id.to_owned(),
        kill: Kill::NotRun,
        first_red: None,
        note: note.to_owned(),
    }
}

/// Whether planting `fault` in front of `ctx` can change anything for `case`: a file fault concerns only some formats.
#[must_use]
pub fn takes(fault: &Fault, case: &Planned, ctx: &JudgeContext) -> bool {
    // What is damaged there is a file that is only written while the case is judged.
    let writes = matches!(case.gate.check, Check::ConvertRun(_) | Check::Conversion(_));
    if !fault.info.id.starts_with("file/") || writes {
        return true;
    }
    let Some(form) = &case.info.cell.model else { return false };
    match (ctx.path(form), ctx.planted(fault.plant.clone()).path(form)) {
        (Ok(before), Ok(after)) => before != after,
        _ => false,
    }
}

/// What a verdict under a planted fault of the subject says of the gate, in one line.
fn reading(fault: &Fault, aim: &Aim, case: &Planned, verdict: &Verdict) -> (Kill, String) {
    let summary = verdict.summary();
    let kill = match verdict {
        Verdict::Falsified(evidence) => {
            let fell_apart = ["does not load", "cannot be opened", "does not parse"]
                .iter()
                .any(|words| evidence.summary.contains(words));
            let broke = |name: &String| {
                evidence.measures.iter().any(|measure| measure.name == *name && !measure.holds())
            };
            if fell_apart && fault.info.loads && case.info.cell.backend.is_some() {
                Kill::WrongReason
            } else if let Some(name) = aim.by.as_ref().filter(|name| !broke(name)) {
                return (Kill::WrongReason, format!("not by {name}: {summary}"));
            } else {
                Kill::Killed
            }
        }
        Verdict::Broken { .. } => Kill::WrongReason,
        Verdict::Inconclusive(_) | Verdict::Skipped { .. } => Kill::NotRun,
        Verdict::Corroborated(_) | Verdict::Waived { .. } => Kill::Survived,
    };
    (kill, summary)
}

/// Blocking gates of `cases` that the matrix shows no kill for, in plan order.
pub fn blocking_unproven(cases: &[Planned], matrix: &KillMatrix) -> Vec<String> {
    let proven = matrix.proven();
    by_gate(cases)
        .into_iter()
        .filter(|(gate, cells)| {
            let blocking =
                cells.first().is_some_and(|case| case.info.severity == Severity::Blocking);
            blocking && !proven.contains(gate)
        })
        .map(|(gate, _)| gate)
        .collect()
}
