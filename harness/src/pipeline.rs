//! The ten stages from a text to its next word, and which of them a site belongs to.
//!
//! A gate may say which stage it speaks of; a run over such gates is summed up stage by stage ([`sum_up`]). A stage is
//! passed when each of its gates was corroborated, failed when one was falsified, and not measured otherwise.

use apr_engine::probe::Op;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::case::ModelRef;
use crate::contract::{Catalogue, Severity, Tier};
use crate::event::Outcome;
use crate::judge::{BackendSpec, Planned};
use crate::suite::{ExpandError, Expansion, Roots, Suite, Values, expand};
use crate::verdict::{Limit, Measure, Verdict, VerdictKind};

/// A stage of the pipeline, or one of the two looks at the whole of it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PipelineStage {
    /// Text to token ids and back.
    Tokenizer,
    /// Token ids to vectors.
    Embedding,
    /// Rotation of queries and keys by their position.
    PositionalEncoding,
    /// Query, key and value projections.
    Qkv,
    /// Scores, softmax, weighted values, output projection, residual.
    Attention,
    /// Gate, up, activation, down, residual.
    FeedForward,
    /// Root-mean-square norms.
    Norm,
    /// Logits.
    LmHead,
    /// Logits to probabilities.
    Softmax,
    /// Choice of the next token.
    Sampler,
    /// Values no stage may give: exploding, collapsed, constant, not finite.
    Poison,
    /// The file against what its family is made of.
    Structure,
}

impl PipelineStage {
    /// Every stage in the order of the pipeline, then the looks at the whole.
    pub const ALL: [Self; 12] = [
        Self::Tokenizer,
        Self::Embedding,
        Self::PositionalEncoding,
        Self::Qkv,
        Self::Attention,
        Self::FeedForward,
        Self::Norm,
        Self::LmHead,
        Self::Softmax,
        Self::Sampler,
        Self::Poison,
        Self::Structure,
    ];

    /// Its number from 1 to 10; `None` for a look at the whole.
    pub fn number(self) -> Option<usize> {
        let at = Self::ALL.iter().position(|stage| *stage == self)?;
        (at < 10).then_some(at + 1)
    }

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Embedding => "embedding",
            Self::PositionalEncoding => "positional encoding",
            Self::Qkv => "Q/K/V projection",
            Self::Attention => "attention",
            Self::FeedForward => "feed-forward",
            Self::Norm => "norm",
            Self::LmHead => "LM head",
            Self::Softmax => "softmax",
            Self::Sampler => "sampler",
            Self::Poison => "poison",
            Self::Structure => "structure",
        }
    }

    /// What it does, for people who never saw a transformer.
    pub const fn in_plain_words(self) -> &'static str {
        match self {
            Self::Tokenizer => "words become numbers",
            Self::Embedding => "numbers become vectors",
            Self::PositionalEncoding => "which word comes when",
            Self::Qkv => "three views of a word",
            Self::Attention => "which words matter",
            Self::FeedForward => "digests what was found",
            Self::Norm => "keeps numbers in range",
            Self::LmHead => "a score for every word",
            Self::Softmax => "scores become chances",
            Self::Sampler => "picks the next word",
            Self::Poison => "numbers gone bad",
            Self::Structure => "file fits its family",
        }
    }

    /// The stage that computes `op`.
    pub const fn of(op: Op) -> Self {
        match op {
            Op::Embed => Self::Embedding,
            Op::AttnNorm
            | Op::QNorm
            | Op::KNorm
            | Op::AttnPostNorm
            | Op::FfnNorm
            | Op::FfnPostNorm
            | Op::FinalNorm => Self::Norm,
            Op::Q | Op::K | Op::V => Self::Qkv,
            Op::RopeQ | Op::RopeK => Self::PositionalEncoding,
            Op::AttnScores | Op::AttnOut | Op::OProj | Op::AttnResidual => Self::Attention,
            Op::Gate | Op::Up | Op::Swiglu | Op::Down | Op::FfnResidual => Self::FeedForward,
            Op::Logits => Self::LmHead,
        }
    }
}

/// What became of a stage.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum StageStatus {
    /// Each of its gates was corroborated.
    Passed,
    /// One of its gates was falsified.
    Failed,
    /// Nothing was falsified, but not every gate could be measured.
    NotMeasured,
}

impl StageStatus {
    /// Words in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A stage and what its gates said.
#[derive(Clone, Debug)]
pub struct StageReport<'a> {
    /// Which stage.
    pub stage: PipelineStage,
    /// What became of it.
    pub status: StageStatus,
    /// The outcomes of its gates, in the order of the catalogue.
    pub outcomes: Vec<&'a Outcome>,
}

impl StageReport<'_> {
    /// The figure to show: one of a failed gate, else one that was held against a limit; rather a size than a count.
    pub fn figure(&self) -> Option<&Measure> {
        let is_claim = |outcome: &&Outcome| outcome.case.severity != Severity::Info;
        let failed = || self.of_kind(VerdictKind::Falsified).filter(is_claim).flat_map(judged);
        let all = || self.outcomes.iter().copied().filter(is_claim).flat_map(judged);
        let failed = failed().find(|one| tells(one)).or_else(|| failed().next());
        failed.or_else(|| all().find(|one| tells(one))).or_else(|| all().next())
    }

    /// Why it is not passed: what each gate that was not corroborated saw, gates that saw the same together.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
        let claims = self.outcomes.iter().filter(|one| one.case.severity != Severity::Info);
        let open = claims.filter(|one| !matches!(one.verdict, Verdict::Corroborated(_)));
        for outcome in open {
            let why = outcome.verdict.summary();
            match reasons.iter_mut().find(|(known, _)| *known == why) {
                Some((_, gates)) => gates.push(&outcome.case.gate),
                None => reasons.push((why, vec![&outcome.case.gate])),
            }
        }
        reasons.into_iter().map(|(why, gates)| format!("{}: {why}", gates.join(", "))).collect()
    }

    /// What its observations saw outside of the usual range, by gate.
    pub fn unusual(&self) -> impl Iterator<Item = (&str, String)> {
        let observed = self.of_kind(VerdictKind::Falsified);
        let observed = observed.filter(|outcome| outcome.case.severity == Severity::Info);
        observed.map(|outcome| (outcome.case.gate.as_str(), outcome.verdict.summary()))
    }

    fn of_kind(&self, kind: VerdictKind) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().copied().filter(move |outcome| outcome.verdict.kind() == kind)
    }
}

/// The measures of an outcome that were held against a limit, those that lost it first.
fn judged(outcome: &Outcome) -> impl Iterator<Item = &Measure> {
    let measures = outcome.verdict.evidence().into_iter().flat_map(|seen| &seen.measures);
    let (kept, lost) = (measures.clone().filter(|one| one.holds()), measures);
    lost.filter(|one| !one.holds()).chain(kept.filter(|one| one.limit.is_some()))
}

/// Whether a measure is more than a count of violations.
fn tells(measure: &Measure) -> bool {
    !matches!(measure.limit, Some(Limit::Exactly(_)))
}

/// Every gate that speaks of a stage, on `form` and `backend`; each case is required.
///
/// # Errors
/// The filter of a gate that does not parse; a contract that waits for the value of a parameter.
pub fn expansion(
    catalogue: &Catalogue,
    form: &ModelRef,
    backend: &BackendSpec,
) -> Result<Expansion, ExpandError> {
    let suite = Suite {
        suite: "check".into(),
        title: "The stages of the pipeline on one model.".into(),
        include: Vec::new(),
        contracts: catalogue.names().cloned().collect(),
        models: Vec::new(),
        backends: Vec::new(),
        isa: Vec::new(),
        threads: Vec::new(),
        required: None,
        filter: None,
        tier: Tier::Deep,
        parameters: Values::new(),
        settings: Vec::new(),
    };
    let suite = suite.on_model(&form.model, &form.form, &form.path).on_backend(backend);
    let mut expansion = expand(&suite, catalogue, &Roots::default())?;
    expansion.cases.retain(|case| case.gate.stage.is_some());
    Ok(expansion)
}

/// Sums up a whole run of `cases`, whose outcomes stand in the same order: one report for each stage, also for those that
/// no gate spoke of.
pub fn sum_up<'a>(cases: &[Planned], outcomes: &'a [Outcome]) -> Vec<StageReport<'a>> {
    let report = |stage| {
        let judged = cases.iter().zip(outcomes);
        let of_stage = judged.filter(|(case, _)| case.gate.stage == Some(stage));
        let outcomes: Vec<&Outcome> = of_stage.map(|(_, outcome)| outcome).collect();
        // What is merely usual decides nothing.
        let claims = outcomes.iter().filter(|outcome| outcome.case.severity != Severity::Info);
        let kinds: Vec<VerdictKind> = claims.map(|outcome| outcome.verdict.kind()).collect();
        let status = if kinds.contains(&VerdictKind::Falsified) {
            StageStatus::Failed
        } else if !kinds.is_empty() && kinds.iter().all(|kind| *kind == VerdictKind::Corroborated) {
            StageStatus::Passed
        } else {
            StageStatus::NotMeasured
        };
        StageReport { stage, status, outcomes }
    };
    PipelineStage::ALL.map(report).into()
}
