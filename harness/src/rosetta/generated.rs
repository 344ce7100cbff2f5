//! Two engines by what they say: text and the probabilities of its tokens, which is all that an engine behind a wire shows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::report::escape::visible;
use crate::report::number;

/// A token that an engine chose.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Step {
    /// Its text.
    pub text: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// The most likely tokens, their texts and the logarithms of their probabilities, best first.
    pub top: Vec<(String, f64)>,
}

/// What an engine generated greedily.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Generated {
    /// What reports call the engine.
    pub name: String,
    /// The text.
    pub text: String,
    /// Its tokens; empty when the engine reports none.
    pub steps: Vec<Step>,
}

/// What two engines have in common.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TextComparison {
    /// The source.
    pub source: Generated,
    /// The target.
    pub target: Generated,
    /// Whether the texts are the same.
    pub same_text: bool,
    /// The first step at which another token is chosen; absent when none is, or nothing was reported.
    pub first: Option<Parting>,
    /// Steps in front of it, or all of them.
    pub steps: usize,
    /// Largest difference of the logarithms of the chosen tokens' probabilities over these steps; absent without any.
    pub logprob_error: Option<f64>,
    /// Mean share of the source's likely tokens that are among the target's; absent without any.
    pub top_overlap: Option<f64>,
    /// Largest difference that passes.
    pub allowed: f64,
}

/// A step at which another token is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Parting {
    /// Step.
    pub step: usize,
    /// The source's token.
    pub source: String,
    /// The target's token.
    pub target: String,
    /// By how much the source's token leads its runner-up, in nats; absent when it reports none.
    pub lead: Option<f64>,
    /// Whether the lead is no larger than what probabilities may differ by: then the choice decides nothing.
    pub coin_flip: bool,
}

impl TextComparison {
    /// Compares what two engines generated; the logarithms of probabilities may differ by `allowed`.
    pub fn new(source: Generated, target: Generated, allowed: f64) -> Self {
        let pairs = source.steps.iter().zip(&target.steps);
        let steps = pairs.clone().take_while(|(a, b)| a.text == b.text).count();
        let first = pairs.clone().nth(steps).map(|(ours, theirs)| {
            let lead = match ours.top.as_slice() {
                [(_, best), (_, second), ..] => Some(best - second),
                _ => None,
            };
            Parting {
                step: steps,
                source: ours.text.clone(),
                target: theirs.text.clone(),
                lead,
                coin_flip: lead.is_some_and(|lead| lead <= 2.0 * allowed),
            }
        });
        let agreed = || pairs.clone().take(steps);
        let errors = agreed().map(|(a, b)| (a.logprob - b.logprob).abs());
        // Unlike a maximum over floats, this keeps a NaN.
        let logprob_error = errors
            .reduce(|worst, error| if error > worst || error.is_nan() { error } else { worst });
        let overlaps: Vec<f64> = agreed().filter_map(|(a, b)| overlap(a, b)).collect();
        let top_overlap =
            (!overlaps.is_empty()).then(|| overlaps.iter().sum::<f64>() / overlaps.len() as f64);
        let same_text = source.text == target.text;
        Self { source, target, same_text, first, steps, logprob_error, top_overlap, allowed }
    }

    /// Whether anything was compared: two empty answers agree on nothing.
    pub fn compared(&self) -> bool {
        !(self.source.text.is_empty() && self.target.text.is_empty())
    }

    /// Whether the engines differ by more than rounding: another text, unless it parts at a coin flip, or another
    /// probability.
    pub fn diverges(&self) -> bool {
        let coin = self.first.as_ref().is_some_and(|first| first.coin_flip);
        let close = self.logprob_error.is_none_or(|error| error <= self.allowed);
        !(close && (self.same_text || coin))
    }
}

/// Share of `source`'s likely tokens that are among `target`'s; nothing when one of them reports none.
fn overlap(source: &Step, target: &Step) -> Option<f64> {
    let ids = |step: &Step| step.top.iter().cloned().collect::<BTreeMap<String, f64>>();
    let (source, target) = (ids(source), ids(target));
    let common = source.keys().filter(|text| target.contains_key(*text)).count();
    let shorter = source.len().min(target.len());
    (shorter > 0).then(|| common as f64 / shorter as f64)
}

/// Renders what two engines generated.
pub fn render(found: &TextComparison) -> String {
    let mut out = String::new();
    for (side, generated) in [("source", &found.source), ("target", &found.target)] {
        let (name, text) = (visible(&generated.name), visible(&generated.text));
        let steps = generated.steps.len();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{side}: {name}\n    {text:?}, {steps} tokens with probabilities");
    }
    let figure = |value: Option<f64>| value.map_or("not reported".to_owned(), number);
    let _ = writeln!(
        out,
        "probabilities: largest difference {} of {} nats over {} steps, likely tokens in common {}",
        figure(found.logprob_error),
        number(found.allowed),
        found.steps,
        found
            .top_overlap
            .map_or("not reported".to_owned(), |share| format!("{:.0} %", 100.0 * share))
    );
    if let Some(first) = &found.first {
        let coin = if first.coin_flip { ", a coin flip" } else { "" };
        let _ = writeln!(
            out,
            "first divergent token: step {}: {:?} instead of {:?}, lead {}{coin}",
            first.step,
            visible(&first.target),
            visible(&first.source),
            figure(first.lead)
        );
    }
    let last = match (found.compared(), found.diverges(), found.same_text) {
        (false, ..) => "nothing was compared",
        (true, true, _) => "the engines diverge",
        (true, false, true) => "the same text",
        (true, false, false) => "another text, parted by a coin flip",
    };
    out.push_str(last);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(text: &str, logprob: f64, second: f64) -> Step {
        Step { text: text.into(), logprob, top: vec![(text.into(), logprob), ("~".into(), second)] }
    }

    fn said(steps: &[Step]) -> Generated {
        let text = steps.iter().map(|step| step.text.as_str()).collect();
        Generated { name: "engine".into(), text, steps: steps.to_vec() }
    }

    #[test]
    fn an_engine_agrees_with_itself_exactly() {
        let one = said(&[step("2", -0.1, -4.0), step("+", -0.2, -3.0)]);
        let found = TextComparison::new(one.clone(), one, 0.05);
        assert!(!found.diverges() && found.compared());
        assert_eq!((found.logprob_error, found.top_overlap), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn another_token_with_a_clear_lead_diverges_and_a_coin_flip_does_not() {
        let one = said(&[step("a", -0.1, -4.0), step("b", -0.1, -4.0)]);
        let other = said(&[step("a", -0.1, -4.0), step("c", -0.1, -4.0)]);
        let found = TextComparison::new(one, other, 0.05);
        assert!(found.diverges());
        assert_eq!(found.first.map(|first| (first.step, first.coin_flip)), Some((1, false)));
        let near = said(&[step("a", -0.69, -0.70)]);
        let flipped = said(&[step("b", -0.69, -0.70)]);
        assert!(!TextComparison::new(near, flipped, 0.05).diverges());
    }

    #[test]
    fn a_probability_that_is_too_far_off_or_no_number_diverges() {
        for wrong in [-0.5, f64::NAN] {
            let one = said(&[step("a", -0.1, -4.0)]);
            let other = said(&[step("a", wrong, -4.0)]);
            assert!(TextComparison::new(one, other, 0.05).diverges(), "{wrong}");
        }
    }

    #[test]
    fn two_empty_answers_are_no_comparison() {
        assert!(!TextComparison::new(said(&[]), said(&[]), 0.05).compared());
    }
}
