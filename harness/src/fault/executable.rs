//! Faults of the executable as its caller sees it.

use std::sync::Arc;
use std::time::Duration;

use regex::{NoExpand, Regex};

use super::library::{Fault, info};
use super::{FaultInfo, Plant};
use crate::subject::{Call, CommandOutput};

/// A fault of the executable as its caller sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Executable {
    info: FaultInfo,
    call: fn(&mut Call),
    output: fn(&mut CommandOutput),
}

impl Plant for Executable {
    fn id(&self) -> &str {
        self.info.id
    }

    fn mutate_call(&self, call: &mut Call) {
        (self.call)(call);
    }

    fn mutate_output(&self, output: &mut CommandOutput) {
        (self.output)(output);
    }
}

impl From<Executable> for Fault {
    fn from(fault: Executable) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

/// A program that does something else than it says.
const fn output(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    output: fn(&mut CommandOutput),
) -> Executable {
    Executable { info: info(id, what, incidents), call: |_| {}, output }
}

/// A program that hears something else than it is told.
const fn call(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    call: fn(&mut Call),
) -> Executable {
    Executable { info: info(id, what, incidents), call, output: |_| {} }
}

/// A trace on standard error in which every `pattern` reads `with`. What its texts hold is JSON inside JSON.
fn retold(output: &mut CommandOutput, pattern: &str, with: &str) {
    if let Ok(pattern) = Regex::new(pattern) {
        let text = output.stderr_text();
        output.stderr = pattern.replace_all(&text, NoExpand(with)).into_owned().into_bytes();
    }
}

/// What a program that takes too much memory leaves of its limit: too little to begin with.
const LEFT_BYTES: u64 = 512 << 10;

/// Every fault of the executable.
pub(super) const ALL: &[Executable] = &[
    output("cli/exit-zero", "every call succeeds", &["FI-97"], |output| output.code = Some(0)),
    output("cli/exit-one", "every call fails", &["FI-105"], |output| output.code = Some(1)),
    output(
        "cli/exit-zero-garbage",
        "the answer holds a 4 inside another number",
        &["FI-106"],
        |output| {
            output.code = Some(0);
            output.stdout = b"14 41\n".to_vec();
        },
    ),
    output("cli/silent", "nothing is printed", &["FI-53"], |output| {
        output.stdout.clear();
        output.stderr.clear();
    }),
    output("cli/noise", "debug lines are printed", &["FI-132"], |output| {
        output.stdout.splice(0..0, *b"[DEBUG] layer 0 took 3 ms\n");
        output.stderr.splice(0..0, *b"[DEBUG] layer 0 took 3 ms\n");
    }),
    output("cli/chatter", "progress is printed on standard error", &["FI-132"], |output| {
        output.stderr.splice(0..0, *b"loading...\n");
    }),
    output("cli/streams-swapped", "results go to standard error", &["FI-132"], |output| {
        std::mem::swap(&mut output.stdout, &mut output.stderr);
    }),
    output("cli/error-vague", "errors do not say what is wrong", &["FI-129"], |output| {
        output.stderr = b"error: something went wrong\n".to_vec();
    }),
    output("cli/json-broken", "JSON is cut off", &["FI-128"], |output| {
        let half = output.stdout.len() / 2;
        output.stdout.truncate(half);
    }),
    output("cli/json-empty", "the JSON value has no field", &["FI-128"], |output| {
        output.stdout = b"{}\n".to_vec();
    }),
    output("cli/json-trailing", "a line follows the JSON value", &["FI-132"], |output| {
        output.stdout.extend(b"done in 3 ms\n");
    }),
    output("cli/panic", "the program panics", &["FI-136"], |output| {
        output.code = Some(101);
        output.stderr = b"thread 'main' panicked at src/main.rs:1:1".to_vec();
    }),
    output("cli/slow", "every call computes a second longer", &["FI-137"], |output| {
        let longer = output.cost() + Duration::from_secs(1);
        output.cpu = Some(longer);
    }),
    output("trace/event-lost", "an event of a trace is lost", &["FI-128"], |output| {
        let text = output.stderr_text();
        let kept = text.lines().enumerate().filter(|(line, _)| *line != 5).map(|(_, text)| text);
        output.stderr = kept.collect::<Vec<_>>().join("\n").into_bytes();
    }),
    output("trace/model-unnamed", "a trace tells of another model", &["FI-128"], |output| {
        retold(output, r#"\\"hiddenSize\\":\d+"#, r#"\"hiddenSize\":1"#);
    }),
    output("trace/means-typed", "means are typed in, not measured", &["FI-128"], |output| {
        retold(output, r#"\\"mean\\":[^,]+"#, r#"\"mean\":0.5"#);
    }),
    output("trace/attention-open", "attention is told before softmax", &["FI-128"], |output| {
        retold(output, r#"\\"sum\\":[^,]+"#, r#"\"sum\":7.5"#);
    }),
    output("trace/rank-typed", "ranks are typed in, not counted", &["FI-128"], |output| {
        retold(output, r#"\\"rank\\":\d+"#, r#"\"rank\":3"#);
    }),
    output("trace/cache-stuck", "the cache is told to hold one position", &["FI-128"], |output| {
        retold(output, r#"\\"size\\":\d+"#, r#"\"size\":1"#);
    }),
    output("trace/error-hidden", "no product has an error", &["FI-128"], |output| {
        retold(output, r#"\\"outputs\\":\d+"#, r#"\"outputs\":0"#);
    }),
    output("trace/list-endless", "a list is told as a whole", &["FI-128"], |output| {
        let long = format!(r#"\"first\":[{}"#, "0,".repeat(400));
        retold(output, r#"\\"first\\":\["#, &long);
    }),
    call("cli/hungry", "memory is taken before anything is read", &["FI-85"], |call| {
        call.limits.memory = call.limits.memory.map(|limit| limit.min(LEFT_BYTES));
    }),
    call("cli/interrupt-lost", "an interrupt is not heard", &["FI-133"], |call| {
        call.interrupt = false;
    }),
    call("cli/input-lost", "standard input is not read", &["FI-122"], |call| call.stdin.clear()),
    call("cli/raw-dropped", "raw text is put into the chat template", &["FI-95"], |call| {
        call.args.retain(|arg| arg != "--raw");
    }),
    call("cli/contract-skipped", "no model is looked at before it is used", &["FI-42"], |call| {
        call.args.push("--skip-contract".into());
    }),
    call("cli/skip-unheard", "--skip-contract is not heard", &["FI-95"], |call| {
        call.args.retain(|arg| arg != "--skip-contract");
    }),
    call("cli/verbose-dropped", "nothing is told of the run", &["FI-95"], |call| {
        call.args.retain(|arg| arg != "--verbose");
    }),
    call("cli/backend-ignored", "another backend computes than was named", &["FI-131"], |call| {
        let names = call.args.iter_mut().skip_while(|arg| *arg != "--backend").skip(1);
        for name in names.take(1) {
            let other = if name == "scalar" { "simd" } else { "scalar" };
            other.clone_into(name);
        }
    }),
    call("cli/value-replaced", "a value out of range is replaced", &["FI-95"], |call| {
        call.args.retain(|arg| !arg.starts_with("--temperature=-"));
    }),
    call("cli/limit-dropped", "numeric limits are ignored", &["FI-95"], |call| {
        for name in ["-n", "--context"] {
            if let Some(place) = call.args.iter().position(|arg| arg == name) {
                call.args.drain(place..(place + 2).min(call.args.len()));
            }
        }
    }),
];
