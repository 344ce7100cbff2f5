//! Finds out with which flags llama.cpp was really built: what was asked for may have come too late, for the crate that
//! builds it does not look for changes of `CFLAGS`.

use std::env;
use std::path::PathBuf;

#[expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]
fn main() {
    // The crate tells where it built; what CMake keeps there is what its compilers were called with.
    let cache =
        env::var_os("DEP_LLAMA_ROOT").map(|root| PathBuf::from(root).join("build/CMakeCache.txt"));
    let text =
        cache.as_ref().and_then(|cache| std::fs::read_to_string(cache).ok()).unwrap_or_default();
    let entry = |name: &str| {
        let mut entries = text.lines().filter_map(|line| line.split_once('='));
        entries
            .find(|(key, _)| key.split(':').next() == Some(name))
            .map_or("", |(_, value)| value.trim())
    };
    let profile = entry("CMAKE_BUILD_TYPE");
    let of_profile = entry(&format!("CMAKE_CXX_FLAGS_{}", profile.to_uppercase()));
    println!("cargo:rustc-env=LLAMA_FLAGS={profile}: {} {of_profile}", entry("CMAKE_CXX_FLAGS"));
    if let Some(cache) = cache {
        println!("cargo:rerun-if-changed={}", cache.display());
    }
}
