//! The supported families and the facts that their files do not state.

use crate::error::{Code, Error, Result};
use crate::model::slots::{Dialect, FUSED};

/// Non-linearity of the feed-forward gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

/// Whether a projection has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bias {
    /// It must be in the file.
    Required,
    /// It must not be in the file.
    Absent,
    /// The file decides (GGUF and APR have no key for it).
    IfPresent,
}

/// A supported model family and the facts that its files do not state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name used in reports and in GGUF.
    pub name: &'static str,
    /// Spellings of `model_type`, `general.architecture` and `architectures`.
    spellings: &'static [&'static str],
    /// Bias of Q, K and V when the file has no flag for it.
    pub(super) qkv_bias: Bias,
    /// Whether GGUF stores Q and K rows reordered for adjacent-pair rotation.
    pub(super) gguf_adjacent_rope: bool,
    /// Whether each head of Q and K is normalised before rotation.
    pub(super) qk_norm: bool,
    /// Whether Q, K and V are one matrix in files, and gate and up another.
    pub(super) fused: bool,
    /// The family's own names of weights.
    pub(super) dialect: Dialect,
    /// Values per head where `config.json` states none; `None` shares the hidden size out.
    pub(super) head_dim: Option<usize>,
}

/// What most families have.
const PLAIN: Family = Family {
    name: "",
    spellings: &[],
    qkv_bias: Bias::Absent,
    gguf_adjacent_rope: false,
    qk_norm: false,
    fused: false,
    dialect: &[],
    head_dim: None,
};

impl Family {
    /// Every supported family.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "qwen2",
            spellings: &["qwen2", "Qwen2ForCausalLM"],
            qkv_bias: Bias::Required,
            ..PLAIN
        },
        Self {
            name: "llama",
            spellings: &["llama", "LlamaForCausalLM"],
            qkv_bias: Bias::IfPresent,
            gguf_adjacent_rope: true,
            ..PLAIN
        },
        Self {
            name: "mistral",
            spellings: &["mistral", "MistralForCausalLM"],
            gguf_adjacent_rope: true,
            ..PLAIN
        },
        Self {
            name: "qwen3",
            spellings: &["qwen3", "Qwen3ForCausalLM"],
            qkv_bias: Bias::IfPresent,
            qk_norm: true,
            head_dim: Some(128),
            ..PLAIN
        },
        Self {
            name: "phi3",
            spellings: &["phi3", "Phi3ForCausalLM"],
            fused: true,
            dialect: FUSED,
            ..PLAIN
        },
    ];

    /// The family that calls itself `name`, without regard to case.
    pub fn from_name(name: &str) -> Option<&'static Self> {
        Self::ALL
            .iter()
            .find(|family| family.spellings.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// The architecture a GGUF of this family declares: the ones that store rotated pairs side by side are all
    /// `llama` there.
    pub const fn gguf_name(&self) -> &'static str {
        if self.gguf_adjacent_rope { "llama" } else { self.name }
    }

    /// Whether GGUF stores Q and K rows reordered for adjacent-pair rotation.
    pub const fn gguf_adjacent_rope(&self) -> bool {
        self.gguf_adjacent_rope
    }

    /// The family's own names of weights.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn required(name: Option<&str>, field: &str) -> Result<&'static Self> {
        let supported = || {
            let names: Vec<_> = Self::ALL.iter().map(|family| family.name).collect();
            names.join(", ")
        };
        let error = || Error::new(Code::Architecture).field(field).expected(supported());
        let name = name.ok_or_else(|| error().found("none"))?;
        Self::from_name(name).ok_or_else(|| error().found(name))
    }
}
