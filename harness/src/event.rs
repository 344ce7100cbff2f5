//! What the runner tells its sinks, and the record a whole run leaves.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::case::CaseInfo;
use crate::contract::parameter::ParameterValue;
use crate::kill::KillMatrix;
use crate::verdict::{Evidence, Verdict, VerdictKind};

/// A finished case. On paper (see [`OutcomeOnPaper`]) the verdict is a plain name and the numbers stand beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "OutcomeOnPaper", into = "OutcomeOnPaper")]
pub struct Outcome {
    /// The case.
    pub case: CaseInfo,
    /// What was seen.
    pub verdict: Verdict,
    /// Wall time in milliseconds.
    pub duration_ms: f64,
    /// Whether the verdict was taken over from the journal of an interrupted run.
    pub resumed: bool,
}

/// How an [`Outcome`] is written in records: readers get the verdict's name, the evidence and, where there is no
/// evidence or not only evidence, the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeOnPaper {
    /// The case.
    #[serde(flatten)]
    pub case: CaseInfo,
    /// The verdict's name.
    pub verdict: VerdictKind,
    /// The numbers, when the verdict rests on some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Why nothing was measured, what broke, or who waived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Wall time in milliseconds.
    pub duration_ms: f64,
    /// Whether the verdict was taken over from the journal of an interrupted run.
    #[serde(default)]
    pub resumed: bool,
}

/// What stands beside a verdict that is not plain evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A need was not met.
    Unmet {
        /// The machine-readable need.
        need: String,
        /// Why it is not met.
        why: String,
    },
    /// A falsification is accepted for a time.
    Waiver {
        /// Who.
        owner: String,
        /// Why.
        reason: String,
        /// Last day, `YYYY-MM-DD`.
        expires: String,
    },
    /// The harness or the environment failed.
    Error {
        /// What failed.
        error: String,
    },
}

impl From<Outcome> for OutcomeOnPaper {
    fn from(outcome: Outcome) -> Self {
        let verdict = outcome.verdict.kind();
        let (evidence, reason) = match outcome.verdict {
            Verdict::Corroborated(evidence)
            | Verdict::Falsified(evidence)
            | Verdict::Inconclusive(evidence) => (Some(evidence), None),
            Verdict::Waived { owner, reason, expires, evidence } => {
                (Some(evidence), Some(Reason::Waiver { owner, reason, expires }))
            }
            Verdict::Skipped { need, why } => (None, Some(Reason::Unmet { need, why })),
            Verdict::Broken { error } => (None, Some(Reason::Error { error })),
        };
        let Outcome { case, duration_ms, resumed, .. } = outcome;
        Self { case, verdict, evidence, reason, duration_ms, resumed }
    }
}

impl TryFrom<OutcomeOnPaper> for Outcome {
    type Error = String;

    fn try_from(paper: OutcomeOnPaper) -> Result<Self, String> {
        let verdict = match (paper.verdict, paper.evidence, paper.reason) {
            (VerdictKind::Corroborated, Some(evidence), None) => Verdict::Corroborated(evidence),
            (VerdictKind::Falsified, Some(evidence), None) => Verdict::Falsified(evidence),
            (VerdictKind::Inconclusive, Some(evidence), None) => Verdict::Inconclusive(evidence),
            (
                VerdictKind::Waived,
                Some(evidence),
                Some(Reason::Waiver { owner, reason, expires }),
            ) => Verdict::Waived { owner, reason, expires, evidence },
            (VerdictKind::Skipped, None, Some(Reason::Unmet { need, why })) => {
                Verdict::Skipped { need, why }
            }
            (VerdictKind::Broken, None, Some(Reason::Error { error })) => Verdict::Broken { error },
            (kind, _, _) => {
                let id = &paper.case.id;
                return Err(format!("case {id}: evidence and reason do not fit `{}`", kind.name()));
            }
        };
        let OutcomeOnPaper { case, duration_ms, resumed, .. } = paper;
        Ok(Self { case, verdict, duration_ms, resumed })
    }
}

/// Where a run came from: everything needed to repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// Version of the tool.
    pub apr_version: String,
    /// SHA-256 of the executable.
    pub binary_sha256: String,
    /// SHA-256 over the resolved catalogue.
    pub catalogue_sha256: String,
    /// Model form → SHA-256 of its weight files.
    pub models: BTreeMap<String, String>,
    /// Parameters of the contracts that have another value than their default, and who set them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<ParameterValue>,
    /// CPU model, features, cores, memory.
    pub machine: BTreeMap<String, String>,
    /// The command line.
    pub command: Vec<String>,
    /// Seed of everything random.
    pub seed: u64,
    /// Start, UTC, RFC 3339.
    pub started: String,
}

/// How many cases ended in each verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Claims that survived.
    pub corroborated: usize,
    /// Claims refuted.
    pub falsified: usize,
    /// Undecided.
    pub inconclusive: usize,
    /// Not measured.
    pub skipped: usize,
    /// Accepted falsifications.
    pub waived: usize,
    /// Harness or environment failures.
    pub broken: usize,
}

impl Counts {
    /// Counts one verdict.
    pub fn add(&mut self, kind: VerdictKind) {
        *match kind {
            VerdictKind::Corroborated => &mut self.corroborated,
            VerdictKind::Falsified => &mut self.falsified,
            VerdictKind::Inconclusive => &mut self.inconclusive,
            VerdictKind::Skipped => &mut self.skipped,
            VerdictKind::Waived => &mut self.waived,
            VerdictKind::Broken => &mut self.broken,
        } += 1;
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.corroborated
            + self.falsified
            + self.inconclusive
            + self.skipped
            + self.waived
            + self.broken
    }
}

/// One step of a run.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The matrix is expanded; nothing has run yet.
    Started {
        /// Every case that will run, in order.
        plan: &'a [CaseInfo],
        /// Where the run comes from.
        provenance: &'a Provenance,
    },
    /// A case begins.
    CaseStarted(&'a CaseInfo),
    /// A case ended.
    CaseFinished(&'a Outcome),
    /// Everything ended.
    Finished(&'a RunRecord),
}

/// The record of a run; every report is a rendering of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// Suite name.
    pub suite: String,
    /// Where the run came from.
    pub provenance: Provenance,
    /// Finished cases in plan order.
    pub cases: Vec<Outcome>,
    /// Verdict counts.
    pub counts: Counts,
    /// Score; see the scoring module for the arithmetic.
    pub score: Score,
    /// Whether every required case is corroborated or validly waived.
    pub required_green: bool,
    /// Exit code that follows.
    pub exit_code: u8,
    /// Whether the run was stopped by the user; the cases that did not run are skipped with the need `run`.
    #[serde(default)]
    pub interrupted: bool,
    /// Which part of the matrix this is, when it was split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// What went wrong beside the cases: a sink that could not write, a journal line that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Gates by faults, when the run proved them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_matrix: Option<KillMatrix>,
}

impl RunRecord {
    /// The day of the run, `YYYY-MM-DD`: what waivers are held against.
    pub fn day(&self) -> &str {
        self.provenance.started.get(..10).unwrap_or_default()
    }
}

/// One of several parts of a matrix: every `of`-th case, beginning with the `index`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// From 1 to `of`.
    pub index: usize,
    /// How many parts there are.
    pub of: usize,
    /// Cases of the whole matrix; a merge must find them all.
    pub cases: usize,
}

/// A score with its denominator. The denominator is fixed by the expanded matrix before anything runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Score {
    /// Severity-weighted points reached.
    pub points: u64,
    /// Severity-weighted points of the whole matrix.
    pub points_max: u64,
    /// `floor(100 * points / points_max)`; 0 for an empty matrix.
    pub percent: u8,
    /// A, B, C, D or F.
    pub grade: String,
    /// Required cases that are corroborated.
    pub corroborated_required: usize,
    /// Required cases.
    pub required: usize,
    /// Required cases that were not measured (skipped, inconclusive, broken).
    pub not_measured: usize,
    /// Corroborated cases that score zero because no planted fault ever turned their gate red; `None` when no kill matrix
    /// was consulted, so that nothing is known about the gates' ability to fail.
    #[serde(default)]
    pub unproven: Option<usize>,
    /// Contract → its own score.
    #[serde(default)]
    pub by_contract: BTreeMap<String, ContractScore>,
}

/// Score of one contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContractScore {
    /// Points reached.
    pub points: u64,
    /// Points possible.
    pub points_max: u64,
    /// Cases.
    pub cases: usize,
}

/// A receiver of events. Sinks are peers: none knows another.
pub trait Sink: Send {
    /// Receives one event.
    ///
    /// # Errors
    /// When the sink cannot write; the runner reports it and carries on with the others.
    fn on(&mut self, event: &Event<'_>) -> std::io::Result<()>;
}
