//! The coverage as a Markdown page.

use std::fmt::Write as _;

use super::{ClaimReport, ClaimStanding, Coverage, Tally};
use crate::report::escape::markdown as escaped;

/// Renders the coverage.
pub fn markdown(coverage: &Coverage) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut out, coverage);
    out
}

fn write_page(out: &mut String, coverage: &Coverage) -> std::fmt::Result {
    let tally = coverage.tally;
    writeln!(out, "# Coverage of the claims\n")?;
    writeln!(
        out,
        "Written by `apr qa coverage`. The claims stand in `contracts/claims/`; which gates judge one is read off the gates' `refs`, \
         never typed. A gate judges by its own bound, whose reason stands beside it.\n"
    )?;
    writeln!(
        out,
        "**{} of {} ids that apply are judged by one of {} gates, {} more are held by a test, {} are not yet.** {} of {} do not apply.\n",
        tally.gates,
        tally.applicable(),
        coverage.gates,
        tally.tests,
        tally.not_yet,
        tally.not_applicable,
        tally.ids
    )?;
    writeln!(out, "| family | ids | by gates | by tests | not yet | not applicable |")?;
    writeln!(out, "|---|---:|---:|---:|---:|---:|")?;
    for family in &coverage.families {
        write_tally(out, &escaped(&family.title), family.tally)?;
    }
    write_tally(out, "**all**", tally)?;
    for family in &coverage.families {
        writeln!(
            out,
            "\n## {}\n\n| id | claim | how it stands |\n|---|---|---|",
            escaped(&family.title)
        )?;
        for claim in &family.claims {
            write_claim(out, claim)?;
        }
    }
    Ok(())
}

fn write_tally(out: &mut String, name: &str, tally: Tally) -> std::fmt::Result {
    writeln!(
        out,
        "| {name} | {} | {} | {} | {} | {} |",
        tally.ids, tally.gates, tally.tests, tally.not_yet, tally.not_applicable
    )
}

fn write_claim(out: &mut String, claim: &ClaimReport) -> std::fmt::Result {
    let code = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(" ")
    };
    let standing = match &claim.standing {
        ClaimStanding::Gates { gates } => code(gates),
        ClaimStanding::Tests { tests } => format!("test {}", code(tests)),
        ClaimStanding::NotApplicable { reason } => format!("not applicable: {}", escaped(reason)),
        ClaimStanding::NotYet { reason } => format!("**not yet:** {}", escaped(reason)),
    };
    let twin = claim.same_as.as_ref().map_or_else(String::new, |twin| format!("as `{twin}`: "));
    writeln!(out, "| {} | {} | {twin}{standing} |", code(&claim.ids), escaped(&claim.title))
}
