//! Judges: one file per check kind, each looks at a subject and says what it saw.
//!
//! A judge touches its subject only through [`JudgeContext`]: files, models, running backends, the `apr` executable
//! and recorded fixtures all pass through one place each, and a planted fault is interposed exactly there. A
//! judge therefore cannot tell a planted defect from a real one, which is what makes a proof a proof.

mod blocks;
mod build;
mod cache_size;
mod certificate;
mod chat;
mod cli;
mod compare_inference;
mod context;
mod continuation;
mod conversion;
mod convert_run;
mod determinism;
mod format_integrity;
mod generation_limits;
mod golden;
mod history;
mod hostile;
mod logits_close;
mod look;
mod memory;
mod metadata;
mod parity;
mod path_equal;
mod pattern;
mod relaid;
mod rewrite;
mod sampler;
mod stage;
mod steady_memory;
mod tensor_layout;
mod tensor_quality;
mod text;
mod throughput;
mod tokens;
mod validation;

pub use context::{BackendSpec, JudgeContext, Look};
pub use pattern::{Pattern, has_word};

use std::sync::Arc;

use crate::case::CaseInfo;
use crate::contract::{Check, Gate};
use crate::fault::HarnessFault;
use crate::suite::Facts;
use crate::verdict::Verdict;

/// A case that is ready to run: what reports say of it, and the gate with its typed check.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Id, cell, claim, severity, whether it is required.
    pub info: CaseInfo,
    /// The gate, shared by all its cases.
    pub gate: Arc<Gate>,
    /// What is known of the judged file; `None` without one, and in a child, which chooses no cases.
    pub facts: Option<Arc<Facts>>,
}

/// Judges one case.
///
/// Unmet needs become [`Verdict::Skipped`]; a failure of the harness itself becomes [`Verdict::Broken`]; everything
/// the subject does wrong becomes [`Verdict::Falsified`]. Panics are not caught here: the runner does that.
pub fn run(case: &Planned, ctx: &JudgeContext) -> Verdict {
    if let Some((need, why)) = ctx.needs.first_unmet(&case.gate.needs, ctx.plant.as_deref()) {
        return Verdict::skipped(need, why);
    }
    let backend = case.info.cell.backend.as_deref();
    if backend == Some("cuda")
        && let Some((need, why)) = ctx.needs.first_unmet(&["cuda".into()], ctx.plant.as_deref())
    {
        return Verdict::skipped(need, why);
    }
    let fault = ctx.harness_fault();
    let verdict = match (dispatch(case, ctx), fault) {
        (Ok(Verdict::Falsified(evidence)), Some(HarnessFault::FalsifiedSwallowed)) => {
            Verdict::Corroborated(evidence)
        }
        (Err(verdict), Some(HarnessFault::ErrorSkipped)) => {
            Verdict::skipped("model", verdict.summary())
        }
        (Ok(verdict), _) => verdict,
        (Err(verdict), _) => *verdict,
    };
    verdict.weighed()
}

/// Sends a case to the judge of its check.
fn dispatch(case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    match &case.gate.check {
        Check::FormatIntegrity(check) => format_integrity::judge(check, case, ctx),
        Check::Metadata(check) => metadata::judge(check, case, ctx),
        Check::TensorQuality(check) => tensor_quality::judge(check, case, ctx),
        Check::Validation(check) => validation::judge(*check, case, ctx),
        Check::TensorLayout(check) => tensor_layout::judge(check, case, ctx),
        Check::LogitsClose(check) => logits_close::judge(check, case, ctx),
        Check::CompareInference(check) => compare_inference::judge(check, case, ctx),
        Check::PathEqual(check) => path_equal::judge(check, case, ctx),
        Check::CacheSize(check) => cache_size::judge(check, case, ctx),
        Check::Determinism(check) => determinism::judge(check, case, ctx),
        Check::Sampler(check) => Ok(sampler::judge(check, ctx)),
        Check::DequantOracle(check) => blocks::dequant_oracle(check, ctx),
        Check::QuantizeRoundtrip(check) => Ok(blocks::roundtrip(check, ctx)),
        Check::Stage(check) => stage::judge(check, case, ctx),
        Check::Golden(check) => golden::judge(check, case, ctx),
        Check::Continuation(check) => continuation::judge(check, case, ctx),
        Check::Arithmetic(check) => golden::arithmetic(check, case, ctx),
        Check::GenerationLimits(check) => generation_limits::judge(check, case, ctx),
        Check::TokenizerRoundtrip(check) => tokens::roundtrip(check, case, ctx),
        Check::TokenIds(check) => tokens::ids(check, case, ctx),
        Check::ChatTemplate(check) => chat::judge(check, case, ctx),
        Check::Cli(check) => cli::judge(check, case, ctx),
        Check::History(check) => history::judge(*check, case, ctx),
        Check::ConvertRun(check) => convert_run::judge(check, case, ctx),
        Check::Conversion(check) => conversion::judge(check, case, ctx),
        Check::SteadyMemory(check) => steady_memory::judge(check, case, ctx),
        Check::Throughput(check) => throughput::judge(check, case, ctx),
        Check::Hostile(check) => hostile::judge(check, case, ctx),
    }
}
