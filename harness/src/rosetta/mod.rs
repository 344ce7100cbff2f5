//! Two sides of one model: where do they part, and who is wrong.
//!
//! A side is a model on a backend, or values that another implementation recorded. Both sides read the same tokens; then
//! every site of the forward pass is compared twice. The **total** error is the distance of the two passes. The **local**
//! error is what the target's operation makes of the *source's* inputs: it is the operation's own, and what is left of the total
//! was inherited. The first site whose local error is more than the two dtypes round is where the sides part. There the scalar
//! oracle votes: it computes the same operation from the same inputs, with the weights of each side.
//!
//! Reading order: [`side`] (what is compared), [`sites`] (distances), `allowance` (what rounding may do), [`vote`]
//! (who is wrong), [`logits`] (what comes out), [`compare`](mod@compare) (all of it), [`table`] and [`page`] (for readers). An engine behind a
//! wire shows only text and probabilities: [`generated`]. Models at rest are compared by [`diff`] and known by their
//! [`Fingerprint`], whatever container they lie in; a [`journey`] takes one through formats and judges what each leg keeps.

pub(crate) mod allowance;
mod canonical;
pub mod compare;
pub mod diff;
pub(crate) mod facts;
pub mod generated;
pub mod journey;
pub mod logits;
pub mod page;
mod rounding;
pub mod side;
pub mod sites;
pub mod statistics;
pub mod table;
pub mod vote;
pub mod way_page;

pub use canonical::{Fingerprint, TensorFingerprint};
pub use compare::{Comparison, First, Options, Tokens, compare};
pub use diff::Diff;
pub use side::{Recorded, Side, Source};
pub use sites::{Distance, SiteReport, SiteStatus};
pub use vote::{Vote, Wrong};
