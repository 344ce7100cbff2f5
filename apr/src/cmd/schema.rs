//! `apr schema`: the JSON Schema of every `--json` output, of traces, and of the texts inside traces.

use apr_harness::trace::{History, Payload};
use schemars::{Schema, schema_for};
use serde::Serialize;

use crate::cli::SchemaArgs;
use crate::cmd;
use crate::failure::Failure;
use crate::render::{Envelope, ErrorOutput, Terminal};

/// Names and schemas, in the order they are listed.
fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("error", schema_for!(Envelope<ErrorOutput>)),
        ("qa", schema_for!(Envelope<cmd::qa::QaOutput>)),
        ("qa-coverage", schema_for!(Envelope<cmd::qa::CoverageOutput>)),
        ("qa-prove", schema_for!(Envelope<cmd::qa::ProveOutput>)),
        ("qa-list", schema_for!(Envelope<cmd::qa::ListOutput>)),
        ("run", schema_for!(Envelope<cmd::run::RunOutput>)),
        ("inspect", schema_for!(Envelope<cmd::inspect::InspectOutput>)),
        ("tensors", schema_for!(Envelope<cmd::tensors::TensorsOutput>)),
        ("validate", schema_for!(Envelope<cmd::validate::ValidateOutput>)),
        ("check", schema_for!(Envelope<cmd::check::CheckOutput>)),
        ("score", schema_for!(Envelope<cmd::score::ScoreOutput>)),
        ("bench", schema_for!(Envelope<cmd::bench::BenchOutput>)),
        ("profile", schema_for!(Envelope<cmd::profile::ProfileOutput>)),
        ("trace", schema_for!(History)),
        ("trace-payload", schema_for!(Payload)),
        ("rosetta-compare-inference", schema_for!(Envelope<cmd::rosetta::CompareOutput>)),
        ("rosetta-compare-text", schema_for!(Envelope<cmd::rosetta::TextOutput>)),
        ("rosetta-diff", schema_for!(Envelope<cmd::rosetta::DiffOutput>)),
        ("rosetta-fingerprint", schema_for!(Envelope<cmd::rosetta::FingerprintOutput>)),
        ("rosetta-verify", schema_for!(Envelope<cmd::rosetta::WayOutput>)),
        ("rosetta-chain", schema_for!(Envelope<cmd::rosetta::WayOutput>)),
        ("convert", schema_for!(Envelope<cmd::convert::ConvertOutput>)),
        ("explain", schema_for!(Envelope<cmd::explain::ExplainOutput>)),
    ]
}

#[derive(Debug, Serialize)]
struct Names {
    names: Vec<&'static str>,
}

pub(crate) fn run(args: &SchemaArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let schemas = schemas();
    let names: Vec<&str> = schemas.iter().map(|(name, _)| *name).collect();
    let Some(wanted) = args.name.as_deref() else {
        if terminal.json {
            terminal.value(&Envelope::new("schemas", "schema", Names { names }))?;
        } else {
            terminal.line(&names.join("\n"))?;
        }
        return Ok(0);
    };
    let schema = schemas.iter().find(|(name, _)| *name == wanted).ok_or_else(|| {
        Failure::usage(format_args!("no schema {wanted:?}; there are: {}", names.join(", ")))
    })?;
    terminal.value(&schema.1)?;
    Ok(0)
}
