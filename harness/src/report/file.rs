//! Report files: complete or absent, never half.
//!
//! A report is written beside its place, synced, renamed onto it, and the directory synced: a reader sees the old
//! report or the new one. A symbolic link at the place is replaced, not followed. What can be known before the
//! run (a missing directory, a missing right, a directory in the way) is found by [`ReportFile::prepare`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Format;
use crate::event::{Event, Sink};

/// A sink that writes one report when the run ends.
#[derive(Clone, Debug)]
pub struct ReportFile {
    format: Format,
    path: PathBuf,
}

impl ReportFile {
    /// Checks that a report can be written to `path`, before anything runs.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be written, or when `path` is a directory, a FIFO or a socket.
    pub fn prepare(format: Format, path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        check_place(&path).map_err(|error| name_path(&path, &error))?;
        Ok(Self { format, path })
    }

    /// Where the report goes.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Sink for ReportFile {
    fn on(&mut self, event: &Event<'_>) -> io::Result<()> {
        let Event::Finished(record) = event else { return Ok(()) };
        write_atomically(&self.path, self.format.render(record)?.as_bytes())
    }
}

/// Writes `bytes` to `path` so that a reader at any moment, also after a crash, sees the old file or the new one.
///
/// # Errors
/// The system's, naming the path and the number of bytes; the old file is then intact and no temporary file is left.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let place = place(path);
    let written = match place {
        Ok(Place::Device) => File::options().write(true).open(path).and_then(|mut device| {
            device.write_all(bytes)?;
            device.flush()
        }),
        Ok(Place::File) => replace(path, bytes),
        Err(error) => Err(error),
    };
    written.map_err(|error| {
        let needed = format!("{error} (writing {} bytes)", bytes.len());
        name_path(path, &io::Error::new(error.kind(), needed))
    })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = directory_of(path);
    let mut file = NamedTempFile::with_prefix_in(".apr-report-", directory)?;
    file.write_all(bytes)?;
    share(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Temporary files are private to their owner; a report is as readable as the file it stands for usually is.
#[cfg(unix)]
fn share(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be opened for syncing; the rename itself is atomic.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

enum Place {
    /// A regular file, a symbolic link, or nothing yet: replaced by rename.
    File,
    /// A character device such as `/dev/null`: written to.
    Device,
}

fn place(path: &Path) -> io::Result<Place> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::File),
        Err(error) => return Err(error),
    };
    if kind.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "the place of the report is a directory",
        ));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_char_device() {
            return Ok(Place::Device);
        }
        if kind.is_fifo() || kind.is_socket() || kind.is_block_device() {
            let message = "the place of the report is neither a file nor a character device";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    }
    Ok(Place::File)
}

/// Tries what the end of the run will do, and undoes it.
fn check_place(path: &Path) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    }
    match place(path)? {
        Place::Device => File::options().write(true).open(path).map(drop),
        Place::File => NamedTempFile::with_prefix_in(".apr-report-", directory_of(path))?.close(),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn name_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("report {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_report_replaces_the_old_one_and_leaves_no_temporary_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("report.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(home.path()), ["report.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let (target, path) = (home.path().join("precious"), home.path().join("report.json"));
        fs::write(&target, b"precious").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        write_atomically(&path, b"report").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[cfg(unix)]
    #[test]
    fn a_dangling_link_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("report.json");
        std::os::unix::fs::symlink(home.path().join("nowhere"), &path).unwrap();
        write_atomically(&path, b"report").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"report");
        assert_eq!(names(home.path()), ["report.json"]);
    }

    #[test]
    fn a_directory_in_the_way_is_found_before_the_run() {
        let home = tempfile::tempdir().unwrap();
        let error = ReportFile::prepare(Format::Json, home.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_missing_directory_is_found_before_the_run_and_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("missing/report.json");
        let error = ReportFile::prepare(Format::Json, &path).unwrap_err();
        assert!(error.to_string().contains("missing/report.json"), "{error}");
    }

    #[test]
    fn a_file_where_a_directory_should_be_is_found_before_the_run() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), b"").unwrap();
        assert!(ReportFile::prepare(Format::Json, home.path().join("file/report.json")).is_err());
    }

    #[test]
    fn preparing_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("report.json");
        fs::write(&path, b"old").unwrap();
        ReportFile::prepare(Format::Json, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(home.path()), ["report.json"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_an_error_that_names_path_and_bytes() {
        let error = write_atomically(Path::new("/dev/full"), b"report").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/dev/full") && text.contains("6 bytes"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_null_device_takes_a_report() {
        let sink = ReportFile::prepare(Format::Json, "/dev/null").unwrap();
        assert!(write_atomically(sink.path(), b"report").is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_is_refused_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = ReportFile::prepare(Format::Json, &path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
