//! `apr rosetta fingerprint` and `apr rosetta diff`: models at rest.

use apr_engine::model::Model;
use apr_harness::report::escape::visible;
use apr_harness::rosetta::{Diff, Fingerprint};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::rosetta::{DiffArgs, FingerprintArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Envelope, Terminal};

/// `rosetta-fingerprint`: what the weights of each model are, whatever file they lie in.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FingerprintOutput {
    /// The models in the order they were named.
    models: Vec<ModelFingerprint>,
    /// Whether the values of all of them are equal.
    same_values: bool,
    /// Whether they are stored alike as well.
    same_stored: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ModelFingerprint {
    /// The model as it was named.
    path: String,
    /// Format of its weight files.
    format: String,
    #[serde(flatten)]
    fingerprint: Fingerprint,
}

pub(super) fn fingerprint(args: &FingerprintArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let mut models = Vec::new();
    for path in &args.models {
        let model = Model::load(path)?;
        models.push(ModelFingerprint {
            path: path.display().to_string(),
            format: model.format().name().to_owned(),
            fingerprint: Fingerprint::of(&model)?,
        });
        // What was hashed is what was opened.
        model.source().check_unchanged()?;
    }
    let same = |part: fn(&Fingerprint) -> &String| {
        models.windows(2).all(|pair| part(&pair[0].fingerprint) == part(&pair[1].fingerprint))
    };
    let same_values = same(|fingerprint| &fingerprint.values);
    let same_stored = same(|fingerprint| &fingerprint.stored);
    if terminal.json {
        let output = FingerprintOutput { models, same_values, same_stored };
        terminal.value(&Envelope::new("rosetta-fingerprint", "rosetta", output))?;
        return Ok(0);
    }
    for model in &models {
        let Fingerprint { values, stored, tensors } = &model.fingerprint;
        terminal.line(&format!("values {values}  stored {stored}  {}", visible(&model.path)))?;
        for tensor in tensors.iter().filter(|_| terminal.verbose) {
            let shape = format!("{:?}", tensor.shape);
            terminal.line(&format!(
                "  {:<24} {:<5} {shape:<14} {}",
                tensor.slot, tensor.dtype, tensor.values
            ))?;
        }
    }
    if models.len() > 1 && !terminal.quiet {
        terminal.line(match (same_values, same_stored) {
            (true, true) => "the same weights, stored alike",
            (true, false) => "the same weights in other dtypes",
            (false, _) => "other weights",
        })?;
    }
    Ok(0)
}

/// `rosetta-diff`: what differs between two models at rest.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DiffOutput {
    /// The source as it was named.
    source: String,
    /// The target as it was named.
    target: String,
    #[serde(flatten)]
    diff: Diff,
    /// Whether nothing differs.
    same: bool,
    /// Whether every weight has the same values, whatever its dtype.
    same_values: bool,
    /// Exit code of the process.
    exit_code: u8,
}

pub(super) fn diff(args: &DiffArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let (source, target) = (Model::load(&args.source)?, Model::load(&args.target)?);
    let diff = Diff::of(&source, &target)?;
    let exit = if diff.is_empty() { Exit::Success } else { Exit::Falsified };
    let exit_code = u8::from(exit);
    if terminal.json {
        let output = DiffOutput {
            source: args.source.display().to_string(),
            target: args.target.display().to_string(),
            same: diff.is_empty(),
            same_values: diff.same_values(),
            diff,
            exit_code,
        };
        terminal.value(&Envelope::new("rosetta-diff", "rosetta", output))?;
    } else {
        terminal.text(&diff.render())?;
    }
    Ok(exit_code)
}
