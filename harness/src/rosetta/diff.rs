//! What differs between two models at rest: hyper-parameters, tokenizer, and each weight.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use apr_engine::Result;
use apr_engine::model::{Config, Model, Slot};
use schemars::JsonSchema;
use serde::Serialize;

use super::canonical::{Canonical, weights};
use super::statistics::Stats;
use crate::compare::RowError;
use crate::report::escape::visible;
use crate::report::number;

/// Token ids that are listed; the rest is counted.
const LISTED: usize = 8;

/// What differs between two models.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Diff {
    /// Hyper-parameters compared.
    pub metadata_compared: usize,
    /// Those that differ.
    pub metadata: Vec<Field>,
    /// Token ids compared: the larger of both vocabularies.
    pub tokens_compared: usize,
    /// Token ids that stand for other bytes, or for a special token on one side only.
    pub tokens_differing: usize,
    /// Special ids and templates that differ, then the first of these tokens.
    pub tokenizer: Vec<Field>,
    /// Weights compared: all that either side has.
    pub tensors_compared: usize,
    /// Those that differ in dtype, shape or any byte.
    pub tensors: Vec<TensorDiff>,
}

/// A fact that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Field {
    /// What it is.
    pub name: String,
    /// What the source says.
    pub source: String,
    /// What the target says.
    pub target: String,
}

/// A weight that differs.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TensorDiff {
    /// Slot.
    pub slot: String,
    /// As the source has it; absent when it has none.
    pub source: Option<Stored>,
    /// As the target has it.
    pub target: Option<Stored>,
    /// The first byte that differs, where both have the same dtype and shape.
    pub first: Option<FirstByte>,
    /// Normalised mean squared error of the target's values; absent where the shapes differ or it is infinite.
    pub nmse: Option<f64>,
    /// Largest absolute difference of a value.
    pub max_abs: Option<f64>,
}

/// A weight as one side has it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Stored {
    /// Dtype.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Statistics of its values.
    pub stats: Stats,
}

/// The first byte that differs between two weights of one dtype and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FirstByte {
    /// Offset from the first byte of the weight.
    pub offset: usize,
    /// Row it belongs to.
    pub row: usize,
    /// The source's byte.
    pub source: u8,
    /// The target's byte.
    pub target: u8,
}

impl Diff {
    /// Compares two models; every weight is read once.
    ///
    /// # Errors
    /// Those of a broken tokenizer or template, and of dequantisation. A tokenizer that is absent is no error but a difference.
    pub fn of(source: &Model, target: &Model) -> Result<Self> {
        let fields = hyper_parameters(source).into_iter().zip(hyper_parameters(target));
        let fields: Vec<Option<Field>> =
            fields.map(|((name, ours), (_, theirs))| field(name, ours, theirs)).collect();
        let tokens = Tokens::of(source, target)?;
        let (tensors_compared, tensors) = tensors(source, target)?;
        Ok(Self {
            metadata_compared: fields.len(),
            metadata: fields.into_iter().flatten().collect(),
            tokens_compared: tokens.compared,
            tokens_differing: tokens.differing,
            tokenizer: tokens.fields,
            tensors_compared,
            tensors,
        })
    }

    /// Whether nothing at all differs.
    pub fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.tokenizer.is_empty() && self.tensors.is_empty()
    }

    /// Whether every weight has the same values on both sides, whatever its dtype.
    pub fn same_values(&self) -> bool {
        self.tensors_compared > 0 && self.tensors.iter().all(|tensor| tensor.max_abs == Some(0.0))
    }
}

fn field(name: &str, source: String, target: String) -> Option<Field> {
    (source != target).then(|| Field { name: name.to_owned(), source, target })
}

/// Everything about a model that is not a weight and not text.
fn hyper_parameters(model: &Model) -> Vec<(&'static str, String)> {
    let config: &Config = model.config();
    vec![
        ("architecture", config.family.name.to_owned()),
        ("layers", config.layers.to_string()),
        ("hidden size", config.hidden.to_string()),
        ("heads", config.heads.to_string()),
        ("key-value heads", config.kv_heads.to_string()),
        ("head size", config.head_dim.to_string()),
        ("feed-forward size", config.intermediate.to_string()),
        ("vocabulary", config.vocab.to_string()),
        ("context", config.context.to_string()),
        ("norm epsilon", format!("{:e}", config.norm_eps)),
        ("rope base", config.rope.theta.to_string()),
        ("rope dimensions", config.rope.dims.to_string()),
        ("rope scaling", format!("{:?}", config.rope.scaling)),
        ("activation", format!("{:?}", config.activation)),
        ("local rope", format!("{:?}", config.local_rope.as_ref().map(|rope| rope.theta))),
        ("embedding scale", format!("{:?}", config.embedding_scale)),
        ("window", format!("{:?}", config.window)),
        ("score scale", config.score_scale.to_string()),
        ("score cap", format!("{:?}", config.score_cap)),
        ("logit cap", format!("{:?}", config.logit_cap)),
        ("tied head", model.weights().tied().to_string()),
        ("end ids", format!("{:?}", model.generation().eos)),
    ]
}

/// The text side of two models.
struct Tokens {
    compared: usize,
    differing: usize,
    fields: Vec<Field>,
}

impl Tokens {
    fn of(source: &Model, target: &Model) -> Result<Self> {
        let absent = |error: &apr_engine::Error| error.code() == apr_engine::Code::TokenizerMissing;
        let tokenizer = |model| match Model::tokenizer(model) {
            Ok(tokenizer) => Ok(Some(tokenizer)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(error),
        };
        let template = |model: &Model| -> Result<String> {
            let template = model.chat_template()?;
            Ok(template.map_or("none".to_owned(), |template| template.source().to_owned()))
        };
        let mut fields: Vec<Field> =
            field("chat template", template(source)?, template(target)?).into_iter().collect();
        let (ours, theirs) = match (tokenizer(source)?, tokenizer(target)?) {
            (Some(ours), Some(theirs)) => (ours, theirs),
            (None, None) => return Ok(Self { compared: 0, differing: 0, fields }),
            (ours, _) => {
                let has = |there: bool| if there { "present" } else { "absent" }.to_owned();
                fields.extend(field("tokenizer", has(ours.is_some()), has(ours.is_none())));
                return Ok(Self { compared: 0, differing: 0, fields });
            }
        };
        for (name, ours, theirs) in [
            ("beginning id", ours.bos(), theirs.bos()),
            ("unknown id", ours.unk(), theirs.unk()),
            ("padding id", ours.pad(), theirs.pad()),
        ] {
            fields.extend(field(name, format!("{ours:?}"), format!("{theirs:?}")));
        }
        let (first, second) = (ours.vocab_size(), theirs.vocab_size());
        fields.extend(field("tokens", first.to_string(), second.to_string()));
        let compared = first.max(second);
        let told = |tokenizer: &apr_engine::text::Tokenizer, id: u32| {
            let bytes = tokenizer.token_bytes(id).ok().map(String::from_utf8_lossy);
            let special = if tokenizer.is_special(id) { " (special)" } else { "" };
            bytes.map_or("none".to_owned(), |bytes| format!("{bytes:?}{special}"))
        };
        let mut differing = 0;
        for id in 0..compared as u32 {
            if let Some(found) = field(&format!("token {id}"), told(ours, id), told(theirs, id)) {
                differing += 1;
                if differing <= LISTED {
                    fields.push(found);
                }
            }
        }
        Ok(Self { compared, differing, fields })
    }
}

/// How many weights there are, and those that differ.
fn tensors(source: &Model, target: &Model) -> Result<(usize, Vec<TensorDiff>)> {
    let by_slot = |model| -> BTreeMap<Slot, Canonical<'_>> {
        weights(model).map(|weight| (weight.slot, weight)).collect()
    };
    let (ours, theirs) = (by_slot(source), by_slot(target));
    let slots: BTreeSet<Slot> = ours.keys().chain(theirs.keys()).copied().collect();
    let mut found = Vec::new();
    for slot in &slots {
        found.extend(tensor(*slot, ours.get(slot), theirs.get(slot))?);
    }
    Ok((slots.len(), found))
}

fn tensor(
    slot: Slot,
    source: Option<&Canonical<'_>>,
    target: Option<&Canonical<'_>>,
) -> Result<Option<TensorDiff>> {
    let pair = source.zip(target);
    let alike = pair.filter(|(a, b)| a.dtype == b.dtype && a.shape == b.shape);
    if alike.is_some_and(|(a, b)| a.bytes == b.bytes) {
        return Ok(None);
    }
    let first = alike.and_then(|(a, b)| {
        let offset = a.bytes.iter().zip(&*b.bytes).position(|(a, b)| a != b)?;
        let row =
            a.view().ok().and_then(|view| view.row_stride()).map_or(0, |stride| offset / stride);
        Some(FirstByte { offset, row, source: a.bytes[offset], target: b.bytes[offset] })
    });
    let error = match pair.filter(|(a, b)| a.shape == b.shape) {
        Some((a, b)) => RowError::new(&a.view()?.dequantize()?, &b.view()?.dequantize()?),
        None => None,
    };
    let finite = |value: f64| value.is_finite().then_some(value);
    Ok(Some(TensorDiff {
        slot: slot.to_string(),
        source: source.map(stored).transpose()?,
        target: target.map(stored).transpose()?,
        first,
        nmse: error.and_then(|error| finite(error.nmse)),
        max_abs: error.and_then(|error| finite(error.max_abs)),
    }))
}

fn stored(weight: &Canonical<'_>) -> Result<Stored> {
    Ok(Stored {
        dtype: weight.dtype.name().to_owned(),
        shape: weight.shape.dims().to_vec(),
        stats: Stats::of(&weight.view()?)?,
    })
}

impl Diff {
    /// The differences as text: a line for each, then what was compared.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for field in self.metadata.iter().chain(&self.tokenizer) {
            let [source, target] = [&field.source, &field.target].map(|text| visible(text));
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}: {source} and {target}", field.name);
        }
        for tensor in &self.tensors {
            let _ = tensor.write(&mut out);
        }
        let _ = writeln!(
            out,
            "{} of {} hyper-parameters, {} of {} tokens and {} of {} weights differ",
            self.metadata.len(),
            self.metadata_compared,
            self.tokens_differing,
            self.tokens_compared,
            self.tensors.len(),
            self.tensors_compared
        );
        if !self.tensors.is_empty() && self.same_values() {
            out.push_str("every weight has the same values in another dtype\n");
        }
        out
    }
}

impl TensorDiff {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "{}:", self.slot)?;
        let figure = |value: Option<f64>| value.map_or("infinite".to_owned(), number);
        match (&self.source, &self.target) {
            (Some(source), Some(target)) if source.shape == target.shape => {
                write!(out, " nmse {} max diff {}", figure(self.nmse), figure(self.max_abs))?;
            }
            (Some(_), Some(_)) => out.push_str(" another shape"),
            (None, _) => out.push_str(" not in the source"),
            (_, None) => out.push_str(" not in the target"),
        }
        if let Some(FirstByte { offset, row, source, target }) = self.first {
            write!(out, ", first byte {offset} (row {row}): {source:#04x} and {target:#04x}")?;
        }
        out.push('\n');
        for (side, stored) in [("source", &self.source), ("target", &self.target)] {
            let Some(Stored { dtype, shape, stats }) = stored else { continue };
            writeln!(
                out,
                "    {side} {dtype} {shape:?} min {} max {} mean {} std {}",
                number(stats.min),
                number(stats.max),
                number(stats.mean),
                number(stats.std)
            )?;
        }
        Ok(())
    }
}
