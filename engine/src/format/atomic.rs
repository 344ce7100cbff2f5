//! Writes a file whole or not at all: temporary file in the same directory, fsync, rename.
//!
//! A reader that has the old file mapped keeps the old bytes, because the name is moved to a new file. A link keeps
//! leading where it led; a device or a pipe is written to, never replaced.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::mmap::{guard, io_error};
use crate::error::{Code, Error, Result};

/// Buffer of the writer, bytes.
const BUFFER: usize = 1 << 20;

/// Distinguishes temporary files of one process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Lets `fill` write a file and moves it to `path` when that succeeded; removes it otherwise. What is written to a device
/// or a pipe at `path` cannot be taken back.
///
/// # Errors
/// Those of `fill`, and [`crate::Code::Io`] when the system refuses.
pub fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    if Standing::at(path) == Standing::Special {
        return write_through(path, fill).map_err(|error| error.in_file(path));
    }
    write_checked(path, fill, |_, ()| Ok(()))
}

/// As [`write()`]; `check` sees the whole file, and what `fill` gave, before it gets its name.
///
/// # Errors
/// Those of `fill` and of `check`, and [`crate::Code::Io`] when the system refuses or when a device or a pipe, that nothing
/// can be read back from, stands at `path`.
pub fn write_checked<T, U>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<T>,
    check: impl FnOnce(&Path, T) -> Result<U>,
) -> Result<U> {
    Standing::at(path).refuse(Standing::Special, "a file", path)?;
    // Of a link, the file that it leads to is written.
    let end = std::fs::canonicalize(path);
    let path = end.as_deref().unwrap_or(path);
    let temporary = temporary_path(path);
    let written = fill_file(&temporary, fill).and_then(|filled| check(&temporary, filled));
    let written = written.and_then(|checked| {
        std::fs::rename(&temporary, path).map_err(|error| io_error(path, &error))?;
        Ok(checked)
    });
    if written.is_err() {
        // The first error is the one to report.
        drop(std::fs::remove_file(&temporary));
        return written.map_err(|error| error.in_file(path));
    }
    sync_directory(path);
    written
}

/// Lets `fill` write files into a new directory and moves it to `path` when that succeeded; removes it otherwise.
/// A directory that stands at `path` is replaced.
///
/// # Errors
/// Those of `fill`, and [`crate::Code::Io`] when the system refuses.
pub fn write_directory<T>(path: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    Standing::at(path).refuse(Standing::Special, "a directory", path)?;
    Standing::at(path).refuse(Standing::File, "a directory", path)?;
    let temporary = temporary_path(path);
    let written = std::fs::create_dir(&temporary)
        .map_err(|error| io_error(&temporary, &error))
        .and_then(|()| fill(&temporary))
        .and_then(|filled| replace_directory(&temporary, path).map(|()| filled));
    if written.is_err() {
        // The first error is the one to report.
        drop(std::fs::remove_dir_all(&temporary));
        return written.map_err(|error| error.in_file(path));
    }
    sync_directory(path);
    written
}

/// What stands at a path, or at the end of a link there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Nothing,
    File,
    Directory,
    /// A device, a pipe, a socket.
    Special,
}

impl Standing {
    fn at(path: &Path) -> Self {
        match path.metadata() {
            Ok(is) if is.is_file() => Self::File,
            Ok(is) if is.is_dir() => Self::Directory,
            Ok(_) => Self::Special,
            Err(_) => Self::Nothing,
        }
    }

    /// An error when this is `refused`.
    fn refuse(self, refused: Self, expected: &str, path: &Path) -> Result<()> {
        if self != refused {
            return Ok(());
        }
        let found = if refused == Self::File { "a file" } else { "a device or a pipe" };
        Err(Error::new(Code::Io)
            .expected(format_args!("{expected} to replace, or a free name"))
            .found(found)
            .in_file(path))
    }
}

/// Lets `fill` write into what stands at `path`.
fn write_through(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let io = |error: std::io::Error| io_error(path, &error);
    let file = OpenOptions::new().write(true).open(path).map_err(io)?;
    let mut writer = BufWriter::with_capacity(BUFFER, file);
    fill(&mut writer)?;
    guard::check()?;
    writer.flush().map_err(io)
}

/// Moves `new` to `path`. Directories cannot be exchanged in one step everywhere: the old one steps aside first, and
/// comes back when the new one cannot take its place.
fn replace_directory(new: &Path, path: &Path) -> Result<()> {
    let io = |error: std::io::Error| io_error(path, &error);
    if path.symlink_metadata().is_err() {
        return std::fs::rename(new, path).map_err(io);
    }
    let aside = temporary_path(path);
    std::fs::rename(path, &aside).map_err(io)?;
    if let Err(error) = std::fs::rename(new, path) {
        drop(std::fs::rename(&aside, path));
        return Err(io(error));
    }
    std::fs::remove_dir_all(&aside).map_err(|error| io_error(&aside, &error))
}

fn fill_file<T>(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<T>) -> Result<T> {
    let io = |error: std::io::Error| io_error(path, &error);
    let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(io)?;
    let mut writer = BufWriter::with_capacity(BUFFER, file);
    let filled = fill(&mut writer)?;
    // Bytes that a mapped source lost were read as zeros: they must not become a file.
    guard::check()?;
    writer.flush().map_err(io)?;
    writer.get_ref().sync_all().map_err(io)?;
    Ok(filled)
}

/// A name in the same directory that no other writer uses.
fn temporary_path(path: &Path) -> PathBuf {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{number}.partial", std::process::id()));
    path.with_file_name(name)
}

/// Makes the rename durable. Not every system can; the file itself is whole in any case.
fn sync_directory(path: &Path) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Ok(directory) = File::open(directory.unwrap_or(Path::new("."))) {
        drop(directory.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.apr");
        write(&path, |out| {
            out.write_all(b"old").unwrap();
            Ok(())
        })
        .unwrap();
        let error = write(&path, |out| {
            out.write_all(b"half of the new").unwrap();
            Err(Error::new(Code::DtypeUnsupported))
        })
        .unwrap_err();
        assert_eq!(error.code(), Code::DtypeUnsupported);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["model.apr"]);
    }

    #[test]
    fn a_file_that_fails_its_check_never_gets_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.apr");
        let check = |written: &Path, ()| {
            assert_eq!(std::fs::read(written).unwrap(), b"whole");
            Err::<(), _>(Error::new(Code::ConversionMismatch))
        };
        let fill = |out: &mut BufWriter<File>| {
            out.write_all(b"whole").unwrap();
            Ok(())
        };
        let error = write_checked(&path, fill, check).unwrap_err();
        assert_eq!(error.code(), Code::ConversionMismatch);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_directory_is_replaced_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        let fill = |content: &'static str, result: Result<()>| {
            move |folder: &Path| {
                std::fs::write(folder.join("config.json"), content).unwrap();
                result
            }
        };
        write_directory(&path, fill("old", Ok(()))).unwrap();
        let failed = write_directory(&path, fill("half", Err(Error::new(Code::NonFinite))));
        assert_eq!(failed.unwrap_err().code(), Code::NonFinite);
        assert_eq!(std::fs::read(path.join("config.json")).unwrap(), b"old");
        write_directory(&path, fill("new", Ok(()))).unwrap();
        assert_eq!(std::fs::read(path.join("config.json")).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["model"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_or_refused_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        // A link, so that the machine's own is safe from a mistake here.
        let path = directory.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let fill = |out: &mut BufWriter<File>| {
            out.write_all(b"gone").unwrap();
            Ok(())
        };
        write(&path, fill).unwrap();
        let refused = write_checked(&path, fill, |_, ()| Ok(())).unwrap_err();
        assert_eq!(refused.code(), Code::Io);
        let refused = write_directory(&path, |_| Ok(())).unwrap_err();
        assert_eq!(refused.code(), Code::Io);
        assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("/dev/null"));
        assert_eq!(names(directory.path()), ["null"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("model.apr"), directory.path().join("latest"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink("model.apr", &link).unwrap();
        write(&link, |out| {
            out.write_all(b"new").unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("model.apr"));
    }

    #[test]
    fn a_file_is_not_replaced_by_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        std::fs::write(&path, "old").unwrap();
        assert_eq!(write_directory(&path, |_| Ok(())).unwrap_err().code(), Code::Io);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["model"]);
    }

    #[test]
    fn a_missing_directory_is_an_io_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/model.apr");
        assert_eq!(write(&path, |_| Ok(())).unwrap_err().code(), Code::Io);
    }
}
