//! SafeTensors to GGUF: names and hyper-parameters translated, Q and K rows reordered where GGUF wants pairs.

use super::tokenizer::Tokenizer;
use super::{Precision, handles, model_name};
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::format::write::{ArrayBuf, Outgoing, ValueBuf};
use crate::format::{Container, Source, json};
use crate::model::config::Config;
use crate::model::conventions::whole_gain;
use crate::model::rope::{LongRope, RopeScaling};
use crate::model::slots::{Naming, Role, Slot};
use crate::tensor::{Shape, Tensor};

type Pairs = Vec<(String, ValueBuf)>;

/// Metadata and tensors of the GGUF file.
pub(super) fn build(
    source: &Source,
    containers: &[Container<'_>],
    precision: Precision,
) -> Result<(Pairs, Vec<Outgoing>)> {
    let sidecars = source.sidecars();
    let bytes = sidecars.config.as_ref().ok_or_else(|| {
        Error::new(Code::ConfigMissing).field("config.json").in_file(source.path())
    })?;
    let object = json::object(bytes, Code::ConfigJson)?;
    let config = Config::from_hugging_face(&object)?;
    refuse_unsayable(&config)?;
    // First, as everyone writes them.
    let mut tensors = divisors(&config)?;
    for tensor in handles(source, containers, precision)? {
        tensors.extend(rename(&config, tensor)?);
    }
    let mut pairs = general(source, &config, &tensors);
    pairs.extend(hyper_parameters(&config));
    if let Some(tokenizer) = Tokenizer::read(sidecars, &object, config.vocab)? {
        pairs.extend(tokenizer_pairs(tokenizer));
    }
    Ok((pairs, tensors))
}

/// Refuses hyper-parameters that GGUF has no key for and whose usual value another one is.
fn refuse_unsayable(config: &Config) -> Result<()> {
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
fn divisors(config: &Config) -> Result<Vec<Outgoing>> {
    let tensor = |role: Role, divisors: &[f32]| {
        let tensor = Tensor::from_f32(Shape::new(&[divisors.len() as u64])?, divisors)?;
        Ok(Outgoing::unchanged(Slot::model(role).name(Naming::Gguf), tensor))
    };
    match &config.rope.scaling {
        RopeScaling::Llama3 { .. } => Ok(vec![tensor(Role::RopeFactors, &config.rope.divisors())?]),
        RopeScaling::Long(LongRope { factors: Some((short, long)), .. }) => {
            Ok(vec![tensor(Role::RopeFactorsLong, long)?, tensor(Role::RopeFactorsShort, short)?])
        }
        _ => Ok(Vec::new()),
    }
}

/// The tensor under its GGUF name; `None` for what GGUF leaves out.
fn rename(config: &Config, tensor: Outgoing) -> Result<Option<Outgoing>> {
    // Tables that some versions of the Hugging Face library stored and every reader computes.
    if tensor.name.ends_with("rotary_emb.inv_freq") {
        return Ok(None);
    }
    let dialect = config.family.dialect();
    let Some((slot, _)) = Slot::parse_in(&tensor.name, dialect) else {
        return Err(Error::new(Code::WeightUnexpected)
            .tensor(&tensor.name)
            .expected(format_args!("a weight of the family {}", config.family.name))
            .hint("converting would drop it"));
    };
    if slot.role == Role::Head && config.tied_embeddings == Some(true) {
        return Ok(None);
    }
    let interleaved_heads = match slot.role {
        _ if !config.family.gguf_adjacent_rope() => None,
        Role::Q | Role::QBias => Some(config.heads),
        Role::K | Role::KBias => Some(config.kv_heads),
        _ => None,
    };
    let tensor = if slot.role.is_gain() {
        Outgoing { tensor: whole_gain(&tensor.tensor, config.gain_offset)?, ..tensor }
    } else {
        tensor
    };
    // GGUF readers compute with norms and biases directly, so these are always single precision.
    let is_vector = tensor.shape().rank() < 2;
    let dtype = if is_vector { Dtype::F32 } else { tensor.dtype };
    let name = slot.name_in(Naming::Gguf, dialect);
    Ok(Some(Outgoing { name, dtype, interleaved_heads, ..tensor }))
}

fn general(source: &Source, config: &Config, tensors: &[Outgoing]) -> Pairs {
    let text = |text: &str| ValueBuf::Str(text.to_owned());
    let mut pairs = vec![
        ("general.architecture".to_owned(), text(config.family.gguf_name())),
        ("general.type".to_owned(), text("model")),
        ("general.name".to_owned(), text(&model_name(source))),
    ];
    let matrix = tensors.iter().find(|tensor| tensor.shape().rank() > 1);
    if let Some(file_type) = matrix.and_then(|tensor| file_type(tensor.dtype)) {
        pairs.push(("general.file_type".to_owned(), ValueBuf::Unsigned(file_type)));
    }
    if tensors.iter().any(|tensor| tensor.dtype.is_quantized()) {
        // Version of the block layouts; 2 is the only one in use.
        pairs.push(("general.quantization_version".to_owned(), ValueBuf::Unsigned(2)));
    }
    pairs
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

fn hyper_parameters(config: &Config) -> Pairs {
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
    values.into_iter().map(|(key, value)| (format!("{architecture}.{key}"), value)).collect()
}

fn tokenizer_pairs(tokenizer: Tokenizer) -> Pairs {
    let mut pairs = Vec::new();
    let mut put = |key: &str, value| pairs.push((format!("tokenizer.{key}"), value));
    if let Some(bpe) = tokenizer.bpe {
        put("ggml.model", ValueBuf::Str("gpt2".to_owned()));
        put("ggml.pre", ValueBuf::Str(bpe.pre.to_owned()));
        put("ggml.tokens", ValueBuf::Array(ArrayBuf::strings(bpe.tokens)));
        put("ggml.token_type", ValueBuf::Array(ArrayBuf::i32s(bpe.types)));
        put("ggml.merges", ValueBuf::Array(ArrayBuf::strings(bpe.merges)));
    }
    let ids = [
        ("ggml.bos_token_id", tokenizer.bos),
        ("ggml.eos_token_id", tokenizer.eos),
        ("ggml.padding_token_id", tokenizer.pad),
        ("ggml.unknown_token_id", tokenizer.unk),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            put(key, ValueBuf::Unsigned(id));
        }
    }
    put("ggml.add_bos_token", ValueBuf::Bool(tokenizer.add_bos));
    if let Some(template) = tokenizer.chat_template {
        put("chat_template", ValueBuf::Str(template));
    }
    put("huggingface.json", ValueBuf::Str(tokenizer.json));
    pairs
}
