//! What became of the claims of a sheet on one model, and the points that follow.
//!
//! A claim holds when gates judged it and each of their cases was corroborated. What nothing measured earns nothing, whatever the
//! reason; only claims that do not apply to any model of this kind are left out of the denominator, and it is fixed
//! before anything runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::brick::BrickScore;
use super::{Asked, Sheet, ids};
use crate::contract::Severity;
use crate::coverage::ClaimStanding;
use crate::event::Outcome;
use crate::score::{gate_key, grade};
use crate::verdict::{Verdict, VerdictKind};

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Every case that judged it was corroborated.
    Holds,
    /// A case was falsified.
    Fails,
    /// Nothing was falsified, but not everything could be measured, or nothing was.
    NotMeasured,
    /// It does not apply.
    NotApplicable,
}

/// A claim with its evidence.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ClaimScore {
    /// Its id.
    pub id: String,
    /// What is claimed.
    pub title: String,
    /// What became of it.
    pub standing: Standing,
    /// What the gates saw, as `contract/gate: summary`; or why nothing was seen.
    pub evidence: Vec<String>,
}

/// Points of a list of claims.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PartScore {
    /// Name.
    pub part: String,
    /// What it is about.
    pub title: String,
    /// `floor(holds * points_max / applicable)`.
    pub points: u32,
    /// Most points.
    pub points_max: u32,
    /// Claims that hold.
    pub holds: usize,
    /// Claims that were refuted.
    pub fails: usize,
    /// Claims that nothing measured.
    pub not_measured: usize,
    /// Claims that apply: the denominator.
    pub applicable: usize,
    /// The claims.
    pub claims: Vec<String>,
}

/// A sheet, filled in.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Score {
    /// The format score from 0 to 100; absent when too little was measured.
    pub total: Option<u32>,
    /// Its band; `F` whenever a blocking gate was falsified.
    pub grade: Option<String>,
    /// The parts that add up to it.
    pub parts: Vec<PartScore>,
    /// The combined score; absent when too little was measured.
    pub combined: Option<CombinedScore>,
    /// Share of the claims that apply and that nothing measured, and the largest that is accepted.
    pub unmeasured: [f64; 2],
    /// Blocking gates that were falsified.
    pub refuted: Vec<String>,
    /// Every claim.
    pub claims: Vec<ClaimScore>,
    /// The bricks.
    pub bricks: BrickScore,
}

/// `floor((50 * claims + 25 * parts + 25 * bricks) / 100)` with the weights of the sheet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CombinedScore {
    /// The score from 0 to 100.
    pub total: u32,
    /// Its band; `F` whenever a blocking gate was falsified.
    pub grade: String,
    /// Share of all claims that hold, in per cent, truncated.
    pub claims: u32,
    /// The format score.
    pub parts: u32,
    /// The brick score.
    pub bricks: u32,
}

/// Fills `sheet` in.
pub fn score(sheet: &Sheet, asked: &[Asked], outcomes: &[Outcome], bricks: BrickScore) -> Score {
    let mut seen: BTreeMap<String, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        seen.entry(gate_key(&outcome.case)).or_default().push(outcome);
    }
    let claims: Vec<ClaimScore> = asked.iter().map(|claim| judged(claim, &seen)).collect();
    let parts: Vec<PartScore> = sheet
        .parts
        .iter()
        .map(|part| part_score((&part.part, &part.title), part.points, &part.claims, &claims))
        .collect();
    let whole = part_score(("all", ""), 100, &sheet.combined.claims.claims, &claims);
    let applicable = claims.iter().filter(|claim| claim.standing != Standing::NotApplicable);
    let open = applicable.clone().filter(|claim| claim.standing == Standing::NotMeasured).count();
    let unmeasured = open as f64 / applicable.count().max(1) as f64;
    let accepted = sheet.unmeasured_at_most.get();
    let refuted = refuted(outcomes);
    let band = |total: u32| match refuted.as_slice() {
        [] => grade(u8::try_from(total).unwrap_or(100)).to_owned(),
        _ => "F".to_owned(),
    };
    // Written so that a share which is no number is no score.
    let total = (unmeasured <= accepted).then(|| parts.iter().map(|part| part.points).sum());
    let combined = total.zip(bricks.total).map(|(parts, bricks)| {
        let weigh = &sheet.combined;
        let sum = whole.points * weigh.claims.weight
            + parts * weigh.parts.weight
            + bricks * weigh.bricks.weight;
        let total = sum / 100;
        CombinedScore { total, grade: band(total), claims: whole.points, parts, bricks }
    });
    Score {
        total,
        grade: total.map(band),
        parts,
        combined,
        unmeasured: [unmeasured, accepted],
        refuted,
        claims,
        bricks,
    }
}

/// The blocking gates that were falsified, each once.
fn refuted(outcomes: &[Outcome]) -> Vec<String> {
    let mut gates: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.verdict.kind() == VerdictKind::Falsified)
        .filter(|outcome| outcome.case.severity == Severity::Blocking)
        .map(|outcome| gate_key(&outcome.case))
        .collect();
    gates.sort();
    gates.dedup();
    gates
}

/// What became of one claim.
fn judged(claim: &Asked, seen: &BTreeMap<String, Vec<&Outcome>>) -> ClaimScore {
    let (standing, evidence) = match &claim.standing {
        ClaimStanding::NotApplicable { reason } => (Standing::NotApplicable, vec![reason.clone()]),
        ClaimStanding::NotYet { reason } => (Standing::NotMeasured, vec![reason.clone()]),
        ClaimStanding::Tests { tests } => {
            let why = "held by a test of the program, which says nothing of this model";
            (Standing::NotMeasured, vec![format!("{why}: {}", tests.join(", "))])
        }
        ClaimStanding::Gates { gates } => {
            let outcomes: Vec<&Outcome> =
                gates.iter().filter_map(|gate| seen.get(gate)).flatten().copied().collect();
            by_outcomes(gates, &outcomes)
        }
    };
    ClaimScore { id: claim.id.clone(), title: claim.title.clone(), standing, evidence }
}

fn by_outcomes(gates: &[String], outcomes: &[&Outcome]) -> (Standing, Vec<String>) {
    if outcomes.is_empty() {
        let why = format!("no gate of it speaks of this model: {}", gates.join(", "));
        return (Standing::NotMeasured, vec![why]);
    }
    let is = |kind| outcomes.iter().any(|outcome| outcome.verdict.kind() == kind);
    let all = outcomes.iter().all(|outcome| matches!(outcome.verdict, Verdict::Corroborated(_)));
    let standing = match (is(VerdictKind::Falsified), all) {
        (true, _) => Standing::Fails,
        (false, true) => Standing::Holds,
        (false, false) => Standing::NotMeasured,
    };
    let line = |outcome: &&Outcome| {
        let kind = match outcome.verdict.kind() {
            VerdictKind::Corroborated => String::new(),
            kind => format!("{}: ", kind.name()),
        };
        format!("{}: {kind}{}", gate_key(&outcome.case), outcome.verdict.summary())
    };
    (standing, outcomes.iter().map(line).collect())
}

fn part_score(
    (part, title): (&str, &str),
    points_max: u32,
    list: &[String],
    claims: &[ClaimScore],
) -> PartScore {
    let wanted = ids(list).unwrap_or_default();
    let mine: Vec<&ClaimScore> = claims.iter().filter(|claim| wanted.contains(&claim.id)).collect();
    let count = |standing| mine.iter().filter(|claim| claim.standing == standing).count();
    let applicable = mine.len() - count(Standing::NotApplicable);
    let holds = count(Standing::Holds);
    // Multiplied before it is divided; a part without claims that apply earns nothing.
    let points = (holds as u64 * u64::from(points_max)).checked_div(applicable as u64);
    PartScore {
        part: part.to_owned(),
        title: title.to_owned(),
        points: points.and_then(|points| u32::try_from(points).ok()).unwrap_or(0),
        points_max,
        holds,
        fails: count(Standing::Fails),
        not_measured: count(Standing::NotMeasured),
        applicable,
        claims: wanted,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::runner::planned_for_tests;
    use crate::verdict::Evidence;

    const TEXT: &str = include_str!("../../../contracts/sheets/apr.yaml");

    /// The claims of the carried sheet, each with a gate `stages/<id>` of its own.
    fn asked_all(sheet: &Sheet) -> Vec<Asked> {
        let of = |id: String| Asked {
            title: "t".into(),
            standing: ClaimStanding::Gates { gates: vec![format!("stages/{id}")] },
            id,
        };
        sheet.claims().into_iter().map(of).collect()
    }

    fn outcome(gate: &str, verdict: Verdict, severity: Severity) -> Outcome {
        let mut case = planned_for_tests("stages", 1).remove(0).info;
        case.gate = gate.to_owned();
        case.severity = severity;
        Outcome { case, verdict, duration_ms: 0.0, resumed: false }
    }

    fn good() -> Verdict {
        Verdict::Corroborated(Evidence::new(1, "seen"))
    }

    fn bad() -> Verdict {
        Verdict::Falsified(Evidence::new(1, "not so"))
    }

    fn bricks(total: u32) -> BrickScore {
        BrickScore { total: Some(total), ..BrickScore::default() }
    }

    /// What a gate says, and how severe it is; `None` when it did not run.
    type Said = Option<(Verdict, Severity)>;

    /// The score when `verdict` is what the gate of each claim says.
    fn scored(change: &dyn Fn(&mut Vec<Asked>), verdict: &dyn Fn(usize, &str) -> Said) -> Score {
        let sheet = Sheet::from_text(TEXT, Path::new("apr.yaml")).unwrap();
        let mut asked = asked_all(&sheet);
        change(&mut asked);
        let judged = sheet.claims().into_iter().enumerate();
        let outcomes: Vec<Outcome> = judged
            .filter_map(|(at, id)| {
                verdict(at, &id).map(|(verdict, severity)| outcome(&id, verdict, severity))
            })
            .collect();
        score(&sheet, &asked, &outcomes, bricks(80))
    }

    fn points(score: &Score) -> Vec<u32> {
        score.parts.iter().map(|part| part.points).collect()
    }

    #[test]
    fn parts_are_multiplied_before_they_are_divided_and_truncated() {
        // 20 of 20, 18 of 20, 4 of 5 and 19 of 20: 25 + 31 (31.5) + 16 + 19.
        let lost = ["F-APR-021", "F-APR-022", "F-APR-048", "F-APR-061@002"];
        let score = scored(&|_| {}, &|_, id| {
            let verdict = if lost.contains(&id) { bad() } else { good() };
            Some((verdict, Severity::Major))
        });
        assert_eq!(points(&score), [25, 31, 16, 19]);
        assert_eq!((score.total, score.grade.as_deref()), (Some(91), Some("A")));
        // 76 of 80 claims are 95 per cent: (95 * 50 + 91 * 25 + 80 * 25) / 100 = 90.25.
        let combined = score.combined.unwrap();
        assert_eq!((combined.claims, combined.total), (95, 90));
    }

    #[test]
    fn the_printed_example_of_the_combined_score_comes_out() {
        let sheet = Sheet::from_text(TEXT, Path::new("apr.yaml")).unwrap();
        let weigh = &sheet.combined;
        let sum = 90 * weigh.claims.weight + 91 * weigh.parts.weight + 80 * weigh.bricks.weight;
        assert_eq!(sum / 100, 87);
        assert_eq!(grade(87), "B");
    }

    #[test]
    fn a_falsified_blocking_gate_makes_the_grade_f_whatever_the_points() {
        let score = scored(&|_| {}, &|at, _| {
            let verdict = if at == 0 { bad() } else { good() };
            Some((verdict, Severity::Blocking))
        });
        assert_eq!((score.total, score.grade.as_deref()), (Some(98), Some("F")));
        assert_eq!(score.refuted, ["stages/F-APR-001"]);
        assert_eq!(score.combined.unwrap().grade, "F");
    }

    #[test]
    fn what_nothing_measured_earns_nothing_and_too_much_of_it_is_no_score() {
        let skip = || Verdict::skipped("cuda", "no driver");
        let score = scored(&|_| {}, &|at, _| {
            Some((if at < 40 { skip() } else { good() }, Severity::Major))
        });
        assert_eq!((points(&score), score.unmeasured), (vec![0, 0, 20, 20], [0.5, 0.5]));
        assert_eq!(score.total, Some(40));
        let score = scored(&|_| {}, &|at, _| (at >= 41).then(|| (good(), Severity::Major)));
        assert_eq!((score.total, score.grade.as_deref(), score.combined), (None, None, None));
        assert_eq!(score.claims[0].standing, Standing::NotMeasured);
        let score = scored(&|_| {}, &|_, _| None);
        assert_eq!(score.total, None, "an empty run is no score");
    }

    #[test]
    fn a_broken_or_undecided_case_beside_a_good_one_does_not_hold() {
        let sheet = Sheet::from_text(TEXT, Path::new("apr.yaml")).unwrap();
        let claim = &asked_all(&sheet)[0];
        for other in [Verdict::broken("x"), Verdict::Inconclusive(Evidence::new(1, "noise"))] {
            let both = [
                outcome(&claim.id, good(), Severity::Major),
                outcome(&claim.id, other, Severity::Major),
            ];
            let score = score(&sheet, std::slice::from_ref(claim), &both, bricks(0));
            assert_eq!(score.claims[0].standing, Standing::NotMeasured);
        }
    }

    #[test]
    fn a_claim_that_does_not_apply_leaves_the_denominator_and_a_test_of_the_program_does_not() {
        let score = scored(
            &|asked| {
                asked[0].standing = ClaimStanding::NotApplicable { reason: "other header".into() };
                asked[1].standing = ClaimStanding::Tests { tests: vec!["a.rs#b".into()] };
            },
            &|_, _| Some((good(), Severity::Major)),
        );
        let part = &score.parts[0];
        assert_eq!((part.holds, part.applicable, part.not_measured), (18, 19, 1));
        assert_eq!(part.points, 18 * 25 / 19);
    }
}
