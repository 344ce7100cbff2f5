//! The rules on the values of tensors, and what became of each rule and each tensor.

use apr_engine::error::printable;
use apr_engine::format::TensorEntry;
use schemars::JsonSchema;
use serde::Serialize;

use super::Violation;
use crate::quality::{Finding, Numbers, Tensor, survey};

/// The rule that zeros are rare.
pub const DENSITY: &str = "F-DATA-QUALITY-001";
/// The rule that values are finite.
pub const FINITE: &str = "F-DATA-QUALITY-002";
/// The rule that weights have a norm and vary.
pub const NORM: &str = "F-DATA-QUALITY-003";
/// The rule that the embedding is filled at its spots.
pub const SPOTS: &str = "F-DATA-QUALITY-004";

/// Zeros of an embedding, and of any other weight, stay below these shares (data-quality contract).
const EMBEDDING_ZEROS_BELOW: f64 = 0.5;
const WEIGHT_ZEROS_BELOW: f64 = 0.8;
/// Norms at or below this have vanished (data-quality contract).
const NORM_FLOOR: f64 = 1e-6;
/// Where the embedding is looked at, as shares of its height (data-quality contract).
const SPOTS_AT: [f64; 3] = [0.1, 0.5, 0.9];
/// Tensors whose values are drawn: those that break the most rules.
const WORST: usize = 3;
/// Bins of a histogram.
const BINS: usize = 16;

/// A rule on values.
struct Rule {
    id: &'static str,
    claim: &'static str,
    hint: &'static str,
    /// How a tensor breaks it; `None` when the rule says nothing of such a tensor.
    broken: fn(&Tensor<'_>, &Numbers<'_>) -> Option<Vec<Finding>>,
}

const RULES: [Rule; 4] = [
    Rule {
        id: DENSITY,
        claim: "zeros are rare",
        hint: "a download or a conversion that stopped leaves zeros: compare with the original file",
        broken: |tensor, numbers| {
            let limit =
                if tensor.is_embedding() { EMBEDDING_ZEROS_BELOW } else { WEIGHT_ZEROS_BELOW };
            (!tensor.may_be_constant()).then(|| numbers.too_sparse(limit).into_iter().collect())
        },
    },
    Rule {
        id: FINITE,
        claim: "values are finite",
        hint: "training or a conversion overflowed, or bytes are damaged: convert again from the original",
        broken: |_, numbers| Some(numbers.not_finite().into_iter().collect()),
    },
    Rule {
        id: NORM,
        claim: "weights have a norm and vary",
        hint: "the weight was never filled, or its scale was lost: compare with the original file",
        broken: |tensor, numbers| {
            let vanished = (!tensor.may_be_zero()).then(|| numbers.vanished(NORM_FLOOR));
            let constant = (!tensor.may_be_constant()).then(|| numbers.constant());
            let looked = vanished.is_some() || constant.is_some();
            looked.then(|| vanished.flatten().into_iter().chain(constant.flatten()).collect())
        },
    },
    Rule {
        id: SPOTS,
        claim: "the embedding has values at 10, 50 and 90 % of its height",
        hint: "tokens of this row would all look the same to the model: compare with the original file",
        broken: |tensor, numbers| {
            tensor.is_embedding().then(|| numbers.empty_spots(&SPOTS_AT).collect())
        },
    },
];

/// What the values say, rule by rule and tensor by tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Quality {
    /// Every rule.
    pub rules: Vec<RuleReport>,
    /// Every tensor that is computed with, in the order of the files.
    pub tensors: Vec<TensorReport>,
}

/// A rule and how many tensors it was held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RuleReport {
    /// `F-DATA-QUALITY-001` and so on.
    pub rule: String,
    /// What it claims.
    pub claim: String,
    /// Tensors that it speaks of.
    pub tensors: u64,
    /// Those that break it.
    pub broken: u64,
}

/// A tensor and its values.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TensorReport {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// Offset of its first byte from the start of its file.
    pub offset: u64,
    /// Values.
    pub values: u64,
    /// Values that are zero.
    pub zeros: u64,
    /// Values that are NaN or infinite.
    pub non_finite: u64,
    /// Smallest finite value; absent when there is none.
    pub min: Option<f32>,
    /// Largest finite value; absent when there is none.
    pub max: Option<f32>,
    /// L2 norm of the finite values.
    pub norm: f64,
    /// Rules that it breaks.
    pub broken: Vec<String>,
    /// How its values are spread; only of the tensors that break the most rules.
    pub histogram: Option<Histogram>,
}

/// Finite values counted in bins of equal width.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Histogram {
    /// Smallest finite value.
    pub from: f32,
    /// Largest finite value.
    pub to: f32,
    /// Values in each bin.
    pub counts: Vec<u64>,
}

/// Holds every tensor of `entries` against every rule. Of integer tensors, which are stored but never computed with,
/// nothing is claimed.
///
/// # Errors
/// [`apr_engine::Code::DeviceUnavailable`] when the threads cannot be started.
pub(crate) fn look(entries: &[&TensorEntry<'_>]) -> apr_engine::Result<(Quality, Vec<Violation>)> {
    let rules = RULES.iter().map(|rule| RuleReport {
        rule: rule.id.to_owned(),
        claim: rule.claim.to_owned(),
        tensors: 0,
        broken: 0,
    });
    let mut quality = Quality { rules: rules.collect(), tensors: Vec::new() };
    let mut violations = Vec::new();
    let mut looked = Vec::new();
    for (entry, numbers) in entries.iter().zip(survey(entries)?) {
        if let Some(numbers) = numbers {
            quality.tensor(entry, &numbers, &mut violations);
            looked.push(numbers);
        }
    }
    let mut worst: Vec<usize> = (0..looked.len()).collect();
    worst.retain(|index| !quality.tensors[*index].broken.is_empty());
    worst.sort_by_key(|index| std::cmp::Reverse(quality.tensors[*index].broken.len()));
    for index in worst.into_iter().take(WORST) {
        quality.tensors[index].histogram = Histogram::of(&looked[index]);
    }
    Ok((quality, violations))
}

impl Quality {
    /// Takes in what the rules say of one tensor.
    fn tensor(
        &mut self,
        entry: &TensorEntry<'_>,
        numbers: &Numbers<'_>,
        violations: &mut Vec<Violation>,
    ) {
        let tensor = Tensor::of(entry);
        let mut broken = Vec::new();
        for (rule, report) in RULES.iter().zip(&mut self.rules) {
            let Some(findings) = (rule.broken)(&tensor, numbers) else { continue };
            report.tensors += 1;
            if !findings.is_empty() {
                report.broken += 1;
                broken.push(rule.id.to_owned());
            }
            violations.extend(findings.into_iter().map(|finding| {
                let block = finding.at.map_or(0, |at| entry.view.block_start(at));
                Violation {
                    rule: rule.id.to_owned(),
                    place: format!("tensor {}", printable(&tensor.name)),
                    offset: Some(entry.offset + block as u64),
                    expected: finding.expected,
                    found: finding.found,
                    hint: rule.hint.to_owned(),
                }
            }));
        }
        let statistics = &numbers.statistics;
        let finite = |value: f32| value.is_finite().then_some(value);
        self.tensors.push(TensorReport {
            name: tensor.name,
            dtype: entry.view.dtype().name().to_owned(),
            shape: entry.view.shape().dims().to_vec(),
            offset: entry.offset,
            values: statistics.values,
            zeros: statistics.zeros,
            non_finite: statistics.non_finite(),
            min: finite(statistics.min),
            max: finite(statistics.max),
            norm: statistics.norm(),
            broken,
            histogram: None,
        });
    }
}

impl Histogram {
    /// The spread of the finite values; `None` when there are none.
    fn of(numbers: &Numbers<'_>) -> Option<Self> {
        let (from, to) = (numbers.statistics.min, numbers.statistics.max);
        if numbers.statistics.finite() == 0 {
            return None;
        }
        let width = (f64::from(to) - f64::from(from)) / BINS as f64;
        let mut counts = vec![0; BINS];
        numbers.each(|value| {
            let above = f64::from(value) - f64::from(from);
            // All values are alike where the width is zero.
            let bin = if width > 0.0 { (above / width) as usize } else { 0 };
            counts[bin.min(BINS - 1)] += u64::from(value.is_finite());
        });
        Some(Self { from, to, counts })
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use apr_engine::{Shape, Tensor as Stored};

    use super::*;

    const NAME: &str = "model.layers.0.mlp.down_proj.weight";

    /// What is said of one weight of 64 rows and 32 columns.
    fn looked(value: impl Fn(usize) -> f32, offset: u64) -> (Quality, Vec<Violation>) {
        let values: Vec<f32> = (0..64 * 32).map(value).collect();
        let stored = Stored::from_f32(Shape::new(&[64, 32]).unwrap(), &values).unwrap();
        let view = stored.view().unwrap();
        look(&[&TensorEntry { name: Cow::Borrowed(NAME), offset, view }]).unwrap()
    }

    #[test]
    fn a_healthy_tensor_is_held_against_its_rules_and_not_drawn() {
        let (quality, violations) = looked(|index| index as f32 - 1000.5, 0);
        assert_eq!(violations, []);
        let held: Vec<u64> = quality.rules.iter().map(|rule| rule.tensors).collect();
        assert_eq!(held, [1, 1, 1, 0], "no rule on embeddings");
        assert_eq!(quality.tensors[0].values, 2048);
        assert_eq!(quality.tensors[0].histogram, None);
    }

    #[test]
    fn a_nan_is_found_at_its_byte_and_the_rest_is_drawn() {
        let (quality, violations) =
            looked(|index| if index == 100 { f32::NAN } else { (index % 16) as f32 + 1.0 }, 1000);
        let rules: Vec<&str> = violations.iter().map(|one| one.rule.as_str()).collect();
        assert_eq!(rules, ["F-DATA-QUALITY-002"], "the other values have a norm");
        let violation = &violations[0];
        assert_eq!(violation.offset, Some(1000 + 400));
        assert!(violation.found.contains("row 3 at column 4"), "{}", violation.found);
        let histogram = quality.tensors[0].histogram.as_ref().expect("a histogram");
        assert_eq!(histogram.counts.iter().sum::<u64>(), 2047);
        assert_eq!(histogram.counts[4], 127, "the NaN stands where a five would");
    }

    #[test]
    fn a_tensor_of_zeros_breaks_two_rules() {
        let (quality, violations) = looked(|_| 0.0, 0);
        let rules: Vec<&str> = violations.iter().map(|one| one.rule.as_str()).collect();
        assert_eq!(rules, ["F-DATA-QUALITY-001", "F-DATA-QUALITY-003", "F-DATA-QUALITY-003"]);
        assert_eq!(quality.tensors[0].broken, ["F-DATA-QUALITY-001", "F-DATA-QUALITY-003"]);
        let broken: Vec<u64> = quality.rules.iter().map(|rule| rule.broken).collect();
        assert_eq!(broken, [1, 0, 1, 0]);
        assert_eq!(quality.tensors[0].histogram.as_ref().map(|all| all.counts[0]), Some(2048));
    }

    #[test]
    fn a_tensor_without_a_finite_value_has_neither_extremes_nor_a_histogram() {
        let (quality, violations) = looked(|_| f32::NAN, 0);
        assert_eq!(violations[0].rule, "F-DATA-QUALITY-002");
        let tensor = &quality.tensors[0];
        assert_eq!((tensor.min, tensor.max, &tensor.histogram), (None, None, &None));
        assert_eq!(tensor.non_finite, 2048);
    }
}
