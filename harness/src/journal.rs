//! The journal: what is already known of an interrupted run.
//!
//! Append-only JSONL, one finished case per line, synced as it is written. A line is keyed by everything the verdict depends
//! on, so a changed gate, model, executable or seed does not find it. Only verdicts that rest on evidence are kept: a skip
//! or a broken case is looked at again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::event::Outcome;
use crate::provenance::sha256_parts;
use crate::verdict::Verdict;

/// Longest line that is read, in bytes: a line beyond is not one of ours.
const LINE_MAX: usize = 4 << 20;

/// The key of a case: a hash over everything its verdict depends on.
///
/// `gate` is the resolved gate as text, `model_sha256` empty for a gate without a model.
pub fn key(
    case_id: &str,
    gate: &str,
    model_sha256: &str,
    binary_sha256: &str,
    seed: u64,
) -> String {
    sha256_parts([case_id, gate, model_sha256, binary_sha256, &seed.to_string()])
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    key: String,
    case: String,
    verdict: Verdict,
    duration_ms: f64,
}

/// A verdict that an earlier run has reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// What was seen.
    pub verdict: Verdict,
    /// Wall time in milliseconds.
    pub duration_ms: f64,
}

/// An open journal. Its file is locked: a second run on the same journal is refused, not interleaved.
#[derive(Debug)]
pub struct Journal {
    file: File,
    known: BTreeMap<String, Known>,
    unreadable: usize,
}

impl Journal {
    /// Begins an empty journal at `path`.
    ///
    /// # Errors
    /// When the file cannot be made, or another run holds it.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.set_len(0)?;
        Ok(Self { file, known: BTreeMap::new(), unreadable: 0 })
    }

    /// Carries on with the journal at `path`; an absent one is begun.
    ///
    /// A line that cannot be read, such as one torn by a crash, is counted and left behind.
    ///
    /// # Errors
    /// When the file cannot be opened or read, or another run holds it.
    pub fn resume(path: &Path) -> io::Result<Self> {
        let mut file = open(path)?;
        let (known, unreadable, torn) = read(&mut file)?;
        file.seek(SeekFrom::End(0))?;
        if torn {
            // The next line must not continue the torn one.
            file.write_all(b"\n")?;
        }
        Ok(Self { file, known, unreadable })
    }

    /// What is known of the case with this key.
    pub fn known(&self, key: &str) -> Option<&Known> {
        self.known.get(key)
    }

    /// Lines that could not be read.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Adds a finished case, when its verdict rests on evidence.
    ///
    /// # Errors
    /// When the line cannot be written and synced.
    pub fn append(&mut self, key: &str, outcome: &Outcome) -> io::Result<()> {
        if matches!(outcome.verdict, Verdict::Skipped { .. } | Verdict::Broken { .. }) {
            return Ok(());
        }
        let line = Line {
            key: key.to_owned(),
            case: outcome.case.id.clone(),
            verdict: outcome.verdict.clone(),
            duration_ms: outcome.duration_ms,
        };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        // One write, so that a crash tears at most the last line.
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("journal {}: {error}", path.display()))
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(named)?;
    if !file.metadata().map_err(named)?.is_file() {
        return Err(named(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = "another run is writing it";
            Err(named(io::Error::new(io::ErrorKind::WouldBlock, message)))
        }
        Err(TryLockError::Error(error)) => Err(named(error)),
    }
}

/// Known verdicts, the number of unreadable lines, and whether the last line lacks its end.
fn read(file: &mut File) -> io::Result<(BTreeMap<String, Known>, usize, bool)> {
    let mut reader = BufReader::new(file);
    let (mut known, mut unreadable, mut torn) = (BTreeMap::new(), 0, false);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut reader, LINE_MAX as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok((known, unreadable, torn));
        }
        torn = line.last() != Some(&b'\n');
        let text = line.trim_ascii();
        match serde_json::from_slice::<Line>(text) {
            Ok(Line { key, verdict, duration_ms, .. }) => {
                known.insert(key, Known { verdict, duration_ms });
            }
            Err(_) if text.is_empty() => {}
            Err(_) => unreadable += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{CaseInfo, Cell};
    use crate::contract::Severity;
    use crate::verdict::{Evidence, Limit, Measure};

    fn outcome(verdict: Verdict) -> Outcome {
        let case = CaseInfo {
            id: "a/b@c".into(),
            contract: "a".into(),
            gate: "b".into(),
            claim: "it holds".into(),
            severity: Severity::Major,
            refs: Vec::new(),
            cell: Cell::default(),
            required: true,
        };
        Outcome { case, verdict, duration_ms: 2.0, resumed: false }
    }

    fn corroborated() -> Outcome {
        let measure = Measure::judged("error", 0.1, Limit::AtMost(1.0));
        outcome(Evidence::new(1, "line\nbreak").measure(measure).verdict())
    }

    #[test]
    fn a_resumed_journal_knows_what_was_written() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal.jsonl");
        Journal::create(&path).unwrap().append("k1", &corroborated()).unwrap();
        let journal = Journal::resume(&path).unwrap();
        assert_eq!(journal.known("k1").unwrap().verdict, corroborated().verdict);
        assert_eq!(journal.known("k2"), None);
    }

    #[test]
    fn a_torn_last_line_costs_only_that_line() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        journal.append("k1", &corroborated()).unwrap();
        journal.append("k2", &corroborated()).unwrap();
        drop(journal);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        let mut journal = Journal::resume(&path).unwrap();
        assert!(journal.known("k1").is_some() && journal.known("k2").is_none());
        assert_eq!(journal.unreadable(), 1);
        journal.append("k3", &corroborated()).unwrap();
        drop(journal);
        assert!(Journal::resume(&path).unwrap().known("k3").is_some());
    }

    #[test]
    fn skips_and_broken_cases_are_looked_at_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        journal.append("k1", &outcome(Verdict::skipped("cuda", "none"))).unwrap();
        journal.append("k2", &outcome(Verdict::broken("disk"))).unwrap();
        drop(journal);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_second_run_on_one_journal_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal.jsonl");
        let _first = Journal::create(&path).unwrap();
        assert_eq!(Journal::resume(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_refused_run_leaves_the_journal_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal.jsonl");
        let mut first = Journal::create(&path).unwrap();
        first.append("k1", &corroborated()).unwrap();
        assert!(Journal::create(&path).is_err());
        drop(first);
        assert!(Journal::resume(&path).unwrap().known("k1").is_some());
    }

    #[test]
    fn each_part_of_the_key_matters() {
        let base = key("case", "gate", "model", "binary", 1);
        let others = [
            key("case2", "gate", "model", "binary", 1),
            key("case", "gate2", "model", "binary", 1),
            key("case", "gate", "model2", "binary", 1),
            key("case", "gate", "model", "binary2", 1),
            key("case", "gate", "model", "binary", 2),
        ];
        assert!(others.iter().all(|other| *other != base));
    }
}
