//! Invariants of what comes out: logits, probabilities, the chosen token.

use apr_engine::generate::Sampling;
use apr_engine::model::Lm;
use apr_engine::probe::{Op, Site};

use super::super::look::all_of;
use super::super::sampler::Subject;
use super::Pass;
use super::poison::deviation;
use super::worst::Worst;
use crate::compare::{lead, log_probabilities};
use crate::contract::tolerance::{AtLeast, AtMost};
use crate::recording;
use crate::verdict::{Limit, Verdict};

/// A logit whose exponential no float holds.
const FAR: f32 = 1e4;

impl Pass<'_> {
    pub(super) fn logits(&self) -> &[Vec<f32>] {
        self.rows(Site::model(Op::Logits))
    }

    pub(super) fn logit_spread(&self, bound: &AtLeast) -> Verdict {
        let mut worst = Worst::smallest();
        for (position, row) in self.logits().iter().enumerate() {
            worst.add(deviation(row), || format!("row {position}"));
        }
        worst.at_least("standard deviation of the logits", bound)
    }

    /// Also of logits far from zero, where an exponential without care overflows.
    pub(super) fn probability_sums(&self, subject: &Subject, bound: &AtMost) -> Verdict {
        let mut worst = Worst::largest();
        for (position, row) in self.logits().iter().enumerate() {
            for shift in [0.0, FAR] {
                let shifted: Vec<f32> = row.iter().map(|logit| logit + shift).collect();
                let sum: f64 = subject.log_softmax(&shifted).iter().map(|log| log.exp()).sum();
                worst.add((sum - 1.0).abs(), || format!("row {position} shifted by {shift}"));
            }
        }
        worst.at_most("distance of the sum from 1", bound)
    }

    /// The least entropy over the positions, as a share of that of a uniform choice.
    pub(super) fn entropy_below(&self, bound: &AtMost) -> Verdict {
        let mut least = Worst::smallest();
        for (position, row) in self.logits().iter().enumerate() {
            let logs = log_probabilities(row);
            let entropy: f64 =
                logs.iter().filter(|log| log.is_finite()).map(|log| -log * log.exp()).sum();
            least.add(entropy / (row.len() as f64).ln(), || format!("row {position}"));
        }
        least.judge(
            "least share of uniform entropy",
            Limit::AtMost(bound.at_most.get()),
            bound.at_most.get(),
        )
    }

    pub(super) fn positions_differ(&self) -> Verdict {
        let rows = self.logits();
        let pairs = rows.windows(2).enumerate();
        let wrong = pairs.filter(|(_, pair)| pair[0] == pair[1]);
        let wrong = wrong.map(|(at, _)| format!("rows {at} and {} are the same", at + 1)).collect();
        all_of(rows.len().saturating_sub(1) as u64, "neighbouring rows of logits differ", wrong)
    }

    pub(super) fn greedy_is_argmax(&self, subject: &Subject) -> Verdict {
        let mut wrong = Vec::new();
        for (position, row) in self.logits().iter().enumerate() {
            let best = lead(row).map(|(index, _)| index as u32);
            let history = &self.tokens.ids[..=position];
            match subject.draw(Sampling::default(), row, history, 1) {
                Ok(token) if token.first().copied() == best => {}
                other => wrong.push(format!("row {position}: {other:?} instead of {best:?}")),
            }
        }
        all_of(self.logits().len() as u64, "greedy choices are the argmax", wrong)
    }

    /// The same tokens once more on one running model, with other tokens and a reset in between.
    pub(super) fn greedy_repeats(&self, lm: &mut dyn Lm) -> Verdict {
        let parts = recording::stepped(&self.tokens.ids);
        let other: Vec<u32> = self.tokens.ids.iter().rev().copied().collect();
        recording::record(lm, &recording::whole(&other), &|_| false);
        let again = recording::record(lm, &parts, &|_| false);
        let (first, second) = (self.logits(), again.rows(Site::model(Op::Logits)));
        let mut wrong: Vec<String> =
            again.ended.iter().map(|error| format!("the second pass fails: {error}")).collect();
        for position in 0..first.len().max(second.len()) {
            let rows = (first.get(position), second.get(position));
            let (Some(before), Some(after)) = rows else {
                wrong.push(format!("row {position} is there once only"));
                continue;
            };
            if before.iter().zip(after).any(|(before, after)| before.to_bits() != after.to_bits()) {
                let choice = |row: &[f32]| lead(row).map(|(index, _)| index);
                wrong.push(format!(
                    "row {position} is another one: {:?} and then {:?} is chosen",
                    choice(before),
                    choice(after)
                ));
            }
        }
        all_of(first.len() as u64, "rows are the same again", wrong)
    }

    pub(super) fn logits_per_token(&self) -> Verdict {
        let (rows, vocab) = (self.logits(), self.config.vocab);
        let odd = rows.iter().enumerate().filter(|(_, row)| row.len() != vocab);
        let mut wrong: Vec<String> = odd
            .map(|(at, row)| format!("row {at} has {} logits, not {vocab}", row.len()))
            .collect();
        if rows.len() != self.tokens.ids.len() && self.seen.ended.is_none() {
            wrong.push(format!("{} rows for {} tokens", rows.len(), self.tokens.ids.len()));
        }
        all_of(rows.len() as u64, &format!("rows have {vocab} logits"), wrong)
    }
}
