//! The text side of a judged form.

use apr_engine::Code;
use apr_engine::format::Source;
use apr_engine::text::{
    ChatOptions, ChatTemplate, Message, PreparedTokens, Special, Tokenizer, prepare_chat,
};

use super::context::refused;
use super::{JudgeContext, Look};
use crate::case::ModelRef;
use crate::fault::TextFault;
use crate::verdict::Verdict;

/// What a form knows of text.
#[derive(Debug)]
pub(super) struct Text {
    /// Its tokenizer.
    pub(super) tokenizer: Tokenizer,
    /// Its chat template, or why there is none.
    template: apr_engine::Result<ChatTemplate>,
    /// A planted defect.
    fault: Option<TextFault>,
}

impl JudgeContext {
    /// The text side of `form`.
    ///
    /// # Errors
    /// A skip, when the form carries no tokenizer; falsified, when it carries a wrong one.
    pub(super) fn text(&self, form: &ModelRef) -> Look<Text> {
        let source = self.source(form)?;
        match tokenizer(&source) {
            Ok(mut tokenizer) => {
                // A model may end its text with tokens that its tokenizer does not call ends.
                let ends = self.model(form)?.generation().eos.clone();
                let added = tokenizer.add_ends(ends);
                added.map_err(|error| refused("an end token is not in the vocabulary", &error))?;
                let fault = self.plant.as_ref().and_then(|plant| plant.text());
                Ok(Text { tokenizer, template: template(&source), fault })
            }
            Err(error) if error.code() == Code::TokenizerMissing => {
                Err(Box::new(Verdict::skipped("tokenizer", error.to_string())))
            }
            Err(error) => Err(refused("the tokenizer does not load", &error)),
        }
    }
}

impl Text {
    /// The chat template.
    ///
    /// # Errors
    /// A skip, when the form carries none; falsified, when it is refused.
    pub(super) fn template(&self) -> Look<&ChatTemplate> {
        self.template.as_ref().map_err(|error| match error.code() {
            Code::TemplateMissing => Box::new(Verdict::skipped("chat-template", error.to_string())),
            _ => refused("the chat template is refused", error),
        })
    }

    /// A conversation, ready for the model, with the assistant's turn opened when `open`.
    ///
    /// # Errors
    /// As [`Text::template`]; falsified, when it does not render.
    pub(super) fn conversation(&self, messages: &[Message], open: bool) -> Look<PreparedTokens> {
        let template = self.template()?;
        let options = ChatOptions { add_generation_prompt: open, ..ChatOptions::default() };
        let prepared = prepare_chat(&self.tokenizer, template, messages, &options);
        let failed = |error| refused("a conversation does not render", &error);
        let prepared = prepared.map_err(failed)?;
        if self.fault != Some(TextFault::MarkersParsed) {
            return Ok(prepared);
        }
        let ids = self.tokenizer.encode(prepared.text(), Special::Parse).map_err(failed)?;
        PreparedTokens::from_ids(&ids, self.tokenizer.vocab_size()).map_err(failed)
    }

    /// The text of `ids`, control tokens included.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub(super) fn decode(&self, ids: &[u32]) -> apr_engine::Result<String> {
        match self.fault {
            Some(TextFault::DecodedOneByOne) => {
                ids.iter().map(|id| self.tokenizer.decode(&[*id], false)).collect()
            }
            _ => self.tokenizer.decode(ids, false),
        }
    }

    /// `user`'s message as a conversation of one.
    ///
    /// # Errors
    /// As [`Text::conversation`].
    pub(super) fn chat(&self, user: &str) -> Look<PreparedTokens> {
        self.conversation(&[Message::new("user", user)], true)
    }
}

/// The tokenizer beside the weights, or else inside them.
fn tokenizer(source: &Source) -> apr_engine::Result<Tokenizer> {
    let sidecars = source.sidecars();
    if let Some(json) = &sidecars.tokenizer_json {
        return Tokenizer::from_json(json, sidecars.tokenizer_config.as_deref());
    }
    let containers = source.containers()?;
    match containers.first() {
        Some(container) => Tokenizer::from_metadata(&container.metadata),
        None => Err(apr_engine::Error::new(Code::TokenizerMissing)),
    }
}

/// The template beside the weights, or else inside them.
fn template(source: &Source) -> apr_engine::Result<ChatTemplate> {
    let sidecars = source.sidecars();
    if let Some(bytes) = &sidecars.chat_template {
        return ChatTemplate::new(&String::from_utf8_lossy(bytes));
    }
    if let Some(config) = &sidecars.tokenizer_config {
        match ChatTemplate::from_config(config) {
            Err(error) if error.code() == Code::TemplateMissing => {}
            found => return found,
        }
    }
    let containers = source.containers()?;
    match containers.first() {
        Some(container) => ChatTemplate::from_metadata(&container.metadata),
        None => Err(apr_engine::Error::new(Code::TemplateMissing)),
    }
}
