//! `tokenizer-roundtrip` and `token-ids`.

use apr_engine::text::Special;
use serde::Deserialize;

use super::Planned;
use super::context::{JudgeContext, Look};
use super::look::{Random, all_of};
use super::text::Text;
use crate::contract::check::{IdSource, TokenIds, TokenizerRoundtrip};
use crate::verdict::Verdict;

/// Texts that tokenizers have failed on: scripts, white space, digits, emoji sequences, contractions, code.
const CORPUS: &[&str] = &[
    "Hello, world!",
    " leading and trailing ",
    "two  spaces, three   spaces, a tab\tand\n\nlines\r\n",
    "I'm, you're, he'd, WE'LL, they'Ve",
    "12345 1,234.5 2+2=4 0x1F",
    "snake_case camelCase kebab-case",
    "Grüße, naïve café, Ångström",
    "你好,世界。日本語のテスト 한국어",
    "Привет, мир! שלום עולם مرحبا",
    "🙂👩‍👩‍👧‍👦🇨🇭👍🏽",
    "def f(x):\n    return x ** 2  # square\n",
    "<|im_start|> is a marker, <b>this</b> is not",
    "a",
    "\u{200b}zero width\u{a0}no break",
];

/// Ranges of characters for random texts; all are stable under normalisation to composed form.
const RANGES: &[(u32, u32)] = &[
    (0x20, 0x7E),
    (0x41, 0x5A),
    (0xE0, 0xF6),
    (0x4E00, 0x4FFF),
    (0x1F600, 0x1F640),
    (0x430, 0x44F),
];

/// Seeded random texts.
fn random_texts(count: usize, seed: u64) -> Vec<String> {
    let mut random = Random::new(seed, "texts");
    let text = |_| -> String {
        let length = 1 + random.below(40);
        let character = |_| {
            let (first, last) = RANGES[random.below(RANGES.len())];
            char::from_u32(first + random.below((last - first + 1) as usize) as u32)
        };
        (0..length).filter_map(character).collect()
    };
    (0..count).map(text).collect()
}

/// Judges `tokenizer-roundtrip`.
pub(super) fn roundtrip(
    check: &TokenizerRoundtrip,
    case: &Planned,
    ctx: &JudgeContext,
) -> Look<Verdict> {
    let text = ctx.text(ctx.form(case)?)?;
    let tokenizer = &text.tokenizer;
    let mut texts: Vec<String> = CORPUS.iter().map(|&text| text.to_owned()).collect();
    texts.extend(check.texts.iter().cloned());
    texts.extend(random_texts(check.random, ctx.seed));
    let mut wrong = Vec::new();
    for words in &texts {
        let round = tokenizer.encode(words, Special::Plain).and_then(|ids| {
            let outside = ids.iter().find(|id| **id as usize >= tokenizer.vocab_size()).copied();
            Ok((text.decode(&ids)?, outside, ids.is_empty()))
        });
        match round {
            Ok((_, Some(id), _)) => wrong.push(format!("{words:?} has the id {id}")),
            Ok((_, _, true)) => wrong.push(format!("{words:?} has no ids")),
            Ok((back, ..)) if back != *words => {
                wrong.push(format!("{words:?} comes back as {back:?}"));
            }
            Ok(_) => {}
            Err(error) => wrong.push(format!("{words:?}: {error}")),
        }
    }
    Ok(all_of(texts.len() as u64, "texts come back", wrong))
}

/// A file of recorded prompts.
#[derive(Debug, Deserialize)]
struct Recorded {
    prompts: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    text: String,
    ids: Vec<u32>,
    /// Present where the text was rendered from a conversation: markers in it are control tokens.
    messages: Option<serde_json::Value>,
}

/// Judges `token-ids`.
pub(super) fn ids(check: &TokenIds, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let text = ctx.text(form)?;
    let rows = match &check.against {
        IdSource::File(file) => {
            let bytes = ctx.fixture(file, Some(form), "oracle")?;
            let recorded: Recorded = serde_json::from_slice(&bytes).map_err(|error| {
                Box::new(Verdict::broken(format!("{}: {error}", file.display())))
            })?;
            let special = |row: &Row| match row.messages {
                Some(_) => Special::Parse,
                None => Special::Add,
            };
            recorded.prompts.into_iter().map(|row| (special(&row), row.text, row.ids)).collect()
        }
        IdSource::Form(other) => {
            let other = ctx.sibling(form, other)?;
            reference_rows(&ctx.unplanted().text(&other)?, ctx.seed)?
        }
    };
    let mut wrong = Vec::new();
    let mut tokens = 0u64;
    for (special, words, expected) in &rows {
        tokens += expected.len() as u64;
        match text.tokenizer.encode(words, *special) {
            Ok(found) if found == *expected => {}
            Ok(found) => {
                let length = found.len().max(expected.len());
                let at = (0..length).find(|&i| found.get(i) != expected.get(i)).unwrap_or(0);
                wrong.push(format!(
                    "{words:?} token {at}: {:?} instead of {:?}",
                    found.get(at),
                    expected.get(at)
                ));
            }
            Err(error) => wrong.push(format!("{words:?}: {error}")),
        }
    }
    Ok(all_of(rows.len() as u64, &format!("texts have the right {tokens} ids"), wrong))
}

/// The ids that another form gives to the corpus and to random texts.
fn reference_rows(text: &Text, seed: u64) -> Look<Vec<(Special, String, Vec<u32>)>> {
    let mut texts: Vec<String> = CORPUS.iter().map(|&text| text.to_owned()).collect();
    texts.extend(random_texts(64, seed));
    let mut rows = Vec::new();
    for words in texts {
        for special in [Special::Plain, Special::Parse, Special::Add] {
            let ids = text.tokenizer.encode(&words, special).map_err(|error| {
                Box::new(Verdict::broken(format!("the reference form: {words:?}: {error}")))
            })?;
            rows.push((special, words.clone(), ids));
        }
    }
    Ok(rows)
}
