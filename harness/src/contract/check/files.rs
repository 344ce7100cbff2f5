//! Checks of files and of the tensors and blocks in them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::tolerance::{AtLeast, AtMost, Share, Why};

/// Parameters of `format-integrity`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FormatIntegrity {
    /// The invariant.
    pub rule: IntegrityRule,
}

/// An invariant of a model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum IntegrityRule {
    /// The file parses and holds at least one tensor.
    Parses,
    /// The first bytes are those of the format the form's name promises.
    Magic,
    /// The format version is one this engine reads and writes.
    Version,
    /// The stored checksums are those of the bytes.
    Checksum,
    /// Every tensor lies inside the file and no two overlap.
    Offsets,
    /// Every tensor begins at a multiple of the alignment of the format.
    Alignment,
    /// The counts stored in the file are the counts found in it.
    Counts,
    /// Tensor names are unique, printable and not empty.
    Names,
    /// Nothing follows the last structure.
    NoTrailing,
    /// The reader has nothing to remark.
    NoNotes,
    /// The file cut off at `cuts` seeded places is refused each time.
    Truncated {
        /// How many places.
        cuts: usize,
    },
    /// One changed byte in the header region, at `flips` seeded places, is refused or changes what is read.
    Corrupted {
        /// How many places.
        flips: usize,
    },
    /// Written again in the same format and read back, the tensors are the same bytes.
    Rewritten,
}

/// Parameters of `metadata`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Metadata {
    /// The agreement.
    pub rule: MetadataRule,
}

/// An agreement between parts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MetadataRule {
    /// The architecture is named and known.
    Architecture,
    /// Hidden size, layers, heads and vocabulary are those of the tensors.
    HyperParameters,
    /// The tokenizer's vocabulary fits the embedding.
    Vocabulary,
    /// Begin, end and padding tokens are inside the vocabulary, and generation can end.
    SpecialTokens,
    /// Context length, RoPE base and epsilon are in the range of real models.
    Ranges,
}

/// Parameters of `tensor-quality`: one rule about the numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum TensorQuality {
    /// Zeros are rare.
    Density {
        /// The embedding's share of zeros must be below.
        embedding_zeros_below: Share,
        /// Every other weight's share of zeros must be below.
        weight_zeros_below: Share,
        /// Why these.
        why: Why,
    },
    /// No value is NaN or infinite, scales of quantised blocks included.
    Finite,
    /// The L2 norm of every tensor is above a floor.
    Norm(AtLeast),
    /// No tensor is constant; norms and biases are exempt (all-ones gamma is legal).
    Variation,
    /// Rows of the embedding at these shares of its height are not zero.
    Spots {
        /// Where, 0 = first row, 1 = last.
        at: Vec<Share>,
    },
    /// No value is larger than a trained weight ever is.
    Magnitude(AtMost),
}

/// Parameters of `validation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Validation {
    /// Which violations count.
    pub about: Concern,
}

/// A kind of violation that `apr validate --quality --strict` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Concern {
    /// The files are not what their format says files are.
    Structure,
    /// Hyper-parameters, tensors, tokenizer and template do not agree.
    Meaning,
    /// What is legal but odd.
    Oddities,
    /// Too many zeros.
    Density,
    /// NaN or infinite values.
    Finite,
    /// No norm, or no variation.
    Norm,
    /// Empty spots of the embedding.
    Spots,
}

/// Parameters of `tensor-layout`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TensorLayout {
    /// The agreement.
    pub rule: LayoutRule,
}

/// What the architecture demands of the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LayoutRule {
    /// Every slot of the architecture is filled and no tensor is left over.
    Names,
    /// Every weight has the shape that the hyper-parameters demand.
    Shapes,
    /// No weight is stored transposed: checked by shape where sides differ, by behaviour where they do not.
    Orientation,
    /// The number of layers in the file is the declared one.
    Layers,
    /// The output head is there, or the embedding is declared to be it.
    Head,
    /// Every weight has a dtype the engine computes with.
    Dtypes,
    /// Biases stand where the family has them, with values other than zero, and nowhere else.
    Biases,
}

/// Parameters of `dequant-oracle`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DequantOracle {
    /// Dtypes by name (`Q4_K`); every recorded one when empty.
    #[serde(default)]
    pub dtypes: Vec<String>,
}

/// Parameters of `quantize-roundtrip`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct QuantizeRoundtrip {
    /// Dtype by name.
    pub dtype: String,
    /// Rows of seeded normal values.
    pub rows: usize,
    /// Bound of the root mean square error relative to the root mean square of the input.
    pub tolerance: AtMost,
}
