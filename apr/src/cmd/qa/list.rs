//! `apr qa list`: what would run, and what of it can be set.

use apr_harness::contract::Tier;
use apr_harness::contract::parameter::ParameterValue;
use apr_harness::judge::Planned;
use schemars::JsonSchema;
use serde::Serialize;

use super::Plan;
use crate::cli::QaListArgs;
use crate::failure::Failure;
use crate::render::{Envelope, Terminal};

/// `qa-list`: the cases that would run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListOutput {
    /// Suite name.
    suite: String,
    /// SHA-256 over the catalogue with the values of its parameters.
    catalogue_sha256: String,
    /// Case ids in plan order.
    cases: Vec<String>,
    /// The gates of these cases, in plan order.
    gates: Vec<ListedGate>,
    /// Gates that found no cell in the suite.
    unplaced: Vec<String>,
    /// The parameters of the suite's contracts.
    parameters: Vec<ParameterValue>,
}

/// A gate with what it says about itself.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedGate {
    /// `contract/gate`.
    gate: String,
    /// What is claimed.
    claim: String,
    /// How much a falsification weighs.
    severity: &'static str,
    /// Kind of its check.
    check: &'static str,
    /// How long it takes.
    tier: Tier,
    /// Ids of the gate catalogue it answers.
    refs: Vec<String>,
    /// What must be there.
    needs: Vec<String>,
    /// Free words to select by.
    tags: Vec<String>,
    /// Planted faults it must catch.
    kills: Vec<String>,
    /// How many cases it has.
    cases: usize,
    /// How many of them are red when they are skipped.
    required: usize,
}

pub(super) fn run(args: &QaListArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let plan = Plan::new(&args.options)?;
    let cases: Vec<String> = plan.cases().iter().map(|case| case.info.id.clone()).collect();
    let empty = cases.is_empty();
    if terminal.json {
        let output = ListOutput {
            suite: plan.suite,
            catalogue_sha256: plan.expansion.catalogue_sha256,
            cases,
            gates: gates(&plan.expansion.cases),
            unplaced: plan.expansion.unplaced,
            parameters: plan.expansion.parameters,
        };
        terminal.value(&Envelope::new("qa-list", "qa", output))?;
    } else if args.parameters {
        for value in &plan.expansion.parameters {
            terminal.line(&format!("{value}  [{}] {}", value.kind.name(), value.why))?;
        }
    } else {
        for case in &cases {
            terminal.line(case)?;
        }
        for value in plan.expansion.parameters.iter().filter(|value| value.is_changed()) {
            terminal.notice(&format!("parameter {value}"))?;
        }
    }
    Ok(if empty { apr_harness::score::EXIT_NOTHING_RAN } else { 0 })
}

/// The gates of `cases`, in the order of their first case.
fn gates(cases: &[Planned]) -> Vec<ListedGate> {
    let mut listed: Vec<ListedGate> = Vec::new();
    for case in cases {
        let name = format!("{}/{}", case.info.contract, case.info.gate);
        // The cases of a gate stand together.
        if listed.last().is_none_or(|last| last.gate != name) {
            let gate = &case.gate;
            listed.push(ListedGate {
                gate: name,
                claim: gate.claim.clone(),
                severity: gate.severity.name(),
                check: gate.check.kind(),
                tier: gate.tier,
                refs: gate.refs.clone(),
                needs: gate.needs.clone(),
                tags: gate.tags.clone(),
                kills: gate.kills.iter().map(ToString::to_string).collect(),
                cases: 0,
                required: 0,
            });
        }
        if let Some(gate) = listed.last_mut() {
            gate.cases += 1;
            gate.required += usize::from(case.info.required);
        }
    }
    listed
}
