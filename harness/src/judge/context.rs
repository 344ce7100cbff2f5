//! What a judge may touch, and the one place for each touch where a planted fault is interposed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apr_engine::Code;
use apr_engine::backend::simd::Isa;
use apr_engine::backend::{Arithmetic, CacheType, Device, Scalar};
use apr_engine::format::Source;
use apr_engine::generate::{Event, GenerateOptions, Generation, generate};
use apr_engine::model::{LmOptions, Model};
use apr_engine::text::{PreparedTokens, Tokenizer};

use super::Planned;
use super::memory::Memory;
use crate::case::{Cell, ModelRef};
use crate::compare::Tally;
use crate::contract::check::CacheTypeName;
use crate::fault::{HarnessFault, Plant};
use crate::need::Needs;
use crate::subject::{Call, CommandOutput, Lm, run_call};
use crate::suite::Build;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Which backend a model runs on, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendSpec {
    /// `scalar`, `simd` or `cuda`.
    pub backend: String,
    /// A forced instruction set.
    pub isa: Option<String>,
    /// A forced number of threads.
    pub threads: Option<usize>,
    /// Whether this is the reference side of a comparison; planted engine faults leave it alone.
    pub reference: bool,
}

impl BackendSpec {
    /// The backend of a cell; the scalar one where the cell has none.
    pub fn of(cell: &Cell) -> Self {
        Self {
            backend: cell.backend.clone().unwrap_or_else(|| "scalar".into()),
            isa: cell.isa.clone(),
            threads: cell.threads,
            reference: false,
        }
    }

    /// The scalar backend as the reference.
    pub fn scalar() -> Self {
        Self { backend: "scalar".into(), isa: None, threads: None, reference: true }
    }
}

/// Everything the judges of one run share.
#[derive(Clone, Debug)]
pub struct JudgeContext {
    /// Directory of the carried fixtures.
    pub fixtures: PathBuf,
    /// Scratch directory of the run; judges and builds write below it and nowhere else.
    pub work: PathBuf,
    /// Directory of the published models; none, when there is no place for them.
    pub published: Option<PathBuf>,
    /// The `apr` executable, when there is one to call.
    pub apr: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
    /// What keys and values are cached as, where a gate does not say.
    pub cache_type: CacheType,
    /// Which machine needs are met.
    pub needs: Needs,
    /// Forms that are built on demand: path → recipe and path of the source form.
    pub builds: BTreeMap<PathBuf, (Build, PathBuf)>,
    /// Every judged form, for comparisons between forms.
    pub forms: Vec<ModelRef>,
    /// The planted fault, when a gate is being proved.
    pub plant: Option<Arc<dyn Plant>>,
    pub(super) memory: Arc<Mutex<Memory>>,
    shared: Arc<Mutex<Shared>>,
}

/// What is kept between cases.
#[derive(Debug, Default)]
struct Shared {
    /// (plant id, path) → path of the form as judges see it.
    materialised: BTreeMap<(String, PathBuf), PathBuf>,
    /// Path of a materialised form → the loaded model.
    models: BTreeMap<PathBuf, Arc<Model>>,
}

/// Largest number of models that are kept loaded; weights are mapped, so this bounds addresses more than memory.
const MODELS_KEPT: usize = 16;

/// Why a judge could not look: skipped, broken, or falsified on the way to the look.
pub type Look<T> = Result<T, Box<Verdict>>;

impl JudgeContext {
    /// A context without executable, builds or plant.
    pub fn new(fixtures: PathBuf, work: PathBuf, seed: u64, needs: Needs) -> Self {
        Self {
            fixtures,
            work,
            published: None,
            apr: None,
            seed,
            cache_type: CacheType::default(),
            needs,
            builds: BTreeMap::new(),
            forms: Vec::new(),
            plant: None,
            memory: Arc::default(),
            shared: Arc::default(),
        }
    }

    /// How models are set up where a gate does not say.
    pub fn options(&self) -> LmOptions {
        LmOptions { cache_type: self.cache_type, ..LmOptions::default() }
    }

    /// The same with the cache that a gate asks for, if it does.
    pub(super) fn options_with(&self, cache_type: Option<CacheTypeName>) -> LmOptions {
        let cache_type = cache_type.map_or(self.cache_type, |name| name.0);
        LmOptions { cache_type, ..self.options() }
    }

    /// The same context with `plant` interposed.
    #[must_use]
    pub fn planted(&self, plant: Arc<dyn Plant>) -> Self {
        Self { plant: Some(plant), ..self.clone() }
    }

    /// The model form of a case.
    ///
    /// # Errors
    /// A skip, when the case has none.
    pub fn form<'a>(&self, case: &'a Planned) -> Look<&'a ModelRef> {
        case.info
            .cell
            .model
            .as_ref()
            .ok_or_else(|| Box::new(Verdict::skipped("model", "the cell has no model")))
    }

    /// The form `other` of the model of `form`.
    ///
    /// # Errors
    /// A skip, when the suite has no such form.
    pub fn sibling(&self, form: &ModelRef, other: &str) -> Look<ModelRef> {
        let found = self.forms.iter().find(|one| one.model == form.model && one.form == other);
        found.cloned().ok_or_else(|| {
            let why = format!("the suite has no form {other} of {}", form.model);
            Box::new(Verdict::skipped("model", why))
        })
    }

    /// The model of `form` as it really is, without any planted fault: the reference side of a comparison.
    ///
    /// # Errors
    /// As [`JudgeContext::model`].
    pub fn reference_model(&self, form: &ModelRef) -> Look<Arc<Model>> {
        self.unplanted().model(form)
    }

    /// The same context without any planted fault.
    #[must_use]
    pub fn unplanted(&self) -> Self {
        Self { plant: None, ..self.clone() }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the file or directory that the weights of `form` came from without being rounded again.
    pub(super) fn weights_of(&self, form: &ModelRef) -> String {
        let mut path = &form.path;
        while let Some((Build { dtype: None, .. }, source)) = self.builds.get(path) {
            path = source;
        }
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// An empty tally, with a planted defect of the harness in it if there is one.
    pub fn tally(&self) -> Tally {
        Tally::with_fault(self.plant.as_ref().and_then(|plant| plant.harness()))
    }

    /// The defect of the harness that is planted, if any.
    pub fn harness_fault(&self) -> Option<HarnessFault> {
        self.plant.as_ref().and_then(|plant| plant.harness())
    }

    /// Where `form` lies, built if need be, with a planted file fault already in it.
    ///
    /// # Errors
    /// A skip, when it comes from a published model that is not on this machine; broken, when the form does not exist or
    /// cannot be built or copied.
    pub fn path(&self, form: &ModelRef) -> Look<PathBuf> {
        let plant = self.plant.as_ref().map(|plant| plant.id().to_owned()).unwrap_or_default();
        let key = (plant, form.path.clone());
        let mut shared = self.shared();
        if let Some(path) = shared.materialised.get(&key) {
            return Ok(path.clone());
        }
        self.published_is_here(form)?;
        let path = self.materialise(form).map_err(|error| {
            Box::new(Verdict::broken(format!("{}.{}: {error}", form.model, form.form)))
        })?;
        shared.materialised.insert(key, path.clone());
        Ok(path)
    }

    fn materialise(&self, form: &ModelRef) -> std::io::Result<PathBuf> {
        self.build_chain(&form.path)?;
        std::fs::metadata(&form.path).map_err(|error| {
            std::io::Error::new(error.kind(), format!("{}: {error}", form.path.display()))
        })?;
        match &self.plant {
            Some(plant) => self.mutated(form, plant.as_ref()),
            None => Ok(form.path.clone()),
        }
    }

    /// Plants a file fault in what the program itself wrote into `directory` from `form`.
    ///
    /// # Errors
    /// Broken, when the files cannot be read or written.
    pub(super) fn damage(&self, form: &ModelRef, directory: &Path) -> Look<()> {
        let Some(plant) = &self.plant else { return Ok(()) };
        let damaged = || -> std::io::Result<()> {
            for file in files_in(directory)? {
                let name = file.file_name().map(PathBuf::from).unwrap_or_default();
                if let Some(bytes) = plant.mutate_file(form, &name, &std::fs::read(&file)?) {
                    std::fs::write(&file, bytes)?;
                }
            }
            Ok(())
        };
        damaged()
            .map_err(|error| Box::new(Verdict::broken(format!("{}: {error}", directory.display()))))
    }

    /// A copy of `form` with the plant's changes; the form itself when the plant changes nothing.
    fn mutated(&self, form: &ModelRef, plant: &dyn Plant) -> std::io::Result<PathBuf> {
        let directory = form.path.is_dir();
        let files = if directory { files_in(&form.path)? } else { vec![form.path.clone()] };
        let mut changed = BTreeMap::new();
        for file in &files {
            let name = file.file_name().map(PathBuf::from).unwrap_or_default();
            if let Some(bytes) = plant.mutate_file(form, &name, &std::fs::read(file)?) {
                changed.insert(name, bytes);
            }
        }
        if changed.is_empty() {
            return Ok(form.path.clone());
        }
        let target = self
            .work
            .join("planted")
            .join(plant.id().replace('/', "-"))
            .join(format!("{}-{}", form.model, form.form));
        std::fs::create_dir_all(&target)?;
        // A single file may have side files next to it: they come along.
        let beside = match form.path.parent() {
            Some(parent) if !directory => files_in(parent)?
                .into_iter()
                .filter(|file| file.extension().is_some_and(|end| end == "json" || end == "jinja"))
                .collect(),
            _ => Vec::new(),
        };
        for file in files.iter().chain(&beside) {
            let name = file.file_name().map(PathBuf::from).unwrap_or_default();
            match changed.get(&name) {
                Some(bytes) => std::fs::write(target.join(&name), bytes)?,
                None => std::fs::copy(file, target.join(&name)).map(drop)?,
            }
        }
        match (directory, form.path.file_name()) {
            (false, Some(name)) => Ok(target.join(name)),
            _ => Ok(target),
        }
    }

    /// The opened files of `form`.
    ///
    /// # Errors
    /// Falsified, when the files cannot be opened as a model; as [`JudgeContext::path`].
    pub fn source(&self, form: &ModelRef) -> Look<Source> {
        let path = self.path(form)?;
        Source::open(&path).map_err(|error| refused("the files cannot be opened", &error))
    }

    /// The loaded model of `form`.
    ///
    /// # Errors
    /// Falsified, when it does not load; as [`JudgeContext::path`].
    pub fn model(&self, form: &ModelRef) -> Look<Arc<Model>> {
        let path = self.path(form)?;
        let mut shared = self.shared();
        if let Some(model) = shared.models.get(&path) {
            return Ok(Arc::clone(model));
        }
        let model =
            Model::load(&path).map_err(|error| refused("the model does not load", &error))?;
        let model = Arc::new(model);
        if shared.models.len() >= MODELS_KEPT {
            shared.models.pop_first();
        }
        shared.models.insert(path, Arc::clone(&model));
        Ok(model)
    }

    /// A model on a backend, with an empty cache. A planted engine fault sits inside, unless `spec` is the reference.
    ///
    /// # Errors
    /// A skip, when the device or instruction set is missing; falsified, when the backend refuses the model.
    pub fn lm(&self, model: &Model, spec: &BackendSpec, options: LmOptions) -> Look<Box<dyn Lm>> {
        let planted = match &self.plant {
            Some(plant) if !spec.reference => plant.lm(model, spec, options),
            _ => None,
        };
        let device = || device(spec).and_then(|device| model.lm_on(&device, options));
        planted.unwrap_or_else(device).map_err(|error| match error.code() {
            Code::DeviceUnavailable => {
                Box::new(Verdict::skipped(spec.backend.clone(), error.to_string()))
            }
            Code::IsaUnavailable => {
                let isa = spec.isa.clone().unwrap_or_else(|| spec.backend.clone());
                Box::new(Verdict::skipped(isa, error.to_string()))
            }
            _ => refused("the backend refuses the model", &error),
        })
    }

    /// The oracle on `model`, rounding as `arithmetic` declares. Nothing is planted in it.
    ///
    /// # Errors
    /// Falsified, when the oracle refuses the model.
    pub fn oracle(
        &self,
        model: &Model,
        arithmetic: &Arithmetic,
        options: LmOptions,
    ) -> Look<Box<dyn Lm>> {
        match model.lm_with(Scalar::following(arithmetic), options) {
            Ok(lm) => Ok(Box::new(lm)),
            Err(error) => Err(refused("the oracle refuses the model", &error)),
        }
    }

    /// Generates as a user's call would, with a planted fault around it.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn generate(
        &self,
        lm: &mut dyn Lm,
        tokenizer: &Tokenizer,
        prompt: &PreparedTokens,
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> apr_engine::Result<Generation> {
        let Some(plant) = &self.plant else {
            return generate(lm, tokenizer, prompt, options, on_event);
        };
        let mut request = options.clone();
        plant.mutate_request(&mut request);
        let mut on_event = |event: Event<'_>| match event {
            Event::Token { id, text } => match plant.mutate_piece(text) {
                Some(text) => on_event(Event::Token { id, text: &text }),
                None => on_event(event),
            },
            event => on_event(event),
        };
        let mut result = generate(lm, tokenizer, prompt, &request, &mut on_event);
        plant.mutate_generation(&mut result);
        result
    }

    /// The bytes of a recorded fixture; `{model}`, `{form}` and `{stem}` in `name` are filled in.
    ///
    /// # Errors
    /// A skip with the need `need`, when there is none.
    pub fn fixture(&self, name: &Path, form: Option<&ModelRef>, need: &str) -> Look<Vec<u8>> {
        let text = filled(name, form);
        let path = self.fixtures.join(&text);
        let bytes = std::fs::read(&path).map_err(|error| {
            Box::new(Verdict::skipped(need, format!("{}: {error}", path.display())))
        })?;
        let planted =
            self.plant.as_ref().and_then(|plant| plant.mutate_fixture(Path::new(&text), &bytes));
        Ok(planted.unwrap_or(bytes))
    }

    /// What a parser reads of `given`, a damaged copy of `whole`: all of it, unless a fault is planted.
    pub(super) fn reading<'a>(&self, whole: &[u8], given: &'a [u8]) -> Cow<'a, [u8]> {
        let planted = self.plant.as_ref().and_then(|plant| plant.mutate_reading(whole, given));
        planted.map_or(Cow::Borrowed(given), Cow::Owned)
    }

    /// Makes a call of the `apr` executable.
    ///
    /// # Errors
    /// A skip without an executable; broken when it cannot be started.
    pub fn run_apr(&self, mut call: Call) -> Look<CommandOutput> {
        let apr = self
            .apr
            .as_ref()
            .ok_or_else(|| Box::new(Verdict::skipped("apr", "no executable to call")))?;
        if let Some(plant) = &self.plant {
            plant.mutate_call(&mut call);
        }
        let mut output = run_call(apr, &call)
            .map_err(|error| Box::new(Verdict::broken(format!("{}: {error}", apr.display()))))?;
        if let Some(plant) = &self.plant {
            plant.mutate_output(&mut output);
        }
        Ok(output)
    }

    /// A scratch directory for `case`, empty and its own.
    ///
    /// # Errors
    /// Broken, when it cannot be made.
    pub fn scratch(&self, case: &Planned) -> Look<PathBuf> {
        let name: String = case
            .info
            .id
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect();
        let plant = self.plant.as_ref().map_or("plain", |plant| plant.id()).replace('/', "-");
        let path = self.work.join("cases").join(plant).join(name);
        let made = match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir_all(&path),
        };
        made.map_err(|error| Box::new(Verdict::broken(format!("{}: {error}", path.display()))))?;
        Ok(path)
    }
}

/// The device of a spec.
fn device(spec: &BackendSpec) -> apr_engine::Result<Device> {
    let unknown = |code, expected: &str, found: &str| {
        Err(apr_engine::Error::new(code).expected(expected).found(found))
    };
    match (spec.backend.as_str(), spec.isa.as_deref()) {
        ("simd", None) => Ok(Device::Simd { isa: None, threads: spec.threads }),
        ("simd", Some(name)) => match Isa::from_name(name) {
            Some(isa) => Ok(Device::Simd { isa: Some(isa), threads: spec.threads }),
            None => unknown(Code::IsaUnavailable, "an instruction set of the engine", name),
        },
        ("scalar" | "cuda", Some(isa)) => {
            unknown(Code::IsaUnavailable, "a backend with instruction sets", isa)
        }
        (name, None) => match Device::from_name(name) {
            Some(device) => Ok(device),
            None => unknown(Code::DeviceUnavailable, "scalar, simd or cuda", name),
        },
        (name, Some(_)) => unknown(Code::DeviceUnavailable, "scalar, simd or cuda", name),
    }
}

/// The name of a fixture with its placeholders filled in.
pub(super) fn filled(name: &Path, form: Option<&ModelRef>) -> String {
    let text = name.to_string_lossy().into_owned();
    let Some(form) = form else { return text };
    let stem = form.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    text.replace("{model}", &form.model)
        .replace("{form}", &form.form)
        .replace("{stem}", &stem.unwrap_or_default())
}

/// An engine error as a counterexample.
pub(super) fn refused(what: &str, error: &apr_engine::Error) -> Box<Verdict> {
    let evidence = Evidence::new(1, format!("{what}: {error}")).measure(Measure::judged(
        "errors",
        1.0,
        Limit::Exactly(0.0),
    ));
    Box::new(evidence.verdict())
}

/// The regular files of a directory, sorted.
fn files_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
