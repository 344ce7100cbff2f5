//! A tracer at work beside the run that it tells of.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::{Listener, Step, Tracer};

/// Steps that may wait to be told; then the run waits.
const STEPS_WAITING: usize = 8;

/// Runs `work`, while `tracer` tells on a thread of its own what the listener of `work` hears.
///
/// # Errors
/// When the thread cannot be started.
pub fn beside<R>(
    tracer: &mut Tracer<'_>,
    work: impl FnOnce(&mut dyn Listener) -> R,
) -> io::Result<R> {
    let (empty, room) = channel();
    for _ in 0..STEPS_WAITING {
        // Its other end is in the next line but one.
        drop(empty.send(tracer.blank()));
    }
    let (steps, recorded) = sync_channel(STEPS_WAITING);
    thread::scope(|scope| {
        let teller = thread::Builder::new()
            .name("trace".to_owned())
            .spawn_scoped(scope, move || tell(tracer, &recorded, &empty))?;
        let result = work(&mut Relay { steps, room });
        teller.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        Ok(result)
    })
}

/// Tells what was recorded, until nothing will be any more.
fn tell(tracer: &mut Tracer<'_>, recorded: &Receiver<Step>, empty: &Sender<Step>) {
    for step in recorded {
        tracer.tell(&step);
        // A run that is over needs no more room.
        drop(empty.send(step));
    }
}

/// Carries steps to a tracer, and their room back.
struct Relay {
    steps: SyncSender<Step>,
    room: Receiver<Step>,
}

impl Listener for Relay {
    fn room(&mut self) -> io::Result<Step> {
        self.room.recv().map_err(|_| gone())
    }

    fn hear(&mut self, step: Step) -> io::Result<()> {
        self.steps.send(step).map_err(|_| gone())
    }
}

/// Why it is gone is told where the thread is joined.
fn gone() -> io::Error {
    io::Error::other("the tracer is gone")
}
