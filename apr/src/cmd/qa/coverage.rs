//! `apr qa coverage`: which claims the gates cover.

use apr_harness::coverage::{self, Coverage};
use apr_harness::report::file;
use schemars::JsonSchema;
use serde::Serialize;

use super::Root;
use crate::cli::CoverageArgs;
use crate::failure::Failure;
use crate::render::{Envelope, Terminal};

/// `qa-coverage`: how each claim stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CoverageOutput {
    #[serde(flatten)]
    coverage: Coverage,
}

pub(super) fn run(args: &CoverageArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let root = Root::find(args.root.as_deref())?;
    let coverage = root.coverage(&root.catalogue()?)?;
    let output = Envelope::new("qa-coverage", "qa", CoverageOutput { coverage });
    if !args.no_report {
        let folder = args.report.clone().unwrap_or_else(|| root.reports());
        let json = serde_json::to_string_pretty(&output)
            .map_err(|error| Failure::broken(format_args!("coverage: {error}")))?;
        let page = coverage::markdown(&output.body.coverage);
        for (name, text) in [("coverage.md", page), ("coverage.json", json)] {
            let path = folder.join(name);
            std::fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, &error))?;
            file::write_atomically(&path, text.as_bytes())
                .map_err(|error| Failure::file(&path, &error))?;
            terminal.notice(&format!("coverage: {}", path.display()))?;
        }
    }
    if terminal.json {
        terminal.value(&output)?;
    } else {
        terminal.text(&summary(&output.body.coverage))?;
    }
    Ok(0)
}

/// A line for each family and one for all.
fn summary(coverage: &Coverage) -> String {
    let mut lines = vec![format!(
        "{:<44} {:>5} {:>6} {:>6} {:>8} {:>15}",
        "family", "ids", "gates", "tests", "not yet", "not applicable"
    )];
    let rows = coverage.families.iter().map(|family| (family.title.as_str(), family.tally));
    for (title, tally) in rows.chain([("all", coverage.tally)]) {
        lines.push(format!(
            "{title:<44} {:>5} {:>6} {:>6} {:>8} {:>15}",
            tally.ids, tally.gates, tally.tests, tally.not_yet, tally.not_applicable
        ));
    }
    lines.join("\n") + "\n"
}
