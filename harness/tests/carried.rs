//! The carried contracts on the carried models, judged in process.

#![expect(clippy::print_stdout, reason = "each verdict is shown when a test fails")]

use std::path::{Path, PathBuf};

use apr_harness::contract::{Catalogue, Tier};
use apr_harness::filter::Filter;
use apr_harness::judge::{self, JudgeContext};
use apr_harness::need::Needs;
use apr_harness::suite::{self, Expansion, Roots};
use apr_harness::verdict::{Verdict, VerdictKind};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn catalogue() -> Catalogue {
    Catalogue::from_directory(&root().join("contracts")).unwrap_or_else(|error| panic!("{error}"))
}

/// Judges the cases of a suite that `filter` selects, on one backend.
fn judge_suite(name: &str, backend: &str, filter: &str) -> Vec<(String, Verdict)> {
    let catalogue = catalogue();
    let file = root().join("suites").join(name).with_extension("yaml");
    let mut suite = suite::load_suite(&file, &catalogue).unwrap_or_else(|error| panic!("{error}"));
    suite.backends = vec![backend.into()];
    suite.tier = Tier::Standard;
    let work = tempfile::tempdir().expect("work");
    let roots = Roots {
        fixtures: root().join("fixtures"),
        built: work.path().join("built"),
        ..Roots::default()
    };
    let Expansion { cases, forms, builds, .. } =
        suite::expand(&suite, &catalogue, &roots).expect("expansion");
    let mut ctx =
        JudgeContext::new(roots.fixtures.clone(), work.path().to_path_buf(), 1, Needs::probe());
    ctx.builds = builds;
    ctx.forms = forms;
    let filter = Filter::parse(filter).expect("filter");
    let wanted = cases.iter().filter(|case| filter.selects(case));
    wanted
        .map(|case| {
            let verdict = judge::run(case, &ctx);
            println!("{:13} {} {}", verdict.kind().name(), case.info.id, verdict.summary());
            (case.info.id.clone(), verdict)
        })
        .collect()
}

fn assert_green(verdicts: &[(String, Verdict)], at_least: usize) {
    let red: Vec<String> = verdicts
        .iter()
        .filter(|(_, verdict)| verdict.kind() != VerdictKind::Corroborated)
        .map(|(id, verdict)| {
            let details = verdict.evidence().map(|evidence| evidence.details.join("\n    "));
            format!("{id}: {} {}", verdict.summary(), details.unwrap_or_default())
        })
        .collect();
    assert!(red.is_empty(), "{} red:\n{}", red.len(), red.join("\n"));
    assert!(verdicts.len() >= at_least, "only {} cases", verdicts.len());
}

#[test]
fn every_carried_suite_loads_and_places_every_gate() {
    let catalogue = catalogue();
    let roots =
        Roots { fixtures: root().join("fixtures"), built: "built".into(), ..Roots::default() };
    for entry in std::fs::read_dir(root().join("suites")).expect("suites") {
        let path = entry.expect("entry").path();
        let suite = suite::load_suite(&path, &catalogue).unwrap_or_else(|error| panic!("{error}"));
        let expansion = suite::expand(&suite, &catalogue, &roots).expect("expansion");
        assert!(!expansion.cases.is_empty(), "{} is empty", suite.suite);
        if suite.suite == "default" {
            assert_eq!(expansion.unplaced, Vec::<String>::new());
        }
    }
}

#[test]
fn the_pygmies_keep_every_contract_that_asks_for_no_meaning() {
    assert_green(&judge_suite("pygmy", "scalar", "!check(cli)"), 100);
}

#[test]
fn golden_keeps_every_contract_that_needs_no_executable() {
    let forms = "(format(safetensors) | format(apr) | stored(q4_k) | !form(*))";
    let not_here = "!need(apr) & !need(exclusive)";
    assert_green(&judge_suite("default", "simd", &format!("{forms} & {not_here}")), 100);
}
