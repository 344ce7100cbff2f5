//! The program under test: started as a user starts it, in the root of the workspace, with a limit on its time.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use assert_cmd::Command;

/// Far beyond what any command here needs: a hang ends as a failed test.
const LIMIT: Duration = Duration::from_mins(2);

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace root").to_path_buf()
}

/// `apr` with these arguments, free of what the caller's terminal says.
pub(crate) fn apr(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apr"));
    command.args(arguments).current_dir(root()).timeout(LIMIT);
    command.env_remove("COLUMNS").env_remove("NO_COLOR").write_stdin("");
    command
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let run = Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("UTF-8 on standard output"),
            err: String::from_utf8(output.stderr).expect("UTF-8 on standard error"),
        };
        assert!(!run.err.contains("panicked"), "{}", run.err);
        run
    }
}

/// Runs `apr` to its end.
pub(crate) fn run(arguments: &[&str]) -> Run {
    apr(arguments).output().expect("apr starts and ends in time").into()
}

/// Standard output of a run that must succeed.
pub(crate) fn output(arguments: &[&str]) -> String {
    let run = run(arguments);
    assert_eq!(run.code, 0, "apr {}: {}", arguments.join(" "), run.err);
    run.out
}
