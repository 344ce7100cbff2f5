//! The contracts and suites inside the executable, and the recordings that their gates want of any model.

use std::fs;
use std::io;

use tempfile::TempDir;

/// Path below the root and content of every carried file.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/carried.rs"));

/// The carried catalogue as a folder that lives as long as the value.
///
/// # Errors
/// When the folder for temporary files cannot be written.
pub(super) fn unpack() -> io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("apr-catalogue-").tempdir()?;
    for (name, content) in FILES {
        let path = folder.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
    }
    Ok(folder)
}
