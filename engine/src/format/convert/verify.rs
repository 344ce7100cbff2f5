//! Reading back what was written: the same tensors, and the same model.

use std::path::Path;

use super::portable::is_tied;
use crate::error::{Code, Error, Result};
use crate::format::write::Checksums;
use crate::model::Model;
use crate::text::{Special, Tokenizer};

/// Bytes read after which pages are given back.
const RELEASE_EVERY: u64 = 32 << 20;

/// Texts that pre-tokenizers, merges, byte fallback and white space rules cut in different ways.
const TEXTS: &[&str] = &[
    "Hello world, it's 2+2=4; I'VE 1234567 apples.",
    "  two  spaces\tand\r\n\n\nlines \u{a0}end ",
    "naïve café e\u{301} straße ИВАН 你好，世界 こんにちは \u{1F642}\u{1F1E9}\u{1F1EA} \u{200d}",
    "def f(x):\n    return x**2  # {'a': [1, 2]}\n",
    "\u{0}\u{7f}<unk>▁Ġ",
];

/// Loads the model at `written` and compares it with `model` and with what the writer says it wrote.
///
/// # Errors
/// [`Code::ConversionMismatch`] at the first difference, and those of loading.
pub(super) fn verify(model: &Model, written: &Path, checksums: &Checksums) -> Result<()> {
    let again = Model::load(written)?;
    check_tensors(&again, checksums)?;
    if let Some((field, expected, found)) = model.config().disagreement(again.config()) {
        return Err(mismatch(field).expected(expected).found(found));
    }
    let tied = (is_tied(model)?, is_tied(&again)?);
    if tied.0 != tied.1 {
        return Err(mismatch("tied embeddings").expected(tied.0).found(tied.1));
    }
    let ends = (&model.generation().eos, &again.generation().eos);
    if ends.0 != ends.1 {
        let (expected, found) = (format!("{:?}", ends.0), format!("{:?}", ends.1));
        return Err(mismatch("end tokens").expected(expected).found(found));
    }
    check_text(model, &again)
}

fn mismatch(field: &str) -> Error {
    Error::new(Code::ConversionMismatch).field(field)
}

/// Every tensor is there, no other one is, and each has the bytes that were written.
fn check_tensors(again: &Model, checksums: &Checksums) -> Result<()> {
    let containers = again.source().containers()?;
    let mut found = 0;
    let mut read = 0;
    for entry in containers.iter().flat_map(|container| &container.tensors) {
        found += 1;
        let checksum = crc32fast::hash(entry.view.bytes());
        if checksums.get(&*entry.name) != Some(&checksum) {
            return Err(Error::new(Code::ConversionMismatch)
                .tensor(&entry.name)
                .expected("the bytes that were written")
                .found("other bytes")
                .hint("the disk or the memory of this machine may be failing"));
        }
        read += entry.view.bytes().len() as u64;
        if read >= RELEASE_EVERY {
            read = 0;
            again.source().release_pages();
        }
    }
    if found == checksums.len() {
        return Ok(());
    }
    Err(mismatch("tensors").expected(checksums.len()).found(found))
}

/// The same ids for the same text, the same ends, the same chat template; where one side has no tokenizer that this
/// engine can use, neither has the other.
fn check_text(model: &Model, again: &Model) -> Result<()> {
    match (model.tokenizer(), again.tokenizer()) {
        (Ok(expected), Ok(found)) => {
            check_tokens(expected, found, model.config().vocab)?;
            check_ids(expected, found)?;
        }
        (Err(expected), Err(found)) if expected.code() == found.code() => {}
        (Err(_), Ok(_)) => return Err(mismatch("tokenizer").expected("none").found("one")),
        (_, Err(error)) => return Err(error),
    }
    let template = |model: &Model| match model.chat_template() {
        Ok(template) => Ok(template.map(|template| template.source().to_owned())),
        Err(error) => Err(error.code()),
    };
    if template(model) == template(again) {
        return Ok(());
    }
    Err(mismatch("chat template").expected("that of the source").found("another"))
}

/// The same spelling of every id that the embedding has a row for; what only fills it up may be missing.
fn check_tokens(expected: &Tokenizer, found: &Tokenizer, rows: usize) -> Result<()> {
    for id in 0..rows as u32 {
        let filler = format!("[PAD{id}]");
        let spelled = |tokenizer: &'_ Tokenizer| {
            let bytes = tokenizer.token_bytes(id).unwrap_or_default().to_vec();
            if bytes == filler.as_bytes() { Vec::new() } else { bytes }
        };
        let bytes = (spelled(expected), spelled(found));
        if bytes.0 != bytes.1 {
            return Err(mismatch("vocabulary")
                .expected(format_args!("{:?} for token {id}", String::from_utf8_lossy(&bytes.0)))
                .found(format_args!("{:?}", String::from_utf8_lossy(&bytes.1))));
        }
    }
    Ok(())
}

fn check_ids(expected: &Tokenizer, found: &Tokenizer) -> Result<()> {
    let strings: Vec<String> =
        expected.special_strings().map(|text| format!("a {text} b")).collect();
    let texts = TEXTS.iter().copied().chain(strings.iter().map(String::as_str));
    for text in texts {
        for special in [Special::Plain, Special::Parse, Special::Add] {
            let ids = (expected.encode(text, special)?, found.encode(text, special)?);
            if ids.0 != ids.1 {
                return Err(mismatch("tokenizer")
                    .expected(format_args!("{:?} for {text:?}", ids.0))
                    .found(format_args!("{:?}", ids.1)));
            }
        }
    }
    if expected.eos_set() != found.eos_set() {
        let (expected, found) = (expected.eos_set(), found.eos_set());
        return Err(mismatch("end tokens")
            .expected(format_args!("{expected:?}"))
            .found(format_args!("{found:?}")));
    }
    Ok(())
}
