//! A whole contest between sides that are not engines: what is measured, chosen, compared and told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use apr_engine::Dtype;
use apr_engine::backend::simd::Isa;
use apr_harness::bench::compute::Work;

use crate::answers::{
    self, BOUND_BF16, BOUND_PLAIN, BOUND_QUANTISED, Parting, Sides, compare, hash,
};
use crate::failure::Result;
use crate::measure::{Contest, Measure, Options, Outcome, measure};
use crate::report::{Report, Row};
use crate::side::{Open, Side};

const VOCAB: usize = 7;

/// Time that passes only when somebody works.
type Now = Rc<Cell<u64>>;
/// Who worked, in order.
type Diary = Rc<RefCell<Vec<&'static str>>>;

/// A side whose logits follow from the tokens it has read.
struct Toy {
    name: &'static str,
    read: Vec<u32>,
    logits: Vec<f32>,
    /// Nanoseconds for each token.
    pace: u64,
    /// What it does to the logits, by the number of tokens it has read.
    alter: fn(usize, &mut [f32]),
    now: Now,
    diary: Diary,
}

impl Side for Toy {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn reset(&mut self) {
        self.read.clear();
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.read.extend_from_slice(tokens);
        self.now.set(self.now.get() + self.pace * tokens.len() as u64);
        self.diary.borrow_mut().push(self.name);
        let sum: u32 = self.read.iter().map(|token| token + 1).sum();
        self.logits = (0..VOCAB as u32).map(|id| ((sum * (id + 2)) % 11) as f32 + 0.1).collect();
        (self.alter)(self.read.len(), &mut self.logits);
        Ok(&self.logits)
    }
}

fn honest(_: usize, _: &mut [f32]) {}

/// As rounding does: everything a little off.
fn rounded(_: usize, logits: &mut [f32]) {
    logits.iter_mut().enumerate().for_each(|(id, logit)| *logit *= 1.0 + 0.002 * (id % 3) as f32);
}

/// Wrong from the first row on.
fn wrong(_: usize, logits: &mut [f32]) {
    logits.reverse();
}

/// Right behind the prompts and wrong later.
fn wrong_later(read: usize, logits: &mut [f32]) {
    if read > 8 {
        logits.reverse();
    }
}

fn broken(_: usize, logits: &mut [f32]) {
    logits[3] = f32::NAN;
}

const OPTIONS: Options =
    Options { prompt: 8, first: 4, decode: 6, rounds: 3, settle: Duration::ZERO };

/// Ours in the way `alter` against peers with their paces: what came out, and the diary.
fn contest(
    alter: fn(usize, &mut [f32]),
    paces: &[(&'static str, u64)],
) -> (Outcome, Vec<&'static str>) {
    let (now, diary) = (Now::default(), Diary::default());
    let open = |name: &'static str, pace: u64, alter: fn(usize, &mut [f32])| {
        let (now, diary) = (now.clone(), diary.clone());
        move || {
            let (now, diary) = (now.clone(), diary.clone());
            let toy = Toy { name, read: Vec::new(), logits: Vec::new(), pace, alter, now, diary };
            Ok(Box::new(toy) as Box<dyn Side>)
        }
    };
    let ours = open("apr (toy)", 100, alter);
    let peers: Vec<Box<Open<'_>>> = paces
        .iter()
        .map(|&(name, pace)| Box::new(open(name, pace, honest)) as Box<Open<'_>>)
        .collect();
    let theirs: Vec<&Open<'_>> = peers.iter().map(|open| &**open).collect();
    let exact = open("exact (toy)", 1, honest);
    let weights: [&[u8]; 1] = [&[1; 64]];
    let contest = Contest {
        ours: &ours,
        theirs: &theirs,
        exact: &exact,
        weights: &weights,
        work: Work { bytes: 1000, floats: 50 },
        threads: 1,
        isa: Isa::Portable,
        bound: BOUND_QUANTISED,
    };
    let clock = || {
        now.set(now.get() + 1);
        now.get()
    };
    let outcome = measure(&contest, &OPTIONS, &clock).unwrap();
    let diary = diary.borrow().clone();
    (outcome, diary)
}

fn report(outcome: Outcome) -> Report {
    Report {
        started: "2026-01-02T03:04:05Z".to_owned(),
        command: vec!["apr-peer".to_owned(), "measure".to_owned()],
        commit: "0123456789ab".to_owned(),
        peer: "llama.cpp 1.2.3".to_owned(),
        peer_build: "CPU : AVX2 = 1 | OPENMP = 1".to_owned(),
        flags: "none".to_owned(),
        machine: [("cpu".to_owned(), "Example 9000".to_owned())].into(),
        options: OPTIONS,
        rows: vec![Row {
            model: "a|b.gguf".to_owned(),
            sha256: "ab".repeat(32),
            types: vec![("Q4_K".to_owned(), 0.75), ("Q6_K".to_owned(), 0.25)],
            threads: 2,
            elsewhere: Some(0.07),
            outcome,
        }],
    }
}

#[test]
fn twice_the_speed_is_told_as_such_at_every_measure() {
    let (outcome, _) = contest(honest, &[("llama.cpp (repack)", 200)]);
    assert_eq!(outcome.fault, None);
    let measures: Vec<Measure> = outcome.compared.iter().map(|one| one.measure).collect();
    assert_eq!(measures, Measure::ALL);
    for one in &outcome.compared {
        assert_eq!(one.ratio.pairs, 2 * OPTIONS.rounds);
        assert!((one.ratio.ratio - 2.0).abs() < 0.05, "{one:?}");
    }
    // A token takes 100 ns, reading the 64 bytes one look at the clock.
    let memory = outcome.memory.unwrap();
    assert_eq!(memory.bytes_per_token, 64);
    assert!((memory.ours.median / memory.theirs.median - 2.0).abs() < 0.05, "{memory:?}");
    let compute = outcome.compute.unwrap();
    assert_eq!(compute.multiply_adds, Work { bytes: 1000, floats: 50 });
    assert!((compute.ours.median / compute.theirs.median - 2.0).abs() < 0.05, "{compute:?}");
}

#[test]
fn runs_go_a_b_b_a() {
    let (_, diary) = contest(honest, &[("llama.cpp (repack)", 100)]);
    // A prefill is one call; the round begins with four loads of one call and four prefills.
    let compared = diary.len() - OPTIONS.rounds * 4 * (1 + 1 + 1 + 1 + OPTIONS.decode);
    let round: Vec<bool> = diary[compared..].iter().map(|name| name.starts_with("apr")).collect();
    assert_eq!(round[..12], [true, false, false, true].repeat(3));
}

#[test]
fn the_faster_setting_of_the_other_side_is_the_one_to_beat() {
    let paces = [("llama.cpp (repack)", 300), ("llama.cpp (no repack)", 150)];
    let (outcome, _) = contest(honest, &paces);
    assert_eq!(outcome.trial.len(), 2);
    assert_eq!(outcome.answers.len(), 2, "answers are compared in every setting");
    assert!(outcome.compared.iter().all(|one| one.peer == "llama.cpp (no repack)"));
}

#[test]
fn rounding_is_no_fault() {
    let (outcome, _) = contest(rounded, &[("llama.cpp (repack)", 100)]);
    assert_eq!(outcome.fault, None);
    assert!(outcome.answers[0].nmse > 0.0);
}

#[test]
fn wrong_logits_leave_nothing_to_compare() {
    for alter in [wrong, wrong_later, broken] {
        let (outcome, _) = contest(alter, &[("llama.cpp (repack)", 200)]);
        let fault = outcome.fault.clone().expect("a fault");
        assert!(fault.contains("NMSE"), "{fault}");
        assert!(outcome.compared.is_empty());
        assert!(outcome.memory.is_none() && outcome.compute.is_none());
        let report = report(outcome);
        assert!(!report.comparable());
        assert!(report.markdown().contains("**answers differ, not comparable**"));
        assert!(report.rows[0].text().contains("ANSWERS DIFFER, not comparable"));
    }
}

#[test]
fn tokens_that_change_from_run_to_run_are_a_fault() {
    thread_local!(static RUNS: Cell<usize> = const { Cell::new(0) });
    fn moody(read: usize, logits: &mut [f32]) {
        let runs = RUNS.with(|runs| {
            runs.set(runs.get() + usize::from(read == OPTIONS.first));
            runs.get()
        });
        // The prompts are read alike; what follows changes once the answers have been compared.
        if read > OPTIONS.first && read < OPTIONS.prompt && runs > 4 {
            logits.rotate_left(1);
        }
    }
    let (outcome, _) = contest(moody, &[("llama.cpp (repack)", 200)]);
    assert!(outcome.fault.clone().unwrap().contains("other tokens"), "{outcome:?}");
    assert!(outcome.compared.is_empty());
}

#[test]
fn nothing_compared_is_no_result() {
    let empty = report(contest(honest, &[("llama.cpp (repack)", 100)]).0);
    assert!(empty.comparable());
    assert!(!Report { rows: Vec::new(), ..empty }.comparable());
}

#[test]
fn the_place_where_tokens_part_is_looked_at_with_equal_pasts() {
    let toy = |alter| Toy {
        name: "toy",
        read: Vec::new(),
        logits: Vec::new(),
        pace: 1,
        alter,
        now: Now::default(),
        diary: Diary::default(),
    };
    let prompt = [1, 2, 3, 4];
    let [mut ours, mut theirs, mut exact] = [wrong_later, honest, honest].map(toy);
    let mut sides = Sides { ours: &mut ours, theirs: &mut theirs, exact: &mut exact };
    let found = compare(&mut sides, &[&prompt], 8, BOUND_PLAIN).unwrap();
    let parting = found.parting.clone().unwrap();
    let [own, other] = &found.sequences;
    assert_eq!(own[..parting.alike], other[..parting.alike]);
    assert_ne!(own[parting.alike], other[parting.alike]);
    // Nine tokens were read when the first wrong row came.
    assert_eq!(prompt.len() + parting.alike, 9);
    assert!(parting.nmse > BOUND_PLAIN && parting.behind > 0.0 && parting.lead >= 0.0);
    assert!(found.nmse < BOUND_PLAIN, "the prompt itself was answered alike");
    assert!(found.fault().unwrap().contains("where token 6 differs"), "{:?}", found.fault());
    assert_ne!(found.ours_sha256, found.theirs_sha256);
}

#[test]
fn a_lead_that_no_rounding_turns_is_a_fault_however_small_the_error_of_the_row() {
    let toy = |name, alter| Toy {
        name,
        read: Vec::new(),
        logits: Vec::new(),
        pace: 1,
        alter,
        now: Now::default(),
        diary: Diary::default(),
    };
    let (mut ours, mut theirs) = (toy("apr (toy)", rounded), toy("llama.cpp (toy)", honest));
    let mut exact = toy("exact (toy)", honest);
    let mut sides = Sides { ours: &mut ours, theirs: &mut theirs, exact: &mut exact };
    let mut found = compare(&mut sides, &[&[1, 2, 3, 4]], 6, BOUND_QUANTISED).unwrap();
    assert_eq!(found.fault(), None);
    let parting = |behind| Parting {
        alike: 2,
        ours: 1,
        theirs: 0,
        lead: behind,
        behind,
        nmse: 1e-4,
        errors: [1e-4; 2],
        reach: 0.1,
    };
    found.parting = Some(parting(0.05));
    assert_eq!(found.fault(), None);
    // Either side may be the one that is wrong.
    found.parting = Some(Parting { errors: [1e-4, 0.5], ..parting(0.05) });
    assert!(found.fault().unwrap().contains("NMSE 5.0e-1 of the other side"));
    found.errors = [1e-4, f64::NAN];
    assert!(found.fault().unwrap().starts_with("behind a prompt: NMSE NaN of the other side"));
    found.errors = [0.0; 2];
    for behind in [0.2, f64::NAN] {
        found.parting = Some(parting(behind));
        assert!(found.fault().unwrap().contains("where token 3 differs: a lead"));
    }
}

#[test]
#[expect(clippy::float_cmp, reason = "one of three constants")]
fn bounds_follow_the_types_of_the_weights() {
    assert_eq!(answers::bound(&[Dtype::F32, Dtype::F16]), BOUND_PLAIN);
    assert_eq!(answers::bound(&[Dtype::F32, Dtype::BF16]), BOUND_BF16);
    assert_eq!(answers::bound(&[Dtype::F32, Dtype::Q8_0, Dtype::BF16]), BOUND_QUANTISED);
}

#[test]
fn hashes_tell_sequences_apart() {
    assert_eq!(hash(&[1, 2]), hash(&[1, 2]));
    assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
    assert_ne!(hash(&[258]), hash(&[2, 1]));
}

#[test]
fn a_report_names_what_one_needs_to_repeat_it() {
    let report = report(contest(honest, &[("llama.cpp (no repack)", 200)]).0);
    let text = report.markdown();
    assert!(!text.contains("Two threads against one"), "{text}");
    let mut one = report.rows[0].clone();
    one.threads = 1;
    let both = Report { rows: vec![one, report.rows[0].clone()], ..report.clone() }.markdown();
    assert!(both.contains("prefill 1.00, llama.cpp 1.00; decode 1.00, llama.cpp 1.00"), "{both}");
    for needed in [
        "2026-01-02",
        "$ apr-peer measure",
        "0123456789ab",
        "llama.cpp 1.2.3",
        "Example 9000",
        "took 7 % of",
    ] {
        assert!(text.contains(needed), "{needed}: {text}");
    }
    // What a file is called cannot break the table.
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| a")).collect();
    // One for each limit: multiplying and memory.
    assert_eq!(rows.len(), Measure::ALL.len() + 2, "{text}");
    assert!(rows.iter().all(|row| row.replace("\\|", "").matches('|').count() == 8), "{text}");
    assert!(rows[3].contains("decode, tok/s") && rows[3].contains("no repack"), "{text}");
    let table = report.rows[0].text();
    assert!(table.lines().nth(2).unwrap().trim_start().starts_with("load"), "{table}");
    assert!(table.contains("all 6 tokens alike"), "{table}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["rows"][0]["compared"][3]["measure"], "decode");
    assert!(json["rows"][0]["answers"][0]["nmse"].is_number());
}
