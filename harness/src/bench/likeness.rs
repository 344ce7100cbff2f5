//! Whether two models answer alike: a ratio of speeds says little of models that do not.

use apr_engine::Result;
use apr_engine::generate::greedy;
use apr_engine::model::{Lm, Want};
use apr_engine::probe::NoProbe;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Options, TIMED, script};
use crate::compare::RowError;

/// What two models answered behind the same prompt. Nothing is judged: files of other types round otherwise, and other models
/// are others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Likeness {
    /// Greedy tokens of either.
    pub tokens: usize,
    /// Of these, how many are alike before the first that is not.
    pub alike: usize,
    /// Normalised mean squared error of the logits behind the prompt, the second model's being the reference; none where
    /// vocabularies have different sizes or other logits are finite.
    pub nmse: Option<f64>,
}

/// Lets both models read the short prompt and continue it greedily.
///
/// # Errors
/// Those of the forward pass.
pub fn likeness(first: &mut dyn Lm, second: &mut dyn Lm, options: &Options) -> Result<Likeness> {
    let vocab = first.config().vocab.min(second.config().vocab);
    let prompt = script(vocab, options.first);
    let (own, own_tokens) = answer(first, &prompt)?;
    let (other, other_tokens) = answer(second, &prompt)?;
    let pairs = own_tokens.iter().zip(&other_tokens);
    let error = RowError::new(&other, &own).filter(|error| error.mask_mismatches == 0);
    Ok(Likeness {
        tokens: own_tokens.len(),
        alike: pairs.take_while(|(own, other)| own == other).count(),
        nmse: error.map(|error| error.nmse).filter(|nmse| nmse.is_finite()),
    })
}

/// The logits behind `prompt`, and the tokens that follow.
fn answer(lm: &mut dyn Lm, prompt: &[u32]) -> Result<(Vec<f32>, Vec<u32>)> {
    lm.reset();
    let row = lm.forward(prompt, Want::Last, &mut NoProbe)?.last().to_vec();
    let mut tokens = vec![greedy(&row)];
    while tokens.len() < TIMED {
        let last = tokens[tokens.len() - 1];
        tokens.push(greedy(lm.forward(&[last], Want::Last, &mut NoProbe)?.last()));
    }
    Ok((row, tokens))
}
