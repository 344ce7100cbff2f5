//! `apr rosetta`: what two files, formats, backends or engines have in common.

mod compare;
mod remote;
mod rest;
mod side;
mod text;
mod ways;

use crate::cli::rosetta::{RosettaAction, RosettaArgs};
use crate::failure::Failure;
use crate::gate::Admission;
use crate::interrupt::Interrupt;
use crate::render::Terminal;

pub(crate) use compare::CompareOutput;
pub(crate) use rest::{DiffOutput, FingerprintOutput};
pub(crate) use text::TextOutput;
pub(crate) use ways::WayOutput;

pub(crate) fn run(
    args: RosettaArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    match args.action {
        RosettaAction::CompareInference(args) => {
            let mut sides = std::iter::once(&args.source).chain(&args.target);
            if sides.any(|side| remote::address(side).is_some()) {
                text::run(&args, terminal)
            } else {
                compare::run(&args, terminal)
            }
        }
        RosettaAction::Inspect(args) => super::inspect::run(&args, terminal),
        RosettaAction::Diff(args) => rest::diff(&args, terminal),
        RosettaAction::Fingerprint(args) => rest::fingerprint(&args, terminal),
        RosettaAction::Verify(args) => ways::verify(&args, admission, terminal, interrupt),
        RosettaAction::Chain(args) => ways::chain(&args, admission, terminal, interrupt),
        RosettaAction::Convert(args) => {
            super::convert::convert(&args, admission, terminal, interrupt)
        }
    }
}
