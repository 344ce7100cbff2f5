//! Standing, score and exit code of a run.
//!
//! The denominator comes from the plan, before anything runs; a case without evidence scores zero; so does a case
//! whose gate never turned red under a planted fault. Nothing here runs or prints anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::CaseInfo;
use crate::contract::Severity;
use crate::event::{ContractScore, Counts, Outcome, RunRecord, Score};
use crate::verdict::{Verdict, VerdictKind};

/// Everything required is green.
pub const EXIT_GREEN: u8 = 0;
/// A claim was falsified.
pub const EXIT_FALSIFIED: u8 = 1;
/// The command line or the catalogue is wrong.
pub const EXIT_USAGE: u8 = 2;
/// The harness or the environment broke.
pub const EXIT_BROKEN: u8 = 3;
/// Nothing was measured at all.
pub const EXIT_NOTHING_RAN: u8 = 4;
/// The model violates its contract, found before anything was dispatched.
pub const EXIT_CONTRACT: u8 = 5;
/// A required case was skipped or undecided.
pub const EXIT_UNDECIDED: u8 = 6;
/// A waiver has expired.
pub const EXIT_WAIVER_EXPIRED: u8 = 7;
/// The user interrupted.
pub const EXIT_INTERRUPTED: u8 = 130;

/// What a finished case means for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Evidence for the claim.
    Green,
    /// No evidence, and none was required; or a falsification that is accepted or only reported.
    Yellow,
    /// Stops a release.
    Red,
}

/// Whether a missing verdict of this case is red: `info` gates are reported only, whatever the suite says.
pub fn is_required(case: &CaseInfo) -> bool {
    case.required && case.severity != Severity::Info
}

/// Whether a waiver that lasts until the end of `expires` is over on `day` (both `YYYY-MM-DD`). A date that cannot be
/// read is over: a waiver must say until when.
pub fn waiver_expired(expires: &str, day: &str) -> bool {
    !is_day(expires) || !is_day(day) || expires < day
}

fn is_day(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
        && ("01"..="12").contains(&&text[5..7])
        && ("01"..="31").contains(&&text[8..10])
}

/// What `outcome` means for a run on `day` (`YYYY-MM-DD`).
pub fn standing(outcome: &Outcome, day: &str) -> Standing {
    let required = is_required(&outcome.case);
    match &outcome.verdict {
        Verdict::Corroborated(_) => Standing::Green,
        Verdict::Falsified(_) if outcome.case.severity == Severity::Info => Standing::Yellow,
        Verdict::Falsified(_) | Verdict::Broken { .. } => Standing::Red,
        Verdict::Waived { expires, .. } if waiver_expired(expires, day) => Standing::Red,
        Verdict::Inconclusive(_) | Verdict::Skipped { .. } if required => Standing::Red,
        Verdict::Waived { .. } | Verdict::Inconclusive(_) | Verdict::Skipped { .. } => {
            Standing::Yellow
        }
    }
}

/// Counts the verdicts.
pub fn counts(outcomes: &[Outcome]) -> Counts {
    let mut counts = Counts::default();
    for outcome in outcomes {
        counts.add(outcome.verdict.kind());
    }
    counts
}

/// Whether every required case is corroborated or validly waived, and at least one is required.
pub fn required_green(outcomes: &[Outcome], day: &str) -> bool {
    let mut required = outcomes.iter().filter(|outcome| is_required(&outcome.case)).peekable();
    required.peek().is_some() && required.all(|outcome| standing(outcome, day) != Standing::Red)
}

/// The severity score of `outcomes` over `plan`.
///
/// Each case of the plan weighs as its severity; it earns its weight only when it is corroborated and its gate
/// (`contract/gate`) is in `proven`. Without a kill matrix (`None`) no gate is known to be unable to fail, every corroborated case earns its
/// weight, and [`Score::unproven`] says that nobody looked. A falsified blocking gate that nobody waived makes the
/// grade F, whatever the percentage.
pub fn score(
    plan: &[CaseInfo],
    outcomes: &[Outcome],
    proven: Option<&BTreeSet<String>>,
    day: &str,
) -> Score {
    let by_id: BTreeMap<&str, &Outcome> =
        outcomes.iter().map(|outcome| (outcome.case.id.as_str(), outcome)).collect();
    let mut score = Score { unproven: proven.map(|_| 0), ..Score::default() };
    for case in plan {
        let weight = u64::from(case.severity.weight());
        let outcome = by_id.get(case.id.as_str());
        let kind = outcome.map_or(VerdictKind::Skipped, |outcome| outcome.verdict.kind());
        let is_proven = proven.is_none_or(|set| set.contains(&gate_key(case)));
        let corroborated = kind == VerdictKind::Corroborated;
        let contract = score.by_contract.entry(case.contract.clone()).or_default();
        add(contract, weight, corroborated && is_proven);
        if corroborated && !is_proven {
            score.unproven = score.unproven.map(|count| count + 1);
        }
        if is_required(case) {
            score.required += 1;
            score.corroborated_required += usize::from(corroborated);
            score.not_measured += usize::from(not_measured(kind));
        }
    }
    score.points = score.by_contract.values().map(|contract| contract.points).sum();
    score.points_max = score.by_contract.values().map(|contract| contract.points_max).sum();
    score.percent = percent(score.points, score.points_max);
    let override_f = outcomes.iter().any(|outcome| refutes_release(outcome, day));
    let band = if override_f { "F" } else { grade(score.percent) };
    score.grade = String::from(band);
    score
}

/// The name under which a gate is proven: `contract/gate`.
pub fn gate_key(case: &CaseInfo) -> String {
    format!("{}/{}", case.contract, case.gate)
}

fn add(contract: &mut ContractScore, weight: u64, earned: bool) {
    contract.cases += 1;
    contract.points_max += weight;
    contract.points += if earned { weight } else { 0 };
}

const fn not_measured(kind: VerdictKind) -> bool {
    matches!(kind, VerdictKind::Skipped | VerdictKind::Inconclusive | VerdictKind::Broken)
}

fn refutes_release(outcome: &Outcome, day: &str) -> bool {
    let refuted = match &outcome.verdict {
        Verdict::Falsified(_) => true,
        Verdict::Waived { expires, .. } => waiver_expired(expires, day),
        _ => false,
    };
    refuted && outcome.case.severity == Severity::Blocking
}

/// `floor(100 * points / points_max)`, 0 for an empty matrix: 99.9 % is never shown as 100.
pub fn percent(points: u64, points_max: u64) -> u8 {
    if points_max == 0 {
        return 0;
    }
    let percent = u128::from(points.min(points_max)) * 100 / u128::from(points_max);
    u8::try_from(percent).unwrap_or(100)
}

/// The band of a percentage: A from 90, B from 80, C from 70, D from 60, F below.
pub const fn grade(percent: u8) -> &'static str {
    match percent {
        90.. => "A",
        80..=89 => "B",
        70..=79 => "C",
        60..=69 => "D",
        _ => "F",
    }
}

/// The exit code of a finished run. The first that applies wins:
///
/// | code | when |
/// |---|---|
/// | 130 | the user interrupted |
/// | 4 | no case was measured: an empty plan, or nothing but skips |
/// | 1 | a claim above `info` was falsified: a refutation stands, whatever else broke |
/// | 3 | the harness or the environment broke |
/// | 7 | a waiver has expired |
/// | 6 | a required case was skipped or undecided |
/// | 0 | none of these |
pub fn exit_code(record: &RunRecord) -> u8 {
    let day = record.day();
    if record.interrupted {
        return EXIT_INTERRUPTED;
    }
    if record.cases.iter().all(|outcome| outcome.verdict.kind() == VerdictKind::Skipped) {
        return EXIT_NOTHING_RAN;
    }
    let red = |kind: VerdictKind| {
        record.cases.iter().any(|outcome| {
            outcome.verdict.kind() == kind && standing(outcome, day) == Standing::Red
        })
    };
    if red(VerdictKind::Falsified) {
        EXIT_FALSIFIED
    } else if red(VerdictKind::Broken) {
        EXIT_BROKEN
    } else if red(VerdictKind::Waived) {
        EXIT_WAIVER_EXPIRED
    } else if red(VerdictKind::Inconclusive) || red(VerdictKind::Skipped) {
        EXIT_UNDECIDED
    } else {
        EXIT_GREEN
    }
}

/// What an exit code says, in a few words.
pub const fn exit_meaning(code: u8) -> &'static str {
    match code {
        EXIT_GREEN => "all required cases are green",
        EXIT_FALSIFIED => "a claim was falsified",
        EXIT_USAGE => "usage or catalogue error",
        EXIT_BROKEN => "the harness or the environment broke",
        EXIT_NOTHING_RAN => "nothing was measured",
        EXIT_CONTRACT => "the model violates its contract",
        EXIT_UNDECIDED => "a required case was skipped or undecided",
        EXIT_WAIVER_EXPIRED => "a waiver has expired",
        EXIT_INTERRUPTED => "interrupted",
        _ => "unknown exit code",
    }
}

#[cfg(test)]
mod tests;
