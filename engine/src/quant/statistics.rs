//! What one look at every value tells of a tensor.
//!
//! [`Statistics::of`] is the oracle: value by value, in f64, in the order of the file. The fast ways count in
//! integers what they can and are judged against it.

use crate::error::Result;
use crate::tensor::TensorView;

/// Counts, sums and extremes of a sequence of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Values.
    pub values: u64,
    /// Values that are zero, of either sign.
    pub zeros: u64,
    /// Values that are NaN.
    pub nan: u64,
    /// Values that are infinite.
    pub infinite: u64,
    /// Sum of the finite values.
    pub sum: f64,
    /// Sum of the squares of the finite values.
    pub squares: f64,
    /// Smallest finite value; infinite when there is none.
    pub min: f32,
    /// Largest finite value; minus infinite when there is none.
    pub max: f32,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            values: 0,
            zeros: 0,
            nan: 0,
            infinite: 0,
            sum: 0.0,
            squares: 0.0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
        }
    }
}

impl Statistics {
    /// The statistics of all values of `view`, one after the other.
    ///
    /// # Errors
    /// As [`TensorView::dequantize_row`].
    pub fn of(view: &TensorView<'_>) -> Result<Self> {
        let mut statistics = Self::default();
        let mut row = vec![0.0; view.cols()];
        for index in 0..view.rows() {
            view.dequantize_row(index, &mut row)?;
            statistics.add(&row);
        }
        Ok(statistics)
    }

    /// Takes `values` in.
    pub fn add(&mut self, values: &[f32]) {
        self.values += values.len() as u64;
        for &value in values {
            if value.is_finite() {
                let wide = f64::from(value);
                self.zeros += u64::from(wide == 0.0);
                self.sum += wide;
                self.squares += wide * wide;
                self.min = self.min.min(value);
                self.max = self.max.max(value);
            } else if value.is_nan() {
                self.nan += 1;
            } else {
                self.infinite += 1;
            }
        }
    }

    /// Takes in what is known of values that follow.
    pub fn merge(&mut self, other: &Self) {
        self.values += other.values;
        self.zeros += other.zeros;
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.sum += other.sum;
        self.squares += other.squares;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Values that are NaN or infinite.
    pub fn non_finite(&self) -> u64 {
        self.nan + self.infinite
    }

    /// Finite values.
    pub fn finite(&self) -> u64 {
        self.values - self.non_finite()
    }

    /// Zeros among the values, 0 to 1.
    pub fn zero_share(&self) -> f64 {
        self.zeros as f64 / (self.values as f64).max(1.0)
    }

    /// Largest finite magnitude; 0 without a finite value.
    pub fn magnitude(&self) -> f64 {
        if self.finite() == 0 { 0.0 } else { f64::from(self.max.abs().max(self.min.abs())) }
    }

    /// Euclidean norm of the finite values.
    pub fn norm(&self) -> f64 {
        self.squares.sqrt()
    }

    /// Mean of the finite values; 0 without one.
    pub fn mean(&self) -> f64 {
        self.sum / (self.finite() as f64).max(1.0)
    }

    /// Standard deviation of the finite values (population form); 0 without one.
    pub fn deviation(&self) -> f64 {
        let count = (self.finite() as f64).max(1.0);
        let mean = self.sum / count;
        // Rounding may take the difference of two equal numbers below zero.
        (self.squares / count - mean * mean).max(0.0).sqrt()
    }

    /// Whether all values are finite and the same.
    #[expect(clippy::float_cmp, reason = "constant means the same number everywhere")]
    pub fn is_constant(&self) -> bool {
        self.non_finite() == 0 && self.min == self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_as_what_it_is() {
        let mut statistics = Statistics::default();
        statistics.add(&[1.0, -2.0, 0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!((statistics.values, statistics.finite()), (7, 4));
        assert_eq!((statistics.zeros, statistics.nan, statistics.infinite), (2, 1, 2));
        assert_eq!((statistics.sum, statistics.squares), (-1.0, 5.0));
        assert_eq!((statistics.min, statistics.max, statistics.magnitude()), (-2.0, 1.0, 2.0));
        assert!(!statistics.is_constant());
    }

    #[test]
    fn parts_merge_to_the_whole() {
        let values: Vec<f32> = (0..100).map(|value| (value as f32 - 30.0) / 8.0).collect();
        let (mut whole, mut parts, mut part) = Default::default();
        Statistics::add(&mut whole, &values);
        Statistics::add(&mut parts, &values[..37]);
        Statistics::add(&mut part, &values[37..]);
        parts.merge(&part);
        assert_eq!(parts, whole);
        let mean: f64 = values.iter().map(|&value| f64::from(value)).sum::<f64>() / 100.0;
        let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
        assert!((whole.mean() - mean).abs() < 1e-12);
        assert!((whole.deviation() - (variance / 100.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn nothing_has_no_extremes_and_is_not_constant() {
        let nothing = Statistics::default();
        assert_eq!((nothing.magnitude(), nothing.norm(), nothing.mean()), (0.0, 0.0, 0.0));
        assert!(!nothing.is_constant());
        let mut same = Statistics::default();
        same.add(&[0.25; 9]);
        assert!(same.is_constant());
    }
}
