//! The supported families and the facts that their files do not state.

use crate::error::{Code, Error, Result};
use crate::model::slots::{Dialect, FUSED, GEMMA};

/// Non-linearity of the feed-forward gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

impl Activation {
    /// The name in `config.json`.
    pub const fn hugging_face_name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }
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

/// A soft cap, `cap * tanh(x / cap)`, as a family has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cap {
    /// There is none.
    Never,
    /// Where the file states one.
    Stated,
    /// This one where the file states none.
    Usual(f64),
}

/// A supported model family and the facts that its files do not state.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of a row of a table, each yes or no"
)]
pub struct Family {
    /// Name used in reports and in GGUF.
    pub name: &'static str,
    /// Spellings of `model_type`, `general.architecture` and, last, `architectures`.
    spellings: &'static [&'static str],
    /// Bias of Q, K and V when the file has no flag for it.
    pub(super) qkv_bias: Bias,
    /// Whether GGUF stores Q and K rows reordered for adjacent-pair rotation.
    pub(super) gguf_adjacent_rope: bool,
    /// Whether each head of Q and K is normalised before rotation.
    pub(super) qk_norm: bool,
    /// Whether what attention and feed-forward block give is normalised before it is added to the stream.
    pub(super) post_norms: bool,
    /// Whether the embedding is multiplied by the root of the hidden size.
    pub(super) scaled_embedding: bool,
    /// What Hugging Face files leave out of every gain of a norm: they store the gain less this.
    pub(super) gain_offset: f32,
    /// Whether Q, K and V are one matrix in files, and gate and up another.
    pub(super) fused: bool,
    /// Non-linearity where the file names none.
    pub(super) activation: Activation,
    /// Whether the head is the embedding where `config.json` does not say.
    pub(super) tied: bool,
    /// Of layers with and without a window, each which one has none; `None` when layers are all alike.
    pub(super) window_step: Option<usize>,
    /// Window where GGUF states none.
    pub(super) window: Option<usize>,
    /// Soft cap on scores.
    pub(super) attention_cap: Cap,
    /// Soft cap on logits.
    pub(super) logit_cap: Cap,
    /// Number whose root divides scores, where `config.json` states none; `None` takes the head size.
    pub(super) query_scalar: Option<f64>,
    /// Number of layers of the one size whose scores are divided by the root of hidden size over heads.
    pub(super) wide_layers: Option<usize>,
    /// Base of the rotary embedding where the file states none.
    pub(super) theta: f64,
    /// The same for layers with a window, where they have their own.
    pub(super) local_theta: Option<f64>,
    /// The family's own names of weights.
    pub(super) dialect: Dialect,
    /// Values per head where `config.json` states none; `None` shares the hidden size out.
    pub(super) head_dim: Option<usize>,
    /// Which models of 80 layers llama.cpp's quantiser gives more bits per value weight.
    pub(super) boosted: Boosted,
}

/// Models of 80 layers whose value projections are quantised with more bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boosted {
    None,
    /// Those whose heads share keys and values.
    Grouped,
    All,
}

/// What most families have.
const PLAIN: Family = Family {
    name: "",
    spellings: &[],
    qkv_bias: Bias::Absent,
    gguf_adjacent_rope: false,
    qk_norm: false,
    post_norms: false,
    scaled_embedding: false,
    gain_offset: 0.0,
    fused: false,
    activation: Activation::Silu,
    tied: false,
    window_step: None,
    window: None,
    attention_cap: Cap::Never,
    logit_cap: Cap::Never,
    query_scalar: None,
    wide_layers: None,
    theta: 10_000.0,
    local_theta: None,
    dialect: &[],
    head_dim: None,
    boosted: Boosted::None,
};

impl Family {
    /// What the Gemma families have in common.
    const GEMMA: Self = Self {
        qkv_bias: Bias::IfPresent,
        post_norms: true,
        scaled_embedding: true,
        gain_offset: 1.0,
        activation: Activation::GeluTanh,
        tied: true,
        query_scalar: Some(256.0),
        dialect: GEMMA,
        head_dim: Some(256),
        ..PLAIN
    };

    /// Every supported family.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "qwen2",
            spellings: &["qwen2", "Qwen2ForCausalLM"],
            qkv_bias: Bias::Required,
            boosted: Boosted::All,
            ..PLAIN
        },
        Self {
            name: "llama",
            spellings: &["llama", "LlamaForCausalLM"],
            qkv_bias: Bias::IfPresent,
            gguf_adjacent_rope: true,
            boosted: Boosted::Grouped,
            ..PLAIN
        },
        Self {
            name: "mistral",
            spellings: &["mistral", "MistralForCausalLM"],
            gguf_adjacent_rope: true,
            boosted: Boosted::Grouped,
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
        Self {
            name: "gemma2",
            spellings: &["gemma2", "Gemma2ForCausalLM"],
            window_step: Some(2),
            window: Some(4096),
            attention_cap: Cap::Usual(50.0),
            logit_cap: Cap::Usual(30.0),
            wide_layers: Some(46),
            ..Self::GEMMA
        },
        Self {
            name: "gemma3",
            spellings: &["gemma3", "gemma3_text", "Gemma3ForCausalLM"],
            qk_norm: true,
            window_step: Some(6),
            logit_cap: Cap::Stated,
            wide_layers: Some(62),
            theta: 1_000_000.0,
            local_theta: Some(10_000.0),
            ..Self::GEMMA
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

    /// The family as `model_type` names it: the spelling before the last. One of a class that reads text alone may
    /// have a word of its own, where the plain one means a model that sees, too.
    pub fn model_type(&self) -> &'static str {
        self.spellings.iter().nth_back(1).copied().unwrap_or(self.name)
    }

    /// The class of the Hugging Face library, as `architectures` names it: the last spelling.
    pub fn class(&self) -> &'static str {
        self.spellings.last().copied().unwrap_or_default()
    }

    /// Whether GGUF stores Q and K rows reordered for adjacent-pair rotation.
    pub const fn gguf_adjacent_rope(&self) -> bool {
        self.gguf_adjacent_rope
    }

    /// Whether the head is the embedding where `config.json` does not say.
    pub const fn tied(&self) -> bool {
        self.tied
    }

    /// What Hugging Face files leave out of every gain of a norm: they store the gain less this.
    pub const fn gain_offset(&self) -> f32 {
        self.gain_offset
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
