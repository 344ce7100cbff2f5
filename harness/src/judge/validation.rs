//! `validation`: what `apr validate --quality --strict` lists of a model, by kind.

use super::Planned;
use super::context::{JudgeContext, Look, refused};
use super::look::all_of;
use crate::contract::check::{Concern, Validation};
use crate::validate::{self, Options, Violation, validate};
use crate::verdict::Verdict;

/// Judges `check` on `case`.
pub(super) fn judge(check: Validation, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let path = ctx.path(ctx.form(case)?)?;
    let found = validate(&path, Options { quality: true, strict: true })
        .map_err(|error| refused("the model is not looked at", &error))?;
    let wrong = found.violations.iter().filter(|one| concern(&one.rule) == check.about);
    let wrong: Vec<String> = wrong.map(said).collect();
    let (count, things) = match rule(check.about) {
        None => (found.checked.files, "files"),
        Some(rule) => {
            let rules = found.quality.iter().flat_map(|quality| &quality.rules);
            let held = rules.filter(|report| report.rule == rule).map(|report| report.tensors);
            (held.sum(), "tensors")
        }
    };
    Ok(all_of(count, &format!("{things} without a violation"), wrong))
}

fn said(one: &Violation) -> String {
    let offset = one.offset.map(|offset| format!(" at byte {offset}")).unwrap_or_default();
    let Violation { rule, place, expected, found, .. } = one;
    format!("{rule}: {place}{offset}: expected {expected}; found {found}")
}

/// The rule on values behind a concern.
fn rule(concern: Concern) -> Option<&'static str> {
    Some(match concern {
        Concern::Structure | Concern::Meaning | Concern::Oddities => return None,
        Concern::Density => validate::DENSITY,
        Concern::Finite => validate::FINITE,
        Concern::Norm => validate::NORM,
        Concern::Spots => validate::SPOTS,
    })
}

/// What the rule of a violation is about.
fn concern(id: &str) -> Concern {
    let on_values = [Concern::Density, Concern::Finite, Concern::Norm, Concern::Spots];
    if let Some(concern) = on_values.into_iter().find(|concern| rule(*concern) == Some(id)) {
        return concern;
    }
    // E0601 is a tokenizer that is absent, which only the strict object to.
    match id.strip_prefix('E').and_then(|number| number.get(..2)) {
        Some("00" | "01" | "02" | "03" | "04") => Concern::Structure,
        Some(_) if id != "E0601" => Concern::Meaning,
        _ => Concern::Oddities,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_concern() {
        for (id, expected) in [
            ("E0002", Concern::Structure),
            ("E0117", Concern::Structure),
            ("E0506", Concern::Meaning),
            ("E0605", Concern::Meaning),
            ("E0601", Concern::Oddities),
            ("apr-no-footer", Concern::Oddities),
            ("implausible", Concern::Oddities),
            ("F-DATA-QUALITY-001", Concern::Density),
            ("F-DATA-QUALITY-004", Concern::Spots),
        ] {
            assert_eq!(concern(id), expected, "{id}");
        }
    }
}
