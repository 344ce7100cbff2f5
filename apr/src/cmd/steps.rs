//! Lines on standard error that tell how far a command is.

use apr_harness::bench::Step;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Failure;
use crate::render::Terminal;

/// A line of `template` on standard error; hidden where none is wanted.
pub(super) fn line(terminal: &Terminal, template: &str) -> Result<ProgressBar, Failure> {
    let target =
        if terminal.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template);
    let style = style.map_err(|error| Failure::broken(format_args!("progress line: {error}")))?;
    Ok(ProgressBar::with_draw_target(None, target).with_style(style))
}

/// One line that is written over and gone in the end. It has no thread of its own: nothing is drawn while a sample is taken.
#[derive(Debug)]
pub(super) struct Steps(ProgressBar);

impl Steps {
    /// A line on a terminal, and nothing elsewhere.
    pub(super) fn new(terminal: &Terminal) -> Result<Self, Failure> {
        Ok(Self(line(terminal, "{elapsed_precise} {wide_msg}")?))
    }

    /// What comes next.
    pub(super) fn tell(&self, step: Step) {
        self.0.set_message(step.to_string());
        self.0.tick();
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
