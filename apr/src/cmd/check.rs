//! `apr check`: the ten stages of the pipeline on a real forward pass.

use apr_engine::model::Model;
use apr_harness::case::ModelRef;
use apr_harness::event::Sink;
use apr_harness::judge::JudgeContext;
use apr_harness::pipeline::{self, PipelineStage, StageReport, StageStatus};
use apr_harness::report::stages;
use apr_harness::runner::{self, RunOptions};
use apr_harness::verdict::{Measure, Verdict};
use schemars::JsonSchema;
use serde::Serialize;

use super::qa::{self, Plan, reports};
use crate::cli::CheckArgs;
use crate::device;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::render::{Envelope, Terminal};

/// `check`: what became of each stage.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CheckOutput {
    /// The model as it was named.
    path: String,
    /// `scalar`, `simd` or `cuda`.
    backend: String,
    /// Whether every stage passed and nothing is left unmeasured.
    ok: bool,
    /// Of the ten stages, those that passed.
    stages_passed: usize,
    /// The ten stages in the order of the pipeline, then the looks at the whole.
    stages: Vec<StageOutput>,
    /// Why the model could not be loaded, when it could not.
    error: Option<String>,
    /// Exit code of the process.
    exit_code: u8,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StageOutput {
    /// 1 to 10; absent for a look at the whole.
    number: Option<usize>,
    /// Name.
    name: String,
    /// The same for machines.
    stage: PipelineStage,
    /// What it does, in plain words.
    in_plain_words: String,
    /// What became of it.
    status: StageStatus,
    /// The figure that stands for it, with its limit; absent where nothing was measured.
    figure: Option<Measure>,
    /// Its gates.
    gates: Vec<GateOutput>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GateOutput {
    /// Gate.
    gate: String,
    /// What is claimed.
    claim: String,
    /// What was seen.
    verdict: Verdict,
}

pub(crate) fn run(
    args: &CheckArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let backend = device::spec(&device::choose(&args.device)?);
    let path = std::path::absolute(&args.model.model).unwrap_or_else(|_| args.model.model.clone());
    let form = ModelRef { model: "model".to_owned(), form: "file".to_owned(), path };
    let plan = Plan::of_stages(args.catalogue.root.as_deref(), &form, &backend)?;
    let mut ctx = plan.context(args.catalogue.seed, args.plant.as_deref())?;
    ctx.cache_type = device::cache_type(args.cache.cache_type);
    let describe = |reports: &[StageReport<'_>], error: Option<String>, exit: u8| CheckOutput {
        path: args.model.model.display().to_string(),
        backend: backend.backend.clone(),
        ok: exit == 0,
        stages_passed: passed(reports),
        stages: reports.iter().map(described).collect(),
        error,
        exit_code: exit,
    };
    if let Err(error) = loads(&ctx, &form)? {
        // A model that does not load has ten stages too: nobody could look at any of them.
        let reports = pipeline::sum_up(&[], &[]);
        let failure = Failure::from(error);
        let exit = failure.exit().into();
        show(&reports, describe(&reports, Some(failure.to_string()), exit), terminal)?;
        terminal.notice(&format!("apr: {failure}"))?;
        return Ok(exit);
    }
    let mut options = RunOptions::new("check", plan.provenance(args.catalogue.seed)?);
    options.stop = interrupt.shared();
    options.isolation = qa::isolation();
    let record = runner::run(plan.cases(), &ctx, &mut Vec::<Box<dyn Sink>>::new(), options);
    let reports = pipeline::sum_up(plan.cases(), &record.cases);
    show(&reports, describe(&reports, None, record.exit_code), terminal)?;
    if interrupt.requested() { Err(Failure::Interrupted) } else { Ok(record.exit_code) }
}

/// Whether the model loads, with what is planted in its files.
fn loads(ctx: &JudgeContext, form: &ModelRef) -> Result<Result<(), apr_engine::Error>, Failure> {
    if let Err(error) = apr_engine::format::Source::open(&form.path) {
        return Ok(Err(error));
    }
    let path = ctx.path(form).map_err(|verdict| Failure::broken(verdict.summary()))?;
    Ok(Model::load(&path).map(drop))
}

fn show(
    reports: &[StageReport<'_>],
    output: CheckOutput,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if terminal.json {
        return terminal.value(&Envelope::new("check", "check", output));
    }
    terminal.text(&stages::render(reports, reports::style(terminal)))
}

fn passed(reports: &[StageReport<'_>]) -> usize {
    let numbered = reports.iter().filter(|report| report.stage.number().is_some());
    numbered.filter(|report| report.status == StageStatus::Passed).count()
}

fn described(report: &StageReport<'_>) -> StageOutput {
    let gate = |outcome: &&apr_harness::event::Outcome| GateOutput {
        gate: format!("{}/{}", outcome.case.contract, outcome.case.gate),
        claim: outcome.case.claim.clone(),
        verdict: outcome.verdict.clone(),
    };
    StageOutput {
        number: report.stage.number(),
        name: report.stage.name().to_owned(),
        stage: report.stage,
        in_plain_words: report.stage.in_plain_words().to_owned(),
        status: report.status,
        figure: report.figure().cloned(),
        gates: report.outcomes.iter().map(gate).collect(),
    }
}
