//! `steady-memory`: inference after inference takes no more memory.
//!
//! What the process keeps resident of its own (not of files) is read from the system before and after many inferences from
//! an empty cache. The gate runs alone, so that no other case's memory is taken for the engine's.

use apr_engine::model::Want;
use apr_engine::probe::NoProbe;

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look, refused};
use crate::contract::check::SteadyMemory;
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Tokens of an inference: one is read, and one more on top of it.
const TOKENS: [u32; 2] = [0, 1];

/// Judges `check` on `case`.
pub(super) fn judge(check: &SteadyMemory, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let model = ctx.model(ctx.form(case)?)?;
    let mut lm = ctx.lm(&model, &BackendSpec::of(&case.info.cell), ctx.options())?;
    let mut infer = |runs: usize| -> Look<()> {
        for _ in 0..runs {
            lm.reset();
            for id in &TOKENS {
                lm.forward(&[*id], Want::Last, &mut NoProbe)
                    .map_err(|error| refused("the forward pass fails", &error))?;
            }
        }
        Ok(())
    };
    infer(check.warm_up)?;
    let before = resident_private()?;
    infer(check.runs)?;
    let after = resident_private()?;
    let runs = check.runs as f64;
    let growth = (after - before) / runs;
    let summary = format!(
        "{growth:.0} bytes more per inference over {runs} inferences, {:.1} MiB before and {:.1} MiB after",
        before / f64::from(1 << 20),
        after / f64::from(1 << 20),
    );
    Ok(Evidence::new(check.runs as u64, summary)
        .measure(
            Measure::judged("growth", growth, Limit::AtMost(check.growth_at_most.get()))
                .unit("bytes per inference"),
        )
        .measure(Measure::noted("resident-before", before).unit("bytes"))
        .measure(Measure::noted("resident-after", after).unit("bytes"))
        .verdict())
}

/// Bytes of memory that belong to no file and are resident (`RssAnon` of proc(5)).
fn resident_private() -> Look<f64> {
    let absent = |why: String| Box::new(Verdict::skipped("linux", why));
    let status = std::fs::read_to_string("/proc/self/status");
    let status = status.map_err(|error| absent(format!("/proc/self/status: {error}")))?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    });
    kib.map(|kib| kib * 1024.0).ok_or_else(|| absent("/proc/self/status tells no RssAnon".into()))
}
