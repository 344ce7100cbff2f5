//! Planted faults: the defects that prove a gate can go red.
//!
//! A fault is data with one [`Plant`] behind it. A plant overrides the seams it needs and leaves the others alone; a
//! plant that overrides nothing is the no-op that every gate must survive.

pub mod engine;
mod executable;
pub mod file;
mod fixture;
mod generation;
mod harness;
pub mod library;
mod process;
mod sampler;
mod surgery;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use apr_engine::generate::{GenerateOptions, Generation};
use apr_engine::model::{LmOptions, Model};
use apr_engine::probe::Op;

use crate::case::ModelRef;
use crate::judge::BackendSpec;
use crate::subject::{Call, CommandOutput, Lm};

/// The seams at which a defect can be interposed. Each default leaves its seam as it is.
pub trait Plant: Send + Sync + fmt::Debug {
    /// Stable id, `area/name`, as named under `kills`.
    fn id(&self) -> &str;

    /// Replaces the contents of one file of a judged form. `name` is the file name inside the form's directory
    /// (or of the form itself, when it is one file). `None` leaves the file.
    fn mutate_file(&self, form: &ModelRef, name: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
        let _ = (form, name, bytes);
        None
    }

    /// Replaces the contents of a recorded fixture (goldens, oracle). `None` leaves it.
    fn mutate_fixture(&self, name: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
        let _ = (name, bytes);
        None
    }

    /// Sets `model` up with a defect inside; `None` leaves the engine alone.
    fn lm(
        &self,
        model: &Model,
        spec: &BackendSpec,
        options: LmOptions,
    ) -> Option<apr_engine::Result<Box<dyn Lm>>> {
        let _ = (model, spec, options);
        None
    }

    /// Changes a call of the `apr` executable: what it is told and what it may take.
    fn mutate_call(&self, call: &mut Call) {
        let _ = call;
    }

    /// Changes what a call of the `apr` executable is seen to have done.
    fn mutate_output(&self, output: &mut CommandOutput) {
        let _ = output;
    }

    /// Changes the needs of the machine: the reason why `need` is absent.
    fn hide_need(&self, need: &str) -> Option<String> {
        let _ = need;
        None
    }

    /// A defect of the sampler.
    fn sampler(&self) -> Option<SamplerFault> {
        None
    }

    /// Changes what a generation is asked for.
    fn mutate_request(&self, request: &mut GenerateOptions) {
        let _ = request;
    }

    /// Replaces a streamed piece of text. `None` leaves it.
    fn mutate_piece(&self, piece: &str) -> Option<String> {
        let _ = piece;
        None
    }

    /// Changes what a generation gave.
    fn mutate_generation(&self, result: &mut apr_engine::Result<Generation>) {
        let _ = result;
    }

    /// Replaces what a parser reads of `given`, a damaged copy of `whole`. `None` leaves it.
    fn mutate_reading(&self, whole: &[u8], given: &[u8]) -> Option<Vec<u8>> {
        let _ = (whole, given);
        None
    }

    /// Changes a container that was written.
    fn mutate_written(&self, bytes: &mut Vec<u8>) {
        let _ = bytes;
    }

    /// The name of a file that a conversion leaves behind when it stops.
    fn leaves_behind(&self) -> Option<&str> {
        None
    }

    /// Changes a row of quantised blocks of `block` bytes each.
    fn mutate_blocks(&self, block: usize, bytes: &mut [u8]) {
        let _ = (block, bytes);
    }

    /// A defect on the way between text and ids.
    fn text(&self) -> Option<TextFault> {
        None
    }

    /// A defect of the harness itself, consulted where comparisons are made and verdicts are returned.
    fn harness(&self) -> Option<HarnessFault> {
        None
    }

    /// What a defect of the harness hides: the same fault with a harness that works. `None` for every other fault.
    fn hidden(&self) -> Option<Arc<dyn Plant>> {
        None
    }
}

/// Defects of the harness itself: the classic ways in which a gate loses its power to go red.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HarnessFault {
    /// Every comparison sees no rows, and every command no expectations.
    EmptyComparison,
    /// The tested side is replaced by the reference: everything matches.
    SelfComparison,
    /// The reference and the tested rows are compared one row apart.
    ShiftedComparison,
    /// Values that are not finite are left out of the comparison.
    NanPasses,
    /// An output that cannot be parsed is taken for one that says nothing.
    UnparsedPasses,
    /// What stops a judge before it could look is returned as a skip.
    ErrorSkipped,
    /// A falsification is returned as a corroboration.
    FalsifiedSwallowed,
}

/// What a fault is, for lists and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInfo {
    /// Stable id, `area/name`.
    pub id: &'static str,
    /// What is wrong, in one clause.
    pub what: &'static str,
    /// Incidents that this fault retells.
    pub incidents: &'static [&'static str],
    /// Whether a damaged model still loads: then a gate that computes must see wrong numbers, not a refusal.
    pub loads: bool,
    /// The first point of the forward pass that a defect of the engine changes, if it changes any.
    pub op: Option<Op>,
}

/// Defects on the way between text and ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TextFault {
    /// Control strings in a message become control tokens.
    MarkersParsed,
    /// Ids are decoded one by one, so characters that span several are lost.
    DecodedOneByOne,
}

/// Defects of the sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SamplerFault {
    /// The best token is dropped.
    SecondBest,
    /// Top-k, top-p and min-p are ignored.
    Unfiltered,
    /// The seed is ignored.
    Unseeded,
    /// The repetition penalty rewards.
    PenaltyInverted,
    /// A NaN logit counts as zero.
    NanIgnored,
    /// Probabilities sum to more than one.
    SoftmaxUnnormalised,
}
