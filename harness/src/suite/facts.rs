//! Facts of a model file, by which gates are chosen.
//!
//! They come from headers and metadata; no weight is read. A form that is built later has the facts of its source
//! but for the format and the dtypes that the recipe gives it. What cannot be read is unknown, and a filter that
//! asks for it selects: a gate must not vanish because the file is broken.

use std::collections::BTreeSet;
use std::path::Path;

use apr_engine::Dtype;
use apr_engine::format::convert::{self, Precision};
use apr_engine::format::{Format, Metadata, Source};
use apr_engine::model::{Config, Model, Role, RopeScaling, Slot};

use super::Build;

/// What `has(..)` can ask for.
pub(crate) const PARTS: &[&str] = &[
    "bias",
    "embedding-scale",
    "fused",
    "gelu",
    "grouped-heads",
    "local-rope",
    "logit-cap",
    "long-rope",
    "partial-rope",
    "post-norms",
    "qk-norm",
    "rope-scaling",
    "score-cap",
    "score-scale",
    "template",
    "tied-head",
    "tokenizer",
    "window",
    "window-by-layer",
    "window-everywhere",
];

/// The classes of `stored(..)`; the names of dtypes come on top.
pub(crate) const STORED: [&str; 2] = ["blocks", "plain"];

/// What is known of one form before anything is judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    format: Option<Format>,
    stored: Option<BTreeSet<Dtype>>,
    model: Option<ModelFacts>,
}

/// What a file that loads states about its model.
#[derive(Clone, Debug, PartialEq)]
struct ModelFacts {
    family: &'static str,
    parts: BTreeSet<&'static str>,
    parameters: u64,
    layers: u64,
    /// Longest text that one set of rotary frequencies serves.
    one_rope: f64,
}

impl Facts {
    /// The facts of the file or directory at `path`; all unknown when it cannot be read.
    pub(crate) fn read(path: &Path) -> Self {
        Source::open(path).map(Self::of).unwrap_or_default()
    }

    fn of(source: Source) -> Self {
        let format = Some(source.format());
        Model::from_source(source).map_or_else(
            |_| Self { format, ..Self::default() },
            |model| Self {
                format,
                stored: dtypes(&model, model.format(), Precision::Stored),
                model: Some(ModelFacts::of(&model)),
            },
        )
    }

    /// The facts of the form that `legs` make out of the file at `root`, the first leg first.
    pub(super) fn built(root: &Path, legs: &[&Build]) -> Self {
        let Some(last) = legs.last() else { return Self::read(root) };
        let format = Format::ALL.iter().copied().find(|format| format.name() == last.format);
        let Ok(model) = Model::load(root) else { return Self { format, ..Self::default() } };
        let mut facts = ModelFacts::of(&model);
        if format == Some(Format::Gguf) {
            // GGUF has one name for the families that store rotated pairs side by side.
            facts.family = model.config().family.gguf_name();
        }
        let precision = precision(legs);
        let stored =
            format.zip(precision).and_then(|(to, precision)| dtypes(&model, to, precision));
        Self { format, stored, model: Some(facts) }
    }

    /// The texts that a question about `subject` is held against; `None` when they are unknown.
    pub(crate) fn texts(&self, subject: &str) -> Option<Vec<String>> {
        let owned = |text: &str| text.to_owned();
        match subject {
            "format" => self.format.map(|format| vec![owned(format.name())]),
            "stored" => self.stored.as_ref().map(|dtypes| {
                let blocks = dtypes.iter().any(|dtype| dtype.is_quantized());
                let class = STORED[usize::from(!blocks)];
                let names = dtypes.iter().map(|dtype| dtype.name().to_ascii_lowercase());
                std::iter::once(owned(class)).chain(names).collect()
            }),
            "family" => self.model.as_ref().map(|model| vec![owned(model.family)]),
            "has" => {
                self.model.as_ref().map(|model| model.parts.iter().map(|it| owned(it)).collect())
            }
            _ => Some(Vec::new()),
        }
    }

    /// The number that a question about `subject` is held against; `None` when it is unknown.
    pub(crate) fn number(&self, subject: &str) -> Option<f64> {
        if subject == "bits" {
            return self.stored.as_ref().map(coarsest);
        }
        let model = self.model.as_ref()?;
        Some(match subject {
            "layers" => model.layers as f64,
            "one-rope" => model.one_rope,
            _ => model.parameters as f64,
        })
    }
}

impl ModelFacts {
    fn of(model: &Model) -> Self {
        let parameters = model.weights().iter().map(|(_, weight)| weight.tensor.shape().elements());
        Self {
            family: model.config().family.name,
            parts: parts(model),
            parameters: parameters.sum(),
            layers: model.config().layers as u64,
            one_rope: match &model.config().rope.scaling {
                RopeScaling::Long(long) => long.original_context as f64,
                _ => f64::INFINITY,
            },
        }
    }
}

/// Weights that are added or that divide, the gains of norms aside.
const VECTORS: [Role; 7] = [
    Role::QBias,
    Role::KBias,
    Role::VBias,
    Role::OBias,
    Role::RopeFactors,
    Role::RopeFactorsShort,
    Role::RopeFactorsLong,
];

/// Bits per value, scales included, of the dtype that has the fewest.
fn coarsest(dtypes: &BTreeSet<Dtype>) -> f64 {
    let bits = |dtype: &Dtype| 8.0 * dtype.block_bytes() as f64 / dtype.block_len() as f64;
    dtypes.iter().map(bits).fold(f64::INFINITY, f64::min)
}

/// The dtypes of the weights that are multiplied: an embedding that is only looked up is none of them.
fn dtypes(model: &Model, to: Format, precision: Precision) -> Option<BTreeSet<Dtype>> {
    let tied = model.weights().tied();
    let multiplied = |slot: Slot| match slot.role {
        Role::Embed => tied,
        role => !role.is_gain() && !VECTORS.contains(&role),
    };
    let all = convert::dtypes(model, to, precision).ok()?;
    let wanted = all.into_iter().filter(|(slot, _)| slot.is_some_and(multiplied));
    Some(wanted.map(|(_, dtype)| dtype).collect())
}

/// The precision that a chain of conversions leaves; `None` when an inner one may have had to widen blocks.
fn precision(legs: &[&Build]) -> Option<Precision> {
    let named = legs.iter().rposition(|leg| leg.dtype.is_some());
    let precision = match named.and_then(|index| legs[index].dtype.as_deref()) {
        None => Precision::Stored,
        Some(name) => Precision::from_name(name)?,
    };
    let plain = matches!(precision, Precision::Uniform(dtype) if !dtype.is_quantized());
    let widens = |leg: &&&Build| leg.format == Format::SafeTensors.name();
    let later = &legs[named.map_or(0, |index| index + 1)..];
    let only_last = named.is_none() && !later.iter().rev().skip(1).any(|leg| widens(&leg));
    (plain || only_last || !later.iter().any(|leg| widens(&leg))).then_some(precision)
}

/// What the model has, of [`PARTS`].
fn parts(model: &Model) -> BTreeSet<&'static str> {
    let config = model.config();
    let bias =
        |slot: Slot| matches!(slot.role, Role::QBias | Role::KBias | Role::VBias | Role::OBias);
    let every_layer =
        config.window.as_ref().map(|window| (0..config.layers).all(|layer| window.is_on(layer)));
    let has = [
        ("bias", model.weights().iter().any(|(slot, _)| bias(slot))),
        ("embedding-scale", config.embedding_scale.is_some()),
        ("fused", config.fused),
        ("gelu", config.activation != apr_engine::model::Activation::Silu),
        ("grouped-heads", config.kv_heads < config.heads),
        ("local-rope", config.local_rope.is_some()),
        ("logit-cap", config.logit_cap.is_some()),
        ("long-rope", matches!(config.rope.scaling, RopeScaling::Long(_))),
        ("partial-rope", config.rope.dims < config.head_dim),
        ("post-norms", config.post_norms),
        ("qk-norm", config.qk_norm),
        ("rope-scaling", is_stretched(model)),
        ("score-cap", config.score_cap.is_some()),
        ("score-scale", has_own_score_scale(config)),
        ("template", has_template(model)),
        ("tied-head", model.weights().tied()),
        ("tokenizer", has_tokenizer(model.source())),
        ("window", config.window.is_some()),
        ("window-by-layer", every_layer == Some(false)),
        ("window-everywhere", every_layer == Some(true)),
    ];
    has.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// Whether frequencies are stretched, by a rule or by divisors in a tensor.
fn is_stretched(model: &Model) -> bool {
    let divisors = model.weights().get(Slot::model(Role::RopeFactors)).is_some();
    divisors || model.config().rope.scaling != RopeScaling::None
}

/// Whether scores are divided by something else than the root of the head size.
fn has_own_score_scale(config: &Config) -> bool {
    let usual = 1.0 / (config.head_dim as f32).sqrt();
    (config.score_scale - usual).abs() > usual * f32::EPSILON
}

/// A template that does not parse is one.
fn has_template(model: &Model) -> bool {
    !matches!(model.chat_template(), Ok(None))
}

/// Whether there is a vocabulary, usable or not; building a tokenizer of it would take long.
fn has_tokenizer(source: &Source) -> bool {
    const EMBEDDED: &str = "tokenizer.huggingface.json";
    let own = source.containers().is_ok_and(|containers| {
        containers.first().is_some_and(|first| match &first.metadata {
            metadata @ Metadata::Gguf(_) => {
                ["tokenizer.ggml.model", EMBEDDED].iter().any(|key| metadata.gguf(key).is_some())
            }
            metadata @ Metadata::Apr(_) => {
                ["tokenizer.vocabulary", EMBEDDED].iter().any(|key| metadata.apr(key).is_some())
            }
            Metadata::SafeTensors(_) => false,
        })
    });
    own || source.sidecars().tokenizer_json.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
    }

    fn recipe(format: &str, dtype: Option<&str>) -> Build {
        Build {
            form: "x".into(),
            format: format.into(),
            dtype: dtype.map(str::to_owned),
            layout: None,
        }
    }

    #[test]
    fn a_recipe_gives_the_facts_of_the_file_that_it_makes() {
        let source = fixture("golden");
        for (dtype, file) in [
            ("f16", "gguf/golden-F16.gguf"),
            ("q8_0", "gguf/golden-Q8_0.gguf"),
            ("q4_k_m", "gguf/golden-Q4_K_M.gguf"),
        ] {
            let built = Facts::built(&source, &[&recipe("gguf", Some(dtype))]);
            assert_eq!(built, Facts::read(&fixture(file)), "{dtype}");
        }
        let unchanged = Facts::built(&source, &[&recipe("apr", None)]);
        assert_eq!(unchanged.texts("stored").unwrap(), ["plain", "bf16"]);
        assert_eq!(unchanged.texts("format").unwrap(), ["apr"]);
    }

    #[test]
    fn a_chain_has_the_dtype_of_its_last_leg_or_none_that_is_known() {
        let source = fixture("golden");
        let (blocks, plain) = (recipe("gguf", Some("q8_0")), recipe("apr", Some("f32")));
        let twice = Facts::built(&source, &[&blocks, &plain]);
        assert_eq!(twice.texts("stored").unwrap(), ["plain", "f32"]);
        let unknown = Facts::built(&source, &[&blocks, &recipe("safetensors", None)]);
        assert_eq!(unknown.texts("stored"), None);
        assert_eq!(unknown.texts("family").unwrap(), ["qwen2"]);
    }

    #[test]
    fn parts_are_those_of_the_family() {
        let has = |name: &str| Facts::read(&fixture(name)).texts("has").unwrap();
        assert_eq!(Facts::read(&fixture("golden")).number("one-rope"), Some(f64::INFINITY));
        assert_eq!(Facts::read(&fixture("pygmy/longrope")).number("one-rope"), Some(12.0));
        let golden = ["bias", "grouped-heads", "template", "tied-head", "tokenizer"];
        assert_eq!(has("golden"), golden);
        let gemma = has("gguf/gemma3-Q8_0.gguf");
        assert_eq!(Facts::read(&fixture("gguf/golden-Q8_0.gguf")).number("bits"), Some(8.5));
        for part in ["gelu", "local-rope", "post-norms", "qk-norm", "window"] {
            assert!(gemma.iter().any(|it| it == part), "{part} of {gemma:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_has_unknown_facts() {
        let facts = Facts::read(&fixture("manifest.yaml"));
        for subject in ["stored", "family", "has", "format"] {
            assert_eq!(facts.texts(subject), None, "{subject}");
        }
        assert_eq!(facts.number("params"), None);
    }
}
