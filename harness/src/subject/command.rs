//! A child process with captured output and a time limit.

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest captured output of one stream, in bytes; the rest is read and dropped.
const CAPTURE_BYTES_MAX: u64 = 16 << 20;

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(2);

/// What a child process did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// Exit code; `None` when a signal or the time limit ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Wall time, to the resolution of the poll.
    pub waited: Duration,
}

impl CommandOutput {
    /// Standard output as text, with replacement characters for what is not UTF-8.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text, likewise.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// How it ended, for a person.
    pub fn ending(&self) -> String {
        match (self.timed_out, self.code, self.signal) {
            (true, ..) => format!("hung: killed after {:.1} s", self.waited.as_secs_f64()),
            (_, Some(code), _) => format!("exit code {code}"),
            (_, None, Some(signal)) => format!("killed by signal {signal}"),
            (_, None, None) => "ended without a code".into(),
        }
    }
}

/// What a child process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall time after which its process group is killed.
    pub time: Duration,
    /// Bytes of address space, where the system can limit it.
    pub memory: Option<u64>,
}

/// Runs `program` without a limit of memory; see [`run_limited`].
///
/// # Errors
/// As [`run_limited`].
pub fn run_command(
    program: &Path,
    args: &[String],
    stdin: &[u8],
    directory: &Path,
    limit: Duration,
) -> std::io::Result<CommandOutput> {
    run_limited(program, args, stdin, directory, Limits { time: limit, memory: None })
}

/// Runs `program` with `args` and `stdin` in `directory`, in a process group of its own that is killed when its time is over.
///
/// # Errors
/// When the process cannot be started or waited for.
pub fn run_limited(
    program: &Path,
    args: &[String],
    stdin: &[u8],
    directory: &Path,
    limits: Limits,
) -> std::io::Result<CommandOutput> {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    limit_memory(&child, limits.memory);
    let input = child.stdin.take();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let stdout = scope.spawn(move || drain(out));
        let stderr = scope.spawn(move || drain(err));
        scope.spawn(move || {
            // A child that does not read its input closes the pipe: that is its right.
            input.map(|mut input| input.write_all(stdin))
        });
        let (status, waited) = wait(&mut child, limits.time)?;
        let mut output =
            CommandOutput { waited, timed_out: status.is_none(), ..Default::default() };
        if let Some(status) = status {
            output.code = status.code();
            output.signal = signal(status);
        }
        output.stdout = stdout.join().unwrap_or_default();
        output.stderr = stderr.join().unwrap_or_default();
        Ok(output)
    })
}

/// Bounds the address space of a child that has just been started: before it has opened anything.
#[cfg(target_os = "linux")]
fn limit_memory(child: &Child, memory: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    if let (Some(bytes), Some(pid)) = (memory, Pid::from_raw(child.id() as i32)) {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // A child that is gone already needs no limit.
        let _gone = prlimit(Some(pid), Resource::As, limit);
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_memory(_: &Child, _: Option<u64>) {}

/// Waits up to `limit`; no status when the child had to be killed.
#[expect(clippy::disallowed_methods, reason = "a time limit needs a clock")]
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<(Option<ExitStatus>, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((Some(status), start.elapsed()));
        }
        if start.elapsed() >= limit {
            kill_group(child);
            child.wait()?;
            return Ok((None, start.elapsed()));
        }
        std::thread::sleep(POLL);
    }
}

/// Kills the child and whatever it started.
fn kill_group(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
        // The group may be gone already, which is what was wanted.
        let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _gone = child.kill();
}

fn drain(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before an error is the output that was seen.
        let _seen = stream.by_ref().take(CAPTURE_BYTES_MAX).read_to_end(&mut bytes);
        let _dropped = std::io::copy(&mut stream, &mut std::io::sink());
    }
    bytes
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, stdin: &[u8], limit: Duration) -> CommandOutput {
        let args = ["-c".to_owned(), script.to_owned()];
        run_command(Path::new("/bin/sh"), &args, stdin, &std::env::temp_dir(), limit).expect("sh")
    }

    #[test]
    fn output_code_and_input_pass_through() {
        let output = shell("cat; echo no >&2; exit 3", b"yes", Duration::from_secs(20));
        assert_eq!(output.code, Some(3));
        assert_eq!((output.stdout_text().as_str(), output.stderr_text().as_str()), ("yes", "no\n"));
        assert!(!output.timed_out);
    }

    #[test]
    fn a_hanging_child_and_its_children_are_killed() {
        let output = shell("cat /dev/zero > /dev/null & wait", b"", Duration::from_millis(50));
        assert!(output.timed_out);
        assert_eq!(output.code, None);
        assert!(output.ending().starts_with("hung"), "{}", output.ending());
    }

    #[test]
    fn a_signal_is_reported_as_one() {
        let output = shell("kill -SEGV $$", b"", Duration::from_secs(20));
        assert_eq!(output.signal, Some(11));
    }

    #[test]
    fn a_child_that_ignores_its_input_is_no_error() {
        let output = shell("exit 0", &vec![b'x'; 1 << 20], Duration::from_secs(20));
        assert_eq!(output.code, Some(0));
    }
}
