//! The carried contracts on the carried random models, judged in process.

use std::path::{Path, PathBuf};

use apr_harness::contract::Catalogue;
use apr_harness::judge::{self, JudgeContext};
use apr_harness::need::Needs;
use apr_harness::suite::{self, Roots};
use apr_harness::verdict::VerdictKind;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_carried_contract_and_suite_loads() {
    let catalogue = Catalogue::from_directory(&root().join("contracts")).expect("contracts");
    for entry in std::fs::read_dir(root().join("suites")).expect("suites") {
        let path = entry.expect("entry").path();
        if let Err(error) = suite::load_suite(&path, &catalogue) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_pygmies_keep_every_contract_that_needs_no_meaning() {
    let catalogue = Catalogue::from_directory(&root().join("contracts")).expect("contracts");
    let suite = suite::load_suite(&root().join("suites/pygmy.yaml"), &catalogue).expect("suite");
    let work = tempfile::tempdir().expect("work");
    let roots = Roots {
        fixtures: root().join("fixtures"),
        built: work.path().join("built"),
        ..Roots::default()
    };
    let expansion = suite::expand(&suite, &catalogue, &roots).expect("expansion");
    let mut ctx =
        JudgeContext::new(roots.fixtures.clone(), work.path().to_path_buf(), 1, Needs::probe());
    ctx.builds = expansion.builds;
    ctx.forms = expansion.forms;
    let mut red = Vec::new();
    for case in &expansion.cases {
        let verdict = judge::run(case, &ctx);
        println!("{:13} {} {}", verdict.kind().name(), case.info.id, verdict.summary());
        if verdict.kind() != VerdictKind::Corroborated {
            red.push(format!("{}: {}", case.info.id, verdict.summary()));
        }
    }
    assert!(expansion.cases.len() > 100, "{} cases", expansion.cases.len());
    assert!(red.is_empty(), "{red:#?}");
}
