//! Puts the contracts and suites of the workspace into the executable, and the recordings that a gate on any model wants,
//! so that it judges models wherever it is installed.

#![expect(clippy::disallowed_methods, reason = "cargo speaks to a build script by its environment")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Folders of the workspace that are carried.
const FOLDERS: [&str; 3] = ["contracts", "suites", "fixtures/oracle/quant"];
/// Single files that are.
const FILES: [&str; 1] = ["fixtures/manifest.yaml"];

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = package.parent().expect("the package lies in the workspace");
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&workspace.join(folder), &mut files);
    }
    files.extend(FILES.map(|file| workspace.join(file)));
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(workspace).expect("below the workspace");
        let name = name.to_str().expect("a UTF-8 name").replace('\\', "/");
        let file = file.to_str().expect("a UTF-8 path");
        writeln!(table, "    ({name:?}, include_bytes!({file:?})),").expect("a string takes all");
    }
    table.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("carried.rs"), table).expect("the build folder can be written");
}

/// The files below `folder`. Cargo looks at every folder again when something in it changes.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
