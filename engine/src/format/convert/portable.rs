//! A model out of its container: everything a format has to say of it, in the words of Hugging Face.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::carried::{Carried, NAME, OwnedPair, UNSAID_ELSEWHERE, gains, widened};
use super::words::Words;
use crate::dtype::Dtype;
use crate::error::{Code, Error, Result};
use crate::format::write::{Outgoing, RowOrder};
use crate::format::{Container, Metadata, Source, Typed, Value, gguf, json};
use crate::model::conventions::whole_gain;
use crate::model::rope::{LongRope, RopeScaling};
use crate::model::{Bias, Config, Model, Naming, Role, RopeStyle, Slot};
use crate::tensor::Tensor;
use crate::text::{self, GgufVocab};

/// A tensor and the weight it is; `None` for what no slot takes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) slot: Option<Slot>,
    /// Under its Hugging Face name, rows in Hugging Face order, in the dtype it is stored in.
    pub(super) tensor: Outgoing,
}

/// A model, free of its container.
#[derive(Debug)]
pub(super) struct Portable<'m> {
    pub(super) model: &'m Model,
    /// What the model is called.
    pub(super) name: String,
    /// What `config.json` says.
    pub(super) declared: Map<String, Json>,
    /// Whether the embedding is the head.
    pub(super) tied: bool,
    /// All tensors, the head left out where the embedding is the head.
    pub(super) parts: Vec<Part>,
    pub(super) words: Option<Words>,
    pub(super) carried: Carried,
}

impl<'m> Portable<'m> {
    /// Takes `model` out of its container.
    ///
    /// # Errors
    /// [`Code::ConversionMismatch`] when what the file carries contradicts what it says, and those of the parsers.
    pub(super) fn new(model: &'m Model) -> Result<Self> {
        let containers = model.source().containers()?;
        let metadata = containers.first().map(|first| &first.metadata);
        match metadata.ok_or_else(|| Error::new(Code::NotAModel))? {
            Metadata::SafeTensors(pairs) => Self::from_safetensors(model, &containers, pairs),
            Metadata::Gguf(_) => Self::from_gguf(model, &containers),
            Metadata::Apr(map) => Self::from_apr(model, &containers, map),
        }
    }

    /// Hyper-parameters.
    pub(super) fn config(&self) -> &'m Config {
        self.model.config()
    }

    fn from_safetensors(
        model: &'m Model,
        containers: &[Container<'_>],
        pairs: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let sidecars = model.source().sidecars();
        let bytes = sidecars.config.as_deref().unwrap_or_default();
        let declared = json::object(bytes, Code::ConfigJson)?;
        let mut carried = Carried::from_sidecars(sidecars, pairs)?;
        // Shards have metadata of their own; no published one differs, and none means anything to a reader.
        let others = containers.iter().skip(1).filter_map(|container| match &container.metadata {
            Metadata::SafeTensors(pairs) => Some(pairs),
            Metadata::Gguf(_) | Metadata::Apr(_) => None,
        });
        for (key, text) in others.flatten() {
            carried.safetensors.entry(key.clone()).or_insert_with(|| text.clone());
        }
        let words = Words::read(sidecars, &declared, model.config().vocab)?;
        let strips = words.as_ref().is_some_and(|words| words.strips_right);
        let name = carried
            .name()
            .unwrap_or_else(|| text::telling_name(model_name(model.source()), strips));
        let (tied, parts) = (is_tied(model)?, parts(model, containers)?);
        Ok(Self { model, name, declared, tied, parts, words, carried })
    }

    fn from_gguf(model: &'m Model, containers: &[Container<'_>]) -> Result<Self> {
        let first = model.source().files().first().ok_or_else(|| Error::new(Code::NotAModel))?;
        let pairs = gguf::typed_pairs(first.bytes())?;
        let mut carried = Carried::default();
        let mut parts = parts(model, containers)?;
        let mut foreign = Vec::new();
        for (key, typed) in &pairs {
            let ours = match typed.value {
                Value::Str(text) => carried.take_gguf(key, text)?,
                _ => false,
            };
            let about_vectors = widened(key, typed)?.is_some() || gains(key, typed)?.is_some();
            if !ours && !about_vectors {
                foreign.push((*key, *typed));
            }
        }
        restore_vectors(&mut parts, model.config().family.gain_offset(), &pairs)?;
        let metadata = containers.first().map(|first| &first.metadata);
        let text = |key: &str| metadata.and_then(|metadata| metadata.gguf(key)?.as_str());
        let template = text("tokenizer.chat_template").map(str::to_owned);
        let words = metadata.map(|metadata| words(metadata, template)).transpose()?.flatten();
        let name = text("general.name").map(str::to_owned);
        let name = name.unwrap_or_else(|| model_name(model.source()));
        let mut declared = declared(model, &carried)?;
        declare_padding(&mut declared, &carried, words.as_ref());
        let tied = is_tied(model)?;
        let mut portable = Self { model, name, declared, tied, parts, words, carried };
        portable.check_tokenizer()?;
        portable.carried.gguf = portable.foreign_pairs(&foreign)?;
        Ok(portable)
    }

    /// The pairs that writing the model as GGUF again would not give by itself.
    fn foreign_pairs(&self, pairs: &[(&str, Typed<'_>)]) -> Result<Vec<OwnedPair>> {
        let own = super::gguf::pairs(self)?;
        let own: BTreeMap<&str, Value<'_>> =
            own.iter().map(|pair| (pair.key.as_str(), pair.value.value())).collect();
        let kept = pairs.iter().filter(|(key, typed)| {
            let is_said = !UNSAID_ELSEWHERE.contains(key) && own.get(key) == Some(&typed.value);
            !super::gguf::is_about_storage(key) && !is_said
        });
        Ok(kept
            .map(|(key, typed)| OwnedPair {
                key: (*key).to_owned(),
                id: typed.id,
                value: typed.value.into(),
            })
            .collect())
    }

    fn from_apr(
        model: &'m Model,
        containers: &[Container<'_>],
        map: &Map<String, Json>,
    ) -> Result<Self> {
        let mut carried = Carried::default();
        let mut foreign = Vec::new();
        for (key, value) in map {
            if !carried.take_apr(key, value)? {
                foreign.push((key, value));
            }
        }
        let sidecars = model.source().sidecars();
        let mut declared = declared(model, &carried)?;
        let template = model.chat_template()?.map(|template| template.source().to_owned());
        let metadata = containers.first().map(|first| &first.metadata);
        let own = metadata.map(|metadata| words(metadata, template.clone())).transpose()?.flatten();
        // A vocabulary of an unknown kind says less than a tokenizer.json.
        let vocab = own.as_ref().and_then(|words| words.vocab(""));
        let is_known = vocab.is_some_and(|vocab| vocab.to_tokenizer_json().is_ok());
        // Nor is a file that lies beside the model read where that has a known one.
        if let (None, Some(bytes)) = (&carried.tokenizer_json, &sidecars.tokenizer_json)
            && !is_known
        {
            carried.tokenizer_json = Some(String::from_utf8_lossy(bytes).into_owned());
        }
        let words = match &carried.tokenizer_json {
            Some(text) if !is_known => words_of_json(text, sidecars, &declared, model, template)?,
            _ => own,
        };
        declare_padding(&mut declared, &carried, words.as_ref());
        let name = map.get("name").and_then(Json::as_str).filter(|name| !name.is_empty());
        let name = name.map_or_else(|| model_name(model.source()), str::to_owned);
        let (tied, parts) = (is_tied(model)?, parts(model, containers)?);
        let mut portable = Self { model, name, declared, tied, parts, words, carried };
        portable.check_tokenizer()?;
        let own = super::apr::metadata(&portable)?;
        let kept = foreign.into_iter().filter(|(key, value)| {
            let is_said = *key != NAME && own.get(*key) == Some(*value);
            !super::apr::is_about_storage(key) && !value.is_null() && !is_said
        });
        portable.carried.apr = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(portable)
    }

    /// Refuses a carried `tokenizer.json` that is not the tokenizer of the file's own words.
    fn check_tokenizer(&self) -> Result<()> {
        let (Some(text), Some(words)) = (&self.carried.tokenizer_json, &self.words) else {
            return Ok(());
        };
        let Some(vocabulary) = &words.vocabulary else { return Ok(()) };
        let root = json::object(text.as_bytes(), Code::TokenizerInvalid)?;
        let entries = root.get("model").and_then(|model| model.get("vocab")?.as_object());
        let entries = entries.into_iter().flatten();
        let wrong =
            entries.filter_map(|(token, id)| Some((token, id.as_u64()?))).find(|(token, id)| {
                let place = usize::try_from(*id).ok().and_then(|id| vocabulary.tokens.get(id));
                place != Some(*token)
            });
        match wrong {
            None => Ok(()),
            Some((token, id)) => Err(Error::new(Code::ConversionMismatch)
                .field(super::carried::TOKENIZER_JSON)
                .expected(format_args!("the file's own token {id}"))
                .found(token)
                .hint(
                    "one of the two vocabularies was changed; remove the embedded tokenizer.json",
                )),
        }
    }

    /// What `generation_config.json` says; made up where the model ends at more tokens than its tokenizer names.
    pub(super) fn generation_config(&self) -> Option<String> {
        if let Some(text) = self.carried.files.get("generation_config.json") {
            return Some(text.clone());
        }
        let (bos, eos) = (self.model.generation().bos, &self.model.generation().eos);
        let named = self.words.as_ref().and_then(|words| words.eos);
        let is_named = eos.iter().all(|id| Some(u64::from(*id)) == named);
        if is_named {
            return None;
        }
        Some(json!({ "bos_token_id": bos, "eos_token_id": eos }).to_string())
    }
}

/// Whether the embedding is the head, a copy of it that an APR file calls one included.
pub(super) fn is_tied(model: &Model) -> Result<bool> {
    if model.weights().tied() {
        return Ok(true);
    }
    let containers = model.source().containers()?;
    let metadata = containers.first().map(|first| &first.metadata);
    let declared = metadata.and_then(|metadata| metadata.apr("tied_embeddings")?.as_bool());
    let view = |role: Role| {
        model.weights().get(Slot::model(role)).map(|entry| entry.tensor.view()).transpose()
    };
    let (embed, head) = (view(Role::Embed)?, view(Role::Head)?);
    Ok(declared == Some(true) && embed.is_some() && embed == head)
}

/// The name a model goes by: that of its directory, or of its file without the extension.
fn model_name(source: &Source) -> String {
    let path = source.path();
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The vocabulary in metadata; `None` when there is none.
fn words(metadata: &Metadata<'_>, chat_template: Option<String>) -> Result<Option<Words>> {
    match GgufVocab::from_metadata(metadata) {
        Ok(vocab) => Ok(Some(Words::from_vocab(&vocab, chat_template))),
        Err(error) if error.code() == Code::TokenizerMissing => Ok(None),
        Err(error) => Err(error),
    }
}

fn words_of_json(
    text: &str,
    sidecars: &crate::format::Sidecars,
    declared: &Map<String, Json>,
    model: &Model,
    chat_template: Option<String>,
) -> Result<Option<Words>> {
    let beside = crate::format::Sidecars {
        tokenizer_json: Some(text.as_bytes().to_vec()),
        tokenizer_config: sidecars.tokenizer_config.clone(),
        ..crate::format::Sidecars::default()
    };
    let words = Words::read(&beside, declared, model.config().vocab)?;
    Ok(words.map(|words| Words { chat_template: words.chat_template.or(chat_template), ..words }))
}

/// The `config.json` of a model that came without one, or the one it carries, if that is still true.
fn declared(model: &Model, carried: &Carried) -> Result<Map<String, Json>> {
    if let Some(text) = carried.files.get("config.json") {
        let declared = json::object(text.as_bytes(), Code::ConfigJson)?;
        let config = Config::from_hugging_face(&declared)?;
        return match config.disagreement(model.config()) {
            None => Ok(declared),
            Some((field, carried, found)) => Err(Error::new(Code::ConversionMismatch)
                .field(field)
                .expected(format_args!("{carried}, as the carried config.json says"))
                .found(found)
                .hint("the metadata was changed since; remove huggingface.config.json from it")),
        };
    }
    let mut config = model.config().clone();
    config.rope.scaling = scaling(model)?;
    let present = |role: Role| model.weights().iter().any(|(slot, _)| slot.role == role);
    let biased = present(Role::QBias) || present(Role::OBias);
    config.qkv_bias = Bias::IfPresent;
    Ok(config.to_hugging_face(is_tied(model)?, biased))
}

/// Says in a made configuration which token fills up: readers take the family's usual one where nothing is said, which this
/// vocabulary need not have.
fn declare_padding(declared: &mut Map<String, Json>, carried: &Carried, words: Option<&Words>) {
    if !carried.files.contains_key("config.json") {
        let pad = words.and_then(|words| words.pad);
        declared.insert("pad_token_id".to_owned(), json!(pad));
    }
}

/// The scaling that the file states, or that its divisors of frequencies come from.
fn scaling(model: &Model) -> Result<RopeScaling> {
    let rope = &model.config().rope;
    let divisors = |role: Role| -> Result<Option<Vec<f32>>> {
        let entry = model.weights().get(Slot::model(role));
        entry.map(|entry| entry.tensor.view()?.dequantize()).transpose()
    };
    if let RopeScaling::Long(long) = &rope.scaling {
        let stored = divisors(Role::RopeFactorsShort)?.zip(divisors(Role::RopeFactorsLong)?);
        let factors = long.factors.clone().or(stored);
        return Ok(RopeScaling::Long(LongRope { factors, ..long.clone() }));
    }
    let Some(divisors) = divisors(Role::RopeFactors)? else { return Ok(rope.scaling.clone()) };
    RopeScaling::from_divisors(rope, &divisors).ok_or_else(|| {
        Error::new(Code::RopeScaling)
            .tensor(Slot::model(Role::RopeFactors).name(Naming::Gguf))
            .expected("divisors of a published scaling, which config.json can name")
            .found("others")
    })
}

/// All tensors of all shards under Hugging Face names, the ones left out that another says already.
fn parts(model: &Model, containers: &[Container<'_>]) -> Result<Vec<Part>> {
    let (config, tied) = (model.config(), is_tied(model)?);
    let mut parts = Vec::new();
    for (shard, container) in containers.iter().enumerate() {
        for entry in &container.tensors {
            let tensor = model.source().tensor(shard, entry)?;
            let dialect = config.family.dialect();
            let parsed = Slot::parse_in(&entry.name, dialect);
            let slot = parsed.map(|(slot, _)| slot);
            let role = slot.map(|slot| slot.role);
            // A head that is the embedding is said otherwise, and divisors of frequencies are written again from the
            // hyper-parameters, where a format wants them.
            let divisors = [Role::RopeFactors, Role::RopeFactorsShort, Role::RopeFactorsLong];
            if (tied && role == Some(Role::Head)) || role.is_some_and(|r| divisors.contains(&r)) {
                continue;
            }
            let name = match parsed {
                Some((slot, Naming::Gguf)) => slot.name_in(Naming::HuggingFace, dialect),
                _ => entry.name.clone().into_owned(),
            };
            // Hugging Face stores gains less what the family adds to them.
            let tensor = if role.is_some_and(Role::is_gain) {
                whole_gain(&tensor, config.gain_offset - config.family.gain_offset())?
            } else {
                tensor
            };
            let order = match (config.rope.style, slot) {
                (RopeStyle::Adjacent, Some(slot)) => halved(slot, config),
                _ => RowOrder::Stored,
            };
            let tensor = Outgoing { order, finite: true, ..Outgoing::unchanged(name, tensor) };
            parts.push(Part { slot, tensor });
        }
    }
    check_names(&parts)?;
    Ok(parts)
}

fn halved(slot: Slot, config: &Config) -> RowOrder {
    match rotated_heads(slot, config) {
        Some(heads) => RowOrder::Halved { heads },
        None => RowOrder::Stored,
    }
}

/// The heads of a weight whose rows are rotated in pairs.
pub(super) fn rotated_heads(slot: Slot, config: &Config) -> Option<usize> {
    match slot.role {
        Role::Q | Role::QBias => Some(config.heads),
        Role::K | Role::KBias => Some(config.kv_heads),
        _ => None,
    }
}

fn check_names(parts: &[Part]) -> Result<()> {
    let mut names = BTreeSet::new();
    match parts.iter().find(|part| !names.insert(&part.tensor.name)) {
        None => Ok(()),
        Some(part) => Err(Error::new(Code::WeightUnexpected)
            .tensor(&part.tensor.name)
            .expected("one tensor of this name")
            .found("two")),
    }
}

/// Gives vectors the values and the dtype back that they had before GGUF demanded others, where that is still true.
fn restore_vectors(parts: &mut [Part], offset: f32, pairs: &[(&str, Typed<'_>)]) -> Result<()> {
    for (key, typed) in pairs {
        let Some((name, stored)) = gains(key, typed)? else { continue };
        let Some(part) = parts.iter_mut().find(|part| part.tensor.name == name) else { continue };
        let whole = part.tensor.tensor.view()?.dequantize()?;
        // What the part holds is the whole gain less the offset, rounded.
        let is_that =
            |(now, then): (&f32, &f32)| now.to_bits() == (then + offset - offset).to_bits();
        let is_true = whole.len() == stored.len() && whole.iter().zip(&stored).all(is_that);
        if is_true {
            part.tensor.tensor = Tensor::from_f32(part.tensor.shape(), &stored)?;
        }
    }
    for (key, typed) in pairs {
        if let Some((dtype, names)) = widened(key, typed)? {
            narrow(parts, dtype, &names)?;
        }
    }
    Ok(())
}

/// Gives tensors the dtype back that they were widened from, as long as that still loses nothing.
fn narrow(parts: &mut [Part], dtype: Dtype, names: &[&str]) -> Result<()> {
    for name in names {
        let part = parts.iter_mut().find(|part| part.tensor.name == *name);
        let Some(part) = part.filter(|part| part.tensor.dtype == Dtype::F32) else { continue };
        let view = part.tensor.tensor.view()?;
        let values = view.dequantize()?;
        let narrowed = crate::quant::quantize(dtype, view.cols(), &values)?;
        let mut again = vec![0.0; values.len()];
        crate::quant::dequantize_row(dtype, &narrowed, &mut again)?;
        if again.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()) {
            part.tensor.dtype = dtype;
        }
    }
    Ok(())
}
