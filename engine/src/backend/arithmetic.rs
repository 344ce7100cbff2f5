//! What a backend rounds, as a value that the oracle can follow.
//!
//! A fast backend does not multiply the activations it is given: it rounds them first, and sums in a
//! shorter type. That is a choice, not an error, and two backends may choose differently. A declared
//! arithmetic separates the two: the oracle rounds as declared, and what is left between the two is
//! the order of the sums.

use std::collections::BTreeMap;
use std::fmt;

use crate::dtype::Dtype;

/// What activations become before they are multiplied with a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rounding {
    /// They stay f32.
    #[default]
    None,
    /// Each run of `block` values of a row, the last one possibly shorter, becomes signed bytes with
    /// one f32 scale: with `m` the largest magnitude of the run, a value `x` becomes
    /// `round(x * (127 / m)) * (m / 127)`, all in f32, ties to even. A run whose `m` is below 1e-36
    /// becomes zeros; one that holds NaN or infinity becomes NaN.
    Bytes {
        /// Values that share a scale.
        block: usize,
    },
}

/// In what type the products of a row are summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sum {
    /// In double precision.
    #[default]
    F64,
    /// In single precision, in any order; parts of a row may be summed exactly in integers first.
    F32,
}

/// How a product with weights of one dtype is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProductArithmetic {
    /// What the activations are rounded to.
    pub rounding: Rounding,
    /// How the products are summed.
    pub sum: Sum,
}

/// How a backend computes products, by the dtype of the weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arithmetic {
    usual: ProductArithmetic,
    by_dtype: BTreeMap<Dtype, ProductArithmetic>,
}

impl Arithmetic {
    /// Double precision throughout, nothing rounded: what the oracle computes unless told otherwise.
    pub fn exact() -> Self {
        Self::default()
    }

    /// `usual` for every dtype.
    pub fn new(usual: ProductArithmetic) -> Self {
        Self { usual, by_dtype: BTreeMap::new() }
    }

    /// The same with `product` for weights of `dtypes`.
    #[must_use]
    pub fn with(mut self, dtypes: &[Dtype], product: ProductArithmetic) -> Self {
        self.by_dtype.extend(dtypes.iter().map(|dtype| (*dtype, product)));
        self
    }

    /// How a product with a weight of `dtype` is computed.
    pub fn product(&self, dtype: Dtype) -> ProductArithmetic {
        self.by_dtype.get(&dtype).copied().unwrap_or(self.usual)
    }

    /// Whether the activations in front of weights of `dtype` are rounded.
    pub fn rounds(&self, dtype: Dtype) -> bool {
        self.product(dtype).rounding != Rounding::None
    }

    /// The same roundings, summed in double precision: what the oracle computes that follows it.
    #[must_use]
    pub fn in_double(&self) -> Self {
        let double = |product: &ProductArithmetic| ProductArithmetic { sum: Sum::F64, ..*product };
        let by_dtype = self.by_dtype.iter().map(|(dtype, product)| (*dtype, double(product)));
        Self { usual: double(&self.usual), by_dtype: by_dtype.collect() }
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("f32"),
            Self::Bytes { block } => write!(f, "bytes by {block}"),
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F64 => f.write_str("f64"),
            Self::F32 => f.write_str("f32"),
        }
    }
}

impl fmt::Display for Arithmetic {
    /// `f32 into f64`, and the dtypes that differ: `f32 into f32, Q4_K bytes by 256 into f32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} into {}", self.usual.rounding, self.usual.sum)?;
        for (dtype, product) in &self.by_dtype {
            write!(f, ", {dtype} {} into {}", product.rounding, product.sum)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dtype_that_is_not_named_has_the_usual_arithmetic() {
        let bytes = ProductArithmetic { rounding: Rounding::Bytes { block: 32 }, sum: Sum::F64 };
        let arithmetic = Arithmetic::exact().with(&[Dtype::Q8_0], bytes);
        assert_eq!(arithmetic.product(Dtype::Q8_0), bytes);
        assert_eq!(arithmetic.product(Dtype::F16), ProductArithmetic::default());
        assert!(arithmetic.rounds(Dtype::Q8_0) && !arithmetic.rounds(Dtype::Q4_0));
        assert_eq!(arithmetic.to_string(), "f32 into f64, Q8_0 bytes by 32 into f64");
    }

    #[test]
    fn the_oracle_of_an_arithmetic_keeps_its_roundings_and_sums_in_double() {
        let rounding = Rounding::Bytes { block: 256 };
        let product = ProductArithmetic { rounding, sum: Sum::F32 };
        let arithmetic = Arithmetic::exact().with(&[Dtype::Q4K], product);
        let double = arithmetic.in_double().product(Dtype::Q4K);
        assert_eq!(double, ProductArithmetic { rounding, sum: Sum::F64 });
    }
}
