//! Faults of the executable as its caller sees it.

use std::sync::Arc;

use super::library::{Fault, info};
use super::{FaultInfo, Plant};
use crate::subject::CommandOutput;

/// A fault of the executable as its caller sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Executable {
    info: FaultInfo,
    args: fn(&mut Vec<String>),
    output: fn(&mut CommandOutput),
}

impl Plant for Executable {
    fn id(&self) -> &str {
        self.info.id
    }

    fn mutate_args(&self, args: &mut Vec<String>) {
        (self.args)(args);
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

const fn executable(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    args: fn(&mut Vec<String>),
    output: fn(&mut CommandOutput),
) -> Executable {
    Executable { info: info(id, what, incidents), args, output }
}

/// Every fault of the executable.
pub(super) const ALL: &[Executable] = &[
    executable(
        "cli/exit-zero",
        "every call succeeds",
        &["FI-97"],
        |_| {},
        |output| output.code = Some(0),
    ),
    executable(
        "cli/exit-zero-garbage",
        "the answer holds a 4 inside another number",
        &["FI-106"],
        |_| {},
        |output| {
            output.code = Some(0);
            output.stdout = b"14 41\n".to_vec();
        },
    ),
    executable(
        "cli/silent",
        "nothing is printed",
        &["FI-53"],
        |_| {},
        |output| {
            output.stdout.clear();
            output.stderr.clear();
        },
    ),
    executable(
        "cli/noise",
        "debug lines are printed",
        &["FI-132"],
        |_| {},
        |output| {
            output.stdout.splice(0..0, *b"[DEBUG] layer 0 took 3 ms\n");
            output.stderr.splice(0..0, *b"[DEBUG] layer 0 took 3 ms\n");
        },
    ),
    executable(
        "cli/json-broken",
        "JSON is cut off",
        &["FI-128"],
        |_| {},
        |output| {
            let half = output.stdout.len() / 2;
            output.stdout.truncate(half);
        },
    ),
    executable(
        "cli/panic",
        "the program panics",
        &["FI-136"],
        |_| {},
        |output| {
            output.code = Some(101);
            output.stderr = b"thread 'main' panicked at src/main.rs:1:1".to_vec();
        },
    ),
    executable(
        "cli/limit-dropped",
        "numeric limits are ignored",
        &["FI-95"],
        |args| {
            for name in ["-n", "--context"] {
                if let Some(place) = args.iter().position(|arg| arg == name) {
                    args.drain(place..(place + 2).min(args.len()));
                }
            }
        },
        |_| {},
    ),
];
