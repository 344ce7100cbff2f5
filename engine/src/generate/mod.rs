//! From a prompt to a stream of text.

pub mod sampler;
pub mod session;

pub use sampler::{Sampler, Sampling, greedy, log_softmax};
pub use session::{
    Alternative, Event, FinishReason, GenerateOptions, Generation, StepLogprobs, generate,
};
