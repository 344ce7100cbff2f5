//! How both sides were built, and whether that is fair.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result};
use crate::llama;

/// The lock file says which release of the bindings was built.
const LOCK: &str = include_str!("../Cargo.lock");
const BINDINGS: &str = "llama-cpp-sys-2";

/// Version of llama.cpp, and of the crate that carries its sources.
pub fn peer() -> String {
    let version = locked(LOCK, BINDINGS).unwrap_or("of an unknown release");
    format!("{} from {BINDINGS} {version}", llama::version())
}

/// The version of `package` in a lock file.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let named = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != named);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// How llama.cpp was compiled, from what its build left behind.
const PEER_FLAGS: &str = env!("LLAMA_FLAGS");

/// Compiler flags of both sides.
pub fn flags() -> String {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    format!(
        "llama.cpp by CMake, {PEER_FLAGS}; apr in the {profile} profile for any processor of its architecture, its kernels \
         chosen when it starts"
    )
}

/// Refuses a llama.cpp that does not use this processor, and builds without optimisation.
pub fn fair() -> Result<()> {
    unfair(PEER_FLAGS, &llama::left_out(), cfg!(debug_assertions))
        .map_or(Ok(()), |why| Err(Failure::Usage(why)))
}

/// What makes a build unfit to be measured.
fn unfair(flags: &str, left_out: &[&str], debug: bool) -> Option<String> {
    let how =
        "run `cargo clean` and build inside benches/peer, where .cargo/config.toml asks for it";
    if debug {
        Some("a build without optimisation: use --release".to_owned())
    } else if !left_out.is_empty() {
        let sets = left_out.join(" ");
        Some(format!("llama.cpp was built without {sets}, which this processor has: {how}"))
    } else if !flags.starts_with("Release:") || !flags.contains("=native") {
        Some(format!("llama.cpp was built with {flags:?}, not for this processor: {how}"))
    } else {
        None
    }
}

/// The commit of the checkout this was built from, with `-dirty` where files have changed since.
pub fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    git.current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).stdin(Stdio::null());
    let told = git.output().ok().filter(|output| output.status.success());
    let told = told.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    told.filter(|commit| !commit.is_empty()).unwrap_or_else(|| "an unknown commit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_held_back_is_not_measured() {
        let native = "Release: -march=native -O3";
        assert_eq!(unfair(native, &[], false), None);
        assert!(unfair(native, &["avx512f"], false).unwrap().contains("without avx512f"));
        assert!(unfair("Release: -O3", &[], false).unwrap().contains("not for this processor"));
        assert!(unfair("RelWithDebInfo: -march=native -O2", &[], false).is_some());
        assert!(unfair(": ", &[], false).is_some(), "nothing is known of the build");
        assert!(unfair(native, &[], true).unwrap().contains("--release"));
    }

    #[test]
    fn the_release_of_the_bindings_is_that_of_the_lock_file() {
        let lock = "[[package]]\nname = \"other\"\nversion = \"9.9.9\"\n\n[[package]]\nname = \"one\"\nversion = \"1.2.3\"\n";
        assert_eq!(locked(lock, "one"), Some("1.2.3"));
        assert_eq!(locked(lock, "none"), None);
        let version = locked(LOCK, BINDINGS).unwrap();
        assert!(version.split('.').count() == 3, "{version}");
    }
}
