//! Checks of tokenizers and chat templates.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `tokenizer-roundtrip`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TokenizerRoundtrip {
    /// Texts that are encoded and decoded; a built-in corpus of scripts, white space and emoji comes on top.
    #[serde(default)]
    pub texts: Vec<String>,
    /// Seeded random strings on top.
    #[serde(default)]
    pub random: usize,
}

/// Parameters of `token-ids`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TokenIds {
    /// Where the right ids come from.
    pub against: IdSource,
}

/// A source of token ids to hold a tokenizer against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum IdSource {
    /// A file of recorded rows under the fixtures, `{model}` stands for the model's name.
    File(PathBuf),
    /// Another form of the same model.
    Form(String),
}

/// Parameters of `chat-template`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ChatTemplate {
    /// The property.
    pub rule: ChatRule,
}

/// A property of a chat template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum ChatRule {
    /// A conversation renders, and every message's text is in the result, in order.
    Messages,
    /// Asking for a generation prompt appends something, and not asking does not.
    GenerationPrompt,
    /// The turn markers encode to single special tokens.
    SpecialTokens,
    /// Turn markers inside a user's text do not become special tokens.
    Injection,
    /// The system prompt is in the result.
    System,
    /// A conversation of one user message renders to exactly this text.
    Renders {
        /// The user's message.
        user: String,
        /// The whole rendering, generation prompt included.
        to: String,
    },
}
