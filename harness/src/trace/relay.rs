//! A tracer at work beside the run that it tells of.
//!
//! Waking a thread for every token of a small model would cost more than the token, so steps are collected, as many as the
//! caches hold, and told in one go. Their room comes back: fresh memory would cost more than what is written into it.

use std::io;
use std::mem;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::{Listener, Step, Tracer};

/// Bytes of steps that are told in one go; there may be three times as many at once: collected, waiting, and being told.
const COLLECTED_BYTES: usize = 2 << 20;

/// Runs `work`, while `tracer` tells on a thread of its own what the listener of `work` hears.
///
/// # Errors
/// When the thread cannot be started.
pub fn beside<R>(
    tracer: &mut Tracer<'_>,
    work: impl FnOnce(&mut dyn Listener) -> R,
) -> io::Result<R> {
    let blank = tracer.blank();
    let (told, room) = channel();
    let (steps, recorded) = sync_channel(1);
    thread::scope(|scope| {
        let teller = thread::Builder::new()
            .name("trace".to_owned())
            .spawn_scoped(scope, move || tell(tracer, &recorded, &told))?;
        let mut relay = Relay { blank, bytes: 0, collected: Vec::new(), steps, room };
        let result = work(&mut relay);
        drop(relay);
        teller.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        Ok(result)
    })
}

/// Tells what was recorded, until nothing will be any more.
fn tell(tracer: &mut Tracer<'_>, recorded: &Receiver<Vec<Step>>, told: &Sender<Step>) {
    for step in recorded.iter().flatten() {
        tracer.tell(&step);
        // A run that is over needs no more room.
        drop(told.send(step));
    }
}

/// Carries steps to a tracer, and their room back. What is left goes when this is dropped.
struct Relay {
    blank: Step,
    /// Of what is collected.
    bytes: usize,
    collected: Vec<Step>,
    steps: SyncSender<Vec<Step>>,
    room: Receiver<Step>,
}

impl Listener for Relay {
    fn room(&mut self) -> io::Result<Step> {
        Ok(self.room.try_recv().unwrap_or_else(|_| self.blank.another()))
    }

    fn hear(&mut self, step: Step) -> io::Result<()> {
        self.blank.grow_to(&step);
        self.bytes += step.bytes();
        self.collected.push(step);
        if self.bytes < COLLECTED_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        // Why it is gone is told where the thread is joined.
        let gone = |_| io::Error::other("the tracer is gone");
        self.steps.send(mem::take(&mut self.collected)).map_err(gone)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A tracer that is gone has an error of its own to tell.
        drop(self.steps.send(mem::take(&mut self.collected)));
    }
}
