//! Opens model files: one `open`, one `fstat`, regular files only, then a read-only mapping.
//!
//! With [`guard`] the only `unsafe` code of `format`. It knows nothing of formats.
//!
//! A mapping is as mutable as the file behind it. Nothing in this crate writes to a mapped file: writers go
//! through a temporary file and a rename. [`MappedFile::check_unchanged`] tells whether someone else did, [`guard`] keeps
//! the process alive when someone cut the file short.

#![expect(unsafe_code, reason = "a file mapping is unsafe by nature")]

pub mod guard;

use std::fs::{File, Metadata, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::Mmap;

use crate::error::{Code, Error, Result};
use crate::tensor::Bytes;

/// A mapping and its entry in the table of the guard.
#[derive(Debug)]
struct Mapping {
    /// Dropped first: an entry never names addresses that belong to someone else.
    _guarded: guard::Guarded,
    map: Mmap,
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Mapping {
    fn release_pages(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the mapping is of a file, shared with its page cache and never written to: pages that are dropped
            // here hold the same bytes when they are read again.
            let advised = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // Memory that stays in use is no error.
            drop(advised);
        }
    }
}

/// A regular file, mapped read-only, with what was known of it when it was opened.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    len: u64,
    modified: Option<SystemTime>,
    mapping: Option<Arc<Mapping>>,
    bytes: Bytes,
}

impl MappedFile {
    /// Opens and maps the regular file at `path`; symbolic links are followed.
    ///
    /// # Errors
    /// [`Code::Io`] when the system refuses, [`Code::NotRegularFile`] for directories, pipes, sockets and
    /// devices; none of them blocks.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, metadata) = open_regular(path)?;
        let len = metadata.len();
        let mapping = if len == 0 {
            // Mapping nothing is an error of the system; an empty file is an error of the parser.
            None
        } else {
            // SAFETY: the mapping is read-only and private to this process. Other processes could change the
            // file; every size taken from it is checked on the bytes as they are read, bytes are never
            // interpreted as types with invalid bit patterns, and `check_unchanged` reports such a change.
            let map = unsafe { Mmap::map(&file) }.map_err(|error| io_error(path, &error))?;
            Some(Arc::new(Mapping { _guarded: guard::Guarded::new(path, &map), map }))
        };
        let bytes = match &mapping {
            Some(mapping) => Bytes::new(Arc::clone(mapping) as Arc<_>),
            None => Bytes::from(Vec::new()),
        };
        let modified = metadata.modified().ok();
        Ok(Self { path: path.to_path_buf(), file, len, modified, mapping, bytes })
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the file; clones keep the mapping alive.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Lets the system take back the memory that holds pages of this file; they are read again when needed.
    pub fn release_pages(&self) {
        if let Some(mapping) = &self.mapping {
            mapping.release_pages();
        }
    }

    /// Compares length and modification time of the still open file with those at opening.
    ///
    /// # Errors
    /// [`Code::FileChanged`] when one differs, [`Code::Io`] when the system refuses to tell.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|error| io_error(&self.path, &error))?;
        if now.len() == self.len && now.modified().ok() == self.modified {
            return Ok(());
        }
        Err(Error::new(Code::FileChanged)
            .expected(format_args!("{} bytes, unmodified", self.len))
            .found(format_args!("{} bytes", now.len()))
            .hint("do not write to a model file while it is in use; write a copy and rename it")
            .in_file(&self.path))
    }
}

/// Reads a whole regular file of at most `limit` bytes.
///
/// # Errors
/// As [`MappedFile::open`], and [`Code::LimitExceeded`] for a longer file.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let (file, metadata) = open_regular(path)?;
    let too_long = |len: u64| {
        Error::new(Code::LimitExceeded)
            .expected(format_args!("at most {limit} bytes"))
            .found(format_args!("{len} bytes"))
            .in_file(path)
    };
    if metadata.len() > limit {
        return Err(too_long(metadata.len()));
    }
    let mut bytes = Vec::new();
    // A file can grow while it is read: the limit holds for what is read, not for what was promised.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| io_error(path, &error))?;
    if bytes.len() as u64 > limit { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Opens `path` without ever blocking and makes sure that it is a regular file.
fn open_regular(path: &Path) -> Result<(File, Metadata)> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Opening a pipe without a writer would wait for one.
        options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    }
    let file = options.open(path).map_err(|error| io_error(path, &error))?;
    let metadata = file.metadata().map_err(|error| io_error(path, &error))?;
    if metadata.is_file() {
        return Ok((file, metadata));
    }
    let found = if metadata.is_dir() { "a directory" } else { "a pipe, socket or device" };
    Err(Error::new(Code::NotRegularFile).expected("a regular file").found(found).in_file(path))
}

/// An [`Code::Io`] error that keeps the words of the system.
pub(super) fn io_error(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::Io).found(error).in_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_directory_and_a_device_are_refused_without_blocking() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(MappedFile::open(directory.path()).unwrap_err().code(), Code::NotRegularFile);
        let device = MappedFile::open(Path::new("/dev/null")).unwrap_err();
        assert_eq!(device.code(), Code::NotRegularFile);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_without_a_writer_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert_eq!(MappedFile::open(&path).unwrap_err().code(), Code::NotRegularFile);
    }

    #[test]
    fn a_missing_file_is_an_io_error_that_names_it() {
        let error = MappedFile::open(Path::new("no-such-file.gguf")).unwrap_err();
        assert_eq!(error.code(), Code::Io);
        assert_eq!(error.file(), Some(Path::new("no-such-file.gguf")));
    }

    #[test]
    fn a_file_that_grew_is_reported_as_changed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        let mapped = MappedFile::open(file.path()).unwrap();
        assert_eq!(&**mapped.bytes(), b"abc");
        mapped.check_unchanged().unwrap();
        file.write_all(b"d").unwrap();
        assert_eq!(mapped.check_unchanged().unwrap_err().code(), Code::FileChanged);
    }

    #[test]
    fn a_small_file_above_its_limit_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        assert_eq!(read_small(file.path(), 3).unwrap(), b"abc");
        assert_eq!(read_small(file.path(), 2).unwrap_err().code(), Code::LimitExceeded);
    }
}
