//! Canonical weight slots and the names that files give them.
//!
//! A [`Slot`] is the engine's word for a weight; naming tables translate. Nothing here reads a tensor.

use std::fmt;

/// What a weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Token embedding, `[vocab, hidden]`.
    Embed,
    /// Gain of the norm in front of attention, `[hidden]`.
    AttnNorm,
    /// Query, key and value projection one below the other, `[(heads + 2 kv_heads) * head_dim, hidden]`. Only in
    /// files: weights have the three apart.
    Qkv,
    /// Query projection, `[heads * head_dim, hidden]`.
    Q,
    /// Query bias, `[heads * head_dim]`.
    QBias,
    /// Key projection, `[kv_heads * head_dim, hidden]`.
    K,
    /// Key bias, `[kv_heads * head_dim]`.
    KBias,
    /// Value projection, `[kv_heads * head_dim, hidden]`.
    V,
    /// Value bias, `[kv_heads * head_dim]`.
    VBias,
    /// Gain of the norm of each query head, `[head_dim]`.
    QNorm,
    /// Gain of the norm of each key head, `[head_dim]`.
    KNorm,
    /// Output projection, `[hidden, heads * head_dim]`.
    O,
    /// Output projection bias, `[hidden]`.
    OBias,
    /// Gain of the norm of what attention gives, `[hidden]`.
    AttnPostNorm,
    /// Gain of the norm in front of the feed-forward block, `[hidden]`.
    FfnNorm,
    /// Gate and up projection one below the other, `[2 intermediate, hidden]`. Only in files.
    GateUp,
    /// Gate projection, `[intermediate, hidden]`.
    Gate,
    /// Up projection, `[intermediate, hidden]`.
    Up,
    /// Down projection, `[hidden, intermediate]`.
    Down,
    /// Gain of the norm of what the feed-forward block gives, `[hidden]`.
    FfnPostNorm,
    /// Gain of the last norm, `[hidden]`.
    FinalNorm,
    /// Language-model head, `[vocab, hidden]`; absent when tied to the embedding.
    Head,
    /// Divisors of the rotary frequencies, `[rope_dims / 2]` (Llama-3 scaling as GGUF stores it).
    RopeFactors,
    /// The same for short texts (`LongRoPE` as GGUF stores it).
    RopeFactorsShort,
    /// The same for long texts.
    RopeFactorsLong,
}

/// Names of a role; parts around the layer number are added by the naming table. An empty name is the name of
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    role: Role,
    hugging_face: &'static str,
    gguf: &'static str,
}

const fn names(role: Role, hugging_face: &'static str, gguf: &'static str) -> Names {
    Names { role, hugging_face, gguf }
}

/// Weights outside the layers.
const MODEL: &[Names] = &[
    names(Role::Embed, "embed_tokens.weight", "token_embd.weight"),
    names(Role::FinalNorm, "norm.weight", "output_norm.weight"),
    names(Role::Head, "lm_head.weight", "output.weight"),
    names(Role::RopeFactors, "rope_freqs.weight", "rope_freqs.weight"),
    names(Role::RopeFactorsShort, "rope_factors_short.weight", "rope_factors_short.weight"),
    names(Role::RopeFactorsLong, "rope_factors_long.weight", "rope_factors_long.weight"),
];

/// Weights inside a layer, without the layer prefix.
const LAYER: &[Names] = &[
    names(Role::AttnNorm, "input_layernorm.weight", "attn_norm.weight"),
    names(Role::Qkv, "self_attn.qkv_proj.weight", "attn_qkv.weight"),
    names(Role::Q, "self_attn.q_proj.weight", "attn_q.weight"),
    names(Role::QBias, "self_attn.q_proj.bias", "attn_q.bias"),
    names(Role::K, "self_attn.k_proj.weight", "attn_k.weight"),
    names(Role::KBias, "self_attn.k_proj.bias", "attn_k.bias"),
    names(Role::V, "self_attn.v_proj.weight", "attn_v.weight"),
    names(Role::VBias, "self_attn.v_proj.bias", "attn_v.bias"),
    names(Role::QNorm, "self_attn.q_norm.weight", "attn_q_norm.weight"),
    names(Role::KNorm, "self_attn.k_norm.weight", "attn_k_norm.weight"),
    names(Role::O, "self_attn.o_proj.weight", "attn_output.weight"),
    names(Role::OBias, "self_attn.o_proj.bias", "attn_output.bias"),
    names(Role::AttnPostNorm, "post_self_attn_layernorm.weight", "post_attention_norm.weight"),
    names(Role::FfnNorm, "post_attention_layernorm.weight", "ffn_norm.weight"),
    names(Role::GateUp, "mlp.gate_up_proj.weight", ""),
    names(Role::Gate, "mlp.gate_proj.weight", "ffn_gate.weight"),
    names(Role::Up, "mlp.up_proj.weight", "ffn_up.weight"),
    names(Role::Down, "mlp.down_proj.weight", "ffn_down.weight"),
    names(Role::FfnPostNorm, "post_mlp_layernorm.weight", "post_ffw_norm.weight"),
];

/// Where a family departs from the common names; what stands here comes first.
pub type Dialect = &'static [Names];

/// GGUF files of families with fused matrices call the gate and up projection `ffn_up`.
pub(super) const FUSED: Dialect = &[
    names(Role::GateUp, "mlp.gate_up_proj.weight", "ffn_up.weight"),
    names(Role::Up, "mlp.up_proj.weight", ""),
];

/// Gemma calls its four norms by where they stand; `post_attention_layernorm` is another one than elsewhere.
pub(super) const GEMMA: Dialect = &[
    names(Role::AttnPostNorm, "post_attention_layernorm.weight", "post_attention_norm.weight"),
    names(Role::FfnNorm, "pre_feedforward_layernorm.weight", "ffn_norm.weight"),
    names(Role::FfnPostNorm, "post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
];

impl Role {
    /// Whether the weight is the gain of a norm.
    pub fn is_gain(self) -> bool {
        matches!(
            self,
            Self::AttnNorm
                | Self::QNorm
                | Self::KNorm
                | Self::AttnPostNorm
                | Self::FfnNorm
                | Self::FfnPostNorm
                | Self::FinalNorm
        )
    }

    /// Every role: the model's, then the layer's in the order of the forward pass.
    pub fn all() -> impl Iterator<Item = Self> {
        MODEL.iter().chain(LAYER).map(|names| names.role)
    }

    /// Whether the role exists once per layer.
    pub fn in_layer(self) -> bool {
        LAYER.iter().any(|names| names.role == self)
    }
}

/// Who named the tensors of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Naming {
    /// `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace,
    /// `blk.0.attn_q.weight`.
    Gguf,
}

impl Naming {
    const fn layer_prefix(self) -> &'static str {
        match self {
            Self::HuggingFace => "layers.",
            Self::Gguf => "blk.",
        }
    }

    fn of(self, names: Names) -> &'static str {
        match self {
            Self::HuggingFace => names.hugging_face,
            Self::Gguf => names.gguf,
        }
    }
}

/// A weight of the model: a role, in a layer or outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Layer index; `None` for the roles that exist once.
    pub layer: Option<usize>,
    /// What the weight is for.
    pub role: Role,
}

impl Slot {
    /// A slot inside layer `layer`.
    pub const fn layer(layer: usize, role: Role) -> Self {
        Self { layer: Some(layer), role }
    }

    /// A slot outside the layers.
    pub const fn model(role: Role) -> Self {
        Self { layer: None, role }
    }

    /// The common name of this slot in a file of `naming`; empty when files of that naming have none.
    pub fn name(self, naming: Naming) -> String {
        self.name_in(naming, &[])
    }

    /// The name of this slot in a file of `naming` of a family that speaks `dialect`.
    pub fn name_in(self, naming: Naming, dialect: Dialect) -> String {
        let common = || MODEL.iter().chain(LAYER).find(|names| names.role == self.role);
        let plain = own(dialect, self.role).or_else(common).map_or("", |names| naming.of(*names));
        match (naming, self.layer) {
            _ if plain.is_empty() => String::new(),
            (Naming::HuggingFace, Some(layer)) => format!("model.layers.{layer}.{plain}"),
            (Naming::HuggingFace, None) if matches!(self.role, Role::Embed | Role::FinalNorm) => {
                format!("model.{plain}")
            }
            (Naming::Gguf, Some(layer)) => format!("blk.{layer}.{plain}"),
            (_, None) => plain.to_owned(),
        }
    }

    /// The slot that files commonly mean by `name`, and whose naming that is.
    ///
    /// Hugging Face names are accepted with and without the leading `model.`.
    pub fn parse(name: &str) -> Option<(Self, Naming)> {
        Self::parse_in(name, &[])
    }

    /// The slot that a file of a family that speaks `dialect` means by `name`, and whose naming that is.
    pub fn parse_in(name: &str, dialect: Dialect) -> Option<(Self, Naming)> {
        let bare = name.strip_prefix("model.").unwrap_or(name);
        [(Naming::HuggingFace, bare), (Naming::Gguf, name)]
            .into_iter()
            .find_map(|(naming, name)| Some((Self::parse_as(naming, name, dialect)?, naming)))
    }

    fn parse_as(naming: Naming, name: &str, dialect: Dialect) -> Option<Self> {
        let find = |table: &[Names], text: &str| {
            let spoken = |names: &Names| naming.of(*own(dialect, names.role).unwrap_or(names));
            let found = table.iter().find(|names| !text.is_empty() && spoken(names) == text);
            found.map(|names| names.role)
        };
        match name.strip_prefix(naming.layer_prefix()) {
            Some(rest) => {
                let (digits, plain) = rest.split_once('.')?;
                Some(Self::layer(layer_number(digits)?, find(LAYER, plain)?))
            }
            None => find(MODEL, name).map(Self::model),
        }
    }
}

/// What a dialect calls `role`, where it has a word of its own.
fn own(dialect: Dialect, role: Role) -> Option<&'static Names> {
    dialect.iter().find(|names| names.role == role)
}

/// A canonical decimal number: `07` and `+7` name no layer.
fn layer_number(digits: &str) -> Option<usize> {
    let number: usize = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

impl fmt::Display for Slot {
    /// The Hugging Face name, which most readers know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name(Naming::HuggingFace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_finds_back_from_its_name_in_both_namings() {
        for role in Role::all() {
            let slot = Slot { layer: role.in_layer().then_some(11), role };
            for (naming, dialect) in [Naming::HuggingFace, Naming::Gguf]
                .into_iter()
                .flat_map(|naming| [&[][..], FUSED, GEMMA].map(|dialect| (naming, dialect)))
            {
                let name = slot.name_in(naming, dialect);
                if name.is_empty() {
                    assert!(matches!(role, Role::GateUp | Role::Up), "{role:?} has a name");
                    continue;
                }
                let (parsed, found) = Slot::parse_in(&name, dialect).unwrap();
                assert_eq!(parsed, slot);
                // The rotary factors are called the same by everyone.
                assert!(found == naming || name.starts_with("rope_f"));
            }
        }
    }

    #[test]
    fn fused_families_call_the_gate_and_up_projection_by_the_name_of_one() {
        let name = "blk.3.ffn_up.weight";
        assert_eq!(Slot::parse(name), Some((Slot::layer(3, Role::Up), Naming::Gguf)));
        let fused = Slot::parse_in(name, FUSED);
        assert_eq!(fused, Some((Slot::layer(3, Role::GateUp), Naming::Gguf)));
        for nameless in ["", "blk.3.", "layers.3."] {
            assert_eq!(Slot::parse_in(nameless, FUSED), None, "{nameless:?}");
        }
    }

    #[test]
    fn one_name_is_two_norms_in_two_dialects() {
        let name = "model.layers.3.post_attention_layernorm.weight";
        let role = |dialect| Slot::parse_in(name, dialect).map(|(slot, _)| slot.role);
        assert_eq!((role(&[]), role(GEMMA)), (Some(Role::FfnNorm), Some(Role::AttnPostNorm)));
    }

    #[test]
    fn odd_layer_numbers_name_no_slot() {
        for name in ["blk.07.attn_q.weight", "blk.+1.attn_q.weight", "blk..attn_q.weight"] {
            assert_eq!(Slot::parse(name), None, "{name}");
        }
        assert_eq!(Slot::parse("blk.99999999999999999999.attn_q.weight"), None);
    }

    #[test]
    fn the_leading_model_may_be_missing() {
        let slot = Slot::layer(0, Role::K);
        assert_eq!(
            Slot::parse("layers.0.self_attn.k_proj.weight"),
            Some((slot, Naming::HuggingFace))
        );
    }
}
