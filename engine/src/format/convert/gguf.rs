//! A model as GGUF: names and hyper-parameters translated, Q and K rows reordered where GGUF wants pairs.

use std::collections::{BTreeMap, BTreeSet};

use super::carried::{OwnedPair, gain_pair, widened_pair};
use super::portable::{Part, Portable, rotated_heads};
use super::words::Words;
use super::{Precision, carried};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::format::write::{ArrayBuf, Outgoing, RowOrder, ValueBuf};
use crate::model::conventions::whole_gain;
use crate::model::rope::{LongRope, RopeScaling};
use crate::model::{Config, Naming, Role, Slot};
use crate::tensor::{Shape, Tensor};

/// Metadata and tensors of the GGUF file.
pub(super) fn build(
    model: &Portable<'_>,
    precision: Precision,
) -> Result<(Vec<OwnedPair>, Vec<Outgoing>)> {
    refuse_unsayable(model.config())?;
    // First, as everyone writes them.
    let mut tensors = divisors(model)?;
    for part in &model.parts {
        tensors.extend(outgoing(model, part, precision)?);
    }
    let mut written = pairs(model)?;
    written.extend(storage(&tensors, precision));
    if precision == Precision::Stored {
        written.extend(changed_vectors(model)?);
    }
    Ok((overlaid(written, &model.carried.gguf), tensors))
}

/// The pairs that remember how vectors were stored before GGUF demanded otherwise.
fn changed_vectors(model: &Portable<'_>) -> Result<Vec<OwnedPair>> {
    let offset = model.config().family.gain_offset();
    let mut pairs = Vec::new();
    let mut widened: BTreeMap<Dtype, Vec<&str>> = BTreeMap::new();
    for part in &model.parts {
        let Outgoing { name, dtype, tensor, .. } = &part.tensor;
        if tensor.shape().rank() < 2 && matches!(dtype, Dtype::BF16 | Dtype::F16) {
            widened.entry(*dtype).or_default().push(name);
        }
        if part.slot.is_some_and(|slot| slot.role.is_gain()) {
            pairs.extend(gain_pair(name, &tensor.view()?.dequantize()?, offset));
        }
    }
    pairs.extend(widened.into_iter().map(|(dtype, names)| widened_pair(dtype, names)));
    Ok(pairs)
}

/// Whether a pair describes how tensors are stored in one file rather than the model.
pub(super) fn is_about_storage(key: &str) -> bool {
    let keys = ["general.file_type", "general.quantization_version", "general.alignment"];
    keys.contains(&key) || key.starts_with("split.")
}

/// `pairs`, with the values that another program wrote before our own.
fn overlaid(pairs: Vec<OwnedPair>, foreign: &[OwnedPair]) -> Vec<OwnedPair> {
    let keys: BTreeSet<&str> = foreign.iter().map(|pair| pair.key.as_str()).collect();
    let own = pairs.into_iter().filter(|pair| !keys.contains(pair.key.as_str()));
    own.chain(foreign.iter().cloned()).collect()
}

/// Everything but what depends on the dtypes of the tensors.
pub(super) fn pairs(model: &Portable<'_>) -> Result<Vec<OwnedPair>> {
    let text = |key: &str, text: &str| OwnedPair::new(key, ValueBuf::Str(text.to_owned()));
    let mut pairs = vec![
        text("general.architecture", model.config().family.gguf_name()),
        text("general.type", "model"),
        text("general.name", &model.name),
    ];
    pairs.extend(hyper_parameters(model.config()));
    let mut words = model.words.clone();
    if let Some(words) = &mut words {
        words.fill(model.config().vocab)?;
        pairs.extend(tokenizer_pairs(words));
        // Readers stop at the end of a turn as well as at the end of the text.
        let mut others = model.model.generation().eos.iter();
        let other = others.find(|id| words.eos != Some(u64::from(**id)));
        if let Some(id) = other.filter(|_| words.eos.is_some()) {
            let id = ValueBuf::Unsigned(u64::from(*id));
            pairs.push(OwnedPair::new("tokenizer.ggml.eot_token_id", id));
        }
    }
    let carried = carried::Carried {
        files: model.carried.files.clone().into_iter().chain(generation_config(model)).collect(),
        ..model.carried.clone()
    };
    pairs.extend(carried.gguf_pairs());
    Ok(pairs)
}

fn generation_config(model: &Portable<'_>) -> Option<(String, String)> {
    Some(("generation_config.json".to_owned(), model.generation_config()?))
}

/// Refuses hyper-parameters that GGUF has no key for and whose usual value another one is.
fn refuse_unsayable(config: &Config) -> Result<()> {
    let local = config.local_rope.as_ref().map(|rope| &rope.scaling);
    if let Some(scaling) = local.filter(|scaling| **scaling != RopeScaling::None) {
        return Err(Error::new(Code::ConversionUnsupported)
            .field("rope_parameters.sliding_attention")
            .expected("no scaling in layers with a window, as readers of GGUF assume")
            .found(format_args!("{scaling:?}")));
    }
    let understood = config.gguf_score_scale();
    if (config.score_scale - understood).abs() <= f32::EPSILON * understood {
        return Ok(());
    }
    let scalar = |scale: f32| 1.0 / (f64::from(scale) * f64::from(scale));
    Err(Error::new(Code::ConversionUnsupported)
        .field("query_pre_attn_scalar")
        .expected(format_args!("{}, which readers of GGUF assume", scalar(understood)))
        .found(scalar(config.score_scale)))
}

/// The divisors of rotary frequencies that GGUF keeps as tensors.
fn divisors(model: &Portable<'_>) -> Result<Vec<Outgoing>> {
    let name = |role: Role| Slot::model(role).name(Naming::Gguf);
    let roles = [Role::RopeFactors, Role::RopeFactorsLong, Role::RopeFactorsShort];
    let entry = |role: Role| Some((role, model.model.weights().get(Slot::model(role))?));
    let stored: Vec<_> = roles.into_iter().filter_map(entry).collect();
    if !stored.is_empty() {
        let unchanged = |(role, entry): &(Role, &crate::model::NamedTensor)| {
            Outgoing::unchanged(name(*role), entry.tensor.clone())
        };
        return Ok(stored.iter().map(unchanged).collect());
    }
    let tensor = |role: Role, divisors: &[f32]| {
        let tensor = Tensor::from_f32(Shape::new(&[divisors.len() as u64])?, divisors)?;
        Ok(Outgoing::unchanged(name(role), tensor))
    };
    let rope = &model.config().rope;
    match &rope.scaling {
        RopeScaling::Llama3 { .. } => Ok(vec![tensor(Role::RopeFactors, &rope.divisors())?]),
        RopeScaling::Long(LongRope { factors: Some((short, long)), .. }) => {
            Ok(vec![tensor(Role::RopeFactorsLong, long)?, tensor(Role::RopeFactorsShort, short)?])
        }
        _ => Ok(Vec::new()),
    }
}

/// The tensor under its GGUF name; `None` for what GGUF leaves out.
fn outgoing(model: &Portable<'_>, part: &Part, precision: Precision) -> Result<Option<Outgoing>> {
    let (tensor, config) = (&part.tensor, model.config());
    // Tables that some versions of the Hugging Face library stored and every reader computes.
    if tensor.name.ends_with("rotary_emb.inv_freq") {
        return Ok(None);
    }
    let Some(slot) = part.slot else {
        return Err(Error::new(Code::WeightUnexpected)
            .tensor(&tensor.name)
            .expected(format_args!("a weight of the family {}", config.family.name))
            .hint("converting would drop it"));
    };
    let heads = rotated_heads(slot, config).filter(|_| config.family.gguf_adjacent_rope());
    let order = match (heads, tensor.order) {
        (Some(_), RowOrder::Halved { .. }) => RowOrder::Stored,
        (Some(heads), _) => RowOrder::Paired { heads },
        (None, order) => order,
    };
    let view = tensor.tensor.view()?;
    let dtype = precision.dtype(Format::Gguf, part.slot, &view, config, model.tied);
    let stored = if slot.role.is_gain() {
        whole_gain(&tensor.tensor, config.family.gain_offset())?
    } else {
        tensor.tensor.clone()
    };
    let name = slot.name_in(Naming::Gguf, config.family.dialect());
    Ok(Some(Outgoing { name, dtype, order, tensor: stored, ..tensor.clone() }))
}

/// The pairs that say how the tensors are stored.
fn storage(tensors: &[Outgoing], precision: Precision) -> Vec<OwnedPair> {
    let number = |key: &str, number| OwnedPair::new(key, ValueBuf::Unsigned(number));
    let matrix = tensors.iter().find(|tensor| tensor.shape().rank() > 1);
    let file_type = match precision {
        Precision::Mixed(recipe) => Some(recipe.file_type),
        Precision::Stored | Precision::Uniform(_) => {
            matrix.and_then(|tensor| file_type(tensor.dtype))
        }
    };
    let mut pairs: Vec<_> =
        file_type.map(|id| number("general.file_type", id)).into_iter().collect();
    // Version of the block layouts; 2 is the only one in use, and written where there are no blocks too.
    pairs.push(number("general.quantization_version", 2));
    pairs
}

/// `pairs` of a GGUF file whose tensors are now stored otherwise.
pub(super) fn restored(
    pairs: Vec<OwnedPair>,
    tensors: &[Outgoing],
    precision: Precision,
) -> Vec<OwnedPair> {
    let about_whole = |pair: &OwnedPair| !pair.key.starts_with("split.");
    let pairs: Vec<OwnedPair> = pairs.into_iter().filter(about_whole).collect();
    match precision {
        Precision::Stored => pairs,
        Precision::Uniform(_) | Precision::Mixed(_) => {
            overlaid(pairs, &storage(tensors, precision))
        }
    }
}

/// The `general.file_type` of a file whose matrices are all of `dtype` (GGUF specification).
const fn file_type(dtype: Dtype) -> Option<u64> {
    Some(match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Q4_0 => 2,
        Dtype::Q4_1 => 3,
        Dtype::Q8_0 => 7,
        Dtype::Q5_0 => 8,
        Dtype::Q5_1 => 9,
        Dtype::Q2K => 10,
        Dtype::Q3K => 11,
        Dtype::Q4K => 14,
        Dtype::Q5K => 16,
        Dtype::Q6K => 18,
        Dtype::BF16 => 32,
        _ => return None,
    })
}

fn hyper_parameters(config: &Config) -> Vec<OwnedPair> {
    let count = |number: usize| ValueBuf::Unsigned(number as u64);
    // Read as single precision by everyone.
    let real = |number: f64| ValueBuf::Float(f64::from(number as f32));
    let mut values = vec![
        ("block_count", count(config.layers)),
        ("context_length", count(config.context)),
        ("embedding_length", count(config.hidden)),
        ("feed_forward_length", count(config.intermediate)),
        ("attention.head_count", count(config.heads)),
        ("attention.head_count_kv", count(config.kv_heads)),
        ("attention.key_length", count(config.head_dim)),
        ("attention.value_length", count(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", real(config.norm_eps.into())),
        ("rope.freq_base", real(config.rope.theta)),
        ("rope.dimension_count", count(config.rope.dims)),
        ("vocab_size", count(config.vocab)),
    ];
    if let Some(window) = &config.window {
        values.push(("attention.sliding_window", count(window.len)));
        // Readers know the usual pattern of the family, and not every one looks for this key.
        if !window.is_usual(config.family) {
            let layers = (0..config.layers).map(|layer| window.is_on(layer));
            let layers = ValueBuf::Array(ArrayBuf::bools(layers));
            values.push(("attention.sliding_window_pattern", layers));
        }
    }
    let caps = [
        ("attn_logit_softcapping", config.score_cap),
        ("final_logit_softcapping", config.logit_cap),
    ];
    for (key, cap) in caps {
        values.extend(cap.map(|cap| (key, real(cap.into()))));
    }
    if let Some(local) = &config.local_rope {
        values.push(("rope.freq_base_swa", real(local.theta)));
    }
    match &config.rope.scaling {
        RopeScaling::Linear { factor } => {
            values.push(("rope.scaling.type", ValueBuf::Str("linear".to_owned())));
            values.push(("rope.scaling.factor", real(*factor)));
        }
        RopeScaling::Long(long) => {
            values.push(("rope.scaling.type", ValueBuf::Str("longrope".to_owned())));
            values.push(("rope.scaling.original_context_length", count(long.original_context)));
            values.push(("rope.scaling.attn_factor", real(long.attention_factor)));
        }
        RopeScaling::None | RopeScaling::Llama3 { .. } => {}
    }
    let architecture = config.family.gguf_name();
    let named = values.into_iter();
    named.map(|(key, value)| OwnedPair::new(format!("{architecture}.{key}"), value)).collect()
}

fn tokenizer_pairs(words: &Words) -> Vec<OwnedPair> {
    let mut pairs = Vec::new();
    let mut put = |key: &str, value| pairs.push(OwnedPair::new(format!("tokenizer.{key}"), value));
    if let Some(vocabulary) = &words.vocabulary {
        put("ggml.model", ValueBuf::Str(vocabulary.model.clone()));
        put("ggml.pre", ValueBuf::Str(vocabulary.pre.clone()));
        put("ggml.tokens", ValueBuf::Array(ArrayBuf::strings(&vocabulary.tokens)));
        if !vocabulary.scores.is_empty() {
            let scores = vocabulary.scores.iter().copied();
            put("ggml.scores", ValueBuf::Array(ArrayBuf::f32s(scores)));
        }
        if !vocabulary.types.is_empty() {
            let types = vocabulary.types.iter().copied();
            put("ggml.token_type", ValueBuf::Array(ArrayBuf::i32s(types)));
        }
        if !vocabulary.merges.is_empty() {
            put("ggml.merges", ValueBuf::Array(ArrayBuf::strings(&vocabulary.merges)));
        }
        if let Some(adds) = vocabulary.add_space_prefix {
            put("ggml.add_space_prefix", ValueBuf::Bool(adds));
        }
    }
    let ids = [
        ("ggml.bos_token_id", words.bos),
        ("ggml.eos_token_id", words.eos),
        ("ggml.padding_token_id", words.pad),
        ("ggml.unknown_token_id", words.unk),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            put(key, ValueBuf::Unsigned(id));
        }
    }
    let flags = [("ggml.add_bos_token", words.add_bos), ("ggml.add_eos_token", words.add_eos)];
    for (key, flag) in flags {
        if let Some(flag) = flag {
            put(key, ValueBuf::Bool(flag));
        }
    }
    if let Some(template) = &words.chat_template {
        put("chat_template", ValueBuf::Str(template.clone()));
    }
    pairs
}
