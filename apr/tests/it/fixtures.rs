//! `fixtures/` is exactly what `fixtures/manifest.yaml` lists.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::program::root;

/// No carried file is larger, so that a clone stays quick.
const BYTES_MAX: u64 = 8_000_000;

/// What the manifest says of a file.
#[derive(Debug, Default)]
struct Listed {
    sha256: String,
    size: u64,
    origin: String,
    licence: String,
}

/// The manifest is written by a script, one `key: value` per line, so lines are all that is read of it.
fn manifest() -> BTreeMap<String, Listed> {
    let text = fs::read_to_string(root().join("fixtures/manifest.yaml")).expect("the manifest");
    let mut listed: BTreeMap<String, Listed> = BTreeMap::new();
    let mut path = String::new();
    for line in text.lines() {
        let Some((key, value)) = line.trim_start_matches([' ', '-']).split_once(": ") else {
            continue;
        };
        let value = value.trim_matches('"').to_owned();
        if key == "path" {
            assert!(!listed.contains_key(&value), "{value} is listed twice");
            path.clone_from(&value);
        }
        let entry = listed.entry(path.clone()).or_default();
        match key {
            "sha256" => entry.sha256 = value,
            "size" => entry.size = value.parse().expect("a size in bytes"),
            "origin" => entry.origin = value,
            "licence" => entry.licence = value,
            _ => {}
        }
    }
    listed
}

fn collect(folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            let name = path.strip_prefix(root().join("fixtures")).expect("below fixtures");
            let name = name.to_string_lossy().replace('\\', "/");
            if name != "manifest.yaml" {
                found.insert(name, fs::read(&path).expect("a readable file"));
            }
        }
    }
}

#[test]
fn every_fixture_is_listed_with_its_size_and_digest() {
    let listed = manifest();
    let mut found = BTreeMap::new();
    collect(&root().join("fixtures"), &mut found);
    let names: Vec<_> = listed.keys().collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), names, "files on disk, files in the manifest");
    for (name, bytes) in &found {
        let entry = &listed[name];
        assert_eq!(bytes.len() as u64, entry.size, "size of {name}");
        let mut digest = String::new();
        for byte in Sha256::digest(bytes) {
            write!(digest, "{byte:02x}").expect("a string grows");
        }
        assert_eq!(digest, entry.sha256, "digest of {name}");
    }
}

#[test]
fn every_fixture_has_an_origin_a_licence_and_a_bearable_size() {
    for (name, entry) in manifest() {
        assert!(!entry.origin.is_empty() && !entry.licence.is_empty(), "{name}: where is it from?");
        assert!(entry.size <= BYTES_MAX, "{name} has {} bytes", entry.size);
    }
}
