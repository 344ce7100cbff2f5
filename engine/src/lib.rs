//! The inference engine of `apr`: model files in, logits and text out.
//!
//! Reading order is the order of understanding: [`dtype`] and [`tensor`] name the numbers, [`quant`]
//! packs them into blocks, [`mod@format`] finds them in files, [`backend`] computes with them,
//! [`model`] arranges them into a transformer, [`text`] turns strings into token ids and back, and
//! [`generate`] runs the loop. [`probe`] observes any of it.
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use apr_engine::backend::Device;
//! use apr_engine::generate::{GenerateOptions, generate};
//! use apr_engine::model::{LmOptions, Model};
//! use apr_engine::text::prepare_raw;
//!
//! # fn main() -> apr_engine::Result<()> {
//! let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
//! let model = Model::load(&fixtures.join("gguf/golden-Q8_0.gguf"))?;
//! let tokenizer = model.tokenizer()?;
//! let prompt = prepare_raw(tokenizer, "2+2=")?;
//! let mut lm = model.lm_on(&Device::SIMD, LmOptions::default())?;
//! let options = GenerateOptions { max_tokens: Some(4), ..GenerateOptions::default() };
//! let answer = generate(&mut *lm, tokenizer, &prompt, &options, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(answer.text, "4");
//! # Ok(())
//! # }
//! ```
//!
//! The engine never prints, never reads the environment, never exits and knows nothing of gates,
//! verdicts or reports.

pub mod backend;
pub mod dtype;
pub mod error;
pub mod format;
pub mod generate;
pub mod model;
pub mod probe;
pub mod quant;
pub mod tensor;
pub mod text;

pub use dtype::Dtype;
pub use error::{Code, Error, Place, Result};
pub use tensor::{Bytes, Shape, Tensor, TensorView};
