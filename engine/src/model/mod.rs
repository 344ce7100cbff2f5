//! The transformer: hyper-parameters and names as data, one forward pass.

mod buffers;
pub mod config;
pub(crate) mod conventions;
mod facade;
pub mod forward;
pub mod generation;
mod keys;
pub mod lm;
mod pass;
pub mod rope;
mod rotation;
mod sequences;
pub mod slots;
pub mod weights;

pub use config::{Activation, Bias, Cap, Config, Family, Sliding, Window};
pub use facade::Model;
pub use forward::{LmOptions, Transformer};
pub use generation::GenerationDefaults;
pub use lm::{Lm, LogitRows, SequenceTokens, Want};
pub use rope::{LongRope, RopeConfig, RopeScaling, RopeStyle};
pub use slots::{Naming, Role, Slot};
pub use weights::{NamedTensor, Weights};
