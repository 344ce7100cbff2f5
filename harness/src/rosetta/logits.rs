//! What comes out of two passes: the chosen tokens, their leads, and how far the distributions lie apart.

use std::collections::BTreeSet;

use apr_engine::probe::{Op, Site};
use apr_engine::text::Tokenizer;
use schemars::JsonSchema;
use serde::Serialize;

use super::sites::distance;
use crate::compare::lead;
use crate::recording::Recording;

/// Tokens of largest logit whose sets are compared.
const TOP: usize = 10;
/// Changed choices that are listed.
const LISTED: usize = 8;

/// The logits of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Logits {
    /// Positions compared.
    pub positions: usize,
    /// Positions where both choose the same token.
    pub same_choice: usize,
    /// Positions where they do not, the first few.
    pub changed: Vec<Choice>,
    /// Mean divergence of target from source in nats; absent when it is infinite.
    pub kl_mean: Option<f64>,
    /// Largest divergence.
    pub kl_max: Option<f64>,
    /// Mean share of the source's ten best tokens that are among the target's.
    pub top_overlap_mean: f64,
    /// The least such share.
    pub top_overlap_least: f64,
    /// The choice at the last position.
    pub last: Option<Choice>,
}

/// What each side chooses at a position.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Choice {
    /// Position.
    pub position: usize,
    /// The source's token.
    pub source: usize,
    /// Its text.
    pub source_text: String,
    /// By how much it leads the source's runner-up; absent when that is no number.
    pub source_lead: Option<f64>,
    /// The target's token.
    pub target: usize,
    /// Its text.
    pub target_text: String,
    /// By how much it leads the target's runner-up.
    pub target_lead: Option<f64>,
}

impl Logits {
    /// Compares the logits of two passes position by position; nothing when there are none to compare.
    pub(super) fn new(
        source: &Recording,
        target: &Recording,
        tokenizer: Option<&Tokenizer>,
    ) -> Option<Self> {
        let site = Site::model(Op::Logits);
        let rows = || source.rows(site).iter().zip(target.rows(site)).enumerate();
        let choices: Vec<Choice> = rows()
            .filter_map(|(position, (ours, theirs))| Choice::new(position, ours, theirs, tokenizer))
            .collect();
        let overlaps: Vec<f64> = rows().map(|(_, (ours, theirs))| overlap(ours, theirs)).collect();
        let (tally, _) = distance(site, source, target, None);
        let finite = |value: f64| value.is_finite().then_some(value);
        let same = |choice: &&Choice| choice.source == choice.target;
        (!choices.is_empty()).then(|| Self {
            positions: choices.len(),
            same_choice: choices.iter().filter(same).count(),
            changed: choices.iter().filter(|choice| !same(choice)).take(LISTED).cloned().collect(),
            kl_mean: tally.kl_mean().and_then(finite),
            kl_max: tally.kl_max().and_then(finite),
            top_overlap_mean: overlaps.iter().sum::<f64>() / overlaps.len() as f64,
            top_overlap_least: overlaps.iter().copied().fold(1.0, f64::min),
            last: choices.last().cloned(),
        })
    }
}

impl Choice {
    fn new(
        position: usize,
        ours: &[f32],
        theirs: &[f32],
        tokenizer: Option<&Tokenizer>,
    ) -> Option<Self> {
        let finite = |value: f64| value.is_finite().then_some(value);
        let text = |id: usize| {
            let decoded =
                tokenizer.and_then(|tokenizer| tokenizer.decode(&[id as u32], false).ok());
            decoded.unwrap_or_default()
        };
        let ((source, source_lead), (target, target_lead)) = (lead(ours)?, lead(theirs)?);
        Some(Self {
            position,
            source,
            source_text: text(source),
            source_lead: finite(source_lead),
            target,
            target_text: text(target),
            target_lead: finite(target_lead),
        })
    }
}

/// Share of the best tokens of `source` that are among the best of `target`.
fn overlap(source: &[f32], target: &[f32]) -> f64 {
    let best = |row: &[f32]| -> BTreeSet<usize> {
        let mut ids: Vec<usize> = (0..row.len()).collect();
        ids.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        ids.into_iter().take(TOP).collect()
    };
    let (source, target) = (best(source), best(target));
    source.intersection(&target).count() as f64 / source.len().max(1) as f64
}
