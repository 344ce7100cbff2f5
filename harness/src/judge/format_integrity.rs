//! `format-integrity`: the file is what its format says a file is.

use apr_engine::format::{
    Container, Format, Metadata, Source, TensorEntry, apr, gguf, safetensors,
};

use super::context::{JudgeContext, Look, refused};
use super::look::{Random, all_of};
use super::{Planned, rewrite};
use crate::case::ModelRef;
use crate::contract::check::{FormatIntegrity, IntegrityRule};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Judges `check` on `case`.
pub(super) fn judge(check: &FormatIntegrity, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let source = ctx.source(form)?;
    match &check.rule {
        IntegrityRule::Magic => Ok(magic(form, &source)),
        IntegrityRule::Truncated { cuts } => Ok(truncated(&source, *cuts, ctx)),
        IntegrityRule::Corrupted { flips } => Ok(corrupted(&source, *flips, ctx)),
        IntegrityRule::Checksum => checksum(&source),
        rule => {
            let containers =
                source.containers().map_err(|error| refused("the file does not parse", &error))?;
            parsed(rule, &source, &containers, ctx)
        }
    }
}

/// Rules about files that parse.
fn parsed(
    rule: &IntegrityRule,
    source: &Source,
    containers: &[Container<'_>],
    ctx: &JudgeContext,
) -> Look<Verdict> {
    let entries = || containers.iter().flat_map(|container| &container.tensors);
    let count = entries().count() as u64;
    Ok(match rule {
        IntegrityRule::Version => {
            let known = |container: &&Container<'_>| match container.format {
                Format::Gguf => !matches!(container.version, 2 | 3),
                Format::Apr => container.version != 2,
                Format::SafeTensors => container.version != 1,
            };
            let wrong = containers.iter().filter(known);
            let wrong = wrong.map(|container| format!("version {}", container.version)).collect();
            all_of(containers.len() as u64, "versions known", wrong)
        }
        IntegrityRule::Offsets => offsets(source, containers),
        IntegrityRule::Alignment => alignment(containers, count),
        IntegrityRule::Counts => counts(source, containers),
        IntegrityRule::Names => names(containers, count),
        IntegrityRule::NoTrailing => notes(containers, count, |rule| {
            ["trailing", "gap", "padding"].iter().any(|part| rule.contains(part))
        }),
        IntegrityRule::NoNotes => notes(containers, count, |_| true),
        IntegrityRule::Rewritten => rewrite::judge(source, containers, ctx)?,
        _ => all_of(count, "tensors parsed", Vec::new()),
    })
}

/// The first bytes must be those of the format that the form's name begins with.
fn magic(form: &ModelRef, source: &Source) -> Verdict {
    let promised = [Format::Gguf, Format::SafeTensors, Format::Apr]
        .into_iter()
        .find(|format| form.form.starts_with(format.name()));
    let wrong: Vec<String> = source
        .files()
        .iter()
        .filter_map(|file| {
            let found = first_bytes(file.bytes());
            let expected = promised.unwrap_or(source.format());
            (found != Some(expected))
                .then(|| format!("{} begins as {found:?}, not {expected:?}", file.path().display()))
        })
        .collect();
    all_of(source.files().len() as u64, "files begin with the magic of their format", wrong)
}

/// The format by its first bytes alone; SafeTensors by the opening brace behind a plausible length.
fn first_bytes(bytes: &[u8]) -> Option<Format> {
    match bytes.get(..4)? {
        magic if magic == gguf::MAGIC => Some(Format::Gguf),
        magic if magic == apr::MAGIC => Some(Format::Apr),
        _ => (bytes.get(8) == Some(&b'{')).then_some(Format::SafeTensors),
    }
}

/// Offsets are recomputed from the views: inside the file, no two overlapping.
fn offsets(source: &Source, containers: &[Container<'_>]) -> Verdict {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (container, file) in containers.iter().zip(source.files()) {
        let length = file.bytes().len() as u64;
        let mut ranges: Vec<_> = container
            .tensors
            .iter()
            .map(|entry| (entry.offset, entry.view.bytes().len() as u64, entry.name.as_ref()))
            .collect();
        ranges.sort_unstable();
        count += ranges.len() as u64;
        for &(start, bytes, name) in &ranges {
            if start.checked_add(bytes).is_none_or(|end| end > length) {
                wrong.push(format!("{name}: {bytes} bytes at {start} leave {length}"));
            }
        }
        for pair in ranges.windows(2) {
            if pair[0].0.saturating_add(pair[0].1) > pair[1].0 {
                wrong.push(format!("{} overlaps {}", pair[0].2, pair[1].2));
            }
        }
    }
    all_of(count, "tensors lie inside the file, apart from each other", wrong)
}

fn alignment(containers: &[Container<'_>], count: u64) -> Verdict {
    let mut wrong = Vec::new();
    for container in containers {
        let alignment = match container.format {
            Format::Gguf => container
                .metadata
                .gguf("general.alignment")
                .and_then(apr_engine::format::Value::as_u64)
                .unwrap_or(gguf::ALIGNMENT_DEFAULT),
            Format::Apr => apr::ALIGNMENT,
            // The format aligns the data section to eight bytes and the tensors to their own element.
            Format::SafeTensors => 1,
        };
        for entry in &container.tensors {
            let unit = match container.format {
                Format::SafeTensors => entry.view.dtype().block_bytes() as u64,
                Format::Gguf | Format::Apr => alignment,
            };
            if !entry.offset.is_multiple_of(unit) {
                wrong.push(format!(
                    "{} at {} is not a multiple of {unit}",
                    entry.name, entry.offset
                ));
            }
        }
    }
    all_of(count, "tensors aligned", wrong)
}

/// The counts in the raw bytes against what was parsed.
fn counts(source: &Source, containers: &[Container<'_>]) -> Verdict {
    let mut wrong = Vec::new();
    for (container, file) in containers.iter().zip(source.files()) {
        let bytes: &[u8] = file.bytes();
        let word = |at: usize| bytes.get(at..at + 8).and_then(|raw| raw.try_into().ok());
        let found = container.tensors.len() as u64;
        let stored = match container.format {
            Format::Gguf => word(8).map(u64::from_le_bytes),
            Format::Apr => word(8).map(u64::from_le_bytes).map(|word| word & u64::from(u32::MAX)),
            Format::SafeTensors => header_entries(bytes),
        };
        if stored != Some(found) {
            wrong.push(format!("{stored:?} tensors stored, {found} found"));
        }
        if let Metadata::Gguf(pairs) = &container.metadata {
            let stored = word(16).map(u64::from_le_bytes);
            if stored != Some(pairs.len() as u64) {
                wrong.push(format!("{stored:?} pairs stored, {} found", pairs.len()));
            }
        }
        if found == 0 {
            wrong.push("no tensor at all".into());
        }
    }
    all_of(containers.len() as u64, "files hold what they count", wrong)
}

/// Entries of a SafeTensors header besides `__metadata__`.
fn header_entries(bytes: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let header = bytes.get(8..usize::try_from(length.checked_add(8)?).ok()?)?;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    Some(header.keys().filter(|key| *key != "__metadata__").count() as u64)
}

fn names(containers: &[Container<'_>], count: u64) -> Verdict {
    let mut seen = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for entry in containers.iter().flat_map(|container| &container.tensors) {
        let name = entry.name.as_ref();
        if name.is_empty() || name.chars().any(char::is_control) {
            wrong.push(format!("{name:?} is no name"));
        }
        if !seen.insert(name) {
            wrong.push(format!("{name} stands twice"));
        }
    }
    all_of(count, "names unique and printable", wrong)
}

fn notes(containers: &[Container<'_>], count: u64, wanted: impl Fn(&str) -> bool) -> Verdict {
    let notes = containers.iter().flat_map(|container| &container.notes);
    let wrong = notes.filter(|note| wanted(note.rule));
    let wrong = wrong.map(|note| format!("{}: {}", note.rule, note.text)).collect();
    all_of(count, "tensors read without remark", wrong)
}

/// Checksums exist in APR alone; for other formats there is nothing to hold a byte against.
fn checksum(source: &Source) -> Look<Verdict> {
    if source.format() != Format::Apr {
        let why = format!("{} files carry no checksum", source.format().name());
        return Err(Box::new(Verdict::skipped("model", why)));
    }
    let mut wrong = Vec::new();
    for file in source.files() {
        match apr::parse(file.bytes()) {
            Ok(container) => {
                wrong.extend(
                    container
                        .notes
                        .iter()
                        .filter(|n| n.rule == "apr-no-footer")
                        .map(|note| format!("{}: {}", file.path().display(), note.text)),
                );
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    // Header and footer of each file.
    Ok(all_of(2 * source.files().len() as u64, "checksums right", wrong))
}

/// Parses the bytes of one file.
pub(super) fn parse(format: Format, bytes: &[u8]) -> apr_engine::Result<Container<'_>> {
    match format {
        Format::Gguf => gguf::parse(bytes),
        Format::SafeTensors => safetensors::parse(bytes),
        Format::Apr => apr::parse(bytes),
    }
}

/// Where the last byte that carries something ends: behind the last tensor a GGUF file may have padding, and is whole
/// without it.
fn content_end(format: Format, bytes: &[u8]) -> usize {
    let ends = |container: &Container<'_>| {
        let end = |entry: &TensorEntry<'_>| entry.offset as usize + entry.view.bytes().len();
        container.tensors.iter().map(end).max()
    };
    let padded = (format == Format::Gguf).then(|| parse(format, bytes).ok()).flatten();
    padded.as_ref().and_then(ends).unwrap_or(bytes.len())
}

/// Each file, cut off at seeded places and at both ends of what it carries.
fn truncated(source: &Source, cuts: usize, ctx: &JudgeContext) -> Verdict {
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in source.files() {
        let bytes: &[u8] = file.bytes();
        let mut random = Random::new(ctx.seed, "cuts");
        let end = content_end(source.format(), bytes);
        let mut places: Vec<usize> = (0..cuts).map(|_| random.below(end)).collect();
        places.extend([0, 1, 4, 8, end.saturating_sub(1)]);
        places.retain(|&place| place < end);
        for place in places {
            count += 1;
            let read = ctx.reading(bytes, &bytes[..place]);
            if parse(source.format(), &read).is_ok() {
                wrong.push(format!("the first {place} of {} bytes are accepted", bytes.len()));
            }
        }
    }
    all_of(count, "truncations refused", wrong)
}

/// Each file with one byte of its head changed: refused, or read as something else, never read as the same.
fn corrupted(source: &Source, flips: usize, ctx: &JudgeContext) -> Verdict {
    let mut unnoticed = Vec::new();
    let (mut count, mut refusals) = (0u64, 0u64);
    for file in source.files() {
        let bytes: &[u8] = file.bytes();
        let Ok(original) = parse(source.format(), bytes) else { continue };
        let original_text = format!("{original:?}");
        let payload = original.tensors.iter().map(|entry| entry.offset).min().unwrap_or(0);
        let head = usize::try_from(payload).unwrap_or(bytes.len()).min(bytes.len());
        let mut random = Random::new(ctx.seed, "flips");
        let mut copy = bytes.to_vec();
        for _ in 0..flips.min(head * 8) {
            let (at, bit) = (random.below(head), random.below(8));
            copy[at] ^= 1 << bit;
            count += 1;
            let read = ctx.reading(bytes, &copy);
            match parse(source.format(), &read) {
                Err(_) => refusals += 1,
                // Padding between structures carries nothing, so changing it changes nothing.
                Ok(container) if format!("{container:?}") == original_text && bytes[at] != 0 => {
                    unnoticed.push(format!("bit {bit} of byte {at} changes nothing"));
                }
                Ok(_) => {}
            }
            copy[at] = bytes[at];
        }
    }
    let summary =
        format!("{} of {count} changed bits unnoticed, {refusals} refused", unnoticed.len());
    let mut evidence = Evidence::new(count, summary)
        .measure(Measure::judged("unnoticed", unnoticed.len() as f64, Limit::Exactly(0.0)))
        .measure(Measure::noted("refused", refusals as f64));
    evidence.details = unnoticed.into_iter().take(8).collect();
    evidence.verdict()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::judge::relaid::relay;
    use crate::need::Needs;
    use crate::suite::Layout;
    use crate::verdict::VerdictKind;

    #[test]
    fn padding_behind_the_last_tensor_may_be_missing_and_its_last_byte_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let to = folder.path().join("padded.gguf");
        relay(&root.join("fixtures/gguf/qwen2-tied-Q8_0.gguf"), &Layout::Alignment(4096), &to)
            .unwrap();
        let source = Source::open(&to).unwrap();
        let bytes: &[u8] = source.files()[0].bytes();
        let end = content_end(Format::Gguf, bytes);
        assert!(end < bytes.len() && parse(Format::Gguf, &bytes[..end]).is_ok());
        assert!(parse(Format::Gguf, &bytes[..end - 1]).is_err());
        let ctx = JudgeContext::new(PathBuf::new(), folder.path().into(), 0, Needs::default());
        assert_eq!(truncated(&source, 16, &ctx).kind(), VerdictKind::Corroborated);
    }
}
