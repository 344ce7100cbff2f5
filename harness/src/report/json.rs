//! JSON: the record itself, in the envelope that every `--json` answer of the tool has.

use std::io;

use serde::{Deserialize, Serialize};

use crate::event::RunRecord;

/// Name and version of the record's layout.
pub const SCHEMA: &str = "apr.qa.v1";

/// What every JSON answer of the tool begins with, around the record.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Envelope {
    /// Name and version of the layout: [`SCHEMA`].
    pub schema: String,
    /// Version of the tool.
    pub apr_version: String,
    /// The subcommand.
    pub command: String,
    /// The record.
    #[serde(flatten)]
    pub record: RunRecord,
}

/// Renders the record with a newline at its end.
///
/// # Errors
/// When the record cannot be serialised.
pub fn render(record: &RunRecord) -> io::Result<String> {
    let envelope = Envelope {
        schema: SCHEMA.to_owned(),
        apr_version: record.provenance.apr_version.clone(),
        command: "qa".to_owned(),
        record: record.clone(),
    };
    let mut text = serde_json::to_string_pretty(&envelope)?;
    text.push('\n');
    Ok(text)
}

/// Reads a record back.
///
/// # Errors
/// When the text is not JSON, not a record, or a record of another layout.
pub fn read(text: &str) -> io::Result<RunRecord> {
    let envelope: Envelope = serde_json::from_str(text)?;
    if envelope.schema == SCHEMA {
        return Ok(envelope.record);
    }
    let message = format!("schema is `{}`, expected `{SCHEMA}`", envelope.schema);
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
