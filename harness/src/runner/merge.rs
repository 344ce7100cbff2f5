//! Puts the records of shards together again.

use thiserror::Error;

use super::settle;
use crate::event::{Outcome, RunRecord, Shard};

/// Why records do not make one run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MergeError {
    /// There is nothing to merge.
    #[error("no record to merge")]
    Nothing,
    /// A record is not a part of a split run.
    #[error("record {record} is not a shard: run it with --shard i/n")]
    NotAShard {
        /// Position of the record, from 1.
        record: usize,
    },
    /// Two records disagree on something that makes a run what it is.
    #[error("record {record} differs in {what}: {found}, expected {expected}")]
    Differs {
        /// Position of the record, from 1.
        record: usize,
        /// What differs.
        what: &'static str,
        /// The first record's.
        expected: String,
        /// This record's.
        found: String,
    },
    /// The same part is there twice.
    #[error("shard {index}/{of} is there twice")]
    Twice {
        /// Index of the shard.
        index: usize,
        /// How many there are.
        of: usize,
    },
    /// A part is missing: its cases would silently leave the denominator.
    #[error("shards are missing: {missing:?} of {of}")]
    Missing {
        /// Their indices.
        missing: Vec<usize>,
        /// How many there are.
        of: usize,
    },
    /// The parts do not have as many cases as the plan had.
    #[error("the shards have {found} cases, the plan had {expected}")]
    Cases {
        /// Cases of the plan.
        expected: usize,
        /// Cases of the parts.
        found: usize,
    },
}

/// Merges the records of all shards of one run into one record in plan order, and computes counts, score and exit code anew.
///
/// The merged run starts when its last shard started, so that a waiver has to hold for all of them.
///
/// # Errors
/// When a shard is missing or there twice, or the records come from different catalogues, suites, seeds, models or versions.
pub fn merge(records: Vec<RunRecord>) -> Result<RunRecord, MergeError> {
    let (first, shard) = match records.first() {
        None => return Err(MergeError::Nothing),
        Some(first) => (first.clone(), first.shard.ok_or(MergeError::NotAShard { record: 1 })?),
    };
    let mut parts: Vec<Option<RunRecord>> = vec![None; shard.of];
    for (at, record) in records.into_iter().enumerate() {
        let part = part_of(&first, shard, &record, at + 1)?;
        match parts.get_mut(part.index.wrapping_sub(1)) {
            Some(slot @ None) => *slot = Some(record),
            _ => return Err(MergeError::Twice { index: part.index, of: part.of }),
        }
    }
    let missing: Vec<usize> = (1..=shard.of).filter(|index| parts[index - 1].is_none()).collect();
    if !missing.is_empty() {
        return Err(MergeError::Missing { missing, of: shard.of });
    }
    put_together(first, shard, parts.into_iter().flatten().collect())
}

fn part_of(
    first: &RunRecord,
    shard: Shard,
    record: &RunRecord,
    at: usize,
) -> Result<Shard, MergeError> {
    let part = record.shard.ok_or(MergeError::NotAShard { record: at })?;
    let (a, b) = (&first.provenance, &record.provenance);
    let models = |record: &RunRecord| format!("{:?}", record.provenance.models);
    let facts = [
        ("suite", first.suite.clone(), record.suite.clone()),
        ("catalogue", a.catalogue_sha256.clone(), b.catalogue_sha256.clone()),
        ("apr version", a.apr_version.clone(), b.apr_version.clone()),
        ("seed", a.seed.to_string(), b.seed.to_string()),
        ("models", models(first), models(record)),
        ("number of shards", shard.of.to_string(), part.of.to_string()),
        ("cases of the plan", shard.cases.to_string(), part.cases.to_string()),
    ];
    for (what, expected, found) in facts {
        if expected != found {
            return Err(MergeError::Differs { record: at, what, expected, found });
        }
    }
    Ok(part)
}

fn put_together(
    mut merged: RunRecord,
    shard: Shard,
    parts: Vec<RunRecord>,
) -> Result<RunRecord, MergeError> {
    merged.notes.clear();
    let mut lists: Vec<std::vec::IntoIter<Outcome>> = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        let label = format!("shard {}/{}", at + 1, shard.of);
        merged.notes.extend(part.notes.into_iter().map(|note| format!("{label}: {note}")));
        if part.provenance.binary_sha256 != merged.provenance.binary_sha256 {
            merged.notes.push(format!("{label} ran another executable of the same version"));
        }
        if part.provenance.started > merged.provenance.started {
            merged.provenance.started = part.provenance.started;
        }
        merged.interrupted |= part.interrupted;
        merged.kill_matrix = merged.kill_matrix.or(part.kill_matrix);
        lists.push(part.cases.into_iter());
    }
    merged.cases.clear();
    // Shards took every n-th case, so one from each in turn is the plan's order.
    for at in 0..shard.cases {
        merged.cases.extend(lists[at % shard.of].next());
    }
    let left: usize = lists.iter().map(ExactSizeIterator::len).sum();
    let found = merged.cases.len() + left;
    if found != shard.cases {
        return Err(MergeError::Cases { expected: shard.cases, found });
    }
    merged.shard = None;
    settle(&mut merged);
    Ok(merged)
}
