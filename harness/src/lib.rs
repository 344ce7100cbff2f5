//! The falsification harness of `apr`.
//!
//! Flow: `contracts/*.yaml` → [`contract::Contract`] (gates) → with a [`suite::Suite`] → [`judge::Planned`] cases → the runner →
//! [`event::Event`]s → sinks. A gate states a claim and what would refute it; a judge looks; a
//! [`verdict::Verdict`] says what was seen. Nothing here prints, reads the environment or knows a terminal.
//!
//! Reading order: [`contract`] and [`suite`] say what is claimed and of what, [`case`] is one cell of their product,
//! [`judge`] looks, [`compare`] and [`stats`] are its measures, [`verdict`] and [`score`] what follows, [`fault`] and
//! [`proof`] ask whether a gate can go red at all, [`runner`] and [`report`] carry it out and tell.
//!
//! ```
//! use apr_harness::compare::RowError;
//!
//! let error = RowError::new(&[3.0, 4.0], &[3.0, 4.5]).expect("rows of one length");
//! assert_eq!((error.max_abs, error.nmse, error.bits_differ), (0.5, 0.01, 1));
//! // Nothing was compared: no measure, and so never a pass.
//! assert_eq!(RowError::new(&[], &[]), None);
//! ```

pub mod admission;
pub mod bench;
pub mod case;
pub mod compare;
pub mod contract;
pub mod coverage;
pub mod event;
pub mod fault;
pub mod filter;
pub mod fixture;
pub mod isolate;
pub mod journal;
pub mod judge;
pub mod kill;
pub mod nearest;
pub mod need;
pub mod pipeline;
mod plausible;
pub mod profile;
pub mod proof;
pub mod provenance;
mod quality;
mod recording;
pub mod report;
pub mod rosetta;
pub mod runner;
pub mod score;
pub mod sheet;
pub mod stats;
pub mod subject;
pub mod suite;
pub mod timer;
pub mod trace;
pub mod validate;
pub mod verdict;
