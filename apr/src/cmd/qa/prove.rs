//! `apr qa --prove`: plant the faults that the gates name and print the kill matrix.

use apr_harness::contract::parameter::ParameterValue;
use apr_harness::judge;
use apr_harness::kill::{Kill, KillMatrix};
use apr_harness::proof::{self, Step};
use apr_harness::report::term::write_matrix;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Plan, reports};
use crate::cli::QaOptions;
use crate::device;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::render::{Envelope, Terminal};

/// `qa-prove`: the kill matrix.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProveOutput {
    /// Suite name.
    suite: String,
    /// SHA-256 over the catalogue with the values of its parameters.
    catalogue_sha256: String,
    /// Parameters that have another value than their default.
    parameters: Vec<ParameterValue>,
    /// Gates by faults.
    matrix: KillMatrix,
    /// Blocking gates without a live kill.
    blocking_unproven: Vec<String>,
}

pub(super) fn run(
    options: &QaOptions,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let plan = Plan::new(options)?;
    if plan.cases().is_empty() {
        return Ok(apr_harness::score::EXIT_NOTHING_RAN);
    }
    let mut ctx = plan.context(options.seed, options.plant.as_deref())?;
    ctx.cache_type = device::cache_type(options.cache.cache_type);
    let mut progress = |step: Step<'_>| {
        if !terminal.json && (terminal.verbose || step.kill != Kill::Killed) {
            // A lost progress line must not stop the proof.
            let _untold = terminal.line(&format!(
                "{:<12} {} under {}: {}",
                step.kill.name(),
                step.gate,
                step.fault,
                step.note
            ));
        }
        !interrupt.requested()
    };
    let folder = reports::folder(options)?;
    let jobs = options.jobs.unwrap_or_else(super::cores).max(1);
    let matrix = proof::prove(plan.cases(), &ctx, &judge::run, jobs, &mut progress);
    let blocking_unproven = proof::blocking_unproven(plan.cases(), &matrix);
    let lost = matrix.count(Kill::Survived) + matrix.count(Kill::WrongReason);
    let green = blocking_unproven.is_empty() && matrix.red_under_no_op.is_empty() && lost == 0;
    if let Some(folder) = &folder {
        let proven = reports::Proven {
            catalogue_sha256: plan.expansion.catalogue_sha256.clone(),
            matrix: matrix.clone(),
        };
        let path = reports::write_kill_matrix(folder, &proven)?;
        terminal.notice(&format!("kill matrix: {}", path.display()))?;
    }
    let parameters: Vec<ParameterValue> =
        plan.expansion.parameters.into_iter().filter(ParameterValue::is_changed).collect();
    if terminal.json {
        let output = ProveOutput {
            suite: plan.suite,
            catalogue_sha256: plan.expansion.catalogue_sha256,
            parameters,
            matrix,
            blocking_unproven,
        };
        terminal.value(&Envelope::new("qa-prove", "qa", output))?;
    } else {
        let mut text = Vec::new();
        write_matrix(&mut text, reports::style(terminal), &matrix)?;
        terminal.text(&String::from_utf8_lossy(&text))?;
        for gate in &blocking_unproven {
            terminal.line(&format!("unproven blocking gate: {gate}"))?;
        }
        for case in &matrix.red_under_no_op {
            terminal.line(&format!("red although nothing is wrong: {case}"))?;
        }
        for value in parameters {
            terminal.line(&format!("parameter {value}"))?;
        }
    }
    if interrupt.requested() {
        return Err(Failure::Interrupted);
    }
    Ok(u8::from(if green { Exit::Success } else { Exit::Falsified }))
}
