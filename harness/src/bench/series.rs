//! A series of measurements and when it counts.

use schemars::JsonSchema;
use serde::Serialize;

use crate::stats::{Bounds, SplitMix, bootstrap_median, median};

/// Largest coefficient of variation of a series that is accepted: population deviation over mean.
pub const CV_AT_MOST: f64 = 0.05;
/// Most rounds: a rejected series is measured again, at most three times.
const ROUNDS: usize = 4;
/// Error probability of each bound of a median: together they make an interval of 95 %.
const TAIL: f64 = 0.025;
/// Neighbours that are drawn together, where there are as many blocks at least.
const BLOCK: usize = 4;
/// Resamples of an interval.
const RESAMPLES: usize = 2000;

/// What was measured, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Series {
    /// Measurements.
    pub samples: usize,
    /// Arithmetic mean.
    pub mean_ms: f64,
    /// Population deviation.
    pub std_ms: f64,
    /// Median.
    pub median_ms: f64,
    /// Bounds of the median, together 95 %.
    pub lower_ms: f64,
    /// See `lower_ms`.
    pub upper_ms: f64,
    /// 99th percentile: the smallest sample that 99 % do not exceed.
    pub p99_ms: f64,
    /// Population deviation over mean.
    pub cv: f64,
    /// Whether `cv` is at most 0.05.
    pub accepted: bool,
    /// Coefficients of variation of the rounds that were rejected before; samples of different rounds are never mixed.
    pub rejected: Vec<f64>,
}

impl Series {
    /// Of `samples` in nanoseconds; `None` without any.
    fn of(samples: &[f64]) -> Option<Self> {
        let count = samples.len() as f64;
        let block = if samples.len() < BLOCK * BLOCK { 1 } else { BLOCK };
        let bounds: Bounds =
            bootstrap_median(samples, block, RESAMPLES, TAIL, &mut SplitMix::new(0))?;
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        let std = (squares / count).sqrt();
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let p99 = sorted[(samples.len() * 99).div_ceil(100) - 1];
        let cv = if mean > 0.0 { std / mean } else { f64::INFINITY };
        let ms = |nanoseconds: f64| nanoseconds / 1e6;
        Some(Self {
            samples: samples.len(),
            mean_ms: ms(mean),
            std_ms: ms(std),
            median_ms: ms(median(samples)?),
            lower_ms: ms(bounds.lower),
            upper_ms: ms(bounds.upper),
            p99_ms: ms(p99),
            cv,
            accepted: cv <= CV_AT_MOST,
            rejected: Vec::new(),
        })
    }
}

/// Measures rounds, numbered from 1, until one is accepted: that one, else the steadiest, and its samples in nanoseconds.
/// `None` when a round has no samples.
pub(super) fn measured<E>(
    mut round: impl FnMut(usize) -> Result<Vec<f64>, E>,
) -> Result<Option<(Series, Vec<f64>)>, E> {
    let mut rounds: Vec<(Series, Vec<f64>)> = Vec::new();
    while rounds.len() < ROUNDS && !rounds.iter().any(|(series, _)| series.accepted) {
        let samples = round(rounds.len() + 1)?;
        let Some(series) = Series::of(&samples) else { return Ok(None) };
        rounds.push((series, samples));
    }
    let cvs: Vec<f64> = rounds.iter().map(|(series, _)| series.cv).collect();
    let steadiest = rounds.into_iter().min_by(|a, b| a.0.cv.total_cmp(&b.0.cv));
    Ok(steadiest.map(|(mut series, samples)| {
        series.rejected = cvs.into_iter().filter(|cv| *cv > CV_AT_MOST).collect();
        if !series.accepted {
            // Its own is told already.
            series.rejected.retain(|cv| *cv > series.cv);
        }
        (series, samples)
    }))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn rounds(of: &[&[f64]]) -> Option<(Series, Vec<f64>)> {
        let mut left = of.iter();
        let next =
            |_| Ok::<_, Infallible>(left.next().map(|round| round.to_vec()).unwrap_or_default());
        measured(next).unwrap()
    }

    #[test]
    fn a_steady_series_is_accepted_at_once() {
        let (series, samples) = rounds(&[&[1e6, 1.01e6, 0.99e6, 1e6], &[9e9]]).unwrap();
        assert!(series.accepted && series.rejected.is_empty());
        assert_eq!((series.samples, samples.len()), (4, 4));
        assert!((series.median_ms - 1.0).abs() < 1e-9 && (series.p99_ms - 1.01).abs() < 1e-9);
        assert!(series.lower_ms <= series.median_ms && series.median_ms <= series.upper_ms);
    }

    #[test]
    fn a_series_that_varies_is_measured_again_and_said_to_be_rejected() {
        let wild: &[f64] = &[1e6, 3e6];
        let (series, _) = rounds(&[wild, &[2e6, 2e6]]).unwrap();
        assert!(series.accepted);
        assert_eq!(series.rejected, [0.5]);
        let (series, _) = rounds(&[wild, wild, &[1e6, 2e6], wild]).unwrap();
        assert!(!series.accepted);
        assert!((series.cv - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(series.rejected, [0.5, 0.5, 0.5]);
    }

    #[test]
    fn nothing_measured_is_no_series() {
        assert_eq!(rounds(&[&[]]), None);
    }
}
