//! Text to token ids and back.
//!
//! [`Tokenizer`] is the one facade over three sources of a vocabulary (`tokenizer.json`, GGUF metadata,
//! APR metadata) and two algorithms (byte-level BPE through the `tokenizers` crate, SentencePiece-style
//! BPE by scores in this module). [`ChatTemplate`] is the program that writes a conversation down, and
//! [`PreparedTokens`] the only form in which a prompt reaches the model. Nothing here knows weights, backends or sampling.

mod added;
mod bpe;
mod chat;
mod gguf;
mod json;
mod pieces;
mod rebuild;
mod side_by_side;
mod spm;
mod stream;
mod template;
mod tokenizer;
mod vocab;

pub use chat::{Message, PreparedTokens, prepare_chat, prepare_raw};
pub(crate) use gguf::telling_name;
pub use stream::{StopMatcher, StreamDecoder};
pub use template::{ChatOptions, ChatTemplate, Date};
pub use tokenizer::{Special, Tokenizer};
pub use vocab::GgufVocab;
