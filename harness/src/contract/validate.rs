//! Contradictions inside a contract that types cannot express.

use std::collections::BTreeSet;
use std::path::Path;

use apr_engine::format::convert::Precision;

use super::check::{ConversionRule, Invariant};
use super::load::{CatalogueError, line_of};
use super::{Check, Contract, Gate, Scope};
use crate::fault::library;
use crate::filter::{FACTS, Filter};
use crate::need;

/// A contradiction, with the gate it stands in.
#[derive(Debug)]
pub(super) struct Contradiction {
    gate: Option<(usize, String)>,
    message: String,
}

impl Contradiction {
    /// As an error of the file the contract came from.
    pub(super) fn located(self, text: &str, file: &Path) -> CatalogueError {
        let (path, position) = match &self.gate {
            Some((index, id)) => (format!("gates[{index}] ({id})"), line_of(text, id)),
            None => (String::new(), None),
        };
        CatalogueError { file: file.into(), position, path, message: self.message }
    }
}

/// A mistake in gate `index`, called `id`.
pub(super) fn in_gate(index: usize, id: &str, message: String) -> Contradiction {
    Contradiction { gate: Some((index, id.to_owned())), message }
}

/// Whether `name` is lower-case words joined by hyphens.
pub(crate) fn is_kebab(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    name.split('-').all(word)
}

/// The first contradiction of a contract.
pub(super) fn contract(contract: &Contract) -> Result<(), Contradiction> {
    let whole = |message: String| Contradiction { gate: None, message };
    if !is_kebab(&contract.contract) {
        let message = format!("contract name {:?} is not kebab-case", contract.contract);
        return Err(whole(message));
    }
    if contract.gates.is_empty() {
        return Err(whole("a contract without gates claims nothing".into()));
    }
    let mut seen = BTreeSet::new();
    for (index, gate) in contract.gates.iter().enumerate() {
        let here = |message: String| in_gate(index, &gate.id, message);
        if !seen.insert(&gate.id) {
            return Err(here(format!("gate id {} stands twice", gate.id)));
        }
        words(gate)
            .and_then(|()| reach(gate))
            .and_then(|()| parameters(&gate.check))
            .map_err(here)?;
    }
    Ok(())
}

/// Names, sentences and references of a gate.
fn words(gate: &Gate) -> Result<(), String> {
    if !is_kebab(&gate.id) {
        return Err(format!("gate id {:?} is not kebab-case", gate.id));
    }
    if gate.claim.split_whitespace().count() < 3 {
        return Err("the claim is not a sentence that could be false".into());
    }
    if let Some(need) = gate.needs.iter().find(|need| !need::is_known(need)) {
        let known: Vec<_> = need::KNOWN.iter().map(|(name, _)| *name).collect();
        return Err(format!("unknown need {need:?}; known are {}", known.join(", ")));
    }
    if let Some(aim) = gate.kills.iter().find(|aim| library::by_id(&aim.fault).is_none()) {
        return Err(format!("{:?} under kills is no fault of the library", aim.fault));
    }
    Ok(())
}

/// Where a gate applies and how long it may take.
fn reach(gate: &Gate) -> Result<(), String> {
    if gate.timeout_s == Some(0) {
        return Err("timeout-s: 0 ends every case before it begins".into());
    }
    let Some(on) = &gate.on else { return Ok(()) };
    let filter = Filter::parse(on).map_err(|error| format!("on: {error}"))?;
    let allowed: &[&str] = match gate.check.scope() {
        Scope::Once => &[],
        Scope::Form => &["model", "form"],
        Scope::FormBackend => &["model", "form", "backend", "isa", "threads"],
    };
    let facts: &[&str] = if allowed.is_empty() { &[] } else { FACTS };
    let allowed = [allowed, facts].concat();
    match filter.subjects().iter().find(|subject| !allowed.contains(subject)) {
        Some(subject) => Err(format!(
            "on: {subject} is no dimension of a {} gate; it has {allowed:?}",
            gate.check.kind()
        )),
        None => Ok(()),
    }
}

/// Parameters that contradict each other: bounds on outputs that are never produced, runs that repeat nothing.
fn parameters(check: &Check) -> Result<(), String> {
    match check {
        Check::LogitsClose(close) if !close.sites.is_empty() && close.tolerance.wants_logits() => {
            Err("kl-mean, kl-max, argmax-lead and perplexity-change are bounds of logits, but sites are compared"
                .into())
        }
        Check::Stage(super::check::Stage {
            invariant: Invariant::MatchesOracle(oracle), ..
        }) if oracle.ops.is_empty() => Err("ops: no site is compared".into()),
        Check::Determinism(determinism) if determinism.runs < 2 => {
            Err("runs: one run repeats nothing".into())
        }
        Check::Golden(golden)
            if golden.lead_above_noise.is_some()
                && golden.kind == super::check::GoldenKind::Clean =>
        {
            Err("lead-above-noise is a bound of recorded tokens, but kind is clean".into())
        }
        Check::Sampler(sampler) if sampler.cases == 0 => Err("cases: 0 tries nothing".into()),
        Check::Hostile(hostile) if hostile.rows_at_least == 0 => {
            Err("rows-at-least: 0 is green without a corpus".into())
        }
        Check::QuantizeRoundtrip(round) if round.rows == 0 => Err("rows: 0 tries nothing".into()),
        Check::Cli(cli) => commands(cli),
        Check::ConvertRun(run) if run.prompts.is_empty() || run.max_tokens == 0 => {
            Err("without a prompt and a token to answer it with nothing is compared".into())
        }
        Check::CompareInference(super::check::CompareInference {
            with: super::check::OtherSide::Faulty(placements),
        }) if placements.count == 0 => Err("count: no fault is placed".into()),
        Check::Conversion(conversion) => conversions(conversion),
        Check::TensorQuality(super::check::TensorQuality::Spots { at }) if at.is_empty() => {
            Err("at: no spot is looked at".into())
        }
        Check::Throughput(speed) if speed.pairs_at_most < 8 || speed.tokens == 0 => {
            Err("at least 8 pairs of at least one token are needed for a decision".into())
        }
        _ => Ok(()),
    }
}

/// A conversion to nothing is equal to everything; dtypes and damages must be known, or nothing would be tried.
fn conversions(check: &super::check::Conversion) -> Result<(), String> {
    if check.to.is_empty() {
        return Err("to: without a format nothing is converted".into());
    }
    if let Some(name) = check.dtype.as_ref().filter(|name| Precision::from_name(name).is_none()) {
        return Err(format!("dtype: none is called {name}"));
    }
    if let ConversionRule::WithinSteps { block: 0, .. }
    | ConversionRule::WithinSteps { steps: 0, .. } = &check.rule
    {
        return Err("block and steps: without a step nothing is measured".into());
    }
    let ConversionRule::Halts { on } = &check.rule else { return Ok(()) };
    if on.is_empty() {
        return Err("on: without a damage nothing is refused".into());
    }
    match on.iter().find(|id| !id.starts_with("file/") || library::by_id(id).is_none()) {
        Some(id) => Err(format!("on: no fault of a file is called {id}")),
        None => Ok(()),
    }
}

/// A command line that expects nothing but an exit code would be green on silence; patterns must compile.
fn commands(cli: &super::check::Cli) -> Result<(), String> {
    let expect = &cli.expect;
    if cli.args.is_empty() && expect.stdout.is_empty() && expect.stderr.is_empty() {
        return Err("an empty command that expects no output looks at nothing".into());
    }
    let patterns = [&expect.stdout, &expect.stdout_not, &expect.stderr, &expect.stderr_not];
    for pattern in patterns.into_iter().flatten() {
        crate::judge::Pattern::new(pattern)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::load_contract;
    use std::path::Path;

    fn gate(body: &str) -> String {
        let text = format!("contract: c\ntitle: t\ngates:\n  - id: g\n    severity: major\n{body}");
        match load_contract(&text, Path::new("c.yaml")) {
            Ok(_) => "loaded".into(),
            Err(error) => error.to_string(),
        }
    }

    const CLAIM: &str = "    claim: The file is whole.\n";

    #[test]
    fn a_need_nobody_knows_is_refused() {
        let error = gate(&format!(
            "{CLAIM}    needs: [coffee]\n    check: {{ format-integrity: {{ rule: parses }} }}\n"
        ));
        assert!(error.contains("unknown need \"coffee\""), "{error}");
        assert!(error.starts_with("c.yaml:4:"), "{error}");
    }

    #[test]
    fn a_bound_on_an_output_that_is_never_produced_is_refused() {
        let error = gate(&format!(
            "{CLAIM}    check:\n      logits-close:\n        against: scalar\n        \
             sites: [embed]\n        tolerance: {{ nmse-worst-row: 1e-4, kl-max: 1e-3, why: measured once here }}\n"
        ));
        assert!(error.contains("bounds of logits"), "{error}");
    }

    #[test]
    fn a_filter_over_a_dimension_the_gate_does_not_have_is_refused() {
        let error = gate(&format!(
            "{CLAIM}    on: backend(simd)\n    check: {{ format-integrity: {{ rule: parses }} }}\n"
        ));
        assert!(error.contains("no dimension"), "{error}");
    }

    #[test]
    fn gates_that_try_nothing_are_refused() {
        for check in [
            "sampler: { property: greedy, cases: 0 }",
            "determinism: { of: greedy, runs: 1 }",
            "hostile: { rows-at-least: 0, time-limit-ms: 100, memory-limit-mib: 64 }",
            "cli: { args: [], expect: { exit: 0 } }",
            "compare-inference: { with: { faulty: { count: 0, located-at-least: 0.5, why: no reason at all } } }",
            "convert-run: { to: apr, prompts: [], max-tokens: 8 }",
            "convert-run: { to: apr, prompts: [hello], max-tokens: 0 }",
            "tensor-quality: { spots: { at: [] } }",
            "stage: { invariant: { matches-oracle: { ops: [], nmse: 1, why: of no consequence here } } }",
            "stage: { invariant: { row-spread: { ops: [knee], at-least: 1, why: of no consequence here } } }",
        ] {
            let error = gate(&format!("{CLAIM}    check: {{ {check} }}\n"));
            assert_ne!(error, "loaded", "{check}");
        }
    }

    #[test]
    fn a_one_word_claim_is_no_claim() {
        let error = gate("    claim: works\n    check: { format-integrity: { rule: parses } }\n");
        assert!(error.contains("not a sentence"), "{error}");
    }
}
