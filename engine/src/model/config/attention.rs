//! How scores come about and which positions a layer sees: scale, soft caps, windows.

use serde_json::{Map, Value as Json};

use super::family::{Cap, Family};
use super::{Config, out_of_range};
use crate::error::Result;
use crate::model::keys::{Key, Keys};

const WINDOW: Key = Key { json: &["sliding_window"], gguf: "attention.sliding_window" };
const USE_WINDOW: Key = Key { json: &["use_sliding_window"], gguf: "" };
const PATTERN: Key = Key {
    json: &["sliding_window_pattern", "_sliding_window_pattern"],
    gguf: "attention.sliding_window_pattern",
};
const LAYER_TYPES: &str = "layer_types";
const QUERY_SCALAR: Key = Key { json: &["query_pre_attn_scalar"], gguf: "" };
const ATTENTION_CAP: Key =
    Key { json: &["attn_logit_softcapping"], gguf: "attn_logit_softcapping" };
const LOGIT_CAP: Key = Key { json: &["final_logit_softcapping"], gguf: "final_logit_softcapping" };
const BIDIRECTIONAL: Key = Key { json: &["use_bidirectional_attention"], gguf: "" };

/// A window on the last positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Positions that a row sees, its own included.
    pub len: usize,
    /// In which layers.
    pub layers: Sliding,
}

/// Which layers see only a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sliding {
    /// Every layer.
    Every,
    /// Every layer but each one whose number, counted from 1, is a multiple of this.
    AllBut(usize),
    /// One word for each layer.
    Listed(Vec<bool>),
}

impl Window {
    /// Whether layer `layer`, counted from 0, is one of those with the window.
    pub fn is_on(&self, layer: usize) -> bool {
        match &self.layers {
            Sliding::Every => true,
            Sliding::AllBut(step) => !(layer + 1).is_multiple_of(*step),
            Sliding::Listed(layers) => layers.get(layer).copied().unwrap_or(false),
        }
    }

    /// Whether the layers are those that are usual in `family`.
    pub fn is_usual(&self, family: &Family) -> bool {
        self.layers == Sliding::usual(family)
    }

    /// Reads the window and its layers; `None` where every layer sees everything.
    ///
    /// # Errors
    /// [`crate::Code::ConfigValue`] for a pattern that the family cannot have or that fits no `layers` layers.
    pub(super) fn read(family: &Family, keys: &Keys<'_>, layers: usize) -> Result<Option<Self>> {
        if keys.flag(&BIDIRECTIONAL)? == Some(true) {
            return Err(out_of_range(BIDIRECTIONAL.json[0], true, false));
        }
        let declared = match keys.flag(&USE_WINDOW)? {
            // Some configurations carry a window and switch it off.
            Some(false) => None,
            // Which layers slide is another table; no published model of these families switches it on.
            Some(true) => return Err(out_of_range("use_sliding_window", true, false)),
            None => keys.count(&WINDOW)?.or(family.window.filter(|_| !keys.is_json())),
        };
        let sliding = Sliding::read(family, keys, layers)?;
        Ok(declared.filter(|len| *len > 0).map(|len| Self { len, layers: sliding }))
    }
}

impl Sliding {
    fn usual(family: &Family) -> Self {
        family.window_step.map_or(Self::Every, Self::AllBut)
    }

    /// The files' word for it, or what is usual in the family.
    fn read(family: &Family, keys: &Keys<'_>, layers: usize) -> Result<Self> {
        let listed = match keys {
            Keys::Json(map) => listed_types(map)?,
            Keys::Gguf(..) => keys.flags(&PATTERN)?,
        };
        let Some(step) = family.window_step else {
            // A list says nothing here but that all layers are alike.
            return match listed.filter(|listed| listed.contains(&true)) {
                Some(_) => {
                    Err(out_of_range(LAYER_TYPES, "sliding ones", "full_attention in every layer"))
                }
                None => Ok(Self::Every),
            };
        };
        match listed {
            Some(listed) if listed.len() == layers => {
                let usual =
                    listed.iter().zip(1usize..).all(|(on, n)| *on != n.is_multiple_of(step));
                Ok(if usual { Self::usual(family) } else { Self::Listed(listed) })
            }
            Some(listed) => {
                Err(out_of_range(LAYER_TYPES, listed.len(), format!("{layers} layers")))
            }
            None => match keys.count(&PATTERN)?.unwrap_or(step) {
                0 => Ok(Self::Every),
                step => Ok(Self::AllBut(step)),
            },
        }
    }
}

/// The list of layer types in a `config.json`: whether each one slides.
fn listed_types(map: &Map<String, Json>) -> Result<Option<Vec<bool>>> {
    let Some(types) = map.get(LAYER_TYPES).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let expected = "a list of full_attention and sliding_attention";
    let Some(types) = types.as_array() else {
        return Err(out_of_range(LAYER_TYPES, types, expected));
    };
    let slides = |kind: &Json| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(out_of_range(LAYER_TYPES, kind, expected)),
    };
    types.iter().map(slides).collect::<Result<_>>().map(Some)
}

/// Factor on scores as `config.json` states it: one over the root of a scalar of the family. `None` where the family
/// has no such scalar.
pub(super) fn stated_score_scale(family: &Family, keys: &Keys<'_>) -> Result<Option<f32>> {
    let Some(usual) = family.query_scalar else { return Ok(None) };
    let scalar = keys.real(&QUERY_SCALAR)?.unwrap_or(usual);
    if !(scalar > 0.0 && scalar <= 1e9) {
        return Err(out_of_range(QUERY_SCALAR.json[0], scalar, "above 0, at most 1e9"));
    }
    Ok(Some((1.0 / scalar.sqrt()) as f32))
}

impl Config {
    /// Factor on scores where the file states none: one over the root of the head size.
    ///
    /// GGUF has no key for the scalar of the families that have one. The one size of such a family that takes the
    /// hidden size over the heads in its place is known by its number of layers, to readers of GGUF as here.
    pub fn gguf_score_scale(&self) -> f32 {
        let wide = self.family.wide_layers == Some(self.layers);
        let size = if wide { self.hidden / self.heads.max(1) } else { self.head_dim };
        (1.0 / (size as f64).sqrt()) as f32
    }
}

/// The soft caps on scores and on logits.
pub(super) fn soft_caps(family: &Family, keys: &Keys<'_>) -> Result<(Option<f32>, Option<f32>)> {
    let read = |key: &Key, cap: Cap| {
        let field = key.json[0];
        // JSON says "none" by null where it could say nothing.
        let denied = matches!(keys, Keys::Json(map) if map.get(field).is_some_and(Json::is_null));
        match (keys.real(key)?, cap) {
            (Some(value), Cap::Stated | Cap::Usual(_)) if value > 0.0 => Ok(Some(value as f32)),
            (Some(value), Cap::Never) => Err(out_of_range(field, value, "none in this family")),
            (Some(value), _) => Err(out_of_range(field, value, "above 0")),
            (None, Cap::Usual(usual)) if !denied => Ok(Some(usual as f32)),
            (None, _) => Ok(None),
        }
    };
    Ok((read(&ATTENTION_CAP, family.attention_cap)?, read(&LOGIT_CAP, family.logit_cap)?))
}
