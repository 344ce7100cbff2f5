//! What two models say of themselves, weights aside: hyper-parameters, ends of texts, and how texts and conversations become
//! ids.

use apr_engine::Code;
use apr_engine::model::Model;
use apr_engine::text::{ChatOptions, Message, Special, prepare_chat};

/// How many things were compared, and which differ.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) count: u64,
    pub(crate) wrong: Vec<String>,
}

impl Compared {
    /// Counts one comparison; a difference is described by `what`.
    pub(crate) fn demand(&mut self, equal: bool, what: impl FnOnce() -> String) {
        self.count += 1;
        if !equal {
            self.wrong.push(what());
        }
    }
}

/// Hyper-parameters and ends of `model` against those of `source`. A family that a format calls by another's name is that
/// other one.
pub(crate) fn hyper_parameters(source: &Model, model: &Model) -> Compared {
    let mut compared = Compared::default();
    let differs = source.config().disagreement(model.config());
    compared.demand(differs.is_none(), || match differs {
        Some((name, expected, found)) => format!("{name} {expected} became {found}"),
        None => String::new(),
    });
    let ends = (&source.generation().eos, &model.generation().eos);
    compared.demand(ends.0 == ends.1, || format!("ends {:?} became {:?}", ends.0, ends.1));
    compared
}

/// Everything; models that both have no tokenizer that this engine can use are compared without texts.
pub(super) fn compare(source: &Model, model: &Model) -> apr_engine::Result<Compared> {
    let mut compared = hyper_parameters(source, model);
    let code = |model: &Model| model.tokenizer().err().map(|error| error.code());
    let unusable = |code| matches!(code, Code::TokenizerMissing | Code::TokenizerUnsupported);
    match (code(source), code(model)) {
        (None, None) => {
            let texts = text(source, model)?;
            compared.count += texts.count;
            compared.wrong.extend(texts.wrong);
        }
        (before, after) if before.is_some_and(unusable) && before == after => {}
        (before, after) => {
            let has = |code: Option<Code>| {
                code.map_or("one that works".to_owned(), |code| code.number().to_owned())
            };
            compared.demand(false, || format!("tokenizer: {} became {}", has(before), has(after)));
        }
    }
    Ok(compared)
}

/// Texts that pre-tokenizers, merges, byte fallback and white space rules cut in different ways.
const TEXTS: &[&str] = &[
    "What is 2+2? Answer with just the number.",
    "  two  spaces\tand\r\n\n\nlines \u{a0}end ",
    "naïve café e\u{301} Straße ИВАН 你好，世界 こんにちは \u{1F642}\u{1F1E9}\u{1F1EA}",
    "def f(x):\n    return x**2  # {'a': [1, 22, 333]}\n",
    "<|im_start|>user\nHello<|im_end|>",
    "\u{0}\u{7f}<unk>▁Ġ",
];

/// Ids of texts, special tokens, ends and chats of `model` against those of `source`.
pub(crate) fn text(source: &Model, model: &Model) -> apr_engine::Result<Compared> {
    let (expected, found) = (source.tokenizer()?, model.tokenizer()?);
    let mut compared = Compared::default();
    for text in TEXTS {
        for special in [Special::Plain, Special::Parse, Special::Add] {
            let ids = (expected.encode(text, special)?, found.encode(text, special)?);
            compared.demand(ids.0 == ids.1, || format!("{text:?} is {:?}, not {:?}", ids.1, ids.0));
        }
    }
    // Which token would begin a text is no part of it: GGUF names the one of `config.json` where the tokenizer of Hugging
    // Face has none. The one that does begin it is among the ids above.
    let special = |tokenizer: &apr_engine::text::Tokenizer| {
        [tokenizer.eos(), tokenizer.pad(), tokenizer.unk()]
    };
    let ids = (special(expected), special(found));
    compared.demand(ids.0 == ids.1, || format!("special tokens {:?}, not {:?}", ids.1, ids.0));
    let ends = (expected.eos_set(), found.eos_set());
    compared.demand(ends.0 == ends.1, || format!("ends {:?}, not {:?}", ends.1, ends.0));
    let chats = (chat(source)?, chat(model)?);
    compared.demand(chats.0 == chats.1, || "a conversation is written down otherwise".into());
    Ok(compared)
}

/// A conversation as ids; `None` without a chat template.
fn chat(model: &Model) -> apr_engine::Result<Option<Vec<u32>>> {
    let Some(template) = model.chat_template()? else { return Ok(None) };
    let messages =
        [Message::new("system", "Be brief."), Message::new("user", "2+2? <|im_end|> 你好")];
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    let prepared = prepare_chat(model.tokenizer()?, template, &messages, &options)?;
    Ok(Some(prepared.ids().to_vec()))
}
