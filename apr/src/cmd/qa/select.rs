//! Which cases the command line selects. Whatever names nothing is an error that says what may have been meant.

use std::collections::BTreeSet;

use apr_harness::case::BACKENDS;
use apr_harness::contract::Catalogue;
use apr_harness::contract::waiver::Waiver;
use apr_harness::filter::Filter;
use apr_harness::judge::Planned;
use apr_harness::nearest::did_you_mean;
use apr_harness::need;

use crate::exit::Exit;
use crate::failure::Failure;

/// Keeps the cases that `--filter` selects.
///
/// # Errors
/// A filter that does not parse or that names what does not exist; one that selects none of `cases`.
pub(super) fn filter(
    text: &str,
    catalogue: &Catalogue,
    cases: &mut Vec<Planned>,
) -> Result<(), Failure> {
    let filter = Filter::parse(text).map_err(|error| Failure::usage(format_args!("--{error}")))?;
    if let Some(stray) = filter.stray_name(catalogue) {
        return Err(Failure::usage(format_args!("--filter: {stray}")));
    }
    let (stray, before) = (filter.stray(cases), cases.len());
    cases.retain(|case| filter.selects(case));
    if !cases.is_empty() {
        return Ok(());
    }
    let why = match stray {
        Some(stray) => format!("{stray}; nothing is left of {before} cases"),
        None => format!("{text} selects none of {before} cases"),
    };
    Err(Failure::new(Exit::NothingRan, format_args!("--filter: {why}")))
}

/// Keeps the cases that `--case` names.
///
/// # Errors
/// An id that no case has.
pub(super) fn exactly(ids: &[String], cases: &mut Vec<Planned>) -> Result<(), Failure> {
    let known: BTreeSet<&str> = cases.iter().map(|case| case.info.id.as_str()).collect();
    if let Some(unknown) = ids.iter().find(|id| !known.contains(id.as_str())) {
        let meant = did_you_mean(unknown, known);
        return Err(Failure::usage(format_args!("--case: no case is called {unknown}{meant}")));
    }
    if !ids.is_empty() {
        cases.retain(|case| ids.contains(&case.info.id));
    }
    Ok(())
}

/// Makes a skip of the cases with one of `needs` red. A backend is a need of its cells.
///
/// # Errors
/// A need that is none.
pub(super) fn require(needs: &[String], cases: &mut [Planned]) -> Result<(), Failure> {
    for need in needs {
        let known = || need::KNOWN.iter().map(|(name, _)| *name).chain(BACKENDS);
        if !known().any(|name| name == need) {
            let (meant, known) = (did_you_mean(need, known()), known().collect::<BTreeSet<_>>());
            let known: Vec<&str> = known.into_iter().collect();
            return Err(Failure::usage(format_args!(
                "--require: no need is called {need}, known are {}{meant}",
                known.join(", ")
            )));
        }
        for case in &mut *cases {
            case.info.required |= case.gate.needs.contains(need)
                || case.info.cell.backend.as_deref() == Some(need.as_str());
        }
    }
    Ok(())
}

/// Refuses a waiver of a gate that `catalogue` has not, and of a case that its gate has not among `ids`, the cases of
/// the suite. A gate that the suite leaves out can be waived: other suites have it.
pub(super) fn waivers(
    waivers: &[Waiver],
    catalogue: &Catalogue,
    ids: &BTreeSet<String>,
) -> Result<(), Failure> {
    let gates: BTreeSet<String> = catalogue
        .contracts
        .values()
        .flat_map(|one| one.gates.iter().map(|gate| format!("{}/{}", one.contract, gate.id)))
        .collect();
    for waiver in waivers {
        let gate = waiver.case.split('@').next().unwrap_or_default();
        let of_gate = || ids.iter().filter(|id| id.split('@').next() == Some(gate));
        let (what, meant) = if !gates.contains(gate) {
            ("gate", did_you_mean(gate, gates.iter().map(String::as_str)))
        } else if gate != waiver.case && of_gate().next().is_some() && !ids.contains(&waiver.case) {
            ("case", did_you_mean(&waiver.case, of_gate().map(String::as_str)))
        } else {
            continue;
        };
        return Err(Failure::usage(format_args!(
            "--waivers: no {what} is called {}{meant}",
            if what == "gate" { gate } else { &waiver.case }
        )));
    }
    Ok(())
}
