//! Element types of tensors and the facts about each: block length, block bytes, names and ids.
//!
//! Block sizes follow the GGUF specification (ggml block formats) and, for the two `APR` types, the APR v2 layout.

use crate::error::{Code, Error, Result};

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an IEEE 754 single.
    BF16,
    /// IEEE 754 double precision.
    F64,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 8-bit integer.
    U8,
    /// 32 values: f16 scale, 4-bit quants.
    Q4_0,
    /// 32 values: f16 scale and minimum, 4-bit quants.
    Q4_1,
    /// 32 values: f16 scale, 5-bit quants.
    Q5_0,
    /// 32 values: f16 scale and minimum, 5-bit quants.
    Q5_1,
    /// 32 values: f16 scale, 8-bit quants.
    Q8_0,
    /// 256 values: 2-bit quants in 16 sub-blocks.
    Q2K,
    /// 256 values: 3-bit quants in 16 sub-blocks.
    Q3K,
    /// 256 values: 4-bit quants in 8 sub-blocks.
    Q4K,
    /// 256 values: 5-bit quants in 8 sub-blocks.
    Q5K,
    /// 256 values: 6-bit quants in 16 sub-blocks.
    Q6K,
    /// 256 values: f32 scale, 8-bit quants, sums of 16; the activation side of K-quant products.
    Q8K,
    /// APR: 32 consecutive values of the flattened tensor, f16 scale, adjacent nibbles.
    AprQ4,
    /// APR: one f32 scale for the tensor, then signed bytes.
    AprQ8,
}

struct Facts {
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
    gguf_id: Option<u32>,
    safetensors: Option<&'static str>,
}

const fn facts(
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
    gguf_id: Option<u32>,
    safetensors: Option<&'static str>,
) -> Facts {
    Facts { name, block_len, block_bytes, gguf_id, safetensors }
}

impl Dtype {
    /// Every dtype, in declaration order.
    pub const ALL: &'static [Self] = &[
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::U8,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Q8K,
        Self::AprQ4,
        Self::AprQ8,
    ];

    const fn facts(self) -> Facts {
        match self {
            Self::F32 => facts("F32", 1, 4, Some(0), Some("F32")),
            Self::F16 => facts("F16", 1, 2, Some(1), Some("F16")),
            Self::BF16 => facts("BF16", 1, 2, Some(30), Some("BF16")),
            Self::F64 => facts("F64", 1, 8, Some(28), Some("F64")),
            Self::I8 => facts("I8", 1, 1, Some(24), Some("I8")),
            Self::I16 => facts("I16", 1, 2, Some(25), Some("I16")),
            Self::I32 => facts("I32", 1, 4, Some(26), Some("I32")),
            Self::I64 => facts("I64", 1, 8, Some(27), Some("I64")),
            Self::U8 => facts("U8", 1, 1, None, Some("U8")),
            Self::Q4_0 => facts("Q4_0", 32, 18, Some(2), None),
            Self::Q4_1 => facts("Q4_1", 32, 20, Some(3), None),
            Self::Q5_0 => facts("Q5_0", 32, 22, Some(6), None),
            Self::Q5_1 => facts("Q5_1", 32, 24, Some(7), None),
            Self::Q8_0 => facts("Q8_0", 32, 34, Some(8), None),
            Self::Q2K => facts("Q2_K", 256, 84, Some(10), None),
            Self::Q3K => facts("Q3_K", 256, 110, Some(11), None),
            Self::Q4K => facts("Q4_K", 256, 144, Some(12), None),
            Self::Q5K => facts("Q5_K", 256, 176, Some(13), None),
            Self::Q6K => facts("Q6_K", 256, 210, Some(14), None),
            Self::Q8K => facts("Q8_K", 256, 292, Some(15), None),
            Self::AprQ4 => facts("APR-Q4", 32, 18, None, None),
            Self::AprQ8 => facts("APR-Q8", 1, 1, None, None),
        }
    }

    /// The name as the field writes it, for example `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Values per block; 1 for plain numbers.
    pub const fn block_len(self) -> usize {
        self.facts().block_len
    }

    /// Bytes per block. [`Dtype::AprQ8`] has four bytes in front of its first value besides.
    pub const fn block_bytes(self) -> usize {
        self.facts().block_bytes
    }

    /// The `ggml_type` id of the GGUF specification, when the type has one.
    pub const fn gguf_id(self) -> Option<u32> {
        self.facts().gguf_id
    }

    /// The dtype with this `ggml_type` id.
    pub fn from_gguf_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.gguf_id() == Some(id))
    }

    /// The SafeTensors spelling, when the type has one.
    pub const fn safetensors_name(self) -> Option<&'static str> {
        self.facts().safetensors
    }

    /// The dtype that SafeTensors spells `name`.
    pub fn from_safetensors_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.safetensors_name() == Some(name))
    }

    /// The dtype whose [`Dtype::name`] is `name`, without regard to case or underscores.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_uppercase();
        Self::ALL.iter().copied().find(|dtype| plain(dtype.name()) == plain(name))
    }

    /// Whether values are packed in blocks with shared scales.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1 || matches!(self, Self::AprQ8)
    }

    /// Whether rows need not begin on a block boundary because blocks run over the flattened tensor.
    pub const fn is_flat(self) -> bool {
        matches!(self, Self::AprQ4 | Self::AprQ8)
    }

    /// Bytes of one row of `cols` values that begins on a block boundary.
    ///
    /// # Errors
    /// [`Code::TensorRagged`] when `cols` is not a multiple of the block length,
    /// [`Code::TensorShape`] on overflow.
    pub fn row_bytes(self, cols: u64) -> Result<u64> {
        let block_len = self.block_len() as u64;
        if !cols.is_multiple_of(block_len) {
            return Err(Error::new(Code::TensorRagged)
                .expected(format_args!("a multiple of {block_len} values for {}", self.name()))
                .found(cols));
        }
        (cols / block_len)
            .checked_mul(self.block_bytes() as u64)
            .ok_or_else(|| Error::new(Code::TensorShape).found(cols))
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_and_name_leads_back_to_its_dtype() {
        for &dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
            if let Some(id) = dtype.gguf_id() {
                assert_eq!(Dtype::from_gguf_id(id), Some(dtype));
            }
            if let Some(name) = dtype.safetensors_name() {
                assert_eq!(Dtype::from_safetensors_name(name), Some(dtype));
            }
        }
    }

    #[test]
    fn a_ragged_row_is_refused_with_both_numbers() {
        let error = Dtype::Q4K.row_bytes(255).unwrap_err();
        assert_eq!(error.code(), Code::TensorRagged);
        assert_eq!(error.found_text(), "255");
        assert_eq!(Dtype::Q4K.row_bytes(512).unwrap(), 288);
    }
}
