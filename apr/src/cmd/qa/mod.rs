//! `apr qa`: falsify a model gate by gate, report, exit with the verdict.

mod carried;
mod catalogue;
mod coverage;
mod list;
mod prove;
mod published;
pub(crate) mod reports;
mod select;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apr_engine::backend::Device;
use apr_harness::case::ModelRef;
use apr_harness::contract::load;
use apr_harness::contract::waiver::Waiver;
use apr_harness::event::{RunRecord, Sink};
use apr_harness::fault::library;
use apr_harness::isolate::{Isolation, Setup, serve};
use apr_harness::journal::Journal;
use apr_harness::judge::{BackendSpec, JudgeContext, Planned};
use apr_harness::nearest::did_you_mean;
use apr_harness::need::Needs;
use apr_harness::pipeline;
use apr_harness::proof;
use apr_harness::provenance::{self, Origin};
use apr_harness::runner::{self, RunOptions};
use apr_harness::suite::Expansion;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::{CatalogueFile, QaAction, QaArgs, QaOptions};
use crate::device;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::render::{Envelope, Terminal};

pub(crate) use catalogue::Root;
pub(crate) use coverage::CoverageOutput;
pub(crate) use list::ListOutput;
pub(crate) use prove::ProveOutput;

/// `qa`: the record of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QaOutput {
    #[serde(flatten)]
    record: RunRecord,
}

pub(crate) fn run(args: QaArgs, terminal: &Terminal, interrupt: &Interrupt) -> Result<u8, Failure> {
    match args.action {
        Some(QaAction::Schema { file }) => schema(file, terminal),
        Some(QaAction::List(args)) => list::run(&args, terminal),
        Some(QaAction::Coverage(args)) => coverage::run(&args, terminal),
        None if args.options.prove => prove::run(&args.options, terminal, interrupt),
        None => judge(&args.options, terminal, interrupt),
    }
}

fn schema(file: CatalogueFile, terminal: &Terminal) -> Result<u8, Failure> {
    terminal.value(&match file {
        CatalogueFile::Contract => apr_harness::contract::schema(),
        CatalogueFile::Suite => apr_harness::suite::schema(),
        CatalogueFile::Claims => apr_harness::coverage::claim::schema(),
    })?;
    Ok(0)
}

/// A plan, ready to run.
pub(crate) struct Plan {
    root: Root,
    suite: String,
    expansion: Expansion,
    waivers: Vec<Waiver>,
    work: tempfile::TempDir,
    published: Option<PathBuf>,
}

impl Plan {
    fn new(options: &QaOptions) -> Result<Self, Failure> {
        let root = Root::find(options.root.as_deref())?;
        let work = scratch()?;
        let published = published::folder(options.models.as_deref());
        let (suite, mut expansion) =
            catalogue::expand(&root, options, work.path(), published.as_deref())?;
        let ids = expansion.cases.iter().map(|case| case.info.id.clone()).collect();
        let waivers = waivers(options.waivers.as_deref())?;
        let catalogue = root.catalogue()?;
        select::waivers(&waivers, &catalogue, &ids)?;
        if let Some(text) = &options.filter {
            select::filter(text, &catalogue, &mut expansion.cases)?;
        }
        select::exactly(&options.case, &mut expansion.cases)?;
        select::require(&options.require, &mut expansion.cases)?;
        Ok(Self { root, suite, expansion, waivers, work, published })
    }

    /// The gates that speak of a stage of the pipeline, on one model and backend.
    pub(crate) fn of_stages(
        root: Option<&Path>,
        form: &ModelRef,
        backend: &BackendSpec,
    ) -> Result<Self, Failure> {
        let root = Root::find(root)?;
        let catalogue = root.catalogue()?;
        let expansion = pipeline::expansion(&catalogue, form, backend)
            .map_err(|error| Failure::usage(format_args!("contracts: {error}")))?;
        Ok(Self {
            root,
            suite: "check".to_owned(),
            expansion,
            waivers: Vec::new(),
            work: scratch()?,
            published: None,
        })
    }

    /// The cases of suite `name` on `form` and `backend`, with the model also as a GGUF file of the same blocks where it is none.
    pub(crate) fn beside_gguf(
        root: Root,
        name: &str,
        form: &ModelRef,
        backend: &BackendSpec,
    ) -> Result<Self, Failure> {
        let work = scratch()?;
        let expansion = catalogue::beside_gguf(&root, name, form, backend, work.path())?;
        Ok(Self {
            root,
            suite: name.to_owned(),
            expansion,
            waivers: Vec::new(),
            work,
            published: None,
        })
    }

    /// Leaves cases out.
    pub(crate) fn keep(&mut self, keep: impl FnOnce(&mut Vec<Planned>)) {
        keep(&mut self.expansion.cases);
    }

    pub(crate) fn cases(&self) -> &[Planned] {
        &self.expansion.cases
    }

    pub(crate) fn context(&self, seed: u64, plant: Option<&str>) -> Result<JudgeContext, Failure> {
        let mut ctx = context(self.root.fixtures(), self.work.path(), seed);
        ctx.published.clone_from(&self.published);
        ctx.builds = self.expansion.builds.clone();
        ctx.forms.clone_from(&self.expansion.forms);
        match plant {
            Some(id) => self.planted(&ctx, id),
            None => Ok(ctx),
        }
    }

    /// A run in which the fault `id` concerns no case would be green, and would say nothing of the fault.
    fn planted(&self, ctx: &JudgeContext, id: &str) -> Result<JudgeContext, Failure> {
        let fault = library::plantable(id).ok_or_else(|| {
            let faults = library::all();
            let meant = did_you_mean(id, faults.iter().map(|fault| fault.info.id));
            Failure::usage(format_args!("--plant: no fault is called {id}{meant}"))
        })?;
        let cases = self.cases().len();
        if cases > 0 && !self.cases().iter().any(|case| proof::takes(&fault, case, ctx)) {
            return Err(Failure::new(
                Exit::NothingRan,
                format_args!("--plant: {id} changes nothing that these {cases} cases look at"),
            ));
        }
        Ok(ctx.planted(fault.plant))
    }

    pub(crate) fn provenance(&self, seed: u64) -> Result<apr_harness::event::Provenance, Failure> {
        let mut models = BTreeMap::new();
        for form in &self.expansion.forms {
            if form.path.exists() {
                models.insert(format!("{}.{}", form.model, form.form), form.path.clone());
            }
        }
        let origin = Origin {
            apr_version: env!("CARGO_PKG_VERSION").to_owned(),
            binary: executable(),
            catalogue_sha256: self.expansion.catalogue_sha256.clone(),
            parameters: self.expansion.parameters.clone(),
            models,
            command: std::env::args().collect(),
            seed,
        };
        provenance::gather(&origin).map_err(|error| Failure::broken(format_args!("{error}")))
    }
}

/// The waivers in `file`.
fn waivers(file: Option<&Path>) -> Result<Vec<Waiver>, Failure> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let text = load::read(file).map_err(Failure::usage)?;
    load::load_waivers(&text, file).map_err(Failure::usage)
}

fn scratch() -> Result<tempfile::TempDir, Failure> {
    let made = tempfile::Builder::new().prefix("apr-qa-").tempdir();
    made.map_err(|error| Failure::broken(format_args!("no scratch directory: {error}")))
}

/// What every judge of this process shares.
fn context(fixtures: PathBuf, work: &Path, seed: u64) -> JudgeContext {
    let mut ctx = JudgeContext::new(fixtures, work.to_path_buf(), seed, needs());
    ctx.apr = executable();
    ctx
}

/// What this machine has, seen from the command line.
fn needs() -> Needs {
    let mut needs = Needs::probe();
    let cuda = Device::Cuda(0).unavailable();
    needs.set(
        "no-cuda",
        cuda.as_ref().map_or_else(|| Err("a device is there".into()), |why| Ok(why.why.clone())),
    );
    needs.set(
        "cuda",
        cuda.map_or_else(|| Ok("device 0".into()), |unavailable| Err(unavailable.why)),
    );
    needs.set(
        "apr",
        executable()
            .map(|path| path.display().to_string())
            .ok_or_else(|| "the running executable has no path".into()),
    );
    // The runner gives exclusive cases the machine alone as far as this process can.
    needs.set("exclusive", Ok("no other case of this run".into()));
    needs
}

fn executable() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

fn judge(options: &QaOptions, terminal: &Terminal, interrupt: &Interrupt) -> Result<u8, Failure> {
    let plan = Plan::new(options)?;
    let mut ctx = plan.context(options.seed, options.plant.as_deref())?;
    ctx.cache_type = device::cache_type(options.cache.cache_type);
    let mut run_options = RunOptions::new(plan.suite.clone(), plan.provenance(options.seed)?);
    run_options.jobs = options.jobs.unwrap_or_else(cores).max(1);
    run_options.fail_fast = options.fail_fast;
    run_options.limit = options.time_limit.map(Duration::from_secs);
    run_options.stop = interrupt.shared();
    run_options.isolation = isolation();
    run_options.notes =
        plan.expansion.unplaced.iter().map(|gate| format!("{gate} found no cell")).collect();
    run_options.waivers.clone_from(&plan.waivers);
    if let Some(text) = &options.shard {
        let shard = runner::parse_shard(text, plan.cases().len())
            .map_err(|error| Failure::usage(format_args!("--shard: {error}")))?;
        run_options.shard = Some(shard);
    }
    let folder = reports::folder(options)?;
    if let Some(folder) = &folder {
        run_options.journal = Some(journal(folder, options.resume)?);
        run_options.kill_matrix = reports::kill_matrix(folder, &plan.expansion.catalogue_sha256);
    } else if options.resume {
        return Err(Failure::usage("--resume needs a report folder"));
    }
    let mut sinks: Vec<Box<dyn Sink>> = vec![reports::terminal(terminal)];
    if let Some(folder) = &folder {
        reports::files(folder, &mut sinks)?;
    }
    let record = runner::run(plan.cases(), &ctx, &mut sinks, run_options);
    let exit = record.exit_code;
    if terminal.json {
        terminal.value(&Envelope::new("qa", "qa", QaOutput { record }))?;
    } else if let Some(folder) = &folder {
        terminal.notice(&format!("reports: {}", folder.display()))?;
    }
    if interrupt.requested() { Err(Failure::Interrupted) } else { Ok(exit) }
}

fn journal(folder: &Path, resume: bool) -> Result<Journal, Failure> {
    let path = folder.join("journal.jsonl");
    let journal = if resume { Journal::resume(&path) } else { Journal::create(&path) };
    journal.map_err(|error| Failure::file(&path, &error))
}

/// How workers are started: as this program, with the hidden subcommand that ends in [`worker`].
pub(crate) fn isolation() -> Option<Isolation> {
    executable().map(|program| Isolation { program, args: vec!["__worker".to_owned()] })
}

/// The worker's side of isolated cases.
pub(crate) fn worker() -> Result<u8, Failure> {
    let context = |setup: &Setup| {
        let mut ctx = context(setup.fixtures.clone(), &setup.work, setup.seed);
        ctx.published.clone_from(&setup.published);
        ctx.builds.clone_from(&setup.builds);
        ctx.cache_type = setup.cache_type.0;
        match &setup.plant {
            Some(id) => library::plantable(id)
                .map(|fault| ctx.planted(fault.plant))
                .ok_or_else(|| format!("no fault is called {id}")),
            None => Ok(ctx),
        }
    };
    let input = std::io::stdin().lock();
    Ok(serve(input, std::io::stdout(), std::io::stderr().lock(), context)?)
}

/// Cases at a time when nobody says otherwise.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
