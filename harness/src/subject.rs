//! What is judged: running models, and the `apr` executable as a child process.

mod command;

pub use apr_engine::model::{Lm, LogitRows, Want};
pub use command::{Call, CommandOutput, Limits, run_call};
pub(crate) use command::{ending, kill_group, start};
