//! Statistics of the values of a site.

use apr_engine::backend::simd::Kernels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Below this share of the sum of squares, what is left of it when the mean is taken off is rounding: deviations are
/// then summed up in a second pass.
const CANCELLED: f64 = 1e-6;

/// Minimum, maximum, mean and deviation are those of the finite values; the others are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    finite: u64,
    nan: u64,
    inf: u64,
    zeros: u64,
    mean: f64,
    /// Sum of squared deviations from the mean.
    squares: f64,
    min: f32,
    max: f32,
}

/// What is written of [`Moments`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statistics {
    /// Values, finite or not.
    pub count: u64,
    /// NaN values.
    pub nan: u64,
    /// Infinite values.
    pub inf: u64,
    /// Values that are zero.
    pub zeros: u64,
    /// Smallest finite value; absent when there is none.
    pub min: Option<f32>,
    /// Largest finite value.
    pub max: Option<f32>,
    /// Mean of the finite values.
    pub mean: Option<f64>,
    /// Standard deviation of the finite values, of the population.
    pub std: Option<f64>,
    /// Root of the mean square of the finite values.
    pub rms: Option<f64>,
}

impl Moments {
    /// The statistics of `values`.
    pub fn of(values: &[f32]) -> Self {
        let counted = Kernels::best().statistics(values);
        let (finite, mean) = (counted.finite(), counted.mean());
        let mut squares = counted.squares - counted.sum * mean;
        if squares < CANCELLED * counted.squares {
            let apart = values.iter().filter(|value| value.is_finite());
            squares = apart.map(|value| (f64::from(*value) - mean).powi(2)).sum();
        }
        Self {
            finite,
            nan: counted.nan,
            inf: counted.infinite,
            zeros: counted.zeros,
            mean,
            squares,
            min: counted.min,
            max: counted.max,
        }
    }

    /// Values, finite or not.
    pub fn count(&self) -> u64 {
        self.finite + self.nan + self.inf
    }

    /// Largest magnitude of a finite value; 0 when there is none.
    pub fn magnitude(&self) -> f32 {
        if self.finite == 0 { 0.0 } else { self.max.abs().max(self.min.abs()) }
    }

    /// Whether there are several values and all are the same.
    #[expect(clippy::float_cmp, reason = "constant means the same value everywhere")]
    pub fn constant(&self) -> bool {
        self.finite > 1 && self.min == self.max
    }

    /// What is written.
    pub fn statistics(&self) -> Statistics {
        let some = self.finite > 0;
        let variance = self.squares / (self.finite as f64).max(1.0);
        Statistics {
            count: self.count(),
            nan: self.nan,
            inf: self.inf,
            zeros: self.zeros,
            min: some.then_some(self.min),
            max: some.then_some(self.max),
            mean: some.then_some(self.mean),
            std: some.then_some(variance.sqrt()),
            rms: some.then_some((variance + self.mean * self.mean).sqrt()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_gives_what_two_passes_give() {
        let values: Vec<f32> = (0..1000).map(|i| 1e4 + ((i * 37) % 101) as f32 * 0.01).collect();
        let found = Moments::of(&values).statistics();
        let count = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let squares = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
        assert!((found.mean.unwrap() - mean).abs() < 1e-9);
        assert!((found.std.unwrap() - (squares / count).sqrt()).abs() < 1e-9);
        assert_eq!(found.count, 1000);
    }

    #[test]
    fn what_is_not_finite_is_counted_and_spoils_nothing() {
        let values = [1.0, f32::NAN, 0.0, f32::INFINITY, -0.0, f32::NEG_INFINITY, 3.0];
        let found = Moments::of(&values).statistics();
        assert_eq!((found.count, found.nan, found.inf, found.zeros), (7, 1, 2, 2));
        assert_eq!((found.min, found.max, found.mean), (Some(0.0), Some(3.0), Some(1.0)));
        let nothing = Moments::of(&[f32::NAN]).statistics();
        assert_eq!((nothing.count, nothing.nan, nothing.mean, nothing.std), (1, 1, None, None));
    }
}
