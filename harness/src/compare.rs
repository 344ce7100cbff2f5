//! Metrics between a reference and a tested row of numbers, and their tally over many rows.
//!
//! All arithmetic is f64. Errors are normalised by the reference, never by the tested side. Non-finite values are compared as
//! masks first: the same infinity on both sides is agreement and leaves the error alone, everything else counts as
//! a mismatch and makes every error infinite. A NaN never agrees with anything, not even with a NaN.

use std::fmt;

use crate::fault::HarnessFault;

/// Distance of one tested row from its reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowError {
    /// `sum((t-r)²) / sum(r²)`; zero when both are zero, infinite when only the reference is.
    pub nmse: f64,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Cosine; 1 for two zero rows, 0 when one is zero.
    pub cosine: f64,
    /// Values whose kind (finite, which infinity, NaN) differs, NaN on both sides included.
    pub mask_mismatches: usize,
    /// Values whose bits differ.
    pub bits_differ: usize,
}

impl RowError {
    /// Compares `tested` with `reference`; `None` for rows of different lengths or without values.
    pub fn new(reference: &[f32], tested: &[f32]) -> Option<Self> {
        if reference.len() != tested.len() || reference.is_empty() {
            return None;
        }
        let mut sums = Sums::default();
        for (&r, &t) in reference.iter().zip(tested) {
            sums.add(r, t);
        }
        Some(sums.error())
    }
}

#[derive(Default)]
struct Sums {
    squared_error: f64,
    reference: f64,
    tested: f64,
    product: f64,
    max_abs: f64,
    mask_mismatches: usize,
    bits_differ: usize,
}

impl Sums {
    #[expect(clippy::float_cmp, reason = "equal infinities are compared, not rounded values")]
    fn add(&mut self, r: f32, t: f32) {
        self.bits_differ += usize::from(r.to_bits() != t.to_bits());
        if !(r.is_finite() && t.is_finite()) {
            self.mask_mismatches += usize::from(r != t);
            return;
        }
        let (r, t) = (f64::from(r), f64::from(t));
        self.squared_error += (t - r) * (t - r);
        self.reference += r * r;
        self.tested += t * t;
        self.product += r * t;
        self.max_abs = self.max_abs.max((t - r).abs());
    }

    fn error(&self) -> RowError {
        let broken = self.mask_mismatches > 0;
        let nmse = match (self.squared_error > 0.0, self.reference > 0.0) {
            (false, _) => 0.0,
            (true, true) => self.squared_error / self.reference,
            (true, false) => f64::INFINITY,
        };
        let norms = (self.reference * self.tested).sqrt();
        let cosine = match (self.reference > 0.0, self.tested > 0.0) {
            (false, false) => 1.0,
            (true, true) => (self.product / norms).clamp(-1.0, 1.0),
            _ => 0.0,
        };
        RowError {
            nmse: if broken { f64::INFINITY } else { nmse },
            max_abs: if broken { f64::INFINITY } else { self.max_abs },
            cosine: if broken { -1.0 } else { cosine },
            mask_mismatches: self.mask_mismatches,
            bits_differ: self.bits_differ,
        }
    }
}

/// `KL(reference ‖ tested)` of the softmax of two rows of logits, in nats. NaN when a logit is NaN; infinite when the
/// tested side rules out what the reference allows.
pub fn kl_divergence(reference: &[f32], tested: &[f32]) -> f64 {
    let (reference, tested) = (log_probabilities(reference), log_probabilities(tested));
    let terms = reference.iter().zip(&tested).map(|(r, t)| {
        let p = r.exp();
        if p > 0.0 { p * (r - t) } else { 0.0 * p }
    });
    terms.sum()
}

/// Logarithm of the softmax, in f64.
pub fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let wide = logits.iter().map(|logit| f64::from(*logit));
    let max = wide.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = wide.clone().map(|logit| (logit - max).exp()).sum();
    let log_sum = max + sum.ln();
    wide.map(|logit| logit - log_sum).collect()
}

/// Index of the largest value (the lowest on ties) and its lead over the runner-up; `None` below two values.
pub fn lead(values: &[f32]) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f32)> = None;
    let mut second = f32::NEG_INFINITY;
    for (index, &value) in values.iter().enumerate() {
        match best {
            Some((_, top)) if value <= top || value.is_nan() => second = second.max(value),
            _ => {
                second = best.map_or(second, |(_, top)| top);
                best = Some((index, value));
            }
        }
    }
    let (index, top) = best?;
    (values.len() > 1).then(|| (index, f64::from(top) - f64::from(second)))
}

/// Where a row stands, for the report of the worst one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowPlace {
    /// What was run: a prompt, a site, a tensor.
    pub label: String,
    /// Position in the context, or row.
    pub position: usize,
}

impl fmt::Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} row {}", self.label, self.position)
    }
}

/// First positions of the bins that errors are sorted into: many faults are invisible at position 0 and grow later.
pub const POSITION_BINS: [usize; 4] = [0, 1, 16, 128];

#[derive(Clone, Debug)]
struct Argmax {
    place: RowPlace,
    lead: f64,
    reference: usize,
    tested: usize,
}

/// Distances of many rows.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Rows compared.
    pub rows: u64,
    /// Values compared.
    pub values: u64,
    /// Values whose kind differs.
    pub mask_mismatches: u64,
    /// Values whose bits differ.
    pub bits_differ: u64,
    /// Non-finite values of the reference: it cannot be trusted.
    pub reference_non_finite: u64,
    /// Worst NMSE and where.
    pub nmse_worst: (f64, RowPlace),
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Smallest cosine.
    pub cosine: f64,
    /// Worst NMSE of each bin of [`POSITION_BINS`]; `None` without rows.
    pub by_position: [Option<f64>; POSITION_BINS.len()],
    kl: Vec<f64>,
    /// Surprise at the next token of both sides, in nats.
    surprise: Vec<[f64; 2]>,
    argmax: Vec<Argmax>,
    shape_mismatches: Vec<String>,
    fault: Option<HarnessFault>,
    previous: Vec<f32>,
}

impl Tally {
    /// Nothing compared yet, with a planted defect.
    pub fn with_fault(fault: Option<HarnessFault>) -> Self {
        Self { fault, ..Self::new() }
    }

    /// Nothing compared yet.
    pub fn new() -> Self {
        Self { cosine: 1.0, ..Self::default() }
    }

    /// Compares one row.
    pub fn add(&mut self, place: RowPlace, reference: &[f32], tested: &[f32]) {
        match self.fault {
            Some(HarnessFault::EmptyComparison) => {}
            Some(HarnessFault::SelfComparison) => self.add_row(place, reference, reference),
            Some(HarnessFault::NanPasses) => {
                let known = tested.iter().zip(reference);
                let known: Vec<f32> =
                    known.map(|(t, r)| if t.is_finite() { *t } else { *r }).collect();
                self.add_row(place, reference, &known);
            }
            Some(HarnessFault::ShiftedComparison) => {
                let shifted = std::mem::replace(&mut self.previous, tested.to_vec());
                if shifted.len() == reference.len() {
                    self.add_row(place, reference, &shifted);
                }
            }
            _ => self.add_row(place, reference, tested),
        }
    }

    fn add_row(&mut self, place: RowPlace, reference: &[f32], tested: &[f32]) {
        let Some(error) = RowError::new(reference, tested) else {
            self.shape_mismatches.push(format!(
                "{place}: {} values instead of {}",
                tested.len(),
                reference.len()
            ));
            return;
        };
        self.rows += 1;
        self.values += reference.len() as u64;
        self.mask_mismatches += error.mask_mismatches as u64;
        self.bits_differ += error.bits_differ as u64;
        self.reference_non_finite += reference.iter().filter(|r| !r.is_finite()).count() as u64;
        let bin = POSITION_BINS.iter().rposition(|&first| place.position >= first).unwrap_or(0);
        let seen = self.by_position[bin].unwrap_or(0.0);
        self.by_position[bin] = Some(seen.max(error.nmse));
        self.max_abs = self.max_abs.max(error.max_abs);
        self.cosine = self.cosine.min(error.cosine);
        if error.nmse > self.nmse_worst.0 || self.rows == 1 {
            self.nmse_worst = (error.nmse, place);
        }
    }

    /// Compares one row of logits: as [`Tally::add`], with divergence and the chosen token.
    pub fn add_logits(&mut self, place: RowPlace, reference: &[f32], tested: &[f32]) {
        if let (Some((expected, lead)), Some((found, _))) = (lead(reference), lead(tested))
            && reference.len() == tested.len()
        {
            let divergence = kl_divergence(reference, tested);
            // Rounding can make a divergence of equal rows a hair negative.
            self.kl.push(if divergence.is_nan() { f64::INFINITY } else { divergence.max(0.0) });
            let place = place.clone();
            self.argmax.push(Argmax { place, lead, reference: expected, tested: found });
        }
        self.add(place, reference, tested);
    }

    /// Adds what two rows of logits say of `next`, the token that comes then: the surprise that perplexity is made of.
    pub fn add_next(&mut self, reference: &[f32], tested: &[f32], next: usize) {
        let tested = match self.fault {
            Some(HarnessFault::EmptyComparison) => return,
            Some(HarnessFault::SelfComparison) => reference,
            _ => tested,
        };
        let surprise = |row| log_probabilities(row).get(next).map_or(f64::NAN, |log| -log);
        self.surprise.push([surprise(reference), surprise(tested)]);
    }

    /// `|exp(s_tested - s_reference) - 1|` for the mean surprises `s`: the relative change of the perplexity, either way. `None`
    /// when no row had a next token.
    pub fn perplexity_change(&self) -> Option<f64> {
        let more: f64 = self.surprise.iter().map(|[reference, tested]| tested - reference).sum();
        let rows = self.surprise.len();
        (rows > 0).then(|| ((more / rows as f64).exp() - 1.0).abs())
    }

    /// Compares all rows of two matrices of `width` columns; `first` is the position of row 0.
    pub fn add_matrix(&mut self, at: &RowPlace, width: usize, reference: &[f32], tested: &[f32]) {
        if reference.len() != tested.len() || width == 0 || !reference.len().is_multiple_of(width) {
            self.shape_mismatches.push(format!(
                "{}: {} values instead of {} in rows of {width}",
                at.label,
                tested.len(),
                reference.len()
            ));
            return;
        }
        let rows = reference.chunks_exact(width).zip(tested.chunks_exact(width));
        for (row, (reference, tested)) in rows.enumerate() {
            let place = RowPlace { label: at.label.clone(), position: at.position + row };
            self.add(place, reference, tested);
        }
    }

    /// Rows whose lengths differ, in words.
    pub fn shape_mismatches(&self) -> &[String] {
        &self.shape_mismatches
    }

    /// Mean divergence; `None` without logits.
    pub fn kl_mean(&self) -> Option<f64> {
        (!self.kl.is_empty()).then(|| self.kl.iter().sum::<f64>() / self.kl.len() as f64)
    }

    /// Largest divergence; `None` without logits.
    pub fn kl_max(&self) -> Option<f64> {
        self.kl.iter().copied().reduce(f64::max)
    }

    /// Rows where another token is chosen although the reference leads by more than `lead` logits, and rows where it leads
    /// by less (coin flips), each in words.
    pub fn argmax_flips(&self, lead: f64) -> (Vec<String>, Vec<String>) {
        let flips = self.argmax.iter().filter(|row| row.reference != row.tested);
        let (wrong, coin): (Vec<_>, Vec<_>) = flips.partition(|row| row.lead > lead);
        let words = |rows: Vec<&Argmax>| {
            let line = |row: &&Argmax| {
                format!(
                    "{}: token {} instead of {}, lead {:.3e}",
                    row.place, row.tested, row.reference, row.lead
                )
            };
            rows.iter().map(line).collect()
        };
        (words(wrong), words(coin))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> RowPlace {
        RowPlace::default()
    }

    fn tally(pairs: &[(&[f32], &[f32])]) -> Tally {
        let mut tally = Tally::new();
        for (reference, tested) in pairs {
            tally.add_logits(place(), reference, tested);
        }
        tally
    }

    fn row() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-50.0f32..50.0, 2..40)
    }

    /// The same cases in every run.
    fn seeded() -> ProptestConfig {
        ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn a_row_is_no_distance_from_itself(row in row()) {
            let error = RowError::new(&row, &row).unwrap();
            prop_assert_eq!((error.nmse, error.max_abs, error.bits_differ), (0.0, 0.0, 0));
            prop_assert!(kl_divergence(&row, &row).abs() < 1e-12);
        }

        #[test]
        fn a_nan_anywhere_breaks_every_measure(row in row(), at in 0usize..40) {
            let mut tested = row.clone();
            let at = at % row.len();
            tested[at] = f32::NAN;
            for (reference, tested) in [(&row, &tested), (&tested, &row), (&tested, &tested)] {
                let error = RowError::new(reference, tested).unwrap();
                prop_assert!(error.nmse.is_infinite() && error.max_abs.is_infinite());
                prop_assert!(error.cosine < 0.0 && error.mask_mismatches == 1);
            }
        }

        #[test]
        fn doubling_is_seen_by_nmse_though_not_by_cosine(row in row()) {
            prop_assume!(row.iter().any(|v| v.abs() > 0.1));
            let doubled: Vec<f32> = row.iter().map(|v| v * 2.0).collect();
            let error = RowError::new(&row, &doubled).unwrap();
            prop_assert!((error.nmse - 1.0).abs() < 1e-9);
            prop_assert!(error.cosine > 1.0 - 1e-12);
        }

        #[test]
        fn the_worst_row_is_not_diluted_by_good_ones(row in row(), good in 1usize..200) {
            prop_assume!(row.iter().any(|v| v.abs() > 0.1));
            let wrong: Vec<f32> = row.iter().map(|v| -v).collect();
            let mut tally = Tally::new();
            for _ in 0..good {
                tally.add(place(), &row, &row);
            }
            tally.add(RowPlace { label: "bad".into(), position: 3 }, &row, &wrong);
            prop_assert!((tally.nmse_worst.0 - 4.0).abs() < 1e-6);
            prop_assert_eq!(&tally.nmse_worst.1.label, "bad");
            prop_assert!(tally.by_position[1].unwrap() > 3.9);
        }

        #[test]
        fn divergence_is_positive_for_different_distributions(
            row in proptest::collection::vec(-5.0f32..5.0, 2..40)
        ) {
            let mut other = row.clone();
            other[0] += 3.0;
            prop_assert!(kl_divergence(&row, &other) > 0.0);
        }
    }

    #[test]
    fn the_same_infinity_agrees_and_another_does_not() {
        let inf = f32::INFINITY;
        let masked = RowError::new(&[1.0, -inf], &[1.0, -inf]).unwrap();
        assert_eq!((masked.nmse, masked.mask_mismatches), (0.0, 0));
        let error = RowError::new(&[1.0, -inf], &[1.0, inf]).unwrap();
        assert!(error.nmse.is_infinite());
        let error = RowError::new(&[1.0, -inf], &[1.0, -1e30]).unwrap();
        assert_eq!(error.mask_mismatches, 1);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "an exact zero is claimed")]
    fn a_zero_reference_accepts_only_zero() {
        assert_eq!(RowError::new(&[0.0, 0.0], &[0.0, 0.0]).unwrap().nmse, 0.0);
        assert!(RowError::new(&[0.0, 0.0], &[1e-20, 0.0]).unwrap().nmse.is_infinite());
    }

    #[test]
    fn rows_of_other_lengths_are_counted_and_not_compared() {
        let tally = tally(&[(&[1.0, 2.0], &[1.0]), (&[], &[])]);
        assert_eq!((tally.rows, tally.shape_mismatches().len()), (0, 2));
    }

    #[test]
    fn a_swapped_row_is_seen_by_the_row_and_not_by_the_sum() {
        let (a, b): ([f32; 2], [f32; 2]) = ([1.0, 0.0], [0.0, 1.0]);
        assert!(tally(&[(&a, &b), (&b, &a)]).nmse_worst.0 > 1.9);
    }

    #[test]
    fn a_flip_counts_only_where_the_lead_is_above_the_limit() {
        let quiet: (&[f32], &[f32]) = (&[1.0, 5.0, 0.0], &[1.0, 5.01, 0.0]);
        let flip: (&[f32], &[f32]) = (&[1.0, 5.0, 0.0], &[6.0, 5.0, 0.0]);
        let coin: (&[f32], &[f32]) = (&[1.0, 1.001, 0.0], &[1.002, 1.001, 0.0]);
        let (wrong, coins) = tally(&[quiet, flip, coin]).argmax_flips(0.01);
        assert_eq!((wrong.len(), coins.len()), (1, 1), "{wrong:?} {coins:?}");
    }

    #[test]
    fn the_lead_prefers_the_lower_id_and_ignores_nan() {
        assert_eq!(lead(&[1.0, 3.0, 3.0]), Some((1, 0.0)));
        assert_eq!(lead(&[1.0]), None);
        assert_eq!(lead(&[2.0, f32::NAN, 1.0]).map(|(index, _)| index), Some(0));
    }

    #[test]
    fn divergence_of_something_from_nothing_is_not_a_number_or_infinite() {
        assert!(!kl_divergence(&[0.0, f32::NAN], &[0.0, 0.0]).is_finite());
        assert!(kl_divergence(&[0.0, 0.0], &[0.0, f32::NEG_INFINITY]).is_infinite());
    }
}
