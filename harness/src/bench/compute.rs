//! What the processor gives: the multiply-adds of a prompt, done with nothing around them.
//!
//! Reading a prompt multiplies every matrix with every token, and queries and probabilities with keys and values. It cannot
//! be faster than as many products of operands that lie in registers, of as many threads, beside the measurement.

use std::thread::Builder;

use apr_engine::backend::simd::{Isa, Kernels, Multiplied};
use apr_engine::model::Model;
use apr_engine::model::slots::Role;
use schemars::JsonSchema;
use serde::Serialize;

use crate::stats::median;
use crate::timer::Clock;

/// Multiply-adds, by what is multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Work {
    /// Bytes by bytes: packed weights.
    pub bytes: u64,
    /// Floats by floats: plain weights, and attention.
    pub floats: u64,
}

/// Multiply-adds per second of all threads with nothing around them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Rates {
    /// Bytes by bytes.
    pub bytes: f64,
    /// Floats by floats.
    pub floats: f64,
}

/// How near reading a prompt comes to multiplying alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ComputeRoof {
    /// Multiply-adds of the prompt.
    pub multiply_adds: Work,
    /// What the instruction set in use allows, measured beside the prompt.
    pub per_second: Rates,
    /// The least that the prompt could take.
    pub floor_ms: f64,
    /// That, as a share of what it takes.
    pub fraction: f64,
}

impl ComputeRoof {
    /// Holds a prompt that took `took_ms` against the median of `rates`; `None` without any.
    pub(super) fn of(multiply_adds: Work, rates: &[Rates], took_ms: f64) -> Option<Self> {
        let per_second = Rates::median(rates)?;
        let floor_ms = multiply_adds.floor_ms(&per_second);
        Some(Self { multiply_adds, per_second, floor_ms, fraction: floor_ms / took_ms })
    }
}

impl Rates {
    /// The medians of `readings`; `None` without any.
    pub fn median(readings: &[Self]) -> Option<Self> {
        let middle = |one: fn(&Self) -> f64| median(&readings.iter().map(one).collect::<Vec<_>>());
        Some(Self { bytes: middle(|rates| rates.bytes)?, floats: middle(|rates| rates.floats)? })
    }
}

impl Work {
    /// What reading `tokens` tokens multiplies when the logits of the last one are wanted.
    pub fn of_prompt(model: &Model, tokens: usize) -> Self {
        let (config, weights) = (model.config(), model.weights());
        let mut work = Self::default();
        for (slot, named) in weights.iter() {
            let passes = match slot.role {
                Role::Embed if !weights.tied() => 0,
                Role::Embed | Role::Head => 1,
                _ => tokens as u64,
            };
            let tensor = &named.tensor;
            let products = tensor.shape().elements() * passes;
            if tensor.dtype().is_quantized() {
                work.bytes += products;
            } else if tensor.shape().rows() > 1 {
                work.floats += products;
            }
        }
        for layer in 0..config.layers {
            let seen = keys_seen(tokens, config.window_of(layer));
            work.floats += (2 * config.q_width() * seen) as u64;
        }
        work
    }

    /// Milliseconds of it at `rates`.
    pub fn floor_ms(&self, rates: &Rates) -> f64 {
        1e3 * (self.bytes as f64 / rates.bytes + self.floats as f64 / rates.floats)
    }
}

/// Keys that `tokens` tokens see together, each its own and those before it as far as `window` goes.
fn keys_seen(tokens: usize, window: Option<usize>) -> usize {
    (1..=tokens).map(|visible| visible.min(window.unwrap_or(visible))).sum()
}

/// Multiply-adds of a reading on each thread: some milliseconds, beside which starting a thread is little.
const fn reading(isa: Isa) -> u64 {
    if matches!(isa, Isa::Portable) { 1 << 22 } else { 1 << 29 }
}

/// How fast `threads` threads multiply with the instructions of `isa`.
///
/// # Errors
/// [`apr_engine::Code::IsaUnavailable`] when this machine lacks it.
pub fn rates(isa: Isa, threads: usize, clock: Clock<'_>) -> apr_engine::Result<Rates> {
    let kernels = Kernels::for_isa(isa)?;
    let rate = |multiply: &(dyn Fn(usize) -> Multiplied + Sync)| {
        let rounds = (reading(isa) / multiply(1).count).max(1) as usize;
        let start = clock();
        let count = on_threads(threads, || multiply(rounds).count);
        count as f64 / (clock().saturating_sub(start).max(1) as f64 / 1e9)
    };
    Ok(Rates {
        bytes: rate(&|rounds| kernels.multiply_bytes(rounds)),
        floats: rate(&|rounds| kernels.multiply_floats(rounds)),
    })
}

/// The sum of what `work` gives on each of `threads` threads.
fn on_threads(threads: usize, work: impl Fn() -> u64 + Sync) -> u64 {
    std::thread::scope(|scope| {
        let helper = |_| Builder::new().spawn_scoped(scope, &work).ok();
        let helpers: Vec<_> = (1..threads).filter_map(helper).collect();
        let own = work();
        helpers.into_iter().map(|helper| helper.join().unwrap_or_default()).sum::<u64>() + own
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_hides_keys_from_the_tokens_behind_it() {
        assert_eq!(keys_seen(6, None), 1 + 2 + 3 + 4 + 5 + 6);
        assert_eq!(keys_seen(6, Some(2)), 1 + 2 + 2 + 2 + 2 + 2);
        assert_eq!(keys_seen(6, Some(100)), keys_seen(6, None));
    }

    #[test]
    fn a_roof_is_the_median_of_its_readings() {
        let rates = [10.0, 30.0, 20.0].map(|bytes| Rates { bytes, floats: 2.0 * bytes });
        let roof = ComputeRoof::of(Work { bytes: 20, floats: 40 }, &rates, 4e3).unwrap();
        // Twenty by twenty a second, and forty by forty.
        assert!((roof.floor_ms - 2e3).abs() < 1e-9 && (roof.fraction - 0.5).abs() < 1e-12);
        assert_eq!(ComputeRoof::of(Work::default(), &[], 1.0), None);
    }
}
