//! What memory gives: the bytes of a token, read by a plain loop.
//!
//! Decoding reads every weight once per token and the cache of all positions before it, so it cannot be faster than
//! reading as many bytes. The loop reads the very bytes of the model, with as many threads, beside the measurement.

use std::thread::Builder;

use apr_engine::model::slots::Role;
use apr_engine::model::{Lm, Model};
use schemars::JsonSchema;
use serde::Serialize;

use crate::timer::Clock;

/// How near decoding comes to reading alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Roofline {
    /// Bytes that one token reads: weights, and keys and values at the middle of the run.
    pub bytes_per_token: u64,
    /// Bytes per second of the plain loop.
    pub read_bytes_per_second: f64,
    /// Bytes per second of decoding.
    pub decode_bytes_per_second: f64,
    /// Their ratio.
    pub fraction: f64,
}

/// The stored bytes of the tensors that a token reads whole: all but an embedding that is no head.
pub fn weights(model: &Model) -> Vec<&[u8]> {
    let tied = model.weights().tied();
    let read = |role: Role| tied || role != Role::Embed;
    let tensors = model.weights().iter().filter(|(slot, _)| read(slot.role));
    tensors.map(|(_, named)| &**named.tensor.bytes()).collect()
}

/// Bytes of keys and values that a token at `position` of `lm` reads.
pub(super) fn cache_bytes(lm: &dyn Lm, position: usize) -> u64 {
    let config = lm.config();
    (2 * config.layers * config.kv_width() * lm.cache_type().bytes() * position) as u64
}

/// Nanoseconds that `threads` threads need to add up the words of `tensors`.
pub fn read(tensors: &[&[u8]], threads: usize, clock: Clock<'_>) -> u64 {
    let total: usize = tensors.iter().map(|bytes| bytes.len()).sum();
    let share = total.div_ceil(threads.max(1)).max(1);
    let parts = shares(tensors, share);
    let start = clock();
    let sum = std::thread::scope(|scope| {
        let mut helpers = Vec::new();
        let mut own = 0u64;
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let helper = (!last).then(|| Builder::new().spawn_scoped(scope, || sum_all(part)));
            match helper {
                Some(Ok(helper)) => helpers.push(helper),
                // The last share, and one that no thread could be had for.
                _ => own = own.wrapping_add(sum_all(part)),
            }
        }
        let joined = helpers.into_iter().map(|helper| helper.join().unwrap_or_default());
        joined.fold(own, u64::wrapping_add)
    });
    std::hint::black_box(sum);
    clock().saturating_sub(start)
}

/// Runs of bytes that add up to `share` bytes, one list to a thread.
fn shares<'a>(tensors: &[&'a [u8]], share: usize) -> Vec<Vec<&'a [u8]>> {
    let mut parts = vec![Vec::new()];
    let mut room = share;
    for mut bytes in tensors.iter().copied() {
        while !bytes.is_empty() {
            if room == 0 {
                parts.push(Vec::new());
                room = share;
            }
            let (taken, rest) = bytes.split_at(room.min(bytes.len()));
            if let Some(part) = parts.last_mut() {
                part.push(taken);
            }
            room -= taken.len();
            bytes = rest;
        }
    }
    parts
}

fn sum_all(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|bytes| sum(bytes)).fold(0, u64::wrapping_add)
}

/// Places that a thread reads in at once: memory answers one core faster in several than in one, and a floor has to be what
/// nobody passes.
const PLACES: usize = 4;
/// Bytes that are read in one place before the next.
const LINE: usize = 64;

/// Adds up all words, and the bytes that are no whole word.
fn sum(bytes: &[u8]) -> u64 {
    let (front, rest) = bytes.split_at(bytes.len() / (PLACES * LINE) * (PLACES * LINE));
    let part = front.len() / PLACES;
    let ((first, second), (third, fourth)) = {
        let (first, second) = front.split_at(2 * part);
        (first.split_at(part), second.split_at(part))
    };
    let lines = |part| <[u8]>::as_chunks::<LINE>(part).0.iter();
    let mut lanes = [0u64; LINE / 8];
    let rows = lines(first).zip(lines(second)).zip(lines(third)).zip(lines(fourth));
    for (((a, b), c), d) in rows {
        for line in [a, b, c, d] {
            for (lane, &word) in lanes.iter_mut().zip(line.as_chunks::<8>().0) {
                *lane = lane.wrapping_add(u64::from_le_bytes(word));
            }
        }
    }
    let (words, single) = rest.as_chunks::<8>();
    let words = words.iter().map(|&word| u64::from_le_bytes(word));
    let single = single.iter().map(|&byte| u64::from(byte));
    lanes.into_iter().chain(words).chain(single).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_once() {
        // Each place that is left out or read twice changes the sum.
        for len in [0, 1, 7, 8, 63, 255, 256, 257, 1000, 4096, 5003] {
            let bytes: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
            let (words, single) = bytes.as_chunks::<8>();
            let words = words.iter().map(|word| u64::from_le_bytes(*word));
            let all = words.chain(single.iter().map(|byte| u64::from(*byte)));
            assert_eq!(sum(&bytes), all.fold(0, u64::wrapping_add), "{len}");
        }
    }

    #[test]
    fn every_byte_is_in_one_share_and_no_share_is_larger_than_asked() {
        let tensors: [&[u8]; 4] = [&[1; 10], &[], &[2; 3], &[3; 20]];
        for threads in [1, 2, 3, 7, 40] {
            let share = 33_usize.div_ceil(threads);
            let parts = shares(&tensors, share);
            assert!(parts.len() <= threads, "{threads}");
            let lengths = parts.iter().map(|part| part.iter().map(|run| run.len()).sum::<usize>());
            assert!(lengths.clone().all(|len| len <= share), "{threads}");
            assert_eq!(lengths.sum::<usize>(), 33, "{threads}");
        }
    }
}
