//! Along several formats and back: the bytes of every tensor, and everything the files say of the model.

use apr_engine::format::{Format, Metadata, gguf};
use apr_engine::model::Model;

use super::converted;
use crate::case::ModelRef;
use crate::contract::check::{Conversion, Target};
use crate::judge::context::{JudgeContext, Look, refused};
use crate::judge::look::all_of;
use crate::rosetta::facts::Compared;
use crate::rosetta::journey::{Allowed, Leg, Station};
use crate::verdict::Verdict;

/// What describes the file rather than the model, or repeats another entry.
const DERIVED: &[&str] = &[
    "general.file_type",
    "general.quantization_version",
    "total_size",
    "param_count",
    "quantization",
    "original_format",
    "rope_type",
    "tensor_shapes",
];

/// Converts the form to each format in turn, then back to its own. With a dtype, what goes on the way is the form in that
/// dtype.
pub(super) fn judge(check: &Conversion, form: &ModelRef, ctx: &JudgeContext) -> Look<Verdict> {
    let mut source = ctx.reference_model(form)?;
    let home = match source.format() {
        Format::Gguf => Target::Gguf,
        Format::SafeTensors => Target::Safetensors,
        Format::Apr => Target::Apr,
    };
    let mut at = form.clone();
    if check.dtype.is_some() {
        at = converted(&at, home, check.dtype.as_deref(), ctx)?;
        source = ctx.reference_model(&at)?;
    }
    for station in check.to.iter().chain([&home]) {
        at = converted(&at, *station, None, ctx)?;
    }
    let again = ctx.model(&at)?;
    let unjudged = |error| refused("the conversion cannot be judged", &error);
    let mut compared = same_tensors(&again, &source);
    let found = entries(&again).map_err(unjudged)?;
    for entry in entries(&source).map_err(unjudged)? {
        compared.demand(found.contains(&entry), || format!("{} is lost or changed", entry.0));
    }
    Ok(all_of(compared.count, "tensors and entries come back", compared.wrong))
}

/// Converts the form to each format in turn; every leg is judged by its own two ends, then the end by the beginning.
pub(super) fn legs(check: &Conversion, form: &ModelRef, ctx: &JudgeContext) -> Look<Verdict> {
    let unjudged = |error| refused("the way cannot be judged", &error);
    let first = ctx.reference_model(form)?;
    let mut allowed = Allowed::default();
    let (mut at, mut legs) = (form.clone(), Vec::new());
    for station in &check.to {
        let next = converted(&at, *station, check.dtype.as_deref(), ctx)?;
        let (before, after) = (ctx.reference_model(&at)?, ctx.model(&next)?);
        let to = Station { format: station.format(), dtype: check.dtype.clone() };
        let from = before.format().name();
        legs.push(Leg::judge(&before, &after, from, &to, &mut allowed).map_err(unjudged)?);
        at = next;
    }
    let end = ctx.model(&at)?;
    let (from, to) = (first.format().name(), end.format().name());
    legs.push(Leg::whole(&first, &end, from, to, &allowed).map_err(unjudged)?);
    let mut compared = Compared::default();
    for leg in legs {
        compared.count += leg.weights as u64 + leg.facts;
        let ends = format!("{} to {}", leg.from, leg.to);
        compared
            .demand(leg.weights > 0 && leg.facts > 0, || format!("{ends}: nothing is compared"));
        compared.wrong.extend(leg.lost.into_iter().map(|loss| format!("{ends}: {loss}")));
    }
    Ok(all_of(compared.count, "weights, facts and texts are kept on every leg", compared.wrong))
}

/// Every tensor of `theirs` with dtype, shape and bytes, and no other.
pub(super) fn same_tensors(ours: &Model, theirs: &Model) -> Compared {
    let mut compared = Compared::default();
    let (Ok(found), Ok(expected)) = (ours.source().containers(), theirs.source().containers())
    else {
        compared.demand(false, || "a file does not parse again".into());
        return compared;
    };
    let entries = || expected.iter().flat_map(|container| &container.tensors);
    for entry in entries() {
        let same = found.iter().find_map(|container| container.tensor(&entry.name));
        let equal = same.is_some_and(|same| same.view == entry.view);
        compared.demand(equal, || {
            let told =
                |view: &apr_engine::TensorView<'_>| format!("{} {}", view.dtype(), view.shape());
            match same {
                None => format!("{} is lost", entry.name),
                Some(same) if told(&same.view) == told(&entry.view) => {
                    format!("{} has other bytes", entry.name)
                }
                Some(same) => {
                    format!("{}: {} became {}", entry.name, told(&entry.view), told(&same.view))
                }
            }
        });
    }
    let counts: (usize, usize) =
        (entries().count(), found.iter().map(|container| container.tensors.len()).sum());
    compared.demand(counts.0 == counts.1, || format!("{} tensors became {}", counts.0, counts.1));
    compared
}

/// Metadata that describes the model, as text: pairs, keys or side files.
fn entries(model: &Model) -> apr_engine::Result<Vec<(String, String)>> {
    let containers = model.source().containers()?;
    let describes = |key: &str| !DERIVED.contains(&key);
    Ok(match containers.first().map(|first| &first.metadata) {
        Some(Metadata::Gguf(_)) => {
            let bytes = model.source().files().first().map_or(&[][..], |file| file.bytes());
            let pairs = gguf::typed_pairs(bytes)?.into_iter();
            let told = |(key, typed): (&str, _)| (key.to_owned(), format!("{typed:?}"));
            pairs.filter(|(key, _)| describes(key)).map(told).collect()
        }
        Some(Metadata::Apr(map)) => map
            .iter()
            .filter(|(key, value)| describes(key) && !value.is_null())
            .map(|(key, value)| (key.clone(), value.to_string()))
            .collect(),
        Some(Metadata::SafeTensors(_)) | None => side_files(model),
    })
}

fn side_files(model: &Model) -> Vec<(String, String)> {
    let files = model.source().sidecars();
    let named = [
        ("config.json", &files.config),
        ("generation_config.json", &files.generation_config),
        ("tokenizer.json", &files.tokenizer_json),
        ("tokenizer_config.json", &files.tokenizer_config),
        ("chat_template.jinja", &files.chat_template),
        ("special_tokens_map.json", &files.special_tokens_map),
    ];
    let present = named.into_iter().filter_map(|(name, bytes)| {
        Some((name.to_owned(), String::from_utf8_lossy(bytes.as_deref()?).into_owned()))
    });
    present.collect()
}
