//! What must stop a conversion: damaged copies of the form are converted, and none may come through.

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};

use apr_engine::format::convert::Precision;
use apr_engine::model::Model;

use crate::case::ModelRef;
use crate::contract::check::Conversion;
use crate::fault::library;
use crate::judge::build::convert;
use crate::judge::context::{JudgeContext, Look};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// What the attempts showed.
#[derive(Debug, Default)]
struct Seen {
    attempts: u64,
    /// Damages that were converted all the same.
    converted: Vec<String>,
    /// Damages of which something was left.
    left: Vec<String>,
}

/// Converts copies of the form that are damaged in the ways named by `on`.
pub(super) fn judge(
    on: &[String],
    check: &Conversion,
    form: &ModelRef,
    ctx: &JudgeContext,
) -> Look<Verdict> {
    let honest = ctx.unplanted();
    let whole = honest.path(form)?;
    let mut seen = Seen::default();
    for id in on {
        let fault = library::by_id(id)
            .ok_or_else(|| Box::new(Verdict::broken(format!("no fault is called {id}"))))?;
        let damaged = honest.planted(fault.plant).path(form)?;
        // The damage may not concern this format.
        if damaged != whole {
            attempt(id, &whole, &damaged, check, ctx, &mut seen).map_err(|error| broken(&error))?;
        }
    }
    Ok(verdict(seen))
}

fn broken(error: &Error) -> Box<Verdict> {
    Box::new(Verdict::broken(format!("scratch folder: {error}")))
}

/// Converts one damaged copy to every format.
fn attempt(
    id: &str,
    whole: &Path,
    damaged: &Path,
    check: &Conversion,
    ctx: &JudgeContext,
    seen: &mut Seen,
) -> std::io::Result<()> {
    fs::create_dir_all(&ctx.work)?;
    let folder = tempfile::tempdir_in(&ctx.work)?;
    let read = folder.path().join("read");
    let damaged = match &ctx.plant {
        Some(_) => as_read(whole, damaged, &read, ctx)?,
        None => damaged.to_path_buf(),
    };
    for target in &check.to {
        let out = folder.path().join(format!("out-{}", target.name()));
        fs::create_dir(&out)?;
        let path = out.join(target.file_name());
        let converted = Model::load(&damaged)
            .and_then(|model| convert(&model, target.format(), Precision::Stored, &path));
        if let Some(name) = ctx.plant.as_ref().and_then(|plant| plant.leaves_behind()) {
            fs::write(out.join(name), [])?;
        }
        seen.attempts += 1;
        let left = fs::read_dir(&out)?.count();
        match converted {
            Ok(()) => seen.converted.push(format!("{id} was converted to {}", target.name())),
            Err(_) if left > 0 => {
                seen.left.push(format!("{id} to {}: {left} files are left", target.name()));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// A copy of what the converter reads of the damaged model: all of it, unless a planted fault mends it.
fn as_read(
    whole: &Path,
    damaged: &Path,
    to: &Path,
    ctx: &JudgeContext,
) -> std::io::Result<PathBuf> {
    fs::create_dir_all(to)?;
    let copy = |name: &Path, whole: &Path, damaged: &Path| {
        let given = fs::read(damaged)?;
        let intact = fs::read(whole).unwrap_or_default();
        fs::write(to.join(name), ctx.reading(&intact, &given))
    };
    if let (false, Some(name)) = (damaged.is_dir(), damaged.file_name()) {
        copy(Path::new(name), whole, damaged)?;
        return Ok(to.join(name));
    }
    for entry in fs::read_dir(damaged)? {
        let name = PathBuf::from(entry?.file_name());
        copy(&name, &whole.join(&name), &damaged.join(&name))?;
    }
    Ok(to.to_path_buf())
}

fn verdict(seen: Seen) -> Verdict {
    let Seen { attempts, converted, left } = seen;
    let wrong: Vec<String> = converted.iter().chain(&left).cloned().collect();
    let summary = match wrong.first() {
        None => format!("all of {attempts} damaged conversions are refused without a trace"),
        Some(first) => format!("{} of {attempts} damaged conversions: {first}", wrong.len()),
    };
    let judged = |name, found: usize| Measure::judged(name, found as f64, Limit::Exactly(0.0));
    let mut evidence = Evidence::new(attempts, summary)
        .measure(judged("converted", converted.len()))
        .measure(judged("left-behind", left.len()));
    evidence.details = wrong;
    evidence.verdict()
}
