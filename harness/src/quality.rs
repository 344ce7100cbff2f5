//! What the values of a tensor say about whether it was trained: one pass of statistics and the rules on them.
//!
//! Shared by the `tensor-quality` judge, which takes its limits from a contract, and by [`crate::validate`].

use apr_engine::format::TensorEntry;
use apr_engine::model::{Role, Slot};
use apr_engine::tensor::TensorView;

/// A rule that a tensor breaks.
pub(crate) struct Finding {
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// What is known of one tensor.
pub(crate) struct Tensor<'a> {
    pub(crate) name: String,
    pub(crate) role: Option<Role>,
    view: TensorView<'a>,
}

impl<'a> Tensor<'a> {
    pub(crate) fn of(entry: &TensorEntry<'a>) -> Self {
        let role = Slot::parse(&entry.name).map(|(slot, _)| slot.role);
        Self { name: entry.name.clone().into_owned(), role, view: entry.view }
    }

    /// A bias of zeros is what no bias would be.
    pub(crate) fn may_be_zero(&self) -> bool {
        matches!(self.role, Some(Role::QBias | Role::KBias | Role::VBias | Role::OBias))
    }

    /// All-ones gains and all-zero biases are legal.
    pub(crate) fn may_be_constant(&self) -> bool {
        match self.role {
            Some(Role::RopeFactors | Role::RopeFactorsShort | Role::RopeFactorsLong) => true,
            Some(role) => role.is_gain() || self.may_be_zero(),
            None => self.view.rows() <= 1,
        }
    }
}

/// Numbers of one tensor, gathered in one pass over its rows.
#[derive(Default)]
pub(crate) struct Numbers {
    pub(crate) values: u64,
    zeros: u64,
    non_finite: u64,
    squares: f64,
    min: f32,
    max: f32,
    /// Largest magnitude of each row.
    row_max: Vec<f32>,
}

impl Numbers {
    /// The statistics of `view`; the errors of dequantisation for dtypes that are never computed with.
    pub(crate) fn of(view: &TensorView<'_>) -> apr_engine::Result<Self> {
        let mut numbers = Self { min: f32::INFINITY, max: f32::NEG_INFINITY, ..Self::default() };
        let mut row = vec![0.0; view.cols()];
        for index in 0..view.rows() {
            view.dequantize_row(index, &mut row)?;
            let mut row_max = 0.0f32;
            for &value in &row {
                numbers.values += 1;
                numbers.zeros += u64::from(value == 0.0);
                numbers.non_finite += u64::from(!value.is_finite());
                numbers.squares += f64::from(value) * f64::from(value);
                numbers.min = numbers.min.min(value);
                numbers.max = numbers.max.max(value);
                row_max = row_max.max(value.abs());
            }
            numbers.row_max.push(row_max);
        }
        Ok(numbers)
    }

    /// Zeros among the values, 0 to 1.
    pub(crate) fn zero_share(&self) -> f64 {
        self.zeros as f64 / (self.values as f64).max(1.0)
    }

    /// Largest magnitude.
    pub(crate) fn magnitude(&self) -> f64 {
        f64::from(self.max.abs().max(self.min.abs()))
    }

    /// L2 norm.
    pub(crate) fn norm(&self) -> f64 {
        self.squares.sqrt()
    }

    /// Fails unless the share of zeros is below `limit`: the bound itself is excluded.
    pub(crate) fn too_sparse(&self, limit: f64) -> Option<Finding> {
        let share = self.zero_share();
        (share.partial_cmp(&limit) != Some(std::cmp::Ordering::Less)).then(|| Finding {
            expected: format!("below {:.1} % zeros", 100.0 * limit),
            found: format!("{:.1} % zeros", 100.0 * share),
        })
    }

    /// Fails when a value is NaN or infinite.
    pub(crate) fn not_finite(&self) -> Option<Finding> {
        (self.non_finite > 0).then(|| Finding {
            expected: "finite values".to_owned(),
            found: format!("{} values that are NaN or infinite", self.non_finite),
        })
    }

    /// Fails unless the norm is above `floor`.
    pub(crate) fn vanished(&self, floor: f64) -> Option<Finding> {
        let norm = self.norm();
        (norm.partial_cmp(&floor) != Some(std::cmp::Ordering::Greater)).then(|| Finding {
            expected: format!("an L2 norm above {floor:e}"),
            found: format!("{norm:.3e}"),
        })
    }

    /// Fails when all values are the same.
    #[expect(clippy::float_cmp, reason = "constant means the same bits everywhere")]
    pub(crate) fn constant(&self) -> Option<Finding> {
        (self.min == self.max).then(|| Finding {
            expected: "values that vary".to_owned(),
            found: format!("all {}", self.min),
        })
    }

    /// The rows at the shares `at` of the height that hold nothing but zeros.
    pub(crate) fn empty_spots(&self, at: &[f64]) -> impl Iterator<Item = Finding> {
        let last = self.row_max.len().saturating_sub(1);
        at.iter().filter_map(move |share| {
            let row = (share * last as f64).round() as usize;
            let empty = self.row_max.get(row).is_none_or(|max| *max == 0.0);
            empty.then(|| Finding {
                expected: format!("row {row} of {} with a value", last + 1),
                found: "only zeros".to_owned(),
            })
        })
    }
}
