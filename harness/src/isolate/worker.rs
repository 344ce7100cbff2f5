//! The worker's side: cases in, verdicts out, until the input ends.

use std::io::{self, BufRead, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Answer, Request, Setup};
use crate::judge::{self, JudgeContext, Planned};
use crate::runner::panic_message;
use crate::score::EXIT_BROKEN;
use crate::verdict::Verdict;

/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 16 << 20;

/// Reads a [`Setup`] and then cases from `input`, and writes a verdict to `output` for each, in whatever order they are
/// reached: every case has a thread, and how many there are at a time is the parent's affair.
///
/// `context` builds the judge's context. Returns the exit code of the process as soon as the input ends, whatever is
/// still being judged; on [`EXIT_BROKEN`] the reason stands in `errors`.
///
/// # Errors
/// When `output` or `errors` cannot be written.
pub fn serve(
    mut input: impl BufRead,
    output: impl Write + Send + 'static,
    mut errors: impl Write,
    context: impl FnOnce(&Setup) -> Result<JudgeContext, String>,
) -> io::Result<u8> {
    let set_up = || -> Result<JudgeContext, String> {
        let line = line(&mut input)?.ok_or("the parent said nothing")?;
        let setup: Setup = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
        let mut ctx = context(&setup)?;
        ctx.forms = setup.forms;
        Ok(ctx)
    };
    let ctx = match set_up() {
        Ok(ctx) => Arc::new(ctx),
        Err(error) => {
            writeln!(errors, "{error}")?;
            return Ok(EXIT_BROKEN);
        }
    };
    let output = Arc::new(Mutex::new(output));
    say(&output, &Answer::Ready)?;
    loop {
        let request = match line(&mut input) {
            Ok(Some(line)) => serde_json::from_slice::<Request>(&line).map_err(|e| e.to_string()),
            Ok(None) => return Ok(0),
            Err(error) => Err(error),
        };
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                writeln!(errors, "the case cannot be read: {error}")?;
                return Ok(EXIT_BROKEN);
            }
        };
        let (ctx, output) = (Arc::clone(&ctx), Arc::clone(&output));
        std::thread::spawn(move || {
            let answer = Answer::Judged(request.id, judged(request, &ctx));
            // A parent that does not listen any more has closed the input, too.
            let _unheard = say(&output, &answer);
        });
    }
}

/// One line without its end; `None` at the end of the input.
fn line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let read = input.take(LINE_MAX).read_until(b'\n', &mut line);
    match read.map_err(|error| error.to_string())? {
        0 => Ok(None),
        _ if line.pop_if(|last| *last == b'\n').is_none() => Err("a line without an end".into()),
        _ => Ok(Some(line)),
    }
}

fn judged(request: Request, ctx: &JudgeContext) -> Verdict {
    let case = Planned { info: request.case, gate: Arc::new(request.gate), facts: None };
    catch_unwind(AssertUnwindSafe(|| judge::run(&case, ctx))).unwrap_or_else(|panic| {
        Verdict::broken(format!("the judge panicked: {}", panic_message(&*panic)))
    })
}

/// Writes one line as a whole.
fn say(output: &Mutex<impl Write>, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    output.write_all(&line)?;
    output.flush()
}
