//! Statistics of the values of one tensor.

use apr_engine::TensorView;
use schemars::JsonSchema;
use serde::Serialize;

/// Statistics over the finite values of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Stats {
    /// Values.
    pub count: u64,
    /// Values that are NaN.
    pub nan: u64,
    /// Values that are infinite.
    pub infinite: u64,
    /// Values that are zero.
    pub zeros: u64,
    /// Smallest finite value.
    pub min: f64,
    /// Largest finite value.
    pub max: f64,
    /// Mean of the finite values.
    pub mean: f64,
    /// Standard deviation of the finite values (population form).
    pub std: f64,
    /// Euclidean norm of the finite values.
    pub l2: f64,
}

impl Stats {
    /// One pass over the values (Welford, 1962).
    ///
    /// # Errors
    /// Those of dequantisation: integer tensors are stored but never computed with.
    pub fn of(view: &TensorView<'_>) -> apr_engine::Result<Self> {
        let mut stats = Self {
            count: 0,
            nan: 0,
            infinite: 0,
            zeros: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            mean: 0.0,
            std: 0.0,
            l2: 0.0,
        };
        let (mut seen, mut spread, mut squares) = (0u64, 0.0, 0.0);
        let mut row_values = vec![0.0; view.cols()];
        for row in 0..view.rows() {
            view.dequantize_row(row, &mut row_values)?;
            for &value in &row_values {
                stats.count += 1;
                if value.is_nan() {
                    stats.nan += 1;
                    continue;
                }
                if value.is_infinite() {
                    stats.infinite += 1;
                    continue;
                }
                let value = f64::from(value);
                seen += 1;
                stats.zeros += u64::from(value.abs() == 0.0);
                stats.min = stats.min.min(value);
                stats.max = stats.max.max(value);
                let delta = value - stats.mean;
                stats.mean += delta / seen as f64;
                spread += delta * (value - stats.mean);
                squares += value * value;
            }
        }
        if seen == 0 {
            (stats.min, stats.max) = (0.0, 0.0);
        } else {
            stats.std = (spread / seen as f64).sqrt();
        }
        stats.l2 = squares.sqrt();
        Ok(stats)
    }
}
