//! From a conversation or a raw text to the ids the model sees.
//!
//! [`PreparedTokens`] can only be made here, so a prompt cannot reach the model without the decision
//! whether a chat template applies. It knows no model and no sampler.
//!
//! What people write must never steer the model: `<|im_end|>` inside a message is text. The template
//! engine gives one string in which template and messages cannot be told apart any more, so marks go in
//! before: a character that occurs nowhere is put inside every control string of a message, and where a
//! message begins or ends with a part of one. After rendering the marks are taken out again, and the
//! tokenizer recognises no control token across such a place. A template could still build a control
//! string from the pieces of a message (by deleting or replacing inside it); therefore the rendering is
//! repeated with a mark after *every* character of the messages that can begin a control token. If the
//! control tokens of the two differ, the second one counts.

use super::template::{ChatOptions, ChatTemplate, Line, TokenNames};
use super::tokenizer::{Special, Tokenizer};
use crate::error::{Code, Error, Result};

/// A prompt, ready for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedTokens {
    ids: Vec<u32>,
    text: String,
}

impl PreparedTokens {
    /// The token ids, all inside the vocabulary.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The text the ids were made from; empty when they were given as ids.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Ids from elsewhere, for comparison with recorded oracles: no template and no tokenizer was
    /// applied. Fails on the first id that is not below `vocab_size`.
    pub fn from_ids(ids: &[u32], vocab_size: usize) -> Result<Self> {
        match ids.iter().position(|id| usize::try_from(*id).is_ok_and(|id| id >= vocab_size)) {
            Some(at) => Err(Error::new(Code::TokenId)
                .field(format!("ids[{at}]"))
                .expected(format!("an id below {vocab_size}"))
                .found(ids[at])),
            None => Ok(Self { ids: ids.to_vec(), text: String::new() }),
        }
    }
}

/// Prepares a raw text: no template; control strings in it become control tokens, and the beginning and
/// end tokens are added as the model declares. Text of untrusted people belongs into a conversation.
pub fn prepare_raw(tokenizer: &Tokenizer, text: &str) -> Result<PreparedTokens> {
    let ids = tokenizer.encode(text, Special::Add)?;
    Ok(PreparedTokens { ids, text: text.to_owned() })
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// The text; control strings in it stay text.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Applies the chat template of a model to a conversation. The template writes the beginning token where
/// the model wants one; none is added.
pub fn prepare_chat(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    options: &ChatOptions,
) -> Result<PreparedTokens> {
    let mark = free_mark(template, messages)?;
    let marker = Marker::new(tokenizer, mark);
    let names = token_names(tokenizer);
    let render = |strict: bool| {
        let marked: Vec<(String, String)> = messages
            .iter()
            .map(|message| {
                (marker.mark(&message.role, false), marker.mark(&message.content, strict))
            })
            .collect();
        let lines: Vec<Line<'_>> =
            marked.iter().map(|(role, content)| Line { role, content }).collect();
        let rendered = template.render_lines(&lines, &names, options)?;
        let (text, barriers) = without_marks(&rendered, mark);
        let ids = tokenizer.encode_guarded(&text, &barriers)?;
        Ok::<_, Error>(PreparedTokens { ids, text })
    };
    let prepared = render(false)?;
    if !messages.iter().any(|message| marker.can_begin(&message.content)) {
        return Ok(prepared);
    }
    let strict = render(true)?;
    let control = |tokens: &PreparedTokens| -> Vec<u32> {
        tokens.ids.iter().copied().filter(|id| tokenizer.is_special(*id)).collect()
    };
    Ok(if control(&prepared) == control(&strict) { prepared } else { strict })
}

/// The variables that templates expect to be named after special tokens.
fn token_names(tokenizer: &Tokenizer) -> TokenNames {
    let ids = [
        ("bos_token", tokenizer.bos()),
        ("eos_token", tokenizer.eos()),
        ("unk_token", tokenizer.unk()),
        ("pad_token", tokenizer.pad()),
    ];
    ids.into_iter().filter_map(|(name, id)| Some((name, tokenizer.text_of(id)?))).collect()
}

/// A noncharacter that neither the template nor the messages contain.
fn free_mark(template: &ChatTemplate, messages: &[Message]) -> Result<char> {
    let taken = |mark: char| {
        template.source().contains(mark)
            || messages.iter().any(|m| m.role.contains(mark) || m.content.contains(mark))
    };
    ('\u{FDD0}'..='\u{FDEF}').find(|mark| !taken(*mark)).ok_or_else(|| {
        Error::new(Code::TemplateRender)
            .expected("messages that leave one of the noncharacters U+FDD0 to U+FDEF unused")
    })
}

/// Takes the marks out; returns the text and the byte positions where they stood.
fn without_marks(rendered: &str, mark: char) -> (String, Vec<usize>) {
    let mut text = String::with_capacity(rendered.len());
    let mut barriers = Vec::new();
    for (index, part) in rendered.split(mark).enumerate() {
        if index > 0 && barriers.last() != Some(&text.len()) {
            barriers.push(text.len());
        }
        text.push_str(part);
    }
    (text, barriers)
}

/// Puts marks into messages.
struct Marker<'t> {
    tokenizer: &'t Tokenizer,
    strings: Vec<&'t str>,
    mark: char,
}

impl<'t> Marker<'t> {
    fn new(tokenizer: &'t Tokenizer, mark: char) -> Self {
        Self { tokenizer, strings: tokenizer.special_strings().collect(), mark }
    }

    /// Whether `text` contains a character that begins a control string.
    fn can_begin(&self, text: &str) -> bool {
        text.chars().any(|character| self.begins(character))
    }

    fn begins(&self, character: char) -> bool {
        self.strings.iter().any(|string| string.starts_with(character))
    }

    /// `text` with marks where a control token must not be recognised; `strict` marks every place where
    /// one could begin.
    fn mark(&self, text: &str, strict: bool) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        let (start, tail) = (self.continues_at(text), self.open_end(text));
        for (at, character) in text.char_indices() {
            if Some(at) == start {
                out.push(self.mark);
            }
            out.push(character);
            let begins = if strict {
                self.begins(character)
            } else {
                Some(at) == tail || self.tokenizer.special_at(text, at)
            };
            if begins {
                out.push(self.mark);
            }
        }
        out
    }

    /// Where the text, white space aside, begins like the rest of a control string.
    fn continues_at(&self, text: &str) -> Option<usize> {
        let body = text.trim_start();
        let continues = self.strings.iter().any(|string| {
            let inner = string.char_indices().skip(1);
            inner.map(|(at, _)| &string[at..]).any(|rest| body.starts_with(rest))
        });
        continues.then_some(text.len() - body.len())
    }

    /// Where the text, white space aside, ends like the beginning of a control string.
    fn open_end(&self, text: &str) -> Option<usize> {
        let body = text.trim_end();
        let longest = self.strings.iter().filter_map(|string| {
            let inner = string.char_indices().skip(1);
            inner
                .map(|(at, _)| &string[..at])
                .filter(|begin| body.ends_with(begin))
                .map(str::len)
                .max()
        });
        longest.max().map(|len| body.len() - len)
    }
}
