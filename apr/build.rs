//! Puts the contracts and suites of the workspace into the executable, so that it judges models wherever it is installed.

#![expect(clippy::print_stdout, reason = "the lines a build script prints are its output")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Folders of the workspace whose YAML files are carried.
const CARRIED: [&str; 2] = ["contracts", "suites"];

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = package.parent().expect("the package lies in the workspace");
    let mut files = Vec::new();
    for folder in CARRIED {
        collect(&workspace.join(folder), &mut files);
    }
    files.sort();
    assert!(!files.is_empty(), "no contract below {}", workspace.display());
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(workspace).expect("below the workspace");
        let name = name.to_str().expect("a UTF-8 name").replace('\\', "/");
        writeln!(table, "    ({name:?}, include_str!({file:?})),").expect("a string takes all");
    }
    table.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("carried.rs"), table).expect("the build folder can be written");
}

/// The YAML files below `folder`. Cargo looks at every folder again when something in it changes.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}
