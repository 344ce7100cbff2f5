//! Chat templates: the Jinja program of a model that turns a conversation into its prompt.
//!
//! A template comes out of a model file and is not trusted. Limits stand at four places: size and chains
//! before parsing (`limits`), a rewritten program in which growing operations are calls (`rewrite`), a
//! budget that those calls pay from (`guard`), and steps, recursion depth and output length in the engine
//! (`env`). Parsing and rendering run on a thread of their own with a large stack. What remains is
//! processor time: the budget bounds it to seconds.

mod date;
mod env;
mod guard;
mod limits;
mod rewrite;
mod tojson;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use minijinja::{ErrorKind, Value};
use serde_json::Value as Json;

pub use date::Date;

use self::guard::Budget;
use self::rewrite::{Rewritten, constant_name};
use super::chat::Message;
use crate::error::{Code, Error, Place, Result};
use crate::format::Metadata;

/// Stack of the thread that parses and renders. Chains of 200 links need less than 2 MiB of it. It is reserved as a whole, so
/// that a caller with little memory pays for what it does not use.
const STACK_BYTES: usize = 16 << 20;
/// Bytes a rendering may make and inspect, besides a share for its messages.
const BUDGET_BYTES: u64 = 32 << 20;
/// The share of each byte and each message of the conversation.
const BUDGET_PER_BYTE: u64 = 64;
const BUDGET_PER_MESSAGE: u64 = 64 << 10;
/// Longest output when the caller does not say.
const OUTPUT_BYTES_DEFAULT: usize = 4 << 20;

/// A checked chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    rewritten: Arc<Rewritten>,
}

/// What a template is rendered with besides the messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// Ask the template to open the assistant's turn.
    pub add_generation_prompt: bool,
    /// The date for templates that print one; without it `strftime_now` does not exist and templates fall
    /// back to a date of their own.
    pub date: Option<Date>,
    /// Further variables, for example `enable_thinking` or `bos_token`; they win over the tokenizer's names
    /// and over `tools` and `documents`, which are `none` otherwise. They come from the person who runs the model,
    /// never from a request.
    pub variables: BTreeMap<String, Json>,
    /// Longest rendering in bytes; four times the context in bytes is a good choice. 4 MiB if `None`.
    pub output_bytes_max: Option<usize>,
}

/// One message as the template sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) role: &'a str,
    pub(super) content: &'a str,
}

/// Values of the variables named after special tokens (`bos_token`, `eos_token`, …).
pub(super) type TokenNames = Vec<(&'static str, String)>;

impl ChatTemplate {
    /// Checks `source`: size, chains, syntax, and that it needs no other file.
    pub fn new(source: &str) -> Result<Self> {
        let program = limits::without_generation_tags(source);
        limits::check(&program)?;
        let rewritten = on_large_stack(|| {
            let tree =
                minijinja::machinery::parse(&program, "chat_template", limits::syntax(true)?)
                    .map_err(|error| syntax_error(&error))?;
            Rewritten::of(&tree)
        })?;
        Ok(Self { source: source.to_owned(), rewritten: Arc::new(rewritten) })
    }

    /// The template in a `tokenizer_config.json`: a string, or a list of named ones of which `default` is
    /// taken. `TemplateMissing` when there is none.
    pub fn from_config(tokenizer_config: &[u8]) -> Result<Self> {
        let config: Json = serde_json::from_slice(tokenizer_config).map_err(|error| {
            Error::new(Code::ConfigJson).field("tokenizer_config.json").found(error)
        })?;
        let entry = config.get("chat_template").unwrap_or(&Json::Null);
        let named = |name: &str| {
            let list = entry.as_array()?;
            let found =
                list.iter().find(|item| item.get("name").and_then(Json::as_str) == Some(name));
            found?.get("template")?.as_str()
        };
        match entry.as_str().or_else(|| named("default")) {
            Some(source) => Self::new(source),
            None => Err(Error::new(Code::TemplateMissing).field("chat_template")),
        }
    }

    /// The template in the metadata of a GGUF or APR file; `TemplateMissing` when there is none.
    pub fn from_metadata(metadata: &Metadata<'_>) -> Result<Self> {
        let key = "tokenizer.chat_template";
        let source = match metadata {
            Metadata::Gguf(_) => metadata.gguf(key).and_then(crate::format::Value::as_str),
            Metadata::Apr(object) => {
                let keys = ["chat_template", key];
                keys.iter().find_map(|key| object.get(*key).and_then(Json::as_str))
            }
            Metadata::SafeTensors(_) => None,
        };
        source.map_or_else(|| Err(Error::new(Code::TemplateMissing).field(key)), Self::new)
    }

    /// The template as the model carries it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation, for people to look at: control strings of the template and of the
    /// messages cannot be told apart in it. Prompts are made by [`super::prepare_chat`].
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String> {
        let lines: Vec<Line<'_>> = messages
            .iter()
            .map(|message| Line { role: &message.role, content: &message.content })
            .collect();
        self.render_lines(&lines, &Vec::new(), options)
    }

    /// Renders a conversation whose control strings may be marked.
    pub(super) fn render_lines(
        &self,
        messages: &[Line<'_>],
        names: &TokenNames,
        options: &ChatOptions,
    ) -> Result<String> {
        on_large_stack(|| self.render_here(messages, names, options))
    }

    fn render_here(
        &self,
        messages: &[Line<'_>],
        names: &TokenNames,
        options: &ChatOptions,
    ) -> Result<String> {
        let input: usize = messages.iter().map(|line| line.role.len() + line.content.len()).sum();
        let most = options.output_bytes_max.unwrap_or(OUTPUT_BYTES_DEFAULT);
        let string_max = (most.max(input) as u64).saturating_mul(2);
        let share = (input as u64).saturating_mul(BUDGET_PER_BYTE);
        let share = share.saturating_add(messages.len() as u64 * BUDGET_PER_MESSAGE);
        let total = BUDGET_BYTES.saturating_add(share);
        let budget = Arc::new(Budget::new(total, string_max));
        let raised = Arc::new(Mutex::new(None));
        let mut environment = env::environment(&budget, &raised, options.date, messages.len());
        for (index, constant) in self.rewritten.constants.iter().enumerate() {
            environment.add_global(constant_name(index), constant.clone());
        }
        let mut output = Capped { bytes: Vec::new(), most };
        let rendered = environment
            .template_from_named_str("chat_template", &self.rewritten.source)
            .and_then(|template| {
                let context = context(messages, names, options);
                template.render_captured_to(context, &mut output).map(|_| ())
            });
        let message = raised.lock().ok().and_then(|mut cell| cell.take());
        match (rendered, message) {
            (Ok(()), _) => String::from_utf8(output.bytes)
                .map_err(|error| Error::new(Code::TemplateRender).found(error)),
            (Err(error), Some(message)) => {
                Err(located(Error::new(Code::TemplateRaised), &error).found(message))
            }
            (Err(_), None) if output.bytes.len() > most => Err(Error::new(Code::TemplateLimit)
                .field("output")
                .expected(format!("at most {most} bytes"))
                .found("more")),
            (Err(error), None) => Err(render_error(&error)),
        }
    }
}

/// The variables a template sees.
fn context(messages: &[Line<'_>], names: &TokenNames, options: &ChatOptions) -> Value {
    let lines = messages.iter().map(|line| {
        let pairs = [("role", line.role), ("content", line.content)];
        Value::from_pairs(pairs)
    });
    let mut variables: BTreeMap<String, Value> = BTreeMap::new();
    variables.insert("tools".to_owned(), Value::from(()));
    variables.insert("documents".to_owned(), Value::from(()));
    for (name, text) in names {
        variables.insert((*name).to_owned(), Value::from(text.as_str()));
    }
    for (name, json) in &options.variables {
        variables.insert(name.clone(), json_value(json));
    }
    variables.insert("messages".to_owned(), lines.collect::<Vec<_>>().into());
    variables.insert("add_generation_prompt".to_owned(), options.add_generation_prompt.into());
    Value::from(variables)
}

/// A JSON value as the template engine has it.
fn json_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::from(integer),
            (None, float) => Value::from(float.unwrap_or_default()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(json_value).collect::<Vec<_>>().into(),
        Json::Object(pairs) => {
            Value::from_pairs(pairs.iter().map(|(key, value)| (key.as_str(), json_value(value))))
        }
    }
}

/// Runs `work` on a thread with a large stack; a panic there is an error.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| Error::new(Code::TemplateRender).found(error))?;
        thread.join().unwrap_or_else(|_| {
            Err(Error::new(Code::TemplateRender).found("a panic of the template engine"))
        })
    })
}

/// Puts the line of an engine error into ours.
fn located(ours: Error, error: &minijinja::Error) -> Error {
    match error.line() {
        Some(line) => ours.place(Place::Line(u32::try_from(line).unwrap_or(u32::MAX), 1)),
        None => ours,
    }
}

fn syntax_error(error: &minijinja::Error) -> Error {
    let what = error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned);
    located(Error::new(Code::TemplateSyntax), error).found(what)
}

fn render_error(error: &minijinja::Error) -> Error {
    // The innermost reason is the useful one.
    let mut inner = error;
    while let Some(source) = std::error::Error::source(inner).and_then(|e| e.downcast_ref()) {
        inner = source;
    }
    let limit = error.kind() == ErrorKind::OutOfFuel || inner.kind() == ErrorKind::OutOfFuel;
    let code = if limit { Code::TemplateLimit } else { Code::TemplateRender };
    let what = match inner.detail() {
        Some(detail) => format!("{}: {detail}", inner.kind()),
        None => inner.kind().to_string(),
    };
    located(Error::new(code), error).found(what)
}

/// A writer that refuses to grow beyond a limit.
struct Capped {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Capped {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(part);
        if self.bytes.len() > self.most {
            return Err(io::Error::other("the rendering is longer than allowed"));
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
