//! From a tally of differences and its bounds to a verdict.

use crate::compare::{POSITION_BINS, RowPlace, Tally};
use crate::contract::tolerance::Parity;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

use super::JudgeContext;

/// Counterexamples that are listed.
const LISTED: usize = 8;

/// How much the control disturbs a row: far above any bound that a gate may set.
const CONTROL: f32 = 4.0;

/// The verdict on `tally` under `bounds`. `reference` names what was compared with.
pub(super) fn verdict(
    ctx: &JudgeContext,
    tally: &Tally,
    bounds: &Parity,
    reference: &str,
) -> Verdict {
    if let Some(blind) = blindness(ctx) {
        return Verdict::broken(blind);
    }
    if tally.reference_non_finite > 0 {
        return Verdict::broken(format!(
            "{} values of the reference ({reference}) are not finite",
            tally.reference_non_finite
        ));
    }
    let (worst, place) = &tally.nmse_worst;
    let mut evidence = Evidence::new(
        tally.rows + tally.shape_mismatches().len() as u64,
        format!(
            "worst NMSE {worst:.2e} of {:.1e} over {} rows ({} values) against {reference}, at {place}",
            bounds.nmse_worst_row.get(),
            tally.rows,
            tally.values
        ),
    );
    let shapes = tally.shape_mismatches();
    evidence = evidence
        .measure(Measure::judged("shape-mismatches", shapes.len() as f64, Limit::Exactly(0.0)))
        .measure(Measure::judged(
            "mask-mismatches",
            tally.mask_mismatches as f64,
            Limit::Exactly(0.0),
        ))
        .measure(Measure::judged(
            "nmse-worst-row",
            *worst,
            Limit::AtMost(bounds.nmse_worst_row.get()),
        ));
    evidence = optional(evidence, tally, bounds);
    for (bin, first) in tally.by_position.iter().zip(POSITION_BINS) {
        if let Some(error) = bin {
            evidence =
                evidence.measure(Measure::noted(format!("nmse-from-position-{first}"), *error));
        }
    }
    evidence.details.extend(shapes.iter().take(LISTED).cloned());
    evidence.verdict()
}

/// The bounds that a gate may leave out.
fn optional(mut evidence: Evidence, tally: &Tally, bounds: &Parity) -> Evidence {
    if let Some(limit) = bounds.max_abs {
        evidence =
            evidence.measure(Measure::judged("max-abs", tally.max_abs, Limit::AtMost(limit.get())));
    }
    if let Some(limit) = bounds.cosine {
        evidence =
            evidence.measure(Measure::judged("cosine", tally.cosine, Limit::AtLeast(limit.get())));
    }
    // A divergence that was never computed is not a number, and a NaN keeps no limit.
    if let Some(limit) = bounds.kl_mean {
        let found = tally.kl_mean().unwrap_or(f64::NAN);
        evidence = evidence
            .measure(Measure::judged("kl-mean", found, Limit::AtMost(limit.get())).unit("nat"));
    }
    if let Some(limit) = bounds.kl_max {
        let found = tally.kl_max().unwrap_or(f64::NAN);
        evidence = evidence
            .measure(Measure::judged("kl-max", found, Limit::AtMost(limit.get())).unit("nat"));
    }
    if let Some(limit) = bounds.perplexity_change {
        let found = tally.perplexity_change().unwrap_or(f64::NAN);
        let limit = Limit::AtMost(limit.get());
        evidence = evidence.measure(Measure::judged("perplexity-change", found, limit));
    }
    if let Some(lead) = bounds.argmax_lead {
        let (wrong, coins) = tally.argmax_flips(lead.get());
        evidence = evidence
            .measure(Measure::judged("argmax-flips", wrong.len() as f64, Limit::Exactly(0.0)))
            .measure(Measure::noted("argmax-coin-flips", coins.len() as f64));
        evidence.details.extend(wrong.into_iter().take(LISTED));
        evidence.details.extend(coins.into_iter().take(LISTED).map(|c| format!("coin flip: {c}")));
    }
    evidence
}

/// The positive control: the same instrument must see a difference that is really there. A comparison that sees
/// nothing, or the wrong thing, cannot clear anybody.
pub(super) fn blindness(ctx: &JudgeContext) -> Option<String> {
    let reference = [1.0f32, -2.0, 3.0, 0.5];
    let disturbed = reference.map(|value| value * CONTROL);
    let mut control = ctx.tally();
    for position in 0..2 {
        let place = RowPlace { label: "control".into(), position };
        control.add(place, &reference, &disturbed);
    }
    let expected = f64::from((CONTROL - 1.0) * (CONTROL - 1.0));
    let seen = control.nmse_worst.0;
    if control.rows != 2 || (seen - expected).abs() >= 1e-6 {
        return Some(format!(
            "the comparison is blind: a planted NMSE of {expected} was seen as {seen} over {} of 2 rows",
            control.rows
        ));
    }
    let mut control = ctx.tally();
    let place = RowPlace { label: "control".into(), position: 0 };
    control.add(place, &reference, &[1.0, f32::NAN, 3.0, 0.5]);
    let seen = control.nmse_worst.0;
    (control.mask_mismatches != 1 || seen.is_finite())
        .then(|| format!("the comparison is blind: a planted NaN was seen as an NMSE of {seen}"))
}
