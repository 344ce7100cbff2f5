//! A child process with captured output and a time limit.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// CPU time of all its threads, rounded up to the system's ticks: never less than it took. `None` where the system
    /// does not tell, and for a child that had to be killed.
    pub cpu: Option<Duration>,
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

    /// What it took: CPU time, in which other tenants of the machine have no part; wall time where the system tells no
    /// other.
    pub fn cost(&self) -> Duration {
        self.cpu.unwrap_or(self.waited)
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
    /// Bytes of private writable memory (heap, and mappings that are no file's), where the system can limit it. An
    /// allocation above it is refused. What a file is mapped to for reading is not in it.
    pub memory: Option<u64>,
}

/// A call of an executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Arguments.
    pub args: Vec<String>,
    /// What standard input says.
    pub stdin: Vec<u8>,
    /// Working directory.
    pub directory: PathBuf,
    /// What it may take.
    pub limits: Limits,
    /// Whether it is interrupted, as Ctrl-C does it, as soon as it has printed something.
    pub interrupt: bool,
}

impl Call {
    /// A call with `args` in `directory` that may take `time`, and as much memory as there is.
    pub fn new(args: Vec<String>, directory: &Path, time: Duration) -> Self {
        let limits = Limits { time, memory: None };
        Self { args, stdin: Vec::new(), directory: directory.into(), limits, interrupt: false }
    }
}

/// Makes `call` of `program`, in a process group of its own that is killed when its time is over.
///
/// # Errors
/// When the process cannot be started or waited for.
pub fn run_call(program: &Path, call: &Call) -> std::io::Result<CommandOutput> {
    let mut child = start(program, &call.args, &call.directory, call.limits.memory)?;
    let input = child.stdin.take();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let spoken = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        let stdout = scope.spawn(|| drain(out, &spoken));
        let stderr = scope.spawn(|| drain(err, &AtomicBool::new(false)));
        scope.spawn(move || {
            // A child that does not read its input closes the pipe: that is its right.
            input.map(|mut input| input.write_all(&call.stdin))
        });
        let mut output = wait(&mut child, call, &spoken)?;
        output.stdout = stdout.join().unwrap_or_default();
        output.stderr = stderr.join().unwrap_or_default();
        std::io::Result::Ok(output)
    })?;
    match output.code {
        Some(code) if call.limits.memory.is_some() && SHELL_REFUSED.contains(&code) => {
            Err(std::io::Error::other(output.stderr_text()))
        }
        _ => Ok(output),
    }
}

/// Starts `program` in a process group of its own, its three streams captured.
///
/// # Errors
/// When the process cannot be started.
pub(crate) fn start(
    program: &Path,
    args: &[String],
    directory: &Path,
    memory: Option<u64>,
) -> std::io::Result<Child> {
    let mut command = command(program, args, memory);
    command
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

/// Ends a child that has not been waited for, and what is in its process group.
pub(crate) fn kill_group(child: &mut Child) {
    signal_group(child, Ending::Kill);
    // Without process groups the child alone is killed. That it has ended already is no error.
    let _gone = child.kill();
}

/// How a process ended, for a person.
pub(crate) fn ending(status: ExitStatus) -> String {
    let (code, signal) = (status.code(), signal(status));
    CommandOutput { code, signal, ..CommandOutput::default() }.ending()
}

/// Exit codes of a shell that could not start what it was told to.
const SHELL_REFUSED: [i32; 2] = [126, 127];

/// The command. A limit of memory is set by a shell that then becomes the program: a limit that is set from outside on a child
/// that already runs comes too late on a busy machine.
#[cfg(unix)]
fn command(program: &Path, args: &[String], memory: Option<u64>) -> Command {
    let mut command = match memory {
        None => Command::new(program),
        Some(bytes) => {
            let mut shell = Command::new("/bin/sh");
            let script = format!("ulimit -d {} && exec \"$0\" \"$@\"", bytes >> 10);
            shell.arg("-c").arg(script).arg(program);
            shell
        }
    };
    command.args(args);
    command
}

#[cfg(not(unix))]
fn command(program: &Path, args: &[String], _: Option<u64>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Waits for the child, which has `spoken` or not, and says how it ended; its output is not read here.
#[expect(clippy::disallowed_methods, reason = "a time limit needs a clock")]
fn wait(child: &mut Child, call: &Call, spoken: &AtomicBool) -> std::io::Result<CommandOutput> {
    let start = Instant::now();
    let mut interrupt = call.interrupt;
    loop {
        if let Some((status, cpu)) = ended(child)? {
            let (code, signal) = (status.code(), signal(status));
            return Ok(CommandOutput {
                code,
                signal,
                cpu,
                waited: start.elapsed(),
                ..CommandOutput::default()
            });
        }
        if interrupt && spoken.load(Ordering::Relaxed) {
            // Nobody else waits for the child, so its id is still its own.
            signal_group(child, Ending::Interrupt);
            interrupt = false;
        }
        if start.elapsed() >= call.limits.time {
            kill_group(child);
            child.wait()?;
            let waited = start.elapsed();
            return Ok(CommandOutput { timed_out: true, waited, ..CommandOutput::default() });
        }
        std::thread::sleep(POLL);
    }
}

/// How the child ended and the CPU time it took, when it has ended. A dead child tells its time until it is waited for.
#[cfg(target_os = "linux")]
fn ended(child: &mut Child) -> std::io::Result<Option<(ExitStatus, Option<Duration>)>> {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let Some(pid) = Pid::from_raw(child.id() as i32) else {
        return Ok(child.try_wait()?.map(|status| (status, None)));
    };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if waitid(WaitId::Pid(pid), look)?.is_none() {
        return Ok(None);
    }
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
    let cpu = stat.ok().and_then(|stat| ticks(&stat)).map(|ticks| {
        // Each of the two counts is rounded down by less than a tick.
        Duration::from_secs(ticks + 2) / rustix::param::clock_ticks_per_second() as u32
    });
    Ok(Some((child.wait()?, cpu)))
}

#[cfg(not(target_os = "linux"))]
fn ended(child: &mut Child) -> std::io::Result<Option<(ExitStatus, Option<Duration>)>> {
    Ok(child.try_wait()?.map(|status| (status, None)))
}

/// User and system time in a line of `/proc/PID/stat` (proc(5)): the 14th and 15th field. The second field is a name in
/// parentheses, which may hold anything.
#[cfg(target_os = "linux")]
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let (user, system) = (times.next()?.parse::<u64>().ok()?, times.next()?.parse::<u64>().ok()?);
    user.checked_add(system)
}

/// How a child is asked to end.
#[derive(Clone, Copy)]
enum Ending {
    /// As Ctrl-C asks.
    Interrupt,
    /// At once.
    Kill,
}

/// Asks the child and whatever it started to end.
#[cfg(unix)]
fn signal_group(child: &Child, ending: Ending) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let signal = match ending {
        Ending::Interrupt => Signal::INT,
        Ending::Kill => Signal::KILL,
    };
    if let Some(group) = Pid::from_raw(child.id() as i32) {
        // The group may be gone already, which is what was wanted.
        let _gone = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn signal_group(_: &Child, _: Ending) {}

/// Reads a stream to its end; `spoken` is set at its first byte.
fn drain(stream: Option<impl Read>, spoken: &AtomicBool) -> Vec<u8> {
    let mut bytes = vec![0];
    let Some(mut stream) = stream else { return Vec::new() };
    let first = stream.read(&mut bytes).unwrap_or(0);
    bytes.truncate(first);
    spoken.store(first > 0, Ordering::Relaxed);
    // What was read before an error is the output that was seen.
    let _seen = stream.by_ref().take(CAPTURE_BYTES_MAX).read_to_end(&mut bytes);
    let _dropped = std::io::copy(&mut stream, &mut std::io::sink());
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

    /// A call of the shell with `script`.
    fn call(script: &str, time: Duration) -> Call {
        Call::new(vec!["-c".to_owned(), script.to_owned()], &std::env::temp_dir(), time)
    }

    fn run(call: &Call) -> CommandOutput {
        run_call(Path::new("/bin/sh"), call).expect("sh")
    }

    fn shell(script: &str, stdin: &[u8], time: Duration) -> CommandOutput {
        run(&Call { stdin: stdin.to_vec(), ..call(script, time) })
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

    fn limited(script: &str, memory: u64) -> CommandOutput {
        let mut call = call(script, Duration::from_mins(1));
        call.limits.memory = Some(memory);
        run(&call)
    }

    /// Doubles a text `rounds` times and prints its length.
    fn doubling(rounds: u32) -> String {
        let double = "text=$text$text;";
        format!("text=x; {} echo ${{#text}}", double.repeat(rounds as usize))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_child_computes_is_what_it_costs() {
        let idle = shell("exit 0", b"", Duration::from_mins(1));
        assert!(idle.cpu.is_some(), "this system tells the time");
        let counting = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let working = shell(counting, b"", Duration::from_mins(1));
        assert!(working.cpu > idle.cpu, "{:?} and {:?}", working.cpu, idle.cpu);
        assert_eq!(Some(working.cost()), working.cpu);
        // Killed before it could be asked: the wall is all there is.
        let killed = shell("cat /dev/zero > /dev/null", b"", Duration::from_millis(20));
        assert_eq!((killed.cpu, killed.cost()), (None, killed.waited));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "7 (a) b (c) Z 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) Z 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_gets_no_more_memory_than_its_limit() {
        let enough = limited(&doubling(22), 64 << 20);
        assert_eq!(enough.stdout_text(), "4194304\n", "{enough:?}");
        let starved = limited(&doubling(22), 4 << 20);
        assert!(starved.code != Some(0) && starved.stdout.is_empty(), "{starved:?}");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_with_and_without_a_limit() {
        for memory in [None, Some(64 << 20)] {
            let mut call = call("exit 0", Duration::from_secs(20));
            call.limits.memory = memory;
            assert!(run_call(Path::new("/nowhere/apr"), &call).is_err());
        }
    }

    #[test]
    fn a_child_that_ignores_its_input_is_no_error() {
        let output = shell("exit 0", &vec![b'x'; 1 << 20], Duration::from_secs(20));
        assert_eq!(output.code, Some(0));
    }

    #[test]
    fn a_child_that_prints_nothing_is_not_interrupted() {
        let silent = Call { interrupt: true, ..call("exit 5", Duration::from_mins(1)) };
        assert_eq!(run(&silent).code, Some(5));
    }
}
