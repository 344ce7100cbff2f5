//! One file per command: typed options in, library calls, a rendering out.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod convert;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod manual;
pub(crate) mod profile;
pub(crate) mod qa;
pub(crate) mod report;
pub(crate) mod rosetta;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod score;
mod steps;
pub(crate) mod tensors;
pub(crate) mod trace;
pub(crate) mod validate;
