//! From a row of logits to one token: a pure function of logits, history, settings and seed.
//!
//! The steps run in the order of the Hugging Face processors: repetition penalty, temperature, top-k,
//! top-p, min-p, draw. Ties go to the lower id everywhere, so every choice is reproducible.

use crate::error::{Code, Error, Result};

/// Tokens of history that the repetition penalty looks at by default.
const REPEAT_WINDOW: usize = 64;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits; 0 takes the largest logit.
    pub temperature: f32,
    /// Keep this many best tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of best tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens with at least this share of the best token's probability; 0 keeps all.
    pub min_p: f32,
    /// Positive logits of recent tokens are divided by this, negative ones multiplied; 1 does nothing.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty looks at; 0 looks at all.
    pub repeat_window: usize,
    /// Start of the random sequence.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_window: REPEAT_WINDOW,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks every parameter against its range.
    ///
    /// # Errors
    /// [`Code::SamplerValue`] with the parameter.
    pub fn check(&self) -> Result<()> {
        let checks = [
            (
                "temperature",
                self.temperature,
                (0.0..=100.0).contains(&self.temperature),
                "0 to 100",
            ),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            (
                "repeat_penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0 && self.repeat_penalty <= 100.0,
                "above 0, at most 100",
            ),
        ];
        match checks.iter().find(|(_, _, valid, _)| !valid) {
            Some((name, value, _, range)) => {
                Err(Error::new(Code::SamplerValue).field(name).expected(range).found(value))
            }
            None => Ok(()),
        }
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): one addition and a mix, the same everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `[0, 1)`, 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Chooses tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// As [`Sampling::check`].
    pub fn new(sampling: Sampling) -> Result<Self> {
        sampling.check()?;
        Ok(Self { sampling, random: SplitMix(sampling.seed) })
    }

    /// Chooses the next token after `history`.
    ///
    /// # Errors
    /// [`Code::NonFinite`] when a logit is NaN or infinite or there is none.
    pub fn pick(&mut self, logits: &[f32], history: &[u32]) -> Result<u32> {
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::new(Code::NonFinite).expected("finite logits"));
        }
        let mut logits = logits.to_vec();
        self.penalise(&mut logits, history);
        if self.sampling.temperature == 0.0 {
            return Ok(greedy(&logits));
        }
        let candidates = self.candidates(&logits);
        Ok(self.draw(&candidates))
    }

    /// Each recent token is penalised once, however often it stands in the window.
    fn penalise(&self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.sampling.repeat_penalty;
        let window = match self.sampling.repeat_window {
            0 => history.len(),
            window => window.min(history.len()),
        };
        let recent: std::collections::BTreeSet<u32> =
            history[history.len() - window..].iter().copied().collect();
        for token in recent {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// What is left after the filters: ids and probabilities, best first, not summing to 1.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let temperature = f64::from(self.sampling.temperature);
        let mut best: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        match self.sampling.top_k {
            0 => {}
            top_k if top_k < best.len() => {
                best.select_nth_unstable_by(top_k, order);
                best.truncate(top_k);
            }
            _ => {}
        }
        best.sort_unstable_by(order);
        let max = best.first().map_or(0.0, |(_, logit)| f64::from(*logit));
        let mut candidates: Vec<(u32, f64)> = best
            .into_iter()
            .map(|(id, logit)| (id, ((f64::from(logit) - max) / temperature).exp()))
            .collect();
        let sum: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut reached = 0.0;
        let enough = f64::from(self.sampling.top_p) * sum;
        let nucleus = candidates.iter().position(|(_, weight)| {
            reached += weight;
            reached >= enough
        });
        if self.sampling.top_p < 1.0 {
            candidates.truncate(nucleus.map_or(candidates.len(), |last| last + 1));
        }
        // The best candidate has weight 1.
        let floor = f64::from(self.sampling.min_p);
        candidates.retain(|(_, weight)| *weight >= floor);
        candidates
    }

    fn draw(&mut self, candidates: &[(u32, f64)]) -> u32 {
        let sum: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.uniform() * sum;
        for (id, weight) in candidates {
            left -= weight;
            if left < 0.0 {
                return *id;
            }
        }
        // Rounding may leave a crumb.
        candidates.last().map_or(0, |(id, _)| *id)
    }
}

/// The id of the largest logit; of equal ones the lowest id.
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0u32, f32::NEG_INFINITY);
    for (id, logit) in (0u32..).zip(logits) {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    best.0
}

/// Natural logarithm of the probability of each token, `[vocab]`.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Subtracted in f64: the difference of two f32 would be rounded, and the probabilities would not sum to one.
    let max = f64::from(max);
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - max).exp()).sum();
    let log_sum = sum.ln() + max;
    logits.iter().map(|logit| f64::from(*logit) - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -4.0];

    fn frequencies(sampling: Sampling, draws: usize) -> [usize; 5] {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = [0; 5];
        for _ in 0..draws {
            counts[sampler.pick(&LOGITS, &[]).unwrap() as usize] += 1;
        }
        counts
    }

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, seed: 7, ..Sampling::default() }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_ids() {
        assert_eq!(Sampler::new(Sampling::default()).unwrap().pick(&LOGITS, &[]).unwrap(), 1);
    }

    #[test]
    fn greedy_passes_over_what_is_not_a_number() {
        assert_eq!(greedy(&[f32::NAN, 0.0, 3.0, f32::NAN, 3.0]), 2);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let counts = frequencies(warm(), 20_000);
        for (count, log) in counts.iter().zip(log_softmax(&LOGITS)) {
            let expected = log.exp();
            // Five standard deviations of a binomial count.
            let bound = 5.0 * (expected * (1.0 - expected) / 20_000.0).sqrt();
            assert!((*count as f64 / 20_000.0 - expected).abs() < bound, "{counts:?}");
        }
    }

    #[test]
    fn each_filter_leaves_only_its_candidates() {
        let never = |sampling, ids: &[usize]| {
            let counts = frequencies(sampling, 500);
            assert!(ids.iter().all(|id| counts[*id] == 0), "{counts:?}");
            assert!(counts[1] > 0, "{counts:?}");
        };
        never(Sampling { top_k: 1, ..warm() }, &[0, 2, 3, 4]);
        never(Sampling { top_k: 3, ..warm() }, &[0, 4]);
        never(Sampling { top_p: 0.5, ..warm() }, &[0, 2, 4]);
        never(Sampling { min_p: 0.2, ..warm() }, &[0, 4]);
    }

    #[test]
    fn the_seed_decides_the_sequence() {
        let run = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..warm() }).unwrap();
            (0..50).map(|_| sampler.pick(&LOGITS, &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_repeated_token_is_penalised_once_and_whatever_its_sign() {
        let sampling = Sampling { repeat_penalty: 1.6, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling).unwrap();
        assert_eq!(sampler.pick(&LOGITS, &[1, 1]).unwrap(), 3);
        // 3 / 1.6 = 1.875 is below 2.
        assert_eq!(sampler.pick(&LOGITS, &[1, 3]).unwrap(), 2);
        assert_eq!(sampler.pick(&[-1.0, -1.2], &[0]).unwrap(), 1);
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        for (sampling, name) in [
            (Sampling { temperature: f32::NAN, ..warm() }, "temperature"),
            (Sampling { temperature: -1.0, ..warm() }, "temperature"),
            (Sampling { top_p: 0.0, ..warm() }, "top_p"),
            (Sampling { min_p: 1.5, ..warm() }, "min_p"),
            (Sampling { repeat_penalty: 0.0, ..warm() }, "repeat_penalty"),
        ] {
            let error = Sampler::new(sampling).unwrap_err();
            assert_eq!(error.code(), Code::SamplerValue);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_logit_that_is_not_finite_is_an_error() {
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        assert_eq!(sampler.pick(&[1.0, f32::NAN], &[]).unwrap_err().code(), Code::NonFinite);
        assert_eq!(sampler.pick(&[], &[]).unwrap_err().code(), Code::NonFinite);
    }
}
