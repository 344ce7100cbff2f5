//! `conversion`: the form is converted, and what was written is judged against it.
//!
//! What a conversion writes is a form like any other, made once per run: a planted damage sits in it as it would sit in
//! a file that somebody gave us.

mod halts;
mod journey;
mod weights;

use std::path::PathBuf;

use apr_engine::format::convert::Precision;
use apr_engine::model::Model;

use super::Planned;
use super::build::convert;
use super::context::{JudgeContext, Look, refused};
use super::look::all_of;
use crate::case::ModelRef;
use crate::contract::check::{Conversion, ConversionRule, Target};
use crate::rosetta::facts::{self, Compared};
use crate::verdict::Verdict;

/// Judges `check` on `case`.
pub(super) fn judge(check: &Conversion, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    match &check.rule {
        ConversionRule::Halts { on } => halts::judge(on, check, form, ctx),
        ConversionRule::RoundTrip => journey::judge(check, form, ctx),
        ConversionRule::Legs => journey::legs(check, form, ctx),
        ConversionRule::WithinRounding(limit) => {
            weights::rounding(check, limit, form, ctx, weights::relative_error)
        }
        ConversionRule::WithinSteps { block, steps, within } => {
            let (block, steps) = (usize::from(*block), f64::from(*steps));
            let distance = |a: &[f32], b: &[f32]| weights::worst_step(a, b, block, steps);
            weights::rounding(check, within, form, ctx, distance)
        }
        ConversionRule::SameAs { form: other } => {
            let theirs = ctx.reference_model(&ctx.sibling(form, other)?)?;
            let compare = |_: &Model, ours: &Model| Ok(journey::same_tensors(ours, &theirs));
            each(check, form, ctx, "tensors are those of the other program", compare)
        }
        ConversionRule::Weights => {
            each(check, form, ctx, "weights have the values of their source", weights::equal)
        }
        ConversionRule::HyperParameters => {
            let compare = |source: &Model, written: &Model| Ok(hyper_parameters(source, written));
            each(check, form, ctx, "facts are those of the source", compare)
        }
        ConversionRule::Text => {
            each(check, form, ctx, "texts read as the source reads them", facts::text)
        }
    }
}

/// Compares the form with what each of the formats makes of it.
fn each(
    check: &Conversion,
    form: &ModelRef,
    ctx: &JudgeContext,
    things: &str,
    compare: impl Fn(&Model, &Model) -> apr_engine::Result<Compared>,
) -> Look<Verdict> {
    let source = ctx.reference_model(form)?;
    let mut all = Compared::default();
    for target in &check.to {
        let written = ctx.model(&converted(form, *target, check.dtype.as_deref(), ctx)?)?;
        let found = compare(&source, &written)
            .map_err(|error| refused("the conversion cannot be judged", &error))?;
        all.count += found.count;
        let to = target.name();
        all.wrong.extend(found.wrong.into_iter().map(|what| format!("to {to}: {what}")));
    }
    Ok(all_of(all.count, things, all.wrong))
}

fn precision(dtype: Option<&str>) -> Look<Precision> {
    let Some(name) = dtype else { return Ok(Precision::Stored) };
    Precision::from_name(name)
        .ok_or_else(|| Box::new(Verdict::broken(format!("no dtype is called {name}"))))
}

/// `from`, converted: a form of its own, made when it is asked for first.
fn converted(
    from: &ModelRef,
    to: Target,
    dtype: Option<&str>,
    ctx: &JudgeContext,
) -> Look<ModelRef> {
    let suffix = dtype.map(|dtype| format!("-{dtype}")).unwrap_or_default();
    let form = format!("{}-to-{}{suffix}", from.form, to.name());
    let folder = ctx.work.join("converted").join(format!("{}-{form}", from.model));
    // Without the slash at the end of a directory: the path is compared as it is.
    let path: PathBuf = folder.join(to.file_name()).components().collect();
    if !path.exists() {
        let source = ctx.reference_model(from)?;
        convert(&source, to.format(), precision(dtype)?, &path)
            .map_err(|error| refused("the form cannot be converted", &error))?;
    }
    Ok(ModelRef { model: from.model.clone(), form, path })
}

fn hyper_parameters(source: &Model, written: &Model) -> Compared {
    let mut compared = facts::hyper_parameters(source, written);
    let names = (source.config().family.name, written.config().family.name);
    compared.demand(names.0 == names.1, || format!("{} became {}", names.0, names.1));
    compared
}
