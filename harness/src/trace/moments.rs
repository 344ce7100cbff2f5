//! Statistics of many values in one pass: Welford's update, taken over blocks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Values of one block; its mean and deviations are exact sums, and blocks are merged (Chan, Golub, `LeVeque` 1979).
const BLOCK: usize = 64;

/// Running statistics. Minimum, maximum, mean and deviation are those of the finite values; the others are counted.
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

impl Default for Moments {
    fn default() -> Self {
        Self {
            finite: 0,
            nan: 0,
            inf: 0,
            zeros: 0,
            mean: 0.0,
            squares: 0.0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
        }
    }
}

impl Moments {
    /// The statistics of `values`.
    pub fn of(values: &[f32]) -> Self {
        let mut moments = Self::default();
        moments.add(values);
        moments
    }

    /// Takes more values.
    pub fn add(&mut self, values: &[f32]) {
        let mut kept = [0.0; BLOCK];
        for block in values.chunks(BLOCK) {
            if block.iter().all(|value| value.is_finite()) {
                self.add_finite(block);
                continue;
            }
            let mut count = 0;
            for &value in block {
                if value.is_finite() {
                    kept[count] = value;
                    count += 1;
                } else {
                    self.nan += u64::from(value.is_nan());
                    self.inf += u64::from(value.is_infinite());
                }
            }
            self.add_finite(&kept[..count]);
        }
    }

    fn add_finite(&mut self, block: &[f32]) {
        if block.is_empty() {
            return;
        }
        let (mut sum, mut zeros) = (0.0, 0);
        for &value in block {
            sum += f64::from(value);
            zeros += u64::from(value == 0.0);
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
        let (before, more) = (self.finite as f64, block.len() as f64);
        let mean = sum / more;
        let squares: f64 = block.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
        let apart = mean - self.mean;
        self.finite += block.len() as u64;
        self.zeros += zeros;
        let all = self.finite as f64;
        self.mean += apart * more / all;
        self.squares += squares + apart * apart * before * more / all;
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
