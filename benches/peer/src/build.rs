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

/// Compiler flags of both sides.
pub fn flags() -> String {
    let flags = option_env!("CFLAGS").unwrap_or("of the crate's own choice");
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    format!(
        "llama.cpp by CMake, CFLAGS {flags}, with OpenMP and repacking; apr in the {profile} profile for any processor of \
         its architecture, its kernels chosen when it starts"
    )
}

/// Refuses a llama.cpp that does not use this processor, and builds without optimisation.
pub fn fair() -> Result<()> {
    let left_out = llama::left_out();
    if !left_out.is_empty() {
        return Err(Failure::Usage(format!(
            "llama.cpp was built without {}, which this processor has: build it here, inside benches/peer, where \
             .cargo/config.toml asks for it",
            left_out.join(" ")
        )));
    }
    if cfg!(debug_assertions) {
        return Err(Failure::Usage("a build without optimisation: use --release".to_owned()));
    }
    Ok(())
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
    fn the_release_of_the_bindings_is_that_of_the_lock_file() {
        let lock = "[[package]]\nname = \"other\"\nversion = \"9.9.9\"\n\n[[package]]\nname = \"one\"\nversion = \"1.2.3\"\n";
        assert_eq!(locked(lock, "one"), Some("1.2.3"));
        assert_eq!(locked(lock, "none"), None);
        let version = locked(LOCK, BINDINGS).unwrap();
        assert!(version.split('.').count() == 3, "{version}");
    }
}
