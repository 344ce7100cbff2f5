//! Ctrl-C: the first one asks the command to finish cleanly, the second one ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;
use crate::failure::Failure;

/// Whether the user asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Installs the handler.
    ///
    /// # Errors
    /// When the system refuses a signal handler.
    pub(crate) fn install() -> Result<Self, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&flag);
        ctrlc::set_handler(move || {
            if seen.swap(true, Ordering::SeqCst) {
                second();
            }
        })
        .map_err(|error| Failure::broken(format_args!("signal handler: {error}")))?;
        Ok(Self(flag))
    }

    /// Whether the first Ctrl-C was seen.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// The flag itself, for the runner.
    pub(crate) fn shared(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

#[expect(clippy::exit, reason = "the second Ctrl-C must end the process at once")]
fn second() {
    std::process::exit(i32::from(u8::from(Exit::Interrupted)));
}
