//! Our engine against llama.cpp: one process, the same files, the same threads, in turns, with compared answers.
//!
//! [`side`] is what both engines look like to the stopwatch, [`llama`] the other one of them; [`answers`] decides whether
//! speeds may be compared at all, [`turns`] orders the runs, [`measure`] is a whole contest and [`report`] what is told of it.

pub mod answers;
pub mod built;
pub mod elsewhere;
pub mod failure;
pub mod files;
pub mod limits;
pub mod llama;
pub mod measure;
pub mod quantize;
pub mod report;
pub mod side;
#[cfg(test)]
mod tests;
pub mod turns;
