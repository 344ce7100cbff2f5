//! A configuration in the words of `config.json`, for models that come without one, and whether two agree.

use serde_json::{Map, Value as Json, json};

use super::{Activation, Bias, Cap, Config, Family, RopeStyle};
use crate::model::rope::{LongRope, RopeScaling};

/// Reads one hyper-parameter.
type Reading = fn(&Config) -> String;

impl Config {
    /// What a `config.json` of this model says: everything [`Config::from_hugging_face`] reads. Whether the head is
    /// the embedding (`tied`) and whether projections have biases is known from the weights.
    pub fn to_hugging_face(&self, tied: bool, biased: bool) -> Map<String, Json> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Json| map.insert(key.to_owned(), value);
        put("architectures", json!([self.family.class()]));
        put("model_type", json!(self.family.model_type()));
        put("hidden_size", json!(self.hidden));
        put("intermediate_size", json!(self.intermediate));
        put("num_hidden_layers", json!(self.layers));
        put("num_attention_heads", json!(self.heads));
        put("num_key_value_heads", json!(self.kv_heads));
        put("head_dim", json!(self.head_dim));
        put("vocab_size", json!(self.vocab));
        put("max_position_embeddings", json!(self.context));
        put("rms_norm_eps", shortest(f64::from(self.norm_eps)));
        if self.family.qkv_bias == Bias::IfPresent {
            put("attention_bias", json!(biased));
        }
        put("tie_word_embeddings", json!(tied));
        put("bos_token_id", json!(self.bos));
        put("eos_token_id", json!(self.eos.first()));
        put("hidden_act", json!(self.activation.hugging_face_name()));
        if self.activation == Activation::GeluTanh {
            // Some families have a word of their own.
            put("hidden_activation", json!(self.activation.hugging_face_name()));
        }
        map.extend(self.rope_to_hugging_face());
        map.extend(self.attention_to_hugging_face());
        map
    }

    /// Base, scaling and width of the rotation.
    fn rope_to_hugging_face(&self) -> Map<String, Json> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Json| map.insert(key.to_owned(), value);
        put("rope_theta", shortest(self.rope.theta));
        if self.rope.dims != self.head_dim {
            put("partial_rotary_factor", json!(share(self.rope.dims, self.head_dim)));
        }
        put("rope_scaling", self.rope.scaling.to_hugging_face(self.context));
        if let RopeScaling::Long(long) = &self.rope.scaling {
            put("original_max_position_embeddings", json!(long.original_context));
        }
        if let Some(local) = &self.local_rope {
            put("rope_local_base_freq", shortest(local.theta));
        }
        map
    }

    /// How scores come about and what each layer sees.
    fn attention_to_hugging_face(&self) -> Map<String, Json> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Json| map.insert(key.to_owned(), value);
        put("sliding_window", json!(self.window.as_ref().map(|window| window.len)));
        if let Some(window) = self.window.as_ref().filter(|_| self.family.window_step.is_some()) {
            let kind =
                |layer| if window.is_on(layer) { "sliding_attention" } else { "full_attention" };
            put("layer_types", (0..self.layers).map(kind).collect());
        }
        if self.family.query_scalar.is_some() {
            put("query_pre_attn_scalar", scalar(self.score_scale));
        }
        let caps = [
            ("attn_logit_softcapping", self.family.attention_cap, self.score_cap),
            ("final_logit_softcapping", self.family.logit_cap, self.logit_cap),
        ];
        for (key, usual, cap) in caps {
            // A null says "none" where absence would say "as usual".
            if usual != Cap::Never {
                put(key, cap.map_or(Json::Null, |cap| shortest(cap.into())));
            }
        }
        map
    }

    /// The first hyper-parameter in which two descriptions of one model differ, with both values. What containers
    /// express in other ways is left out: names of a family, order of rows, scaling stored as a tensor, gains less one,
    /// biases and ties that the weights show, and token ids.
    pub fn disagreement(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let (a, b) = (self.comparable(), other.comparable());
        if a == b {
            return None;
        }
        let fields: [(&'static str, Reading); 11] = [
            ("architecture", |config| config.family.gguf_name().to_owned()),
            ("hidden_size", |config| config.hidden.to_string()),
            ("num_hidden_layers", |config| config.layers.to_string()),
            ("num_attention_heads", |config| config.heads.to_string()),
            ("num_key_value_heads", |config| config.kv_heads.to_string()),
            ("head_dim", |config| config.head_dim.to_string()),
            ("intermediate_size", |config| config.intermediate.to_string()),
            ("vocab_size", |config| config.vocab.to_string()),
            ("max_position_embeddings", |config| config.context.to_string()),
            ("rms_norm_eps", |config| config.norm_eps.to_string()),
            ("rope_theta", |config| config.rope.theta.to_string()),
        ];
        let differs = fields.into_iter().find(|(_, value)| value(&a) != value(&b));
        Some(match differs {
            Some((name, value)) => (name, value(&a), value(&b)),
            None => ("hyper-parameters", format!("{a:?}"), format!("{b:?}")),
        })
    }

    fn comparable(&self) -> Self {
        let mut config = self.clone();
        // One GGUF architecture may stand for several families.
        let same = |family: &&Family| family.gguf_name() == self.family.gguf_name();
        config.family = Family::ALL.iter().find(same).unwrap_or(self.family);
        for rope in std::iter::once(&mut config.rope).chain(&mut config.local_rope) {
            rope.style = RopeStyle::Neox;
            rope.theta = f64::from(rope.theta as f32);
            rope.scaling = rope.scaling.without_divisors();
        }
        config.gain_offset = 0.0;
        (config.qkv_bias, config.o_bias) = (Bias::IfPresent, Bias::IfPresent);
        config.tied_embeddings = None;
        config.bos = None;
        config.eos.clear();
        config
    }
}

impl RopeScaling {
    /// `rope_scaling` of `config.json` in a model of `context` tokens; null for none.
    fn to_hugging_face(&self, context: usize) -> Json {
        match self {
            Self::None => Json::Null,
            Self::Linear { factor } => {
                json!({ "rope_type": "linear", "factor": shortest(*factor) })
            }
            Self::Llama3 { factor, low, high, original_context } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": *original_context as u64,
            }),
            Self::Long(long) => long.to_hugging_face(context),
        }
    }

    /// What is left to compare where one side has the divisors as tensors.
    fn without_divisors(&self) -> Self {
        match self {
            Self::None | Self::Llama3 { .. } => Self::None,
            Self::Linear { factor } => Self::Linear { factor: f64::from(*factor as f32) },
            Self::Long(long) => Self::Long(LongRope {
                original_context: long.original_context,
                attention_factor: f64::from(long.attention_factor as f32),
                factors: None,
            }),
        }
    }
}

impl LongRope {
    fn to_hugging_face(&self, context: usize) -> Json {
        let list = |divisors: &[f32]| -> Json {
            divisors.iter().map(|divisor| shortest(f64::from(*divisor))).collect()
        };
        let (short, long) = self
            .factors
            .as_ref()
            .map_or((&[][..], &[][..]), |(short, long)| (short.as_slice(), long.as_slice()));
        let mut map = Map::new();
        map.insert("rope_type".to_owned(), json!("longrope"));
        map.insert("short_factor".to_owned(), list(short));
        map.insert("long_factor".to_owned(), list(long));
        // Readers make the factor of the two contexts; only another one needs to be said.
        let stretch = context as f64 / self.original_context as f64;
        let usual = Self::usual_attention(stretch, self.original_context);
        if (self.attention_factor as f32).to_bits() != (usual as f32).to_bits() {
            map.insert("attention_factor".to_owned(), shortest(self.attention_factor));
        }
        Json::Object(map)
    }
}

/// `part / whole` as a number of which readers make `part` again by multiplying and cutting off.
fn share(part: usize, whole: usize) -> f64 {
    let share = part as f64 / whole as f64;
    if (whole as f64 * share) as usize == part { share } else { share.next_up() }
}

/// The number whose root divides scores: a whole one where that gives the same factor.
fn scalar(scale: f32) -> Json {
    let scalar = 1.0 / (f64::from(scale) * f64::from(scale));
    let whole = scalar.round();
    let is_same = ((1.0 / whole.sqrt()) as f32).to_bits() == scale.to_bits();
    if is_same { json!(whole as u64) } else { json!(scalar) }
}

/// The shortest number that reads as the same single-precision value; `number` itself when it is none.
fn shortest(number: f64) -> Json {
    let narrow = number as f32;
    let short = narrow.to_string().parse::<f64>();
    match short {
        Ok(short) if f64::from(narrow).to_bits() == number.to_bits() => json!(short),
        _ => json!(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_precision_numbers_are_written_as_people_write_them() {
        assert_eq!(shortest(f64::from(1e-6_f32)).to_string(), "1e-6");
        assert_eq!(shortest(1e6).to_string(), "1000000.0");
        assert_eq!(shortest(0.1).to_string(), "0.1");
        assert_eq!(shortest(1.0 / 3.0), json!(1.0 / 3.0));
    }

    #[test]
    fn a_share_of_the_head_is_cut_off_to_the_width_it_came_from() {
        for whole in 2..300 {
            for part in (2..=whole).step_by(2) {
                assert_eq!((whole as f64 * share(part, whole)) as usize, part, "{part} of {whole}");
            }
        }
    }

    #[test]
    fn a_family_is_called_as_the_class_that_reads_text_is_called() {
        for (name, model_type) in
            [("llama", "llama"), ("qwen2", "qwen2"), ("gemma3", "gemma3_text")]
        {
            assert_eq!(Family::from_name(name).unwrap().model_type(), model_type);
        }
    }

    #[test]
    fn the_scalar_of_scores_comes_back_from_their_factor() {
        for number in [24.0f64, 144.0, 168.0, 256.0, 0.3] {
            let scale = (1.0 / number.sqrt()) as f32;
            let again = scalar(scale).as_f64().unwrap();
            assert_eq!(((1.0 / again.sqrt()) as f32).to_bits(), scale.to_bits(), "{number}");
        }
        assert_eq!(scalar((1.0 / 24.0f64.sqrt()) as f32), json!(24));
    }
}
