//! Writing a model again in its own format and reading it back.

use apr_engine::format::convert::rewrite;
use apr_engine::format::{Container, Source};

use super::context::{JudgeContext, Look, refused};
use super::format_integrity::parse;
use super::look::all_of;
use crate::verdict::Verdict;

/// Writes `source` in its own format, reads it back, and compares name, dtype, shape and bytes of every tensor.
pub(super) fn judge(
    source: &Source,
    containers: &[Container<'_>],
    ctx: &JudgeContext,
) -> Look<Verdict> {
    let mut bytes = Vec::new();
    rewrite(source, &mut bytes)
        .map_err(|error| refused("the model cannot be written again", &error))?;
    if let Some(plant) = &ctx.plant {
        plant.mutate_written(&mut bytes);
    }
    let again = parse(source.format(), &bytes)
        .map_err(|error| refused("what was written cannot be read", &error))?;
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in containers.iter().flat_map(|container| &container.tensors) {
        count += 1;
        match again.tensor(&entry.name) {
            None => wrong.push(format!("{} is lost", entry.name)),
            Some(other) if other.view == entry.view => {}
            Some(other) => {
                wrong.push(format!("{}: {:?} became {:?}", entry.name, entry.view, other.view));
            }
        }
    }
    if again.tensors.len() as u64 != count {
        wrong.push(format!("{} tensors instead of {count}", again.tensors.len()));
    }
    Ok(all_of(count, "tensors come back unchanged", wrong))
}
