//! Whether two models read text in the same way.

use apr_engine::model::Model;
use apr_engine::text::{ChatOptions, Message, Special, prepare_chat};

use super::Compared;

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
pub(super) fn differences(source: &Model, model: &Model) -> apr_engine::Result<Compared> {
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
