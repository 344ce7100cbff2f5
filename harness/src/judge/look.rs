//! Shared ways of looking: counting violations, choosing token sequences, recording a forward pass.

use apr_engine::Code;
use apr_engine::model::{Lm, Model, Want};
use apr_engine::probe::{NoProbe, Site};

use super::context::{JudgeContext, Look, refused};
use super::text::Text;
use crate::case::ModelRef;
use crate::recording::{self, Recording};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Counterexamples that are listed; the rest is counted.
const LISTED: usize = 8;

/// Length of the seeded token sequence that is run besides texts.
const SEEDED_TOKENS: usize = 48;

/// Texts that are run when a gate names none: prose, code, other scripts, numbers.
const TEXTS: &[&str] = &[
    "The quick brown fox jumps over the lazy dog, and then it rests for a while.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 2))",
    "你好,世界! Grüße aus Zürich 🙂 12 + 7 = 19",
];

/// The verdict on "each of `count` things keeps the rule".
pub(super) fn all_of(count: u64, things: &str, violations: Vec<String>) -> Verdict {
    let summary = match violations.first() {
        None => format!("all of {count} {things}"),
        Some(first) => format!("{} violations in {count} {things}: {first}", violations.len()),
    };
    let found = violations.len() as f64;
    let mut evidence = Evidence::new(count, summary).measure(Measure::judged(
        "violations",
        found,
        Limit::Exactly(0.0),
    ));
    evidence.details = violations;
    evidence.details.truncate(LISTED);
    evidence.verdict()
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the source of everything random in judges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for each `purpose`.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        let mixed = purpose.bytes().fold(seed ^ 0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self(mixed)
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end.max(1) as u64) as usize
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A sequence of tokens to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// What it is, for reports.
    pub(super) label: String,
    /// The ids.
    pub(super) ids: Vec<u32>,
}

/// The token sequences of `prompts`, or of the built-in texts and one seeded sequence when there are none. A model
/// without a tokenizer gets the seeded sequence alone, unless the gate names its texts.
pub(super) fn token_sets(
    ctx: &JudgeContext,
    form: &ModelRef,
    model: &Model,
    prompts: &[String],
) -> Look<Vec<Tokens>> {
    let mut sets = Vec::new();
    let built_in: Vec<String> = TEXTS.iter().map(|&text| text.to_owned()).collect();
    let texts = if prompts.is_empty() { &built_in } else { prompts };
    match ctx.text(form) {
        Ok(text) => {
            for (index, prompt) in texts.iter().enumerate() {
                sets.push(Tokens { label: format!("prompt {index}"), ids: encode(&text, prompt)? });
            }
        }
        Err(verdict) if !prompts.is_empty() => return Err(verdict),
        Err(_) => {}
    }
    if prompts.is_empty() {
        let mut random = Random::new(ctx.seed, "tokens");
        let vocab = model.config().vocab;
        let length = SEEDED_TOKENS.min(model.config().context);
        let ids = (0..length).map(|_| random.below(vocab) as u32).collect();
        sets.push(Tokens { label: "seeded tokens".into(), ids });
    }
    for set in &mut sets {
        set.ids.truncate(model.config().context);
    }
    Ok(sets)
}

fn encode(text: &Text, prompt: &str) -> Look<Vec<u32>> {
    let ids = text.tokenizer.encode(prompt, apr_engine::text::Special::Plain);
    ids.map_err(|error| refused("a prompt is not encoded", &error))
}

/// Logits of every token, `[tokens, vocab]`, from an empty cache.
pub(super) fn logits(lm: &mut dyn Lm, ids: &[u32]) -> Look<Vec<f32>> {
    lm.reset();
    match lm.forward(ids, Want::All, &mut NoProbe) {
        Ok(rows) => Ok(rows.values().to_vec()),
        Err(error) => Err(refused("the forward pass fails", &error)),
    }
}

/// Runs `ids` from an empty cache and records the wanted sites; the logits are always recorded.
pub(super) fn record(
    lm: &mut dyn Lm,
    ids: &[u32],
    wanted: &dyn Fn(Site) -> bool,
) -> Look<Recording> {
    let mut seen = recording::record(lm, &recording::whole(ids), wanted);
    match seen.ended.take() {
        None => Ok(seen),
        Some(error) => Err(ended(&error)),
    }
}

/// A forward pass that ended early, as a counterexample.
pub(super) fn ended(error: &apr_engine::Error) -> Box<Verdict> {
    match error.code() {
        Code::NonFinite => refused("a value of the forward pass is not finite", error),
        _ => refused("the forward pass fails", error),
    }
}
