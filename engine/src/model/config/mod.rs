//! Every architectural difference as data: hyper-parameters from `config.json`, GGUF keys or APR metadata.
//!
//! A [`Config`] that exists was validated; the forward pass relies on its divisions and ranges. A new
//! family is a row of [`Family`], never a second forward pass.

use serde_json::{Map, Value as Json};

use super::keys::{Key, Keys};
use super::rope::{RopeConfig, RopeStyle};
use super::slots::Naming;
use crate::error::{Code, Error, Result};
use crate::format::{Metadata, Value};
use crate::probe::Op;

mod attention;
mod declare;
mod family;

pub use attention::{Sliding, Window};
use family::Boosted;
pub use family::{Activation, Bias, Cap, Family};

/// Most layers of any supported model; the largest published ones have about 130.
const LAYERS_MAX: usize = 512;
/// Largest hidden or intermediate size: eight times the largest published one.
const WIDTH_MAX: usize = 1 << 20;
/// Most attention heads.
const HEADS_MAX: usize = 4096;
/// Largest head size.
const HEAD_DIM_MAX: usize = 4096;
/// Largest vocabulary: eight times the largest published one.
const VOCAB_MAX: usize = 1 << 21;
/// Longest context: 16 Mi tokens; a larger number is a damaged field.
const CONTEXT_MAX: usize = 1 << 24;
/// Most end-of-sequence ids; published models list up to five.
pub(super) const EOS_IDS_MAX: usize = 64;
/// Context of a model that declares none (as GGUF readers assume).
const CONTEXT_DEFAULT: usize = 2048;

/// Validated hyper-parameters of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which family.
    pub family: &'static Family,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values per head, even.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// Longest context in tokens.
    pub context: usize,
    /// Epsilon of the root-mean-square norms.
    pub norm_eps: f32,
    /// Rotary embedding; where `local_rope` is, that of the layers without a window.
    pub rope: RopeConfig,
    /// Rotary embedding of the layers with a window, where they have their own.
    pub local_rope: Option<RopeConfig>,
    /// Bias of Q, K and V.
    pub qkv_bias: Bias,
    /// Bias of the output projection.
    pub o_bias: Bias,
    /// Whether each head of Q and K is normalised before rotation.
    pub qk_norm: bool,
    /// Whether what attention and feed-forward block give is normalised before it is added to the stream.
    pub post_norms: bool,
    /// What the file leaves out of every gain of a norm: it stores the gain less this.
    pub gain_offset: f32,
    /// Factor on the embedding.
    pub embedding_scale: Option<f32>,
    /// Whether Q, K and V are one matrix in files, and gate and up another.
    pub fused: bool,
    /// Whether the head is the embedding; `None` when the presence of a head tensor decides.
    pub tied_embeddings: Option<bool>,
    /// Non-linearity of the feed-forward gate.
    pub activation: Activation,
    /// Which layers see only how many last positions; `None` when every layer sees all.
    pub window: Option<Window>,
    /// Factor on scores.
    pub score_scale: f32,
    /// Soft cap on scores.
    pub score_cap: Option<f32>,
    /// Soft cap on logits.
    pub logit_cap: Option<f32>,
    /// Token that begins a sequence.
    pub bos: Option<u32>,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
}

const HIDDEN: Key =
    Key { json: &["hidden_size", "hidden_dim", "d_model", "n_embd"], gguf: "embedding_length" };
const LAYERS: Key =
    Key { json: &["num_hidden_layers", "num_layers", "n_layers", "n_layer"], gguf: "block_count" };
const HEADS: Key = Key {
    json: &["num_attention_heads", "num_heads", "n_heads", "n_head"],
    gguf: "attention.head_count",
};
const KV_HEADS: Key = Key {
    json: &["num_key_value_heads", "num_kv_heads", "n_kv_heads"],
    gguf: "attention.head_count_kv",
};
const HEAD_DIM: Key = Key { json: &["head_dim"], gguf: "attention.key_length" };
const VALUE_DIM: Key = Key { json: &[], gguf: "attention.value_length" };
const INTERMEDIATE: Key = Key {
    json: &["intermediate_size", "ffn_dim", "intermediate_dim", "n_inner"],
    gguf: "feed_forward_length",
};
const VOCAB: Key = Key { json: &["vocab_size", "n_vocab"], gguf: "vocab_size" };
const CONTEXT: Key = Key {
    json: &["max_position_embeddings", "max_seq_len", "context_length", "n_ctx"],
    gguf: "context_length",
};
const EPS: Key = Key {
    json: &["rms_norm_eps", "layer_norm_eps", "norm_eps"],
    gguf: "attention.layer_norm_rms_epsilon",
};
const ACTIVATION: Key = Key { json: &["hidden_act", "hidden_activation"], gguf: "" };
const TIED: Key = Key { json: &["tie_word_embeddings", "tied_embeddings"], gguf: "" };
const ATTENTION_BIAS: Key = Key { json: &["attention_bias"], gguf: "" };
const MLP_BIAS: Key = Key { json: &["mlp_bias"], gguf: "" };
const EXPERTS: Key =
    Key { json: &["num_experts", "num_local_experts", "n_routed_experts"], gguf: "expert_count" };
const BOS: Key =
    Key { json: &["bos_token_id", "tokenizer.bos_token_id"], gguf: "tokenizer.ggml.bos_token_id" };
const EOS: Key =
    Key { json: &["eos_token_id", "tokenizer.eos_token_id"], gguf: "tokenizer.ggml.eos_token_id" };
const PAD: Key = Key { json: &[], gguf: "tokenizer.ggml.padding_token_id" };
const UNKNOWN: Key = Key { json: &[], gguf: "tokenizer.ggml.unknown_token_id" };

impl Config {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`Code::ConfigMissing`], [`Code::ConfigValue`], [`Code::Architecture`] or [`Code::RopeScaling`],
    /// each with the field.
    pub fn from_hugging_face(config: &Map<String, Json>) -> Result<Self> {
        let architectures = config.get("architectures").and_then(|names| names.get(0));
        let name = config.get("model_type").or(architectures).and_then(Json::as_str);
        let family = Family::required(name, "model_type")?;
        if config.get("quantization_config").is_some_and(|value| !value.is_null()) {
            return Err(Error::new(Code::ConfigValue)
                .field("quantization_config")
                .expected("weights in a plain or GGUF block dtype")
                .hint("convert the unquantised model instead"));
        }
        let keys = Keys::Json(config);
        let mut read = Self::read(family, &keys, None, Naming::HuggingFace)?;
        read.rope.style = RopeStyle::Neox;
        read.tied_embeddings = Some(keys.flag(&TIED)?.unwrap_or(family.tied));
        let attention_bias = keys.flag(&ATTENTION_BIAS)?;
        if read.qkv_bias == Bias::IfPresent {
            let bias = if attention_bias.unwrap_or(false) { Bias::Required } else { Bias::Absent };
            (read.qkv_bias, read.o_bias) = (bias, bias);
        }
        read.validated()
    }

    /// Reads GGUF metadata. `embedding_rows` stands in for a vocabulary size that no key states.
    ///
    /// # Errors
    /// As [`Config::from_hugging_face`].
    pub fn from_gguf(metadata: &Metadata<'_>, embedding_rows: Option<usize>) -> Result<Self> {
        let name = match metadata.gguf("general.architecture") {
            Some(Value::Str(name)) => Some(*name),
            _ => None,
        };
        let family = Family::required(name, "general.architecture")?;
        let keys = Keys::Gguf(metadata, name.unwrap_or_default());
        let tokens = match metadata.gguf("tokenizer.ggml.tokens") {
            Some(Value::Array(array)) => Some(array.len),
            _ => None,
        };
        let mut read = Self::read(family, &keys, tokens.or(embedding_rows), Naming::Gguf)?;
        if family.gguf_adjacent_rope {
            read.rope.style = RopeStyle::Adjacent;
        }
        for key in [&PAD, &UNKNOWN] {
            read.check_token_ids(key.gguf, &keys.token_ids(key, 1)?)?;
        }
        read.validated()
    }

    /// Reads APR metadata. `gguf_names` says that the tensors carry GGUF names: their values then follow the
    /// conventions of GGUF, which also decides the rotation style when the metadata does not.
    ///
    /// # Errors
    /// As [`Config::from_hugging_face`].
    pub fn from_apr(
        metadata: &Map<String, Json>,
        gguf_names: bool,
        embedding_rows: Option<usize>,
    ) -> Result<Self> {
        let spellings = ["architecture", "hf_model_type", "hf_architecture", "model_type"];
        let text = |key: &&str| metadata.get(*key).and_then(Json::as_str);
        let family = spellings.iter().filter_map(text).find_map(Family::from_name);
        let family = match family {
            Some(family) => family,
            None => Family::required(spellings.iter().find_map(text), "architecture")?,
        };
        let keys = Keys::Json(metadata);
        let naming = if gguf_names { Naming::Gguf } else { Naming::HuggingFace };
        let mut read = Self::read(family, &keys, embedding_rows, naming)?;
        read.rope.style = match metadata.get("rope_type").filter(|value| !value.is_null()) {
            None if gguf_names && family.gguf_adjacent_rope => RopeStyle::Adjacent,
            None => RopeStyle::Neox,
            Some(value) => match value.as_u64() {
                Some(0) => RopeStyle::Adjacent,
                Some(2) => RopeStyle::Neox,
                _ => {
                    return Err(Error::new(Code::ConfigValue)
                        .field("rope_type")
                        .expected("0 (adjacent pairs) or 2 (halves)")
                        .found(value));
                }
            },
        };
        read.validated()
    }

    /// What all three origins have in common; not validated yet. Who named the tensors also chose the conventions.
    fn read(
        family: &'static Family,
        keys: &Keys<'_>,
        vocab: Option<usize>,
        naming: Naming,
    ) -> Result<Self> {
        refuse_unsupported(keys)?;
        let hidden = keys.required(&HIDDEN)?;
        let heads = keys.required(&HEADS)?;
        let layers = keys.required(&LAYERS)?;
        let declared = keys.count(&HEAD_DIM)?;
        let head_dim = match declared.or(family.head_dim.filter(|_| keys.is_json())) {
            Some(head_dim) => head_dim,
            None => default_head_dim(hidden, heads)?,
        };
        if let Some(value_dim) = keys.count(&VALUE_DIM)?.filter(|dim| *dim != head_dim) {
            return Err(out_of_range("attention.value_length", value_dim, head_dim));
        }
        let context = keys.count(&CONTEXT)?.unwrap_or(CONTEXT_DEFAULT);
        let (score_cap, logit_cap) = attention::soft_caps(family, keys)?;
        let stated = attention::stated_score_scale(family, keys)?;
        let read = Self {
            family,
            hidden,
            layers,
            heads,
            kv_heads: keys.count(&KV_HEADS)?.unwrap_or(heads),
            head_dim,
            intermediate: keys.required(&INTERMEDIATE)?,
            vocab: match keys.count(&VOCAB)?.or(vocab) {
                Some(vocab) => vocab,
                None => return Err(keys.missing(&VOCAB)),
            },
            context,
            norm_eps: keys.real(&EPS)?.ok_or_else(|| keys.missing(&EPS))? as f32,
            rope: RopeConfig::read(keys, head_dim, context, family.theta)?,
            local_rope: match family.local_theta {
                Some(theta) => Some(RopeConfig::read_local(keys, head_dim, context, theta)?),
                None => None,
            },
            qkv_bias: family.qkv_bias,
            o_bias: if family.qkv_bias == Bias::IfPresent { Bias::IfPresent } else { Bias::Absent },
            qk_norm: family.qk_norm,
            post_norms: family.post_norms,
            gain_offset: if naming == Naming::Gguf { 0.0 } else { family.gain_offset },
            embedding_scale: family.scaled_embedding.then(|| (hidden as f64).sqrt() as f32),
            fused: family.fused,
            tied_embeddings: None,
            activation: activation(keys)?.unwrap_or(family.activation),
            window: Window::read(family, keys, layers)?,
            score_scale: 0.0,
            score_cap,
            logit_cap,
            bos: keys.token_ids(&BOS, 1)?.first().copied(),
            eos: keys.token_ids(&EOS, EOS_IDS_MAX)?,
        };
        let stated = stated.filter(|_| naming == Naming::HuggingFace);
        Ok(Self { score_scale: stated.unwrap_or_else(|| read.gguf_score_scale()), ..read })
    }

    fn validated(self) -> Result<Self> {
        within("hidden_size", self.hidden, 1, WIDTH_MAX)?;
        within("num_hidden_layers", self.layers, 1, LAYERS_MAX)?;
        within("num_attention_heads", self.heads, 1, HEADS_MAX)?;
        within("num_key_value_heads", self.kv_heads, 1, self.heads)?;
        within("head_dim", self.head_dim, 2, HEAD_DIM_MAX)?;
        within("intermediate_size", self.intermediate, 1, WIDTH_MAX)?;
        within("vocab_size", self.vocab, 1, VOCAB_MAX)?;
        within("max_position_embeddings", self.context, 1, CONTEXT_MAX)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of the {} heads", self.heads);
            return Err(out_of_range("num_key_value_heads", self.kv_heads, expected));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(out_of_range("rms_norm_eps", self.norm_eps, "between 0 and 1"));
        }
        for rope in std::iter::once(&self.rope).chain(&self.local_rope) {
            rope.check(self.head_dim)?;
        }
        self.check_token_ids("eos_token_id", &self.eos)?;
        self.check_token_ids("bos_token_id", self.bos.as_slice())?;
        Ok(self)
    }

    /// Refuses ids outside the vocabulary.
    fn check_token_ids(&self, field: &str, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|id| **id as usize >= self.vocab) {
            Some(id) => Err(out_of_range(field, id, format!("below {}", self.vocab))),
            None => Ok(()),
        }
    }

    /// Whether the forward pass of this model comes by `op`.
    pub fn has_site(&self, op: Op) -> bool {
        match op {
            Op::QNorm | Op::KNorm => self.qk_norm,
            Op::AttnPostNorm | Op::FfnPostNorm => self.post_norms,
            _ => true,
        }
    }

    /// Positions that a row sees in layer `layer`, its own included; `None` sees all.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.as_ref().filter(|window| window.is_on(layer)).map(|window| window.len)
    }

    /// Rotary embedding of layer `layer`.
    pub fn rope_of(&self, layer: usize) -> &RopeConfig {
        let local = self.local_rope.as_ref().filter(|_| self.window_of(layer).is_some());
        local.unwrap_or(&self.rope)
    }

    /// Whether llama.cpp's quantiser takes the model for one of those whose value projections it gives more bits.
    pub(crate) fn gguf_boosts_values(&self) -> bool {
        let is_boosted = match self.family.boosted {
            Boosted::None => false,
            Boosted::Grouped => self.heads != self.kv_heads,
            Boosted::All => true,
        };
        is_boosted && self.layers == 80
    }

    /// Width of the queries of one token: `heads * head_dim`.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the keys, or of the values, of one token: `kv_heads * head_dim`.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Refuses what would change the mathematics and is not implemented.
fn refuse_unsupported(keys: &Keys<'_>) -> Result<()> {
    if let Some(experts) = keys.count(&EXPERTS)?.filter(|experts| *experts > 1) {
        return Err(out_of_range("num_experts", experts, "a dense model"));
    }
    if keys.flag(&MLP_BIAS)? == Some(true) {
        return Err(out_of_range("mlp_bias", true, false));
    }
    Ok(())
}

fn default_head_dim(hidden: usize, heads: usize) -> Result<usize> {
    within("num_attention_heads", heads, 1, HEADS_MAX)?;
    if !hidden.is_multiple_of(heads) {
        let expected = format!("a multiple of the {heads} heads");
        return Err(out_of_range("hidden_size", hidden, expected));
    }
    Ok(hidden / heads)
}

fn activation(keys: &Keys<'_>) -> Result<Option<Activation>> {
    match keys.text(&ACTIVATION)? {
        None => Ok(None),
        Some("silu" | "swish") => Ok(Some(Activation::Silu)),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Some(Activation::GeluTanh)),
        Some(other) => {
            Err(out_of_range("hidden_act", other, "silu, swish, gelu_pytorch_tanh or gelu_new"))
        }
    }
}

fn within(field: &str, value: usize, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(out_of_range(field, value, format!("{min} to {max}")))
}

/// The error of a hyper-parameter outside its range.
pub(super) fn out_of_range(
    field: &str,
    found: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> Error {
    Error::new(Code::ConfigValue).field(field).expected(expected).found(found)
}
