//! A comparison of two sides as text: tokens, embedding, each layer, logits, and the first site where they part.

use std::fmt::Write as _;

use super::compare::{Comparison, First};
use super::logits::{Choice, Logits};
use super::sites::{Distance, SiteReport, SiteStatus};
use super::vote::Vote;
use crate::report::escape::visible;
use crate::report::number;

/// Token ids that a line shows.
const IDS: usize = 12;

/// Renders `comparison`; with `every_site` a line for each site, else for the last one of each layer.
pub fn render(comparison: &Comparison, prompt: &str, every_site: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut out, comparison, prompt, every_site);
    out
}

fn write_all(
    out: &mut String,
    comparison: &Comparison,
    prompt: &str,
    every_site: bool,
) -> std::fmt::Result {
    writeln!(out, "source: {}", visible(&comparison.source))?;
    writeln!(out, "target: {}", visible(&comparison.target))?;
    writeln!(out, "prompt: {}\n", visible(prompt))?;
    let mut block = 1;
    let tokens = &comparison.tokens;
    let (status, place) = match tokens.first_difference() {
        None => (SiteStatus::Match, String::new()),
        Some(at) => (SiteStatus::Mismatch, format!(", first at {at}")),
    };
    writeln!(
        out,
        "[{block}] Tokenization: {} tokens {}{place}",
        tokens.source.len(),
        status.name()
    )?;
    writeln!(out, "    source {}", ids(&tokens.source))?;
    writeln!(out, "    target {}", ids(&tokens.target))?;
    for group in groups(&comparison.sites) {
        block += 1;
        writeln!(out, "[{block}] {}", title(group))?;
        write_group(out, group, every_site)?;
    }
    if let Some(logits) = &comparison.logits {
        block += 1;
        write_logits(out, block, logits)?;
    }
    for note in &comparison.notes {
        writeln!(out, "note: {}", visible(note))?;
    }
    if let Some(vote) = comparison.first.as_ref().and_then(|first| first.vote.as_ref()) {
        block += 1;
        write_vote(out, block, vote)?;
    }
    writeln!(out, "\n{}", conclusion(comparison))
}

fn ids(ids: &[u32]) -> String {
    let shown: Vec<String> = ids.iter().take(IDS).map(u32::to_string).collect();
    let more = if ids.len() > IDS { ", …" } else { "" };
    format!("[{}{more}]", shown.join(", "))
}

/// Sites of one layer together, those outside the layers alone.
fn groups(sites: &[SiteReport]) -> impl Iterator<Item = &[SiteReport]> {
    sites.chunk_by(|a, b| a.layer.is_some() && a.layer == b.layer)
}

fn title(group: &[SiteReport]) -> String {
    let Some(first) = group.first() else { return String::new() };
    let worst = group.iter().map(|site| site.status).max().unwrap_or(SiteStatus::NotCompared);
    let what = match (first.layer, first.op.as_str()) {
        (Some(layer), _) => format!("Layer {layer} output"),
        (None, "embed") => "Embedding lookup (token 0)".to_owned(),
        (None, "logits") => "Final logits".to_owned(),
        (None, op) => op.to_owned(),
    };
    format!("{what}: {}", worst.name())
}

fn write_group(out: &mut String, group: &[SiteReport], every_site: bool) -> std::fmt::Result {
    let Some(last) = group.last() else { return Ok(()) };
    let values = |values: &[Option<f32>]| {
        let shown = values.iter().map(|value| match value {
            Some(value) => format!("{value:.5}"),
            None => "not finite".to_owned(),
        });
        shown.collect::<Vec<String>>().join(", ")
    };
    writeln!(out, "    source [{}, …]", values(&last.source_values))?;
    writeln!(out, "    target [{}, …]", values(&last.target_values))?;
    let shown = group.iter().filter(|site| {
        every_site || std::ptr::eq(*site, last) || site.status == SiteStatus::Mismatch
    });
    for site in shown {
        writeln!(
            out,
            "    {:<24} total {} max diff {}; local {} of {}; {}",
            site.site,
            error(&site.total),
            figure(site.total.max_abs),
            error(&site.local),
            number(site.allowed),
            site.status.name()
        )?;
    }
    Ok(())
}

fn error(distance: &Distance) -> String {
    let worst = distance.worst();
    if worst.is_finite() { number(worst) } else { "infinite".to_owned() }
}

fn write_logits(out: &mut String, block: usize, logits: &Logits) -> std::fmt::Result {
    let Logits { positions, same_choice, .. } = logits;
    writeln!(out, "[{block}] Next token: the same at {same_choice} of {positions} positions")?;
    writeln!(
        out,
        "    KL mean {} max {} nats; ten best in common {:.0} % on average, {:.0} % at least",
        figure(logits.kl_mean),
        figure(logits.kl_max),
        100.0 * logits.top_overlap_mean,
        100.0 * logits.top_overlap_least
    )?;
    let last = logits.last.iter().map(|choice| ("last", choice));
    let changed = logits.changed.iter().map(|choice| ("changed", choice));
    for (what, choice) in changed.chain(last) {
        writeln!(out, "    {what} position {}", chosen(choice))?;
    }
    Ok(())
}

fn chosen(choice: &Choice) -> String {
    let side = |id: usize, text: &str, lead: Option<f64>| {
        format!("{id} {:?} leads by {}", visible(text), figure(lead))
    };
    format!(
        "{}: source {}; target {}",
        choice.position,
        side(choice.source, &choice.source_text, choice.source_lead),
        side(choice.target, &choice.target_text, choice.target_lead)
    )
}

fn figure(value: Option<f64>) -> String {
    value.map_or("infinite".to_owned(), number)
}

fn write_vote(out: &mut String, block: usize, vote: &Vote) -> std::fmt::Result {
    writeln!(out, "[{block}] The oracle on the same inputs: {}", vote.wrong.sentence())?;
    let votes = [
        ("source against oracle", &vote.source),
        ("target against oracle", &vote.target),
        ("oracle with either's weights", &vote.weights),
    ];
    for (what, distance) in votes {
        if let Some(distance) = distance {
            writeln!(out, "    {what}: {}", error(distance))?;
        }
    }
    for weight in &vote.differing {
        let dtype = |dtype: &Option<String>| dtype.clone().unwrap_or_else(|| "none".to_owned());
        let (ours, theirs) = (dtype(&weight.source), dtype(&weight.target));
        let apart = weight
            .nmse
            .map_or("not comparable".to_owned(), |nmse| format!("error {}", number(nmse)));
        writeln!(out, "    {}: {ours} and {theirs}, {apart}", weight.slot)?;
    }
    Ok(())
}

/// What the comparison says, ending with the first site where the sides part.
pub fn conclusion(comparison: &Comparison) -> String {
    let mut lines = Vec::new();
    if let Some(at) = comparison.tokens.first_difference() {
        lines.push(format!(
            "tokenization differs from token {at} on; both sides read the source's ids"
        ));
    }
    if comparison.ended_apart {
        lines.push("one side ended early where the other did not".to_owned());
    }
    let (rows, sites) = (comparison.rows, comparison.sites.len());
    let open =
        comparison.sites.iter().filter(|site| site.status == SiteStatus::NotCompared).count();
    lines.push(match &comparison.first {
        _ if rows == 0 => "nothing was compared".to_owned(),
        Some(first) => parted(first),
        None if !comparison.is_complete() => {
            format!("no divergence beyond rounding in {rows} rows, but {open} of {sites} sites were not compared to the end")
        }
        None if comparison.is_zero() => format!("identical in every bit of {rows} rows at {sites} sites"),
        None => format!("no divergence beyond rounding in {rows} rows at {sites} sites"),
    });
    lines.join("\n")
}

fn parted(first: &First) -> String {
    let who = match &first.vote {
        Some(vote) => vote.wrong.sentence(),
        None => "the oracle was not asked",
    };
    format!(
        "first divergent site: {} at position {}: local error {} of {}, inherited {}; {who}",
        first.site,
        first.position,
        figure(first.local),
        number(first.allowed),
        figure(first.inherited)
    )
}
