//! What the values of a tensor say about whether it was trained: one pass of statistics and the rules on them.
//!
//! Shared by the `tensor-quality` judge, which takes its limits from a contract, and by [`crate::validate`].

use apr_engine::backend::simd::Kernels;
use apr_engine::format::TensorEntry;
use apr_engine::model::{Role, Slot};
use apr_engine::quant::Statistics;
use apr_engine::tensor::TensorView;

/// A rule that a tensor breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) expected: String,
    pub(crate) found: String,
    /// Which value breaks it, counted from the first of the tensor; `None` when it is the tensor as a whole.
    pub(crate) at: Option<usize>,
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

    pub(crate) fn is_embedding(&self) -> bool {
        self.role == Some(Role::Embed)
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

/// The values of one tensor: their statistics, and where to look for more.
pub(crate) struct Numbers<'a> {
    pub(crate) statistics: Statistics,
    view: TensorView<'a>,
}

/// Most threads of a survey: memory is read no faster by more of them, and each has a stack of its own.
const THREADS_MAX: usize = 16;

/// Looks once at every value of `entries`, on all processors; `None` for dtypes that are stored but never computed with.
///
/// # Errors
/// [`apr_engine::Code::DeviceUnavailable`] when the threads cannot be started.
pub(crate) fn survey<'a>(
    entries: &[&TensorEntry<'a>],
) -> apr_engine::Result<Vec<Option<Numbers<'a>>>> {
    let views: Vec<TensorView<'a>> = entries.iter().map(|entry| entry.view).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let surveyed = Kernels::best().survey(&views, threads)?;
    let numbers = surveyed.into_iter().zip(views);
    Ok(numbers
        .map(|(statistics, view)| statistics.map(|statistics| Numbers { statistics, view }))
        .collect())
}

impl Numbers<'_> {
    /// Largest magnitude; infinite where a value is.
    pub(crate) fn magnitude(&self) -> f64 {
        if self.statistics.infinite > 0 { f64::INFINITY } else { self.statistics.magnitude() }
    }

    /// Fails unless the share of zeros is below `limit`: the bound itself is excluded.
    pub(crate) fn too_sparse(&self, limit: f64) -> Option<Finding> {
        let share = self.statistics.zero_share();
        (share.partial_cmp(&limit) != Some(std::cmp::Ordering::Less)).then(|| Finding {
            expected: format!("below {:.1} % zeros", 100.0 * limit),
            found: format!("{:.1} % zeros", 100.0 * share),
            at: None,
        })
    }

    /// Fails when a value is NaN or infinite.
    pub(crate) fn not_finite(&self) -> Option<Finding> {
        let Statistics { nan, infinite, .. } = self.statistics;
        if self.statistics.non_finite() == 0 {
            return None;
        }
        let at = self.first(|value| !value.is_finite());
        let place = at.map_or_else(String::new, |at| {
            let (row, col) = (at / self.view.cols(), at % self.view.cols());
            format!(", the first in row {row} at column {col}")
        });
        let found = format!("{nan} NaN and {infinite} infinite{place}");
        Some(Finding { expected: "finite values".to_owned(), found, at })
    }

    /// Fails unless the norm is above `floor`.
    pub(crate) fn vanished(&self, floor: f64) -> Option<Finding> {
        let norm = self.statistics.norm();
        (norm.partial_cmp(&floor) != Some(std::cmp::Ordering::Greater)).then(|| Finding {
            expected: format!("an L2 norm above {floor:e}"),
            found: format!("{norm:.3e}"),
            at: None,
        })
    }

    /// Fails when all values are the same.
    pub(crate) fn constant(&self) -> Option<Finding> {
        self.statistics.is_constant().then(|| Finding {
            expected: "values that vary".to_owned(),
            found: format!("all {}", self.statistics.min),
            at: None,
        })
    }

    /// The rows at the shares `at` of the height that hold nothing but zeros.
    pub(crate) fn empty_spots(&self, at: &[f64]) -> impl Iterator<Item = Finding> {
        let (cols, last) = (self.view.cols(), self.view.rows().saturating_sub(1));
        let mut row = vec![0.0; cols];
        at.iter().filter_map(move |share| {
            let index = (share * last as f64).round() as usize;
            let read = self.view.dequantize_row(index, &mut row);
            let empty = read.is_err() || row.iter().all(|value| *value == 0.0);
            empty.then(|| Finding {
                expected: format!("row {index} of {} with a value", last + 1),
                found: "only zeros".to_owned(),
                at: Some(index * cols),
            })
        })
    }

    /// The first value that `wanted` wants, counted row by row.
    fn first(&self, mut wanted: impl FnMut(f32) -> bool) -> Option<usize> {
        let cols = self.view.cols();
        let mut row = vec![0.0; cols];
        (0..self.view.rows()).find_map(|index| {
            self.view.dequantize_row(index, &mut row).ok()?;
            row.iter().position(|value| wanted(*value)).map(|col| index * cols + col)
        })
    }

    /// Shows `look` every value, row by row.
    pub(crate) fn each(&self, mut look: impl FnMut(f32)) {
        self.first(|value| {
            look(value);
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use apr_engine::{Shape, Tensor as Stored};

    use super::*;

    /// A tensor of 700 rows of 100 `value`s.
    fn stored(value: impl Fn(usize) -> f32) -> Stored {
        let values: Vec<f32> = (0..70_000).map(value).collect();
        Stored::from_f32(Shape::new(&[700, 100]).unwrap(), &values).unwrap()
    }

    fn numbers(stored: &Stored) -> Numbers<'_> {
        let view = stored.view().unwrap();
        let entry = TensorEntry { name: Cow::Borrowed("weight"), offset: 0, view };
        survey(&[&entry]).unwrap().remove(0).unwrap()
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named_wherever_it_lies() {
        let wrong = [305, 65_002, 69_999];
        for (first, at) in wrong.into_iter().enumerate() {
            let stored =
                stored(|index| if wrong[first..].contains(&index) { f32::NAN } else { 1.0 });
            let finding = numbers(&stored).not_finite().expect("a finding");
            assert_eq!(finding.at, Some(at));
            let place = format!("row {} at column {}", at / 100, at % 100);
            assert!(finding.found.ends_with(&place), "{}", finding.found);
            let count = format!("{} NaN and 0 infinite", 3 - first);
            assert!(finding.found.starts_with(&count), "{}", finding.found);
        }
    }

    #[test]
    fn an_empty_spot_is_found_at_its_first_value() {
        let row = 350;
        let stored = stored(|index| if index / 100 == row { 0.0 } else { 1.0 });
        let spots: Vec<_> =
            numbers(&stored).empty_spots(&[0.1, 0.5, 0.9]).map(|finding| finding.at).collect();
        assert_eq!(spots, [Some(row * 100)]);
    }

    #[test]
    fn limits_exclude_themselves() {
        let half = stored(|index| if index.is_multiple_of(2) { 0.0 } else { 1.0 });
        assert!(numbers(&half).too_sparse(0.5).is_some());
        assert!(numbers(&half).too_sparse(0.500_01).is_none());
        assert!(numbers(&half).constant().is_none());
        assert!(numbers(&stored(|_| 0.0)).vanished(0.0).is_some());
        assert!(numbers(&stored(|_| 1.0)).constant().is_some());
    }

    #[test]
    fn an_infinite_value_is_larger_than_any_limit() {
        let stored = stored(|index| if index == 7 { f32::NEG_INFINITY } else { 1.0 });
        assert!(numbers(&stored).magnitude() > f64::MAX);
    }
}
