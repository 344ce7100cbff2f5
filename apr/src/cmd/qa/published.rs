//! Where published models are kept on this machine, as `scripts/fetch_real_models.py` does.

use std::path::{Path, PathBuf};

/// Names the folder in the environment.
const VARIABLE: &str = "APR_REAL_MODELS";

/// The folder given, or the one that the environment names, or the one below the user's cache folder; none where there
/// is no such place.
pub(super) fn folder(given: Option<&Path>) -> Option<PathBuf> {
    let cache = || of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")));
    let folder = given
        .map(Path::to_path_buf)
        .or_else(|| of(VARIABLE))
        .or_else(|| Some(cache()?.join("apr").join("real-models")))?;
    Some(std::path::absolute(&folder).unwrap_or(folder))
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the environment says where a user keeps large files, and --models overrides it"
)]
fn of(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
