//! `logits-close`: logits or activations against a reference.

use std::collections::BTreeMap;

use apr_engine::model::{Lm, LmOptions};
use apr_engine::probe::{Op, Site};

use super::context::{BackendSpec, JudgeContext, Look, filled};
use super::look::{Tokens, record, token_sets};
use super::{Planned, parity};
use crate::case::ModelRef;
use crate::compare::{RowPlace, Tally};
use crate::contract::check::{Against, CacheTypeName, LogitsClose, Oracle};
use crate::recording::Recording;
use crate::rosetta::Recorded;
use crate::verdict::Verdict;

/// Judges `check` on `case`.
pub(super) fn judge(check: &LogitsClose, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let spec = BackendSpec::of(&case.info.cell);
    let wanted = |site: Site| wants(&check.sites, site);
    let mut tally = ctx.tally();
    let mut compared_with = String::new();
    for options in options(check, ctx) {
        let mut lm = ctx.lm(&model, &spec, options)?;
        let named = |tokens: Tokens| match check.cache_types.as_slice() {
            [] => tokens,
            _ => Tokens {
                label: format!("{}, {} cache:", tokens.label, options.cache_type),
                ..tokens
            },
        };
        compared_with = match &check.against {
            Against::Oracle(oracle) => {
                let (tokens, recorded) = recorded(ctx, form, oracle, check)?;
                let tested = record(&mut *lm, &tokens.ids, &wanted)?;
                compare(&mut tally, &named(tokens), &recorded, &tested);
                format!("recorded {}", oracle.logits)
            }
            against => {
                let (mut oracle, label) = reference(ctx, case, against, &*lm, &spec, options)?;
                for tokens in token_sets(ctx, form, &model, &check.prompts)? {
                    let expected = record(&mut *oracle, &tokens.ids, &wanted)?;
                    let tested = record(&mut *lm, &tokens.ids, &wanted)?;
                    compare(&mut tally, &named(tokens), &pick(expected, &check.sites), &tested);
                }
                label
            }
        };
    }
    Ok(parity::verdict(ctx, &tally, &check.tolerance, &compared_with))
}

/// How the tested side is set up, once for each type of the cache.
fn options(check: &LogitsClose, ctx: &JudgeContext) -> Vec<LmOptions> {
    if check.cache_types.is_empty() {
        return vec![ctx.options()];
    }
    check.cache_types.iter().map(|name| ctx.options_with(Some(*name))).collect()
}

/// Site → rows of values.
type Sites = BTreeMap<Site, Vec<Vec<f32>>>;

/// The reference side and its name: the oracle on the same form, rounding as `tested` declares, or the same backend on
/// another form or with another cache.
fn reference(
    ctx: &JudgeContext,
    case: &Planned,
    against: &Against,
    tested: &dyn Lm,
    spec: &BackendSpec,
    options: LmOptions,
) -> Look<(Box<dyn Lm>, String)> {
    let form = ctx.form(case)?;
    let same = BackendSpec { reference: true, ..spec.clone() };
    let (model, spec, options, name) = match against {
        Against::Form(other) => {
            let other = ctx.sibling(form, other)?;
            (ctx.reference_model(&other)?, same, options, other.form)
        }
        Against::CacheType(CacheTypeName(cache_type)) => {
            let options = LmOptions { cache_type: *cache_type, ..options };
            (ctx.model(form)?, same, options, format!("the same with {cache_type} cache"))
        }
        Against::Scalar | Against::Oracle(_) => {
            let oracle = ctx.oracle(&*ctx.model(form)?, &tested.arithmetic(), options)?;
            return Ok((oracle, "scalar".into()));
        }
    };
    Ok((ctx.lm(&model, &spec, options)?, name))
}

/// Whether `site` is compared: by name, or by name with `*` for the layer. No names mean the logits.
fn wants(sites: &[String], site: Site) -> bool {
    let name = site.to_string();
    let any_layer = match site.layer {
        Some(_) => format!("layers.*.{}", site.op.name()),
        None => name.clone(),
    };
    sites.iter().any(|wanted| *wanted == name || *wanted == any_layer)
}

/// What the gate compares out of a recording.
fn pick(recording: Recording, sites: &[String]) -> Sites {
    let logits = sites.is_empty();
    recording
        .sites
        .into_iter()
        .filter(|(site, _)| if logits { site.op == Op::Logits } else { wants(sites, *site) })
        .map(|(site, rows)| (site, rows.rows))
        .collect()
}

/// Adds every row of every expected site to the tally; a site that the engine does not report is a mismatch.
fn compare(tally: &mut Tally, tokens: &Tokens, expected: &Sites, tested: &Recording) {
    let label = &tokens.label;
    for (site, rows) in expected {
        let none = Vec::new();
        let found = tested.sites.get(site).map_or(&none, |found| &found.rows);
        for (position, reference) in rows.iter().enumerate() {
            let place = RowPlace { label: format!("{label} {site}"), position };
            let row = found.get(position).map(Vec::as_slice).unwrap_or_default();
            if site.op == Op::Logits {
                tally.add_logits(place, reference, row);
                if let Some(next) = tokens.ids.get(position + 1) {
                    tally.add_next(reference, row, *next as usize);
                }
            } else {
                tally.add(place, reference, row);
            }
        }
        if found.len() > rows.len() {
            let place = RowPlace { label: format!("{label} {site}"), position: rows.len() };
            tally.add(place, &[], &found[rows.len()]);
        }
    }
}

/// Tokens and values of a recorded oracle.
fn recorded(
    ctx: &JudgeContext,
    form: &ModelRef,
    oracle: &Oracle,
    check: &LogitsClose,
) -> Look<(Tokens, Sites)> {
    let bytes = ctx.fixture(&oracle.file, Some(form), "oracle")?;
    let label = filled(&oracle.file, Some(form));
    let wanted = |site: Site| {
        if check.sites.is_empty() { site.op == Op::Logits } else { wants(&check.sites, site) }
    };
    let recorded = Recorded::parse(&label, &bytes, &oracle.logits, &wanted);
    let recorded = recorded.map_err(|what| Box::new(Verdict::broken(format!("oracle: {what}"))))?;
    let sites = recorded.sites.sites.into_iter().map(|(site, rows)| (site, rows.rows)).collect();
    Ok((Tokens { label, ids: recorded.tokens }, sites))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_every_layer_and_for_nothing_else() {
        let sites = ["layers.*.attn_norm".to_owned(), "embed".to_owned()];
        assert!(wants(&sites, Site::layer(7, Op::AttnNorm)));
        assert!(wants(&sites, Site::model(Op::Embed)));
        assert!(!wants(&sites, Site::layer(7, Op::FfnNorm)));
        assert!(!wants(&sites, Site::model(Op::Logits)));
    }
}
