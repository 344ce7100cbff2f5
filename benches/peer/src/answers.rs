//! Whether both sides computed the same: without that, a ratio of speeds says nothing.
//!
//! Each side is held against exact arithmetic: the same weights as numbers of 32 bits, none of the activations rounded. Held
//! against each other, two honest sides would have twice the error of one.
//!
//! Greedy tokens are compared and told, but do not decide: activations are rounded differently on both sides, and two tokens that
//! are nearly as likely may then swap places. What decides is how far the logits lie from the exact ones, behind the prompts
//! and, where the tokens part, at that very place, up to which both sides had read the same.

use apr_engine::Dtype;
use apr_engine::generate::greedy;
use apr_harness::compare::{RowError, lead};
use apr_harness::provenance::sha256;
use serde::Serialize;

use crate::failure::Result;
use crate::side::Side;

/// Bound on the NMSE of a row of logits of either side, against exact arithmetic, where some weights are quantised: both
/// sides round activations to eight bits, each in its own way. Up to 1e-3 was measured on 24 layers, up to 4.5e-3 on 28.
pub const BOUND_QUANTISED: f64 = 5e-3;
/// The same where none is: llama.cpp rounds activations to the type of the weights, at worst bfloat16: 4e-4 was measured.
pub const BOUND_BF16: f64 = 2e-3;
/// The same for weights of 16 or 32 bits with more than eight of them for the fraction: 2e-6 was measured.
pub const BOUND_PLAIN: f64 = 1e-4;

/// Deviations by which rounding may move two logits against each other. The difference of two independent errors has
/// 1.4 deviations of one, so eight are nearly six of that. It is for the few wrong logits of a large vocabulary, which an NMSE over
/// all of them does not see.
pub const REACH: f64 = 8.0;

/// The bound for a model with weights of these types.
pub fn bound(dtypes: &[Dtype]) -> f64 {
    let plain = |dtype: &Dtype| matches!(dtype, Dtype::F32 | Dtype::F16);
    if dtypes.iter().any(|dtype| !plain(dtype) && *dtype != Dtype::BF16) {
        BOUND_QUANTISED
    } else if dtypes.iter().all(plain) {
        BOUND_PLAIN
    } else {
        BOUND_BF16
    }
}

/// Where two sequences of greedy tokens part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parting {
    /// Tokens before it that are alike.
    pub alike: usize,
    /// Our token.
    pub ours: u32,
    /// The other side's token.
    pub theirs: u32,
    /// How far our best logit lies above our second best.
    pub lead: f64,
    /// How far our best logit lies above that of the token which the other side took.
    pub behind: f64,
    /// NMSE between the two rows of logits.
    pub nmse: f64,
    /// NMSE of each row against exact arithmetic, ours first.
    pub errors: [f64; 2],
    /// What `behind` may be at most, if rounding is to have turned it: [`REACH`] times the deviation between the two rows.
    pub reach: f64,
}

/// What two sides answered to the same prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answers {
    /// The other side.
    pub peer: String,
    /// Worst NMSE between the logits behind the prompts, ours against theirs.
    pub nmse: f64,
    /// Worst NMSE of each side's logits behind the prompts against exact arithmetic, ours first.
    pub errors: [f64; 2],
    /// What these and [`Parting::errors`] may be at most.
    pub bound: f64,
    /// Greedy tokens of each side.
    pub tokens: usize,
    /// SHA-256 of our tokens, as little-endian words.
    pub ours_sha256: String,
    /// SHA-256 of theirs.
    pub theirs_sha256: String,
    /// Where they part, if they do.
    pub parting: Option<Parting>,
    /// The tokens of both sides, to recognise later runs by.
    #[serde(skip)]
    pub sequences: [Vec<u32>; 2],
}

impl Answers {
    /// What makes the speeds incomparable, if anything does. Written as "unless it is small", so that NaN is found too.
    pub fn fault(&self) -> Option<String> {
        let beyond = |place: &str, errors: [f64; 2]| {
            let bound = self.bound;
            let mut sides = ["apr", "the other side"].into_iter().zip(errors);
            let within = |error: f64| error <= bound;
            let (side, error) = sides.find(|(_, error)| !within(*error))?;
            Some(format!("{place}: NMSE {error:.1e} of {side} beyond {bound:.0e}"))
        };
        if self.tokens == 0 {
            return Some("no tokens were compared".to_owned());
        }
        beyond("behind a prompt", self.errors).or_else(|| {
            let parting = self.parting.as_ref()?;
            let place = format!("where token {} differs", parting.alike + 1);
            let turned = parting.behind <= parting.reach;
            let Parting { behind, reach, .. } = parting;
            let lead = format!("{place}: a lead of {behind:.1e}, rounding turns {reach:.1e}");
            beyond(&place, parting.errors).or((!turned).then_some(lead))
        })
    }
}

/// SHA-256 of tokens.
pub fn hash(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    sha256(&bytes)
}

/// The first of `count` greedy tokens behind what the side has read, whose logits are `row`, and what follows.
pub fn continue_greedily(side: &mut dyn Side, first: u32, count: usize) -> Result<Vec<u32>> {
    let mut tokens = Vec::with_capacity(count);
    let mut token = first;
    for _ in 0..count {
        tokens.push(token);
        token = greedy(side.feed(&[token])?);
    }
    Ok(tokens)
}

/// The two sides, and what both should have answered.
pub struct Sides<'a> {
    /// Ours.
    pub ours: &'a mut dyn Side,
    /// The other one.
    pub theirs: &'a mut dyn Side,
    /// Exact arithmetic.
    pub exact: &'a mut dyn Side,
}

impl std::fmt::Debug for Sides<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sides").field("theirs", &self.theirs.name()).finish_non_exhaustive()
    }
}

/// Reads every prompt on all sides, and lets both of ours and theirs continue the last one by `count` tokens.
pub fn compare(
    sides: &mut Sides<'_>,
    prompts: &[&[u32]],
    count: usize,
    bound: f64,
) -> Result<Answers> {
    let none = if prompts.is_empty() { f64::INFINITY } else { 0.0 };
    let (mut worst, mut errors) = (none, [none; 2]);
    let mut sequences = [Vec::new(), Vec::new()];
    for (index, prompt) in prompts.iter().enumerate() {
        let (own, other) = (row(sides.ours, &[prompt])?, row(sides.theirs, &[prompt])?);
        let exact = row(sides.exact, &[prompt])?;
        worst = worse(worst, nmse(&other, &own));
        for (error, row) in errors.iter_mut().zip([&own, &other]) {
            *error = worse(*error, nmse(&exact, row));
        }
        if index + 1 == prompts.len() {
            sequences = [
                continue_greedily(sides.ours, greedy(&own), count)?,
                continue_greedily(sides.theirs, greedy(&other), count)?,
            ];
        }
    }
    let [own, other] = &sequences;
    let alike = own.iter().zip(other).take_while(|(own, other)| own == other).count();
    let parting = match (own.get(alike), other.get(alike), prompts.last()) {
        (Some(&mine), Some(&other), Some(prompt)) => {
            Some(parting(sides, prompt, &own[..alike], (mine, other))?)
        }
        _ => None,
    };
    Ok(Answers {
        peer: sides.theirs.name(),
        nmse: worst,
        errors,
        bound,
        tokens: own.len().min(other.len()),
        ours_sha256: hash(own),
        theirs_sha256: hash(other),
        parting,
        sequences,
    })
}

/// Looks at both rows of logits behind `prompt` and the tokens `alike`.
fn parting(
    sides: &mut Sides<'_>,
    prompt: &[u32],
    alike: &[u32],
    (mine, other): (u32, u32),
) -> Result<Parting> {
    let own_row = row(sides.ours, &[prompt, alike])?;
    let other_row = row(sides.theirs, &[prompt, alike])?;
    // Exact arithmetic gives the same however it reads.
    let exact = row(sides.exact, &[&[prompt, alike].concat()])?;
    let apart = nmse(&other_row, &own_row);
    let squares: f64 = other_row.iter().map(|logit| f64::from(*logit).powi(2)).sum();
    let at = |token: u32| own_row.get(token as usize).map_or(f64::NAN, |logit| f64::from(*logit));
    Ok(Parting {
        alike: alike.len(),
        ours: mine,
        theirs: other,
        lead: lead(&own_row).map_or(f64::NAN, |(_, lead)| lead),
        behind: at(mine) - at(other),
        nmse: apart,
        errors: [nmse(&exact, &own_row), nmse(&exact, &other_row)],
        reach: REACH * (apart * squares / other_row.len() as f64).sqrt(),
    })
}

/// The logits behind `parts`: the first is read at once, the others token by token, as when they were chosen.
fn row(side: &mut dyn Side, parts: &[&[u32]]) -> Result<Vec<f32>> {
    side.reset();
    let mut logits = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let step = if index == 0 { part.len() } else { 1 };
        for tokens in part.chunks(step.max(1)) {
            logits.clear();
            logits.extend_from_slice(side.feed(tokens)?);
        }
    }
    Ok(logits)
}

/// Infinite for rows that cannot be compared.
fn nmse(reference: &[f32], tested: &[f32]) -> f64 {
    RowError::new(reference, tested).map_or(f64::INFINITY, |error| error.nmse)
}

/// The larger one; NaN is the worst of all.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
