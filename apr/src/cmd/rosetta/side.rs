//! One side of a comparison: a model that was loaded, the device it runs on, and what is planted in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apr_engine::backend::{CacheType, Device};
use apr_engine::model::{Lm, LmOptions, Model};
use apr_engine::text::{ChatOptions, Message, PreparedTokens, prepare_chat, prepare_raw};
use apr_harness::case::ModelRef;
use apr_harness::fault::{Plant, library};
use apr_harness::judge::JudgeContext;
use apr_harness::need::Needs;
use apr_harness::rosetta::Side;

use crate::cli::rosetta::CompareArgs;
use crate::cli::{CacheTypeName, DeviceArgs};
use crate::device;
use crate::failure::Failure;

/// A model with everything that its start needs.
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) model: Model,
    device: Device,
    cache_type: CacheType,
    plant: Option<Arc<dyn Plant>>,
    /// Holds the files of a planted fault.
    _work: Option<tempfile::TempDir>,
}

impl Loaded {
    /// The source, as it is.
    pub(super) fn source(path: &Path, args: &CompareArgs) -> Result<Self, Failure> {
        let devices = &args.devices;
        let device = device::choose(&DeviceArgs {
            backend: devices.source_backend,
            threads: devices.source_threads,
            isa: devices.source_isa.clone(),
        })?;
        Self::new(path, device, cache_type(devices.source_cache_type, args), None)
    }

    /// The target, with what is planted in it.
    pub(super) fn target(
        path: &Path,
        args: &CompareArgs,
        plant: Option<Arc<dyn Plant>>,
    ) -> Result<Self, Failure> {
        let devices = &args.devices;
        let device = device::choose(&DeviceArgs {
            backend: devices.target_backend,
            threads: devices.target_threads,
            isa: devices.target_isa.clone(),
        })?;
        Self::new(path, device, cache_type(devices.target_cache_type, args), plant)
    }

    fn new(
        given: &Path,
        device: Device,
        cache_type: CacheType,
        plant: Option<Arc<dyn Plant>>,
    ) -> Result<Self, Failure> {
        let (path, work) = match &plant {
            Some(plant) => planted(given, plant)?,
            None => (given.to_path_buf(), None),
        };
        let model = Model::load(&path)?;
        let planted = plant.as_ref().map(|plant| format!(" with {}", plant.id()));
        let planted = planted.unwrap_or_default();
        let format = model.format().name();
        let name = format!("{} ({format}, {device}){planted}", given.display());
        Ok(Self { name, model, device, cache_type, plant, _work: work })
    }

    /// The model on its device, with an empty cache, of the type that was asked for, and what is planted.
    pub(super) fn start(&self, options: LmOptions) -> apr_engine::Result<Box<dyn Lm>> {
        let options = LmOptions { cache_type: self.cache_type, ..options };
        let spec = device::spec(&self.device);
        let planted = self.plant.as_ref().and_then(|plant| plant.lm(&self.model, &spec, options));
        planted.unwrap_or_else(|| self.model.lm_on(&self.device, options))
    }

    /// The side for a comparison.
    pub(super) fn side<'a>(
        &'a self,
        start: &'a dyn Fn() -> apr_engine::Result<Box<dyn Lm>>,
    ) -> Side<'a> {
        let exact = self.device == Device::Scalar;
        let (name, cache_type) = (self.name.clone(), self.cache_type);
        Side { name, model: &self.model, start, exact, cache_type }
    }

    /// The prompt as this side reads it.
    pub(super) fn prepare(&self, args: &CompareArgs) -> Result<PreparedTokens, Failure> {
        let tokenizer = self.model.tokenizer()?;
        if !args.chat {
            return Ok(prepare_raw(tokenizer, &args.prompt)?);
        }
        let template = self.model.chat_template()?.ok_or_else(|| {
            Failure::usage(format_args!("--chat: {} has no chat template", self.name))
        })?;
        let message = Message::new("user", args.prompt.as_str());
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        Ok(prepare_chat(tokenizer, template, &[message], &options)?)
    }

    /// The ids that this side makes of what was given.
    pub(super) fn ids(&self, args: &CompareArgs) -> Result<Vec<u32>, Failure> {
        let mut ids = match args.tokens.as_slice() {
            [] => self.prepare(args)?.ids().to_vec(),
            tokens => tokens.to_vec(),
        };
        ids.truncate(args.positions);
        Ok(ids)
    }
}

/// What keys and values of a side are cached as: values recorded elsewhere are of f32 arithmetic.
fn cache_type(asked: Option<CacheTypeName>, args: &CompareArgs) -> CacheType {
    let usual = if args.against_oracle.is_some() { CacheType::F32 } else { CacheType::default() };
    asked.map_or(usual, device::cache_type)
}

/// The fault that is to be planted.
pub(super) fn plant(args: &CompareArgs) -> Result<Option<Arc<dyn Plant>>, Failure> {
    let Some(id) = &args.plant else { return Ok(None) };
    let fault = library::by_id(id);
    let unknown = || Failure::usage(format_args!("--plant: no fault is called {id}"));
    Ok(Some(fault.ok_or_else(unknown)?.plant))
}

/// The files of a model with a planted fault in them, and the folder that holds them.
fn planted(
    path: &Path,
    plant: &Arc<dyn Plant>,
) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let work = tempfile::Builder::new()
        .prefix("apr-rosetta-")
        .tempdir()
        .map_err(|error| Failure::broken(format_args!("no scratch directory: {error}")))?;
    let ctx = JudgeContext::new(PathBuf::new(), work.path().into(), 0, Needs::default());
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let form = ModelRef { model: "target".to_owned(), form: "file".to_owned(), path };
    let path = ctx.planted(Arc::clone(plant)).path(&form);
    let path = path.map_err(|verdict| Failure::broken(verdict.summary()))?;
    Ok((path, Some(work)))
}
