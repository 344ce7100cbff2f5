//! Invariants of what comes out: logits, probabilities, the chosen token.

use apr_engine::generate::{Sampler, Sampling};
use apr_engine::probe::{Op, Site};

use super::super::context::{Look, refused};
use super::super::look::all_of;
use super::Pass;
use super::worst::Worst;
use crate::compare::{lead, log_probabilities};
use crate::contract::tolerance::{AtLeast, AtMost};
use crate::verdict::{Limit, Verdict};

impl Pass<'_> {
    pub(super) fn logits(&self) -> &[Vec<f32>] {
        self.rows(Site::model(Op::Logits))
    }

    pub(super) fn logit_spread(&self, bound: &AtLeast) -> Verdict {
        let mut worst = Worst::smallest();
        for (position, row) in self.logits().iter().enumerate() {
            let count = row.len() as f64;
            let mean = row.iter().map(|logit| f64::from(*logit)).sum::<f64>() / count;
            let squares = row.iter().map(|logit| (f64::from(*logit) - mean).powi(2));
            let deviation = (squares.sum::<f64>() / count).sqrt();
            worst.add(deviation, || format!("row {position}"));
        }
        worst.at_least("standard deviation of the logits", bound)
    }

    pub(super) fn probability_sums(&self, bound: &AtMost) -> Verdict {
        let mut worst = Worst::largest();
        for (position, row) in self.logits().iter().enumerate() {
            let logs = apr_engine::generate::log_softmax(row);
            let sum: f64 = logs.iter().map(|log| log.exp()).sum();
            worst.add((sum - 1.0).abs(), || format!("row {position}"));
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

    pub(super) fn greedy_is_argmax(&self) -> Look<Verdict> {
        let mut sampler = Sampler::new(Sampling::default())
            .map_err(|error| refused("the sampler refuses greedy choice", &error))?;
        let mut wrong = Vec::new();
        for (position, row) in self.logits().iter().enumerate() {
            let best = lead(row).map(|(index, _)| index as u32);
            match sampler.pick(row, &self.tokens.ids[..=position]) {
                Ok(token) if Some(token) == best => {}
                other => wrong.push(format!("row {position}: {other:?} instead of {best:?}")),
            }
        }
        Ok(all_of(self.logits().len() as u64, "greedy choices are the argmax", wrong))
    }
}
