use proptest::prelude::*;

use super::*;
use crate::case::Cell;
use crate::event::Provenance;
use crate::verdict::{Evidence, Limit, Measure};

const DAY: &str = "2026-11-21";

fn case(index: usize, severity: Severity, required: bool) -> CaseInfo {
    CaseInfo {
        id: format!("c{}/g{index}", index % 3),
        contract: format!("c{}", index % 3),
        gate: format!("g{index}"),
        claim: "it holds".into(),
        severity,
        refs: Vec::new(),
        cell: Cell::default(),
        required,
    }
}

fn evidence() -> Evidence {
    Evidence::new(3, "three").measure(Measure::judged("error", 0.5, Limit::AtMost(1.0)))
}

fn waived(expires: &str) -> Verdict {
    Verdict::Waived {
        owner: "qa".into(),
        reason: "known".into(),
        expires: expires.into(),
        evidence: evidence(),
    }
}

fn verdict(kind: VerdictKind) -> Verdict {
    match kind {
        VerdictKind::Corroborated => Verdict::Corroborated(evidence()),
        VerdictKind::Falsified => Verdict::Falsified(evidence()),
        VerdictKind::Inconclusive => Verdict::Inconclusive(evidence()),
        VerdictKind::Skipped => Verdict::skipped("cuda", "no device"),
        VerdictKind::Waived => waived("2027-01-01"),
        VerdictKind::Broken => Verdict::broken("disk"),
    }
}

fn outcome(case: &CaseInfo, verdict: Verdict) -> Outcome {
    Outcome { case: case.clone(), verdict, duration_ms: 1.0, resumed: false }
}

fn record(cases: Vec<Outcome>) -> RunRecord {
    let plan: Vec<CaseInfo> = cases.iter().map(|outcome| outcome.case.clone()).collect();
    let mut record = RunRecord {
        suite: "test".into(),
        provenance: Provenance {
            apr_version: "0".into(),
            binary_sha256: String::new(),
            catalogue_sha256: String::new(),
            models: BTreeMap::new(),
            machine: BTreeMap::new(),
            command: Vec::new(),
            parameters: Vec::new(),
            seed: 0,
            started: format!("{DAY}T10:00:00Z"),
        },
        counts: counts(&cases),
        score: score(&plan, &cases, None, DAY),
        required_green: required_green(&cases, DAY),
        cases,
        exit_code: 0,
        interrupted: false,
        shard: None,
        notes: Vec::new(),
        kill_matrix: None,
    };
    record.exit_code = exit_code(&record);
    record
}

fn exit_of(verdicts: &[Verdict]) -> u8 {
    let of = |(index, verdict): (usize, &Verdict)| {
        outcome(&case(index, Severity::Major, true), verdict.clone())
    };
    record(verdicts.iter().enumerate().map(of).collect()).exit_code
}

#[test]
fn an_empty_run_is_not_a_perfect_run() {
    let empty = record(Vec::new());
    assert_eq!(empty.exit_code, EXIT_NOTHING_RAN);
    assert_eq!((empty.score.percent, empty.score.grade.as_str()), (0, "F"));
    assert!(!empty.required_green);
}

#[test]
fn nothing_but_skips_is_nothing_ran() {
    assert_eq!(exit_of(&[verdict(VerdictKind::Skipped)]), EXIT_NOTHING_RAN);
}

#[test]
fn each_verdict_has_its_exit_code() {
    let ok = verdict(VerdictKind::Corroborated);
    let expected = [
        (VerdictKind::Corroborated, EXIT_GREEN),
        (VerdictKind::Falsified, EXIT_FALSIFIED),
        (VerdictKind::Inconclusive, EXIT_UNDECIDED),
        (VerdictKind::Skipped, EXIT_UNDECIDED),
        (VerdictKind::Waived, EXIT_GREEN),
        (VerdictKind::Broken, EXIT_BROKEN),
    ];
    for (kind, code) in expected {
        assert_eq!(exit_of(&[ok.clone(), verdict(kind)]), code, "{}", kind.name());
    }
}

#[test]
fn a_falsification_outranks_a_broken_harness_and_an_expired_waiver_outranks_a_skip() {
    let [falsified, broken] = [VerdictKind::Falsified, VerdictKind::Broken].map(verdict);
    assert_eq!(exit_of(&[broken.clone(), falsified]), EXIT_FALSIFIED);
    assert_eq!(exit_of(&[broken, waived("2026-11-20")]), EXIT_BROKEN);
    let skipped = verdict(VerdictKind::Skipped);
    assert_eq!(exit_of(&[skipped, waived("2026-11-20")]), EXIT_WAIVER_EXPIRED);
}

#[test]
fn interruption_outranks_everything() {
    let falsified = outcome(&case(0, Severity::Blocking, true), verdict(VerdictKind::Falsified));
    let mut stopped = record(vec![falsified]);
    stopped.interrupted = true;
    assert_eq!(exit_code(&stopped), EXIT_INTERRUPTED);
}

#[test]
fn a_waiver_holds_through_its_last_day_and_no_longer() {
    assert!(!waiver_expired("2026-11-21", DAY));
    assert!(waiver_expired("2026-11-20", DAY));
}

#[test]
fn a_waiver_without_a_readable_date_is_expired() {
    for expires in ["", "never", "9999", "2026-13-01", "2027-1-1", "２０２７-01", "2027-00-10"]
    {
        assert!(waiver_expired(expires, DAY), "{expires:?}");
    }
}

#[test]
fn a_skip_is_red_only_where_it_is_required() {
    let skipped = verdict(VerdictKind::Skipped);
    let required = outcome(&case(0, Severity::Major, true), skipped.clone());
    let optional = outcome(&case(1, Severity::Major, false), skipped.clone());
    let info = outcome(&case(2, Severity::Info, true), skipped);
    assert_eq!(standing(&required, DAY), Standing::Red);
    assert_eq!(standing(&optional, DAY), Standing::Yellow);
    assert_eq!(standing(&info, DAY), Standing::Yellow);
}

#[test]
fn a_falsified_blocking_gate_is_grade_f_at_any_percentage() {
    let mut cases: Vec<Outcome> = (0..99)
        .map(|index| {
            outcome(&case(index, Severity::Blocking, true), verdict(VerdictKind::Corroborated))
        })
        .collect();
    cases.push(outcome(&case(99, Severity::Blocking, true), verdict(VerdictKind::Falsified)));
    let record = record(cases);
    assert_eq!((record.score.percent, record.score.grade.as_str()), (99, "F"));
}

#[test]
fn an_unproven_gate_scores_zero() {
    let cases = [0, 1].map(|index| case(index, Severity::Blocking, true));
    let outcomes = cases.each_ref().map(|case| outcome(case, verdict(VerdictKind::Corroborated)));
    let proven = BTreeSet::from(["c0/g0".to_owned()]);
    let scored = score(&cases, &outcomes, Some(&proven), DAY);
    assert_eq!((scored.points, scored.points_max, scored.unproven), (8, 16, Some(1)));
    let unknown = score(&cases, &outcomes, None, DAY);
    assert_eq!((unknown.points, unknown.unproven), (16, None));
}

#[test]
fn a_planned_case_without_an_outcome_scores_zero_and_is_not_measured() {
    let cases = [0, 1].map(|index| case(index, Severity::Major, true));
    let outcomes = [outcome(&cases[0], verdict(VerdictKind::Corroborated))];
    let scored = score(&cases, &outcomes, None, DAY);
    assert_eq!((scored.points, scored.points_max, scored.not_measured), (4, 8, 1));
}

#[test]
fn percentages_are_truncated_and_bands_are_exact() {
    assert_eq!(percent(999, 1000), 99);
    assert_eq!(percent(u64::MAX, u64::MAX), 100);
    let bands = [(100, "A"), (90, "A"), (89, "B"), (80, "B"), (79, "C"), (69, "D"), (59, "F")];
    for (value, band) in bands {
        assert_eq!(grade(value), band);
    }
}

#[test]
fn an_outcome_survives_the_way_to_paper_and_back() {
    for kind in VerdictKind::ALL {
        let outcome = outcome(&case(0, Severity::Minor, true), verdict(kind));
        let json = serde_json::to_string(&outcome).unwrap();
        assert!(json.contains(&format!("\"verdict\":\"{}\"", kind.name())), "{json}");
        assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
    }
}

#[test]
fn a_corroboration_without_evidence_on_paper_is_refused() {
    let outcome = outcome(&case(0, Severity::Minor, true), verdict(VerdictKind::Skipped));
    let json = serde_json::to_string(&outcome).unwrap().replace("skipped", "corroborated");
    assert!(serde_json::from_str::<Outcome>(&json).is_err());
}

fn any_outcomes() -> impl Strategy<Value = Vec<Outcome>> {
    let severity = prop::sample::select(vec![
        Severity::Blocking,
        Severity::Major,
        Severity::Minor,
        Severity::Info,
    ]);
    let kind = prop::sample::select(VerdictKind::ALL.to_vec());
    prop::collection::vec((severity, kind, any::<bool>()), 0..40).prop_map(|rows| {
        let of = |(index, (severity, kind, required))| {
            outcome(&case(index, severity, required), verdict(kind))
        };
        rows.into_iter().enumerate().map(of).collect()
    })
}

proptest! {
    #[test]
    fn points_never_exceed_the_matrix_and_the_parts_sum_up(outcomes in any_outcomes()) {
        let plan: Vec<CaseInfo> = outcomes.iter().map(|outcome| outcome.case.clone()).collect();
        let scored = score(&plan, &outcomes, None, DAY);
        prop_assert!(scored.points <= scored.points_max);
        prop_assert!(scored.percent <= 100);
        prop_assert!(scored.corroborated_required + scored.not_measured <= scored.required);
        let cases: usize = scored.by_contract.values().map(|contract| contract.cases).sum();
        prop_assert_eq!(cases, plan.len());
    }

    #[test]
    fn losing_evidence_never_raises_the_score(outcomes in any_outcomes(), at in any::<prop::sample::Index>()) {
        prop_assume!(!outcomes.is_empty());
        let plan: Vec<CaseInfo> = outcomes.iter().map(|outcome| outcome.case.clone()).collect();
        let whole = score(&plan, &outcomes, None, DAY);
        let mut fewer = outcomes.clone();
        fewer.remove(at.index(outcomes.len()));
        let less = score(&plan, &fewer, None, DAY);
        prop_assert!(less.points <= whole.points);
        prop_assert_eq!(less.points_max, whole.points_max);
    }

    #[test]
    fn exit_zero_means_no_red_case(outcomes in any_outcomes()) {
        let record = record(outcomes);
        if record.exit_code == EXIT_GREEN {
            prop_assert!(record.cases.iter().all(|outcome| standing(outcome, DAY) != Standing::Red));
            prop_assert!(record.counts.total() > record.counts.skipped);
        }
    }

    #[test]
    fn the_order_of_cases_does_not_matter(outcomes in any_outcomes()) {
        let forward = record(outcomes.clone());
        let backward = record(outcomes.into_iter().rev().collect());
        prop_assert_eq!(forward.exit_code, backward.exit_code);
        prop_assert_eq!(forward.score, backward.score);
    }
}
