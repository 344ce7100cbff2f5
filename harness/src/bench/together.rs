//! Several sequences decoded together, against one of them alone.

use apr_engine::Result;
use apr_engine::generate::greedy;
use apr_engine::model::{Lm, SequenceTokens};
use schemars::JsonSchema;
use serde::Serialize;

use super::pairs::{Ratio, turns};
use super::{Options, Step, WARM_UP, Watch, script};

/// Passes of one run of a pair.
const PASSES: usize = 8;

/// Decoding several sequences, one token of each in a pass.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Together {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each before those that are timed.
    pub position: usize,
    /// Tokens of all sequences, by the median of the passes.
    pub tokens_per_second: f64,
    /// How many times as many tokens as one sequence alone, in turns with it.
    pub against_one: Option<Ratio>,
}

/// Decodes as many sequences as `lm` has, in turns with one, each behind a prompt of its own.
///
/// # Errors
/// Those of the forward pass; [`apr_engine::Code::Cancelled`] when the caller wants no more of it.
pub(super) fn measure(lm: &mut dyn Lm, options: &Options, watch: &Watch<'_>) -> Result<Together> {
    let sequences = lm.sequences();
    let (vocab, prompt) = (lm.config().vocab, options.first);
    let ids = script(vocab, prompt + sequences);
    let prompts: Vec<SequenceTokens<'_>> = (0..sequences)
        .map(|sequence| SequenceTokens { sequence, tokens: &ids[sequence..sequence + prompt] })
        .collect();
    (0..sequences).for_each(|sequence| lm.truncate_sequence(sequence, 0));
    let behind = chosen(lm, &prompts)?;
    let mut passes = Vec::new();
    let step = Step::one("sequences, in turns with one");
    let against_one = turns(step, watch, |together| {
        let count = if together { sequences } else { 1 };
        let times = run(lm, &behind[..count], prompt, watch)?;
        let total: f64 = times.iter().sum();
        if together {
            passes.extend(times);
        }
        // Of one token.
        Ok(total / count as f64)
    })?;
    let pass = crate::stats::median(&passes).unwrap_or(f64::NAN);
    Ok(Together {
        sequences,
        position: prompt + WARM_UP,
        tokens_per_second: sequences as f64 / (pass / 1e9),
        against_one,
    })
}

/// Nanoseconds of each pass: greedy tokens behind `first`, which stand behind `prompt` others in their sequences. The first
/// few passes are not told.
fn run(lm: &mut dyn Lm, first: &[u32], prompt: usize, watch: &Watch<'_>) -> Result<Vec<f64>> {
    (0..first.len()).for_each(|sequence| lm.truncate_sequence(sequence, prompt));
    let mut newest = first.to_vec();
    let mut times = Vec::with_capacity(WARM_UP + PASSES);
    for _ in 0..WARM_UP + PASSES {
        times.push(watch.time(|| {
            let batch: Vec<SequenceTokens<'_>> = newest
                .chunks(1)
                .enumerate()
                .map(|(sequence, tokens)| SequenceTokens { sequence, tokens })
                .collect();
            newest = chosen(lm, &batch)?;
            Ok(())
        })?);
    }
    times.drain(..WARM_UP);
    Ok(times)
}

/// The greedy token behind each part of `batch`.
fn chosen(lm: &mut dyn Lm, batch: &[SequenceTokens<'_>]) -> Result<Vec<u32>> {
    let vocab = lm.config().vocab;
    Ok(lm.forward_batch(batch)?.values().chunks_exact(vocab).map(greedy).collect())
}
