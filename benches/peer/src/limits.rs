//! What limits both sides: reading memory while decoding, multiplying while reading a prompt, looked at in the same rounds.

use apr_harness::bench::compute::{Rates, Work};
use apr_harness::stats::median;
use serde::Serialize;

use crate::measure::Contest;
use crate::turns::{Quartiles, Turns};

/// Decoding against reading the same bytes by a plain loop, in the same round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Bytes of weights that a token reads.
    pub bytes_per_token: u64,
    /// Bytes per second of the loop.
    pub read: Quartiles,
    /// Our share of it.
    pub ours: Quartiles,
    /// Theirs.
    pub theirs: Quartiles,
}

/// Reading the long prompt against its multiply-adds with nothing around them, in the same round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Compute {
    /// Multiply-adds of the prompt.
    pub multiply_adds: Work,
    /// Multiply-adds of bytes per second.
    pub bytes: Quartiles,
    /// Multiply-adds of floats per second.
    pub floats: Quartiles,
    /// The least that the prompt could take, as a share of what our side takes.
    pub ours: Quartiles,
    /// And of what the other side takes.
    pub theirs: Quartiles,
}

/// What was looked at in a round.
#[derive(Debug, Default)]
pub struct Round {
    /// Nanoseconds of reading the weights once.
    pub reads: Vec<f64>,
    /// How fast threads multiply.
    pub rates: Vec<Rates>,
}

/// All rounds.
#[derive(Debug, Default)]
pub struct Limits {
    reads: Vec<f64>,
    rates: Vec<Rates>,
    decode: [Vec<f64>; 2],
    prefill: [Vec<f64>; 2],
}

impl Limits {
    /// Adds a round, with the runs of which `prefill` and `decode` end; those of `decode` gave `tokens` tokens.
    pub fn add(
        &mut self,
        contest: &Contest<'_>,
        round: &Round,
        prefill: &Turns,
        (decode, tokens): (&Turns, usize),
    ) {
        if let Some(read) = median(&round.reads) {
            share(&mut self.decode, read * tokens as f64, decode);
        }
        if let Some(rates) = Rates::median(&round.rates) {
            share(&mut self.prefill, contest.work.floor_ms(&rates) * 1e6, prefill);
        }
        self.reads.extend(&round.reads);
        self.rates.extend(&round.rates);
    }

    /// Decoding against memory.
    pub fn memory(&self, contest: &Contest<'_>) -> Option<Memory> {
        let bytes: usize = contest.weights.iter().map(|bytes| bytes.len()).sum();
        let read = self.reads.iter().map(|read| bytes as f64 / (read / 1e9));
        let [ours, theirs] = self.decode.clone().map(Quartiles::of);
        Some(Memory {
            bytes_per_token: bytes as u64,
            read: Quartiles::of(read)?,
            ours: ours?,
            theirs: theirs?,
        })
    }

    /// Reading a prompt against multiplying.
    pub fn compute(&self, contest: &Contest<'_>) -> Option<Compute> {
        let [ours, theirs] = self.prefill.clone().map(Quartiles::of);
        Some(Compute {
            multiply_adds: contest.work,
            bytes: Quartiles::of(self.rates.iter().map(|rates| rates.bytes))?,
            floats: Quartiles::of(self.rates.iter().map(|rates| rates.floats))?,
            ours: ours?,
            theirs: theirs?,
        })
    }
}

/// Adds `floor` as a share of the two latest runs of either side, in nanoseconds.
fn share(shares: &mut [Vec<f64>; 2], floor: f64, turns: &Turns) {
    for (shares, times) in shares.iter_mut().zip([&turns.ours, &turns.theirs]) {
        let latest = times.iter().rev().take(2);
        shares.extend(latest.map(|time| floor / time));
    }
}
