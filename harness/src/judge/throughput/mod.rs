//! Throughput: the tested engine against a rival that runs now, in the same process, interleaved with it.
//!
//! Yesterday's figure and another machine's are never consulted: the claim is a ratio of two measurements made side by
//! side. [`paired`] measures and decides; this file makes the two sides. Both answer the same scripted tokens, and the answers
//! are compared, so that a fast wrong engine fails.

mod paired;
mod side;

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look};
use crate::contract::check::{Phase, Rival, Throughput};
use crate::fault::HarnessFault;
use crate::stats::{Plan, SplitMix};
use crate::verdict::Verdict;

use side::{Engine, Task, script};

/// Judges `check` on `case`.
pub(super) fn judge(check: &Throughput, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let spec = BackendSpec::of(&case.info.cell);
    let mut rival_spec = BackendSpec { reference: true, ..spec.clone() };
    let mut rival_form = form.clone();
    let task = Task { phase: check.phase, tokens: check.tokens, clock: check.clock };
    let mut rival_task = task;
    match &check.against {
        Rival::Itself => {}
        Rival::Backend(name) => {
            rival_spec =
                BackendSpec { backend: name.clone(), isa: None, threads: None, reference: true };
        }
        Rival::Form(name) => rival_form = ctx.sibling(form, name)?,
        Rival::Phase(phase) => rival_task.phase = *phase,
        Rival::Tokens(tokens) => rival_task.tokens = *tokens,
    }
    let tested_lm = ctx.lm(&*ctx.model(form)?, &spec, ctx.options())?;
    let mut rival_lm = ctx.lm(&*ctx.reference_model(&rival_form)?, &rival_spec, ctx.options())?;
    let longest = task.tokens.max(rival_task.tokens);
    let room = tested_lm.context().min(rival_lm.context());
    if longest == 0 || longest >= room {
        let message = format!("{longest} tokens asked for, 1 to {} fit the context", room - 1);
        return Err(Box::new(Verdict::broken(message)));
    }
    let script = script(&mut *rival_lm, longest, ctx.seed)?;
    let mut tested = Engine::new(tested_lm, task, &script);
    if check.traced {
        tested.trace(ctx.model(form)?);
    }
    let mut rival = Engine::new(rival_lm, rival_task, &script);
    let mut plan = Plan::default().at_most(check.pairs_at_most);
    if ctx.harness_fault() == Some(HarnessFault::EmptyComparison) {
        plan.looks.clear();
    }
    let mut rng = SplitMix::new(ctx.seed);
    paired::judge(&mut tested, &mut rival, check.ratio_at_least.get(), &plan, &mut rng)
}

/// What a phase is called in reports.
const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Prefill => "prefill",
        Phase::Decode => "decode",
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::case::{Cell, ModelRef};
    use crate::contract::load_contract;
    use crate::need::Needs;
    use crate::runner::planned_for_tests;
    use crate::verdict::VerdictKind;

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
    }

    /// The verdict of a `throughput` check on the carried model, `scalar` backend.
    fn verdict(params: &str) -> Verdict {
        let text = format!(
            "contract: speed\ntitle: t\ngates:\n  - {{ id: gate, claim: It is fast enough for this., severity: minor, \
             check: {{ throughput: {{ {params}, clock: wall, pairs-at-most: 8, why: a test of the way through }} }} }}\n"
        );
        let contract = load_contract(&text, Path::new("speed.yaml")).unwrap();
        let mut case = planned_for_tests("speed", 1).remove(0);
        let path = fixtures().join("golden");
        let model = ModelRef { model: "golden".into(), form: "safetensors".into(), path };
        case.info.cell =
            Cell { model: Some(model), backend: Some("scalar".into()), ..Cell::default() };
        case.gate = contract.gates[0].clone().into();
        let home = tempfile::tempdir().unwrap();
        let ctx = JudgeContext::new(fixtures(), home.path().into(), 1, Needs::probe());
        crate::judge::run(&case, &ctx)
    }

    #[test]
    fn real_engines_are_timed_compared_and_reported() {
        // A claim that is true by orders of magnitude: what is tested is the way through, not the speed.
        let found = verdict(
            "phase: decode, against: { backend: scalar }, tokens: 3, ratio-at-least: 0.0001",
        );
        let evidence = found.evidence().expect("evidence");
        assert_eq!(evidence.comparisons, 8, "{found:?}");
        let value = |name: &str| {
            evidence.measures.iter().find(|measure| measure.name == name).and_then(|m| m.value)
        };
        for name in ["speed-ratio", "tested", "rival", "answers-compared", "wall-speed-ratio"] {
            assert!(value(name).is_some_and(|value| value > 0.0), "{name}: {evidence:?}");
        }
        assert_ne!(found.kind(), VerdictKind::Falsified, "{}", found.summary());
    }

    #[test]
    fn an_impossible_claim_is_not_corroborated() {
        let found = verdict("phase: prefill, against: itself, tokens: 4, ratio-at-least: 10000");
        assert_ne!(found.kind(), VerdictKind::Corroborated, "{}", found.summary());
    }

    #[test]
    fn more_tokens_than_the_context_are_a_broken_gate() {
        let found = verdict("phase: decode, against: itself, tokens: 9999999, ratio-at-least: 0.9");
        assert_eq!(found.kind(), VerdictKind::Broken, "{}", found.summary());
    }
}
