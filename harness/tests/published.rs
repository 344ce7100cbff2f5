//! The suite of published models where none of them is on the machine.

use std::path::{Path, PathBuf};

use apr_harness::contract::Catalogue;
use apr_harness::judge::{self, JudgeContext};
use apr_harness::need::Needs;
use apr_harness::suite::{self, Expansion, Roots};
use apr_harness::verdict::Verdict;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The suite with published models in `folder`, and the context that judges it.
fn real(folder: &Path) -> (Expansion, JudgeContext) {
    let catalogue = Catalogue::from_directory(&root().join("contracts")).expect("contracts");
    let suite = suite::load_suite(&root().join("suites/real.yaml"), &catalogue).expect("suite");
    let roots = Roots {
        fixtures: root().join("fixtures"),
        built: folder.join("built"),
        published: folder.join("models"),
    };
    let expansion = suite::expand(&suite, &catalogue, &roots).expect("expansion");
    let mut ctx = JudgeContext::new(roots.fixtures, folder.to_path_buf(), 0, Needs::probe());
    ctx.published = Some(roots.published);
    ctx.builds = expansion.builds.clone();
    ctx.forms.clone_from(&expansion.forms);
    (expansion, ctx)
}

#[test]
fn an_absent_model_skips_every_case_of_its_forms_and_says_how_to_get_it() {
    let folder = tempfile::tempdir().expect("folder");
    let (expansion, ctx) = real(folder.path());
    let mut judged = 0;
    for case in expansion.cases.iter().filter(|case| case.info.cell.model.is_some()) {
        match judge::run(case, &ctx) {
            Verdict::Skipped { need, why } => {
                assert_eq!(need, "real-model", "{}: {why}", case.info.id);
                assert!(why.contains("fetch_real_models.py"), "{}: {why}", case.info.id);
            }
            other => panic!("{}: {other:?}", case.info.id),
        }
        judged += 1;
    }
    assert!(judged > 1000, "only {judged} cases");
}

#[test]
fn four_models_stand_in_thirty_forms_at_least() {
    let folder = tempfile::tempdir().expect("folder");
    let (expansion, _) = real(folder.path());
    let models: std::collections::BTreeSet<&str> =
        expansion.forms.iter().map(|form| form.model.as_str()).collect();
    assert_eq!(models.len(), 4);
    assert!(expansion.forms.len() >= 30, "{} forms", expansion.forms.len());
}
