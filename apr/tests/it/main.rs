//! Integration tests of the `apr` program and of the workspace as a whole.

mod bench;
mod check;
#[cfg(unix)]
mod conversion_limits;
mod conversions;
mod coverage;
mod dispatch;
mod errors;
mod fixtures;
mod help;
mod installed;
mod interop;
mod isolation;
mod mistyped;
mod parameters;
mod profile;
mod program;
mod rosetta;
mod schema;
mod score;
mod tidy;
mod trace;
