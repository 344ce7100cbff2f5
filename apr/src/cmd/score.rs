//! `apr score`: the format score and the combined score of a model, each point with its evidence.

use std::time::Instant;

use apr_engine::format::Source;
use apr_engine::model::Model;
use apr_harness::case::ModelRef;
use apr_harness::event::Sink;
use apr_harness::judge::{BackendSpec, JudgeContext};
use apr_harness::report::sheet;
use apr_harness::runner::{self, RunOptions};
use apr_harness::sheet::brick::{self, BrickScore};
use apr_harness::sheet::tally::{self, Score};
use apr_harness::sheet::{self as sheets, Sheet};
use schemars::JsonSchema;
use serde::Serialize;

use super::qa::{self, Plan, Root, reports};
use crate::cli::ScoreArgs;
use crate::device;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::render::{Envelope, Terminal};

/// The sheet and the suite of this command.
const NAMES: [&str; 2] = ["apr", "score"];

/// `score`: points, grade and evidence.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ScoreOutput {
    /// The model as it was named.
    path: String,
    /// Its format.
    format: String,
    /// `scalar`, `simd` or `cuda`.
    backend: String,
    #[serde(flatten)]
    score: Score,
    /// Exit code of the process.
    exit_code: u8,
}

pub(crate) fn run(
    args: &ScoreArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let backend = device::spec(&device::choose(&args.device)?);
    let path = std::path::absolute(&args.model.model).unwrap_or_else(|_| args.model.model.clone());
    let format = Source::open(&path)?.format().name();
    let form = ModelRef { model: "model".to_owned(), form: format.to_owned(), path };
    let root = Root::find(args.catalogue.root.as_deref())?;
    let [sheet, suite] = NAMES;
    let sheet = root.sheet(sheet)?;
    let asked = sheets::asked(&sheet, &root.coverage(&root.catalogue()?)?)
        .map_err(|message| Failure::usage(format_args!("sheets: {message}")))?;
    let mut plan = Plan::beside_gguf(root, suite, &form, &backend)?;
    plan.keep(|cases| sheets::keep(cases, &asked, format));
    let mut ctx = plan.context(args.catalogue.seed, args.plant.as_deref())?;
    ctx.cache_type = device::cache_type(args.cache.cache_type);
    let mut options = RunOptions::new(suite, plan.provenance(args.catalogue.seed)?);
    options.stop = interrupt.shared();
    options.isolation = qa::isolation();
    let record = runner::run(plan.cases(), &ctx, &mut Vec::<Box<dyn Sink>>::new(), options);
    if interrupt.requested() {
        return Err(Failure::Interrupted);
    }
    let bricks = bricks(&sheet, &ctx, &form, &backend)?;
    let score = tally::score(&sheet, &asked, &record.cases, bricks);
    let good = |least: u32| score.total.is_some_and(|total| total >= least);
    let exit = u8::from(args.check.is_some_and(|least| !good(least) || !score.refuted.is_empty()));
    if terminal.json {
        let output = ScoreOutput {
            path: args.model.model.display().to_string(),
            format: format.to_owned(),
            backend: backend.backend.clone(),
            score,
            exit_code: exit,
        };
        terminal.value(&Envelope::new("score", "score", output))?;
    } else {
        terminal.text(&sheet::render(&score, reports::style(terminal)))?;
    }
    Ok(exit)
}

/// Times the bricks of the model on `backend`, with what is planted. A model that cannot run has none, and the score says why.
#[expect(clippy::disallowed_methods, reason = "the command line owns the clock")]
fn bricks(
    sheet: &Sheet,
    ctx: &JudgeContext,
    form: &ModelRef,
    backend: &BackendSpec,
) -> Result<BrickScore, Failure> {
    let path = ctx.path(form).map_err(|verdict| Failure::broken(verdict.summary()))?;
    let model = match Model::load(&path) {
        Ok(model) => model,
        Err(error) => return Ok(BrickScore::none(error.to_string())),
    };
    let mut lm = match ctx.lm(&model, backend, ctx.options()) {
        Ok(lm) => lm,
        Err(verdict) => return Ok(BrickScore::none(verdict.summary())),
    };
    let start = Instant::now();
    let clock = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    match brick::time(&sheet.bricks, &mut *lm, &clock) {
        Ok(score) => Ok(score),
        Err(error) => Ok(BrickScore::none(error.to_string())),
    }
}
