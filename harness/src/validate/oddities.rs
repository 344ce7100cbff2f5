//! What is legal but odd: a violation to the strict alone.

use std::path::Path;

use apr_engine::Code;
use apr_engine::format::{Container, Source};
use apr_engine::model::Model;

use super::{Violation, refused};
use crate::plausible;

/// What the parsers noted.
pub(super) fn of_files(source: &Source, containers: &[Container<'_>]) -> Vec<Violation> {
    let noted = containers.iter().zip(source.files()).flat_map(|(container, file)| {
        container.notes.iter().map(|note| {
            odd(note.rule, file.path().display().to_string(), "a file without oddities", &note.text)
        })
    });
    noted.collect()
}

/// What a model that loads lacks or says that real ones do not.
pub(super) fn of_model(path: &Path) -> Vec<Violation> {
    let Ok(model) = Model::load(path) else { return Vec::new() };
    let mut found: Vec<Violation> = plausible::hyper_parameters(model.config())
        .into_iter()
        .map(|wrong| odd("implausible", "hyper-parameters".into(), "what real models have", &wrong))
        .collect();
    match model.tokenizer() {
        Ok(tokenizer) => {
            let (_, wrong) = plausible::special_tokens(&model, tokenizer);
            found.extend(wrong.iter().map(|wrong| {
                odd("special-token", "tokenizer".into(), "control tokens that begin and end", wrong)
            }));
        }
        // Such a model is of use to nobody who has text.
        Err(error) if error.code() == Code::TokenizerMissing => found.push(refused(&error, path)),
        Err(_) => {}
    }
    found
}

fn odd(rule: &str, place: String, expected: &str, found: &str) -> Violation {
    Violation {
        rule: rule.to_owned(),
        place,
        offset: None,
        expected: expected.to_owned(),
        found: found.to_owned(),
        hint: "legal, and a violation only with --strict".to_owned(),
    }
}
