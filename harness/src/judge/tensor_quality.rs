//! `tensor-quality`: the numbers in the tensors can be those of a trained model.

use apr_engine::format::TensorEntry;
use apr_engine::{Code, Error};

use super::Planned;
use super::context::{JudgeContext, Look, refused};
use super::look::all_of;
use crate::contract::check::TensorQuality;
use crate::quality::{Finding, Numbers, Tensor, survey};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Judges `check` on `case`.
pub(super) fn judge(check: &TensorQuality, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let source = ctx.source(ctx.form(case)?)?;
    let containers =
        source.containers().map_err(|error| refused("the file does not parse", &error))?;
    let entries: Vec<&TensorEntry<'_>> =
        containers.iter().flat_map(|container| &container.tensors).collect();
    let surveyed = survey(&entries).map_err(|error| refused("the tensors are not read", &error))?;
    let mut judged = Vec::new();
    for (entry, numbers) in entries.into_iter().zip(surveyed) {
        let numbers = numbers.ok_or_else(|| {
            let error = Error::new(Code::DtypeUnsupported).found(entry.view.dtype());
            refused("a tensor cannot be read", &error.tensor(&entry.name))
        })?;
        judged.push((Tensor::of(entry), numbers));
    }
    Ok(match check {
        TensorQuality::Density { embedding_zeros_below, weight_zeros_below, .. } => {
            density(&judged, embedding_zeros_below.get(), weight_zeros_below.get())
        }
        TensorQuality::Finite => finite(&judged),
        TensorQuality::Norm(bound) => norm(&judged, bound.at_least.get()),
        TensorQuality::Variation => variation(&judged),
        TensorQuality::Spots { at } => {
            let at: Vec<f64> = at.iter().map(|share| share.get()).collect();
            spots(&judged, &at)
        }
        TensorQuality::Magnitude(bound) => magnitude(&judged, bound.at_most.get()),
    })
}

type Judged<'a> = (Tensor<'a>, Numbers<'a>);

fn said(tensor: &Tensor<'_>, finding: &Finding) -> String {
    format!("{}: {}, {} wanted", tensor.name, finding.found, finding.expected)
}

fn density(judged: &[Judged<'_>], embedding: f64, weight: f64) -> Verdict {
    let mut worst = 0.0f64;
    let mut wrong = Vec::new();
    let mut count = 0;
    for (tensor, numbers) in judged.iter().filter(|(tensor, _)| !tensor.may_be_constant()) {
        count += 1;
        let limit = if tensor.is_embedding() { embedding } else { weight };
        worst = worst.max(numbers.statistics.zero_share() / limit);
        wrong.extend(numbers.too_sparse(limit).map(|finding| said(tensor, &finding)));
    }
    summarise(count, "tensors dense enough", "zeros-of-limit-worst", worst, wrong)
}

fn finite(judged: &[Judged<'_>]) -> Verdict {
    let values: u64 = judged.iter().map(|(_, numbers)| numbers.statistics.values).sum();
    let wrong = judged
        .iter()
        .filter_map(|(tensor, numbers)| numbers.not_finite().map(|finding| said(tensor, &finding)));
    all_of(values, "values finite", wrong.collect())
}

fn norm(judged: &[Judged<'_>], floor: f64) -> Verdict {
    let mut smallest = f64::INFINITY;
    let mut wrong = Vec::new();
    let mut count = 0;
    for (tensor, numbers) in judged.iter().filter(|(tensor, _)| !tensor.may_be_zero()) {
        count += 1;
        smallest = smallest.min(numbers.statistics.norm());
        wrong.extend(numbers.vanished(floor).map(|finding| said(tensor, &finding)));
    }
    summarise(count, "tensors have a norm", "norm-smallest", smallest, wrong)
}

fn variation(judged: &[Judged<'_>]) -> Verdict {
    let weights = judged.iter().filter(|(tensor, _)| !tensor.may_be_constant());
    let weights: Vec<_> = weights.collect();
    let wrong = weights
        .iter()
        .filter_map(|(tensor, numbers)| numbers.constant().map(|finding| said(tensor, &finding)));
    all_of(weights.len() as u64, "weights vary", wrong.collect())
}

fn spots(judged: &[Judged<'_>], at: &[f64]) -> Verdict {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (tensor, numbers) in judged.iter().filter(|(tensor, _)| tensor.is_embedding()) {
        count += at.len() as u64;
        wrong.extend(numbers.empty_spots(at).map(|finding| said(tensor, &finding)));
    }
    all_of(count, "spots of the embedding are not zero", wrong)
}

fn magnitude(judged: &[Judged<'_>], ceiling: f64) -> Verdict {
    let mut largest = 0.0f64;
    let mut wrong = Vec::new();
    for (tensor, numbers) in judged {
        let found = numbers.magnitude();
        largest = largest.max(found);
        if found.partial_cmp(&ceiling).is_none_or(std::cmp::Ordering::is_gt) {
            wrong.push(format!("{}: |value| up to {found:.3e}", tensor.name));
        }
    }
    summarise(judged.len() as u64, "tensors of plausible size", "magnitude-largest", largest, wrong)
}

fn summarise(count: u64, what: &str, measure: &str, value: f64, wrong: Vec<String>) -> Verdict {
    let summary = match wrong.first() {
        None => format!("all of {count} {what}, {measure} {value:.3e}"),
        Some(first) => format!("{} violations in {count}: {first}", wrong.len()),
    };
    let mut evidence = Evidence::new(count, summary)
        .measure(Measure::judged("violations", wrong.len() as f64, Limit::Exactly(0.0)))
        .measure(Measure::noted(measure, value));
    evidence.details = wrong.into_iter().take(8).collect();
    evidence.verdict()
}
