//! Observation of the forward pass: sites, and the trait through which their values flow out.
//!
//! A [`Site`] is the common coordinate of every trace, profile, comparison and fault. A probe is asked
//! before anything is copied, so an unwanted site costs one virtual call.

use std::fmt;

/// A named point of the forward pass. Shapes are per token (row) unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Token embedding, `[hidden]`. No layer.
    Embed,
    /// Normalised input of attention, `[hidden]`.
    AttnNorm,
    /// Query projection with bias, before QK-norm and RoPE, `[heads * head_dim]`.
    Q,
    /// Key projection with bias, before QK-norm and RoPE, `[kv_heads * head_dim]`.
    K,
    /// Value projection with bias, `[kv_heads * head_dim]`.
    V,
    /// Queries after their norm, head by head, `[heads * head_dim]`. Only in families that have one.
    QNorm,
    /// Keys after their norm, head by head, `[kv_heads * head_dim]`. Only in families that have one.
    KNorm,
    /// Rotated queries, `[heads * head_dim]`.
    RopeQ,
    /// Rotated keys, `[kv_heads * head_dim]`.
    RopeK,
    /// Attention probabilities after softmax, `[heads * context]`; masked positions are zero.
    AttnScores,
    /// Weighted values before the output projection, `[heads * head_dim]`.
    AttnOut,
    /// Output projection, `[hidden]`.
    OProj,
    /// Normalised output projection, `[hidden]`. Only in families that have this norm.
    AttnPostNorm,
    /// Residual stream after attention, `[hidden]`.
    AttnResidual,
    /// Normalised input of the feed-forward block, `[hidden]`.
    FfnNorm,
    /// Gate projection, `[intermediate]`.
    Gate,
    /// Up projection, `[intermediate]`.
    Up,
    /// `activation(gate) * up`, `[intermediate]`.
    Swiglu,
    /// Down projection, `[hidden]`.
    Down,
    /// Normalised down projection, `[hidden]`. Only in families that have this norm.
    FfnPostNorm,
    /// Residual stream after the feed-forward block, `[hidden]`.
    FfnResidual,
    /// Normalised output of the last layer, `[hidden]`. No layer.
    FinalNorm,
    /// Logits, `[vocab]`. No layer.
    Logits,
}

impl Op {
    /// Every op in the order of the forward pass.
    pub const ALL: &'static [Self] = &[
        Self::Embed,
        Self::AttnNorm,
        Self::Q,
        Self::K,
        Self::V,
        Self::QNorm,
        Self::KNorm,
        Self::RopeQ,
        Self::RopeK,
        Self::AttnScores,
        Self::AttnOut,
        Self::OProj,
        Self::AttnPostNorm,
        Self::AttnResidual,
        Self::FfnNorm,
        Self::Gate,
        Self::Up,
        Self::Swiglu,
        Self::Down,
        Self::FfnPostNorm,
        Self::FfnResidual,
        Self::FinalNorm,
        Self::Logits,
    ];

    /// Stable spelling, used in reports, oracles and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::AttnNorm => "attn_norm",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::QNorm => "q_norm",
            Self::KNorm => "k_norm",
            Self::RopeQ => "rope_q",
            Self::RopeK => "rope_k",
            Self::AttnScores => "attn_scores",
            Self::AttnOut => "attn_out",
            Self::OProj => "o_proj",
            Self::AttnPostNorm => "attn_post_norm",
            Self::AttnResidual => "attn_residual",
            Self::FfnNorm => "ffn_norm",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Swiglu => "swiglu",
            Self::Down => "down",
            Self::FfnPostNorm => "ffn_post_norm",
            Self::FfnResidual => "ffn_residual",
            Self::FinalNorm => "final_norm",
            Self::Logits => "logits",
        }
    }

    /// The op with this [`Op::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }
}

/// A point of the forward pass in a layer, or outside the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Layer index, `None` for embed, final norm and logits.
    pub layer: Option<usize>,
    /// Which point.
    pub op: Op,
}

impl Site {
    /// A site inside layer `layer`.
    pub const fn layer(layer: usize, op: Op) -> Self {
        Self { layer: Some(layer), op }
    }

    /// A site outside the layers.
    pub const fn model(op: Op) -> Self {
        Self { layer: None, op }
    }

    /// The site that is displayed as `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.strip_prefix("layers.") {
            Some(rest) => {
                let (layer, op) = rest.split_once('.')?;
                Some(Self::layer(layer.parse().ok()?, Op::from_name(op)?))
            }
            None => Op::from_name(name).map(Self::model),
        }
    }
}

impl fmt::Display for Site {
    /// `layers.3.attn_norm` or `embed`: the names used by the recorded oracles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "layers.{layer}.{}", self.op.name()),
            None => f.write_str(self.op.name()),
        }
    }
}

/// Values of one site for a chunk of tokens.
#[derive(Clone, Copy, Debug)]
pub struct Tap<'a> {
    /// Where.
    pub site: Site,
    /// Position of the first row in the context.
    pub position: usize,
    /// Rows (tokens).
    pub rows: usize,
    /// `rows * width` values, row-major.
    pub values: &'a [f32],
}

/// An observer of the forward pass.
pub trait Probe {
    /// Whether [`Probe::tap`] wants the values of `site`; asked before any copy is made.
    fn wants(&self, site: Site) -> bool;

    /// Receives the values of a wanted site.
    fn tap(&mut self, tap: Tap<'_>);

    /// Values that take the place of those just tapped, as many of them, for everything that is computed from here on;
    /// `None` leaves them; another number of values ends the pass with [`crate::Code::BackendShape`]. Asked after
    /// [`Probe::tap`], but not for attention probabilities and logits, which nothing is computed from.
    ///
    /// Given the values that another pass had at every site, each operation works on that pass's inputs, so that its
    /// error is its own and not that of what came before.
    fn replacement(&mut self, site: Site) -> Option<&[f32]> {
        let _ = site;
        None
    }
}

/// Observes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn wants(&self, _: Site) -> bool {
        false
    }

    fn tap(&mut self, _: Tap<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_finds_back_from_its_name() {
        for op in Op::ALL {
            for site in [Site::layer(3, *op), Site::model(*op)] {
                assert_eq!(Site::from_name(&site.to_string()), Some(site));
            }
        }
        assert_eq!(Site::from_name("layers.x.q"), None);
    }
}
