//! A loaded model, independent of any backend.
//!
//! Loading means: parse, read the hyper-parameters, sort the tensors into slots and check all of it
//! against each other. Bytes of weights stay in the file mapping.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value as Json};

use super::config::Config;
use super::forward::{LmOptions, Transformer};
use super::generation::GenerationDefaults;
use super::lm::Lm;
use super::slots::{Naming, Role, Slot};
use super::weights::{NamedTensor, Weights};
use crate::backend::{Backend, Device};
use crate::error::{Code, Error, Result};
use crate::format::mmap::guard;
use crate::format::{Container, Format, Metadata, Note, Source, json};
use crate::text::{ChatTemplate, Tokenizer};

const HEX: [u8; 16] = *b"0123456789abcdef";

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    source: Source,
    config: Config,
    weights: Weights,
    generation: GenerationDefaults,
    notes: Vec<Note>,
    /// Built when first asked for: many uses of a model need no text.
    tokenizer: OnceLock<Result<Tokenizer>>,
    chat_template: OnceLock<Result<Option<ChatTemplate>>>,
}

impl Model {
    /// Loads the file or Hugging Face directory at `path`.
    ///
    /// # Errors
    /// Those of [`Source::open`] and [`Model::from_source`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_source(Source::open(path)?)
    }

    /// Loads an opened model.
    ///
    /// # Errors
    /// Those of the parsers, of [`Config`] and of [`Weights::collect`], with the file.
    pub fn from_source(source: Source) -> Result<Self> {
        let parts = Self::read(&source);
        // A header that reads as zeros because the file lost it is no broken header.
        guard::check()?;
        let parts = parts.map_err(|error| error.in_file(source.path()))?;
        let (config, weights, generation, notes) = parts;
        Ok(Self {
            source,
            config,
            weights,
            generation,
            notes,
            tokenizer: OnceLock::new(),
            chat_template: OnceLock::new(),
        })
    }

    fn read(source: &Source) -> Result<(Config, Weights, GenerationDefaults, Vec<Note>)> {
        let containers = source.containers()?;
        let config = read_config(source, &containers)?;
        let notes = containers.iter().flat_map(|container| container.notes.iter().cloned());
        let notes = notes.collect();
        let weights = Weights::collect(&config, named_tensors(source, &containers)?)?;
        let sidecar = source.sidecars().generation_config.as_deref();
        let metadata = containers.first().map(|container| &container.metadata);
        let generation = GenerationDefaults::read(&config, sidecar, metadata)?;
        Ok((config, weights, generation, notes))
    }

    /// Everything that loading `source` and its text parts would refuse, where [`Model::from_source`] stops at
    /// the first. A part that is absent (a tokenizer, a chat template) is no violation; parts that can only be
    /// read after a broken one are left out.
    pub fn violations(source: &Source) -> Vec<Error> {
        // Of a broken structure every break is told, not just the one that ends `containers`.
        let Ok(containers) = source.containers() else { return source.violations() };
        let mut errors = Vec::new();
        let mut tokenizer = read_tokenizer(source);
        match read_config(source, &containers) {
            Err(error) => errors.push(error),
            Ok(config) => {
                match named_tensors(source, &containers) {
                    Err(error) => errors.push(error),
                    Ok(tensors) => errors.extend(Weights::violations(&config, tensors)),
                }
                let sidecar = source.sidecars().generation_config.as_deref();
                let metadata = containers.first().map(|container| &container.metadata);
                let generation = GenerationDefaults::read(&config, sidecar, metadata);
                if let Ok(tokenizer) = &mut tokenizer {
                    errors.extend(check_vocabulary(tokenizer, config.vocab).err());
                    let ends = generation.iter().flat_map(|generation| &generation.eos).copied();
                    errors.extend(tokenizer.add_ends(ends).err());
                }
                errors.extend(generation.err());
            }
        }
        errors.extend(tokenizer.err().filter(|error| error.code() != Code::TokenizerMissing));
        errors.extend(read_chat_template(source).err());
        errors.into_iter().map(|error| error.in_file(source.path())).collect()
    }

    /// Hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Format of the weight files.
    pub fn format(&self) -> Format {
        self.source.format()
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The opened files.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// SHA-256 of the weight files, lower-case hexadecimal; reads all of them.
    pub fn sha256(&self) -> String {
        let digits =
            |byte: u8| [byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)]));
        self.source.sha256().into_iter().flat_map(digits).collect()
    }

    /// Weights by slot.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Token ids that end generation, and the one that begins it.
    pub fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    /// What is legal in the files but worth knowing.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The tokenizer, with the end tokens of the configuration.
    ///
    /// # Errors
    /// [`Code::TokenizerMissing`] and those of [`Tokenizer`]; the same ones at every call.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let built = self.tokenizer.get_or_init(|| {
            let mut tokenizer = read_tokenizer(&self.source)?;
            tokenizer.add_ends(self.generation.eos.iter().copied())?;
            tokenizer.pad_to(self.config.vocab);
            Ok(tokenizer)
        });
        built.as_ref().map_err(|error| error.clone().in_file(self.path()))
    }

    /// The chat template; `None` when the model has none.
    ///
    /// # Errors
    /// Those of [`ChatTemplate`]: a broken template is not the same as none.
    pub fn chat_template(&self) -> Result<Option<&ChatTemplate>> {
        match self.chat_template.get_or_init(|| read_chat_template(&self.source)) {
            Ok(template) => Ok(template.as_ref()),
            Err(error) => Err(error.clone().in_file(self.path())),
        }
    }

    /// Sets the model up on `device`.
    ///
    /// # Errors
    /// [`Code::DeviceUnavailable`], [`Code::IsaUnavailable`] and those of [`Transformer::new`].
    pub fn lm_on(&self, device: &Device, options: LmOptions) -> Result<Box<dyn Lm>> {
        device.set_up(self, options)
    }

    /// Sets the model up on `backend`.
    ///
    /// # Errors
    /// Those of [`Transformer::new`].
    pub fn lm_with<B: Backend>(&self, backend: B, options: LmOptions) -> Result<Transformer<B>> {
        Transformer::new(&self.config, &self.weights, backend, options)
    }
}

/// Handles on the tensors of all shards, in file order.
fn named_tensors(source: &Source, containers: &[Container<'_>]) -> Result<Vec<NamedTensor>> {
    let mut tensors = Vec::new();
    for (shard, container) in containers.iter().enumerate() {
        for entry in &container.tensors {
            let tensor = source.tensor(shard, entry)?;
            tensors.push(NamedTensor { name: entry.name.clone().into_owned(), tensor });
        }
    }
    Ok(tensors)
}

/// Reads the hyper-parameters from where the format keeps them.
fn read_config(source: &Source, containers: &[Container<'_>]) -> Result<Config> {
    let embedding_rows = embedding_rows(containers);
    match containers.first().map(|container| &container.metadata) {
        Some(metadata @ Metadata::Gguf(_)) => Config::from_gguf(metadata, embedding_rows),
        Some(Metadata::Apr(map)) => {
            Config::from_apr(map, has_gguf_names(containers), embedding_rows)
        }
        Some(Metadata::SafeTensors(_)) | None => {
            Config::from_hugging_face(&hugging_face_config(source)?)
        }
    }
}

fn hugging_face_config(source: &Source) -> Result<Map<String, Json>> {
    let bytes = source.sidecars().config.as_deref().ok_or_else(|| {
        Error::new(Code::ConfigMissing)
            .field("config.json")
            .expected("a config.json beside the weights")
            .found("none")
            .hint("SafeTensors files carry no hyper-parameters")
    })?;
    json::object(bytes, Code::ConfigJson).map_err(|error| {
        let directory =
            if source.path().is_dir() { Some(source.path()) } else { source.path().parent() };
        match directory {
            Some(directory) => error.in_file(&directory.join("config.json")),
            None => error,
        }
    })
}

/// Rows of the embedding, the only other place that knows the vocabulary size.
fn embedding_rows(containers: &[Container<'_>]) -> Option<usize> {
    let embed = Slot::model(Role::Embed);
    let mut entries = containers.iter().flat_map(|container| &container.tensors);
    entries
        .find(|entry| Slot::parse(&entry.name).is_some_and(|(slot, _)| slot == embed))
        .map(|entry| entry.view.rows())
}

fn has_gguf_names(containers: &[Container<'_>]) -> bool {
    let mut entries = containers.iter().flat_map(|container| &container.tensors);
    entries.any(|entry| {
        Slot::parse(&entry.name)
            .is_some_and(|(slot, naming)| slot.layer.is_some() && naming == Naming::Gguf)
    })
}

/// Files that carry a vocabulary are read first; beside an APR file without one, `tokenizer.json` serves.
fn read_tokenizer(source: &Source) -> Result<Tokenizer> {
    let sidecars = source.sidecars();
    let beside = sidecars
        .tokenizer_json
        .as_deref()
        .map(|json| Tokenizer::from_json(json, sidecars.tokenizer_config.as_deref()));
    let missing = || {
        Error::new(Code::TokenizerMissing)
            .expected("a tokenizer.json beside the weights")
            .found("none")
    };
    if source.format() == Format::SafeTensors {
        return beside.unwrap_or_else(|| Err(missing()));
    }
    let containers = source.containers()?;
    let first = containers.first().ok_or_else(missing)?;
    match (Tokenizer::from_metadata(&first.metadata), beside) {
        (Err(error), Some(beside)) if error.code() == Code::TokenizerMissing => beside,
        (own, _) => own,
    }
}

/// Refuses a token without a row of the embedding. Rows without a token are common: embeddings are padded to a round size.
fn check_vocabulary(tokenizer: &Tokenizer, rows: usize) -> Result<()> {
    match tokenizer.vocab_size() {
        tokens if tokens <= rows => Ok(()),
        tokens => Err(Error::new(Code::TokenId)
            .field("vocabulary")
            .expected(format_args!("at most {rows} tokens, one for each row of the embedding"))
            .found(format_args!("{tokens} tokens"))
            .hint("the tokenizer belongs to another model, or tokens were added without rows")),
    }
}

/// As for tokenizers, what the weight file carries comes first; of side files `chat_template.jinja`,
/// which newer exports write.
fn read_chat_template(source: &Source) -> Result<Option<ChatTemplate>> {
    if source.format() != Format::SafeTensors {
        let containers = source.containers()?;
        let first = containers.first().map(|first| ChatTemplate::from_metadata(&first.metadata));
        match first {
            Some(Err(error)) if error.code() == Code::TemplateMissing => {}
            Some(own) => return own.map(Some),
            None => {}
        }
    }
    let sidecars = source.sidecars();
    let beside = match (&sidecars.chat_template, &sidecars.tokenizer_config) {
        (Some(file), _) => {
            let text = std::str::from_utf8(file).map_err(|error| {
                Error::new(Code::TemplateSyntax)
                    .field("chat_template.jinja")
                    .expected("UTF-8")
                    .found(error)
            })?;
            ChatTemplate::new(text)
        }
        (None, Some(config)) => ChatTemplate::from_config(config),
        (None, None) => return Ok(None),
    };
    match beside {
        Err(error) if error.code() == Code::TemplateMissing => Ok(None),
        beside => beside.map(Some),
    }
}
