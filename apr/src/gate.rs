//! The contract gate: in front of every command that acts on a model, and of no other.
//!
//! Which command is which is data, and a test holds the table against the command line.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use apr_engine::model::Model;
use apr_harness::admission::{Refusal, admit};
use clap::ArgMatches;
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::Failure;
use crate::render::Terminal;

/// What a command has to do with models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stance {
    /// It computes with one or makes another of it: a broken model must not get there.
    Acts,
    /// It tells what is wrong with one, so a broken model is its business.
    Diagnoses,
    /// There is no model.
    Apart,
}

/// Every command by its path.
const TABLE: &[(&str, Stance)] = &[
    ("qa", Stance::Diagnoses),
    ("qa list", Stance::Apart),
    ("qa coverage", Stance::Apart),
    ("qa schema", Stance::Apart),
    ("run", Stance::Acts),
    ("validate", Stance::Diagnoses),
    ("check", Stance::Diagnoses),
    ("score", Stance::Diagnoses),
    ("bench", Stance::Acts),
    ("profile", Stance::Acts),
    ("rosetta", Stance::Apart),
    ("rosetta compare-inference", Stance::Diagnoses),
    ("rosetta inspect", Stance::Diagnoses),
    ("rosetta diff", Stance::Diagnoses),
    ("rosetta fingerprint", Stance::Diagnoses),
    ("rosetta convert", Stance::Acts),
    ("rosetta verify", Stance::Acts),
    ("rosetta chain", Stance::Acts),
    ("inspect", Stance::Diagnoses),
    ("tensors", Stance::Diagnoses),
    ("convert", Stance::Acts),
    ("import", Stance::Acts),
    ("export", Stance::Acts),
    ("quantize", Stance::Acts),
    ("report", Stance::Apart),
    ("schema", Stance::Apart),
    ("explain", Stance::Apart),
    ("completions", Stance::Apart),
    ("man", Stance::Apart),
    ("__worker", Stance::Apart),
];

/// A model that has passed, or that nobody wanted looked at.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The model, loaded on the way; `None` when the gate was skipped or had nothing to do.
    pub(crate) model: Option<Model>,
    /// Whether the user had the gate skipped.
    pub(crate) skipped: bool,
    /// What loading and looking took.
    pub(crate) took: Duration,
}

impl Admission {
    /// Nothing was loaded.
    fn without(skipped: bool) -> Self {
        Self { model: None, skipped, took: Duration::ZERO }
    }

    /// What is said of the contract in a command's output.
    pub(crate) const fn contract(&self) -> ContractState {
        if self.skipped { ContractState::Skipped } else { ContractState::Kept }
    }
}

/// What is known of the contract of a model that was acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ContractState {
    /// It was looked at, and nothing was wrong.
    Kept,
    /// The user had it skipped: nothing is known.
    Skipped,
}

/// Looks at the model of the command in `matches`, when that command acts on one.
pub(crate) fn pass(
    matches: &ArgMatches,
    skip: bool,
    terminal: &Terminal,
) -> Result<Admission, Failure> {
    let (path, leaf) = command(matches);
    let stance = TABLE.iter().find(|(name, _)| *name == path).map(|(_, stance)| *stance);
    // A command that the table does not know is not waved through; a test sees to it that there is none.
    if stance.unwrap_or(Stance::Acts) != Stance::Acts {
        // A flag that changes nothing is a mistake of the caller, who would believe that something was skipped.
        let vain = format!(
            "--skip-contract: apr {path} does not act on a model, there is nothing to skip"
        );
        return if skip { Err(Failure::usage(vain)) } else { Ok(Admission::without(false)) };
    }
    if skip {
        terminal.warning(
            "--skip-contract: the model's contract is NOT checked; what comes out may be wrong",
        )?;
        return Ok(Admission::without(true));
    }
    let Ok(Some(path)) = leaf.try_get_one::<PathBuf>("model") else {
        return Err(Failure::broken(format_args!("{path} acts on a model and names none")));
    };
    let start = now();
    let model = admitted(path)?;
    Ok(Admission { model: Some(model), skipped: false, took: start.elapsed() })
}

/// The model at `path`, when it keeps its contract. For commands that act on a second one.
pub(crate) fn admitted(path: &Path) -> Result<Model, Failure> {
    admit(path).map_err(|refusal| match refusal {
        Refusal::Error(error) => error.into(),
        Refusal::Breach(breach) => Failure::Contract { path: path.to_path_buf(), breach },
    })
}

#[expect(clippy::disallowed_methods, reason = "the command line owns the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The path of the command that was given, and its own arguments.
fn command(matches: &ArgMatches) -> (String, &ArgMatches) {
    let (mut path, mut leaf) = (Vec::new(), matches);
    while let Some((name, inner)) = leaf.subcommand() {
        path.push(name);
        leaf = inner;
    }
    (path.join(" "), leaf)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// Every command below `command`, with its path.
    fn below(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        for one in command.get_subcommands() {
            let path = format!("{path} {}", one.get_name()).trim().to_owned();
            below(one, &path, found);
            found.push((path, one.clone()));
        }
    }

    #[test]
    fn every_command_stands_in_the_table_once_and_nothing_else_does() {
        let mut found = Vec::new();
        below(&Cli::command(), "", &mut found);
        let commands: BTreeSet<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        let listed: BTreeSet<&str> = TABLE.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed, commands);
        assert_eq!(TABLE.len(), listed.len(), "a command is listed twice");
    }

    #[test]
    fn every_command_that_acts_names_a_model() {
        let mut found = Vec::new();
        below(&Cli::command(), "", &mut found);
        let acting = TABLE.iter().filter(|(_, stance)| *stance == Stance::Acts);
        for (path, _) in acting {
            let (_, command) = found.iter().find(|(found, _)| found == path).unwrap();
            assert!(command.get_arguments().any(|arg| arg.get_id() == "model"), "{path}");
        }
    }
}
