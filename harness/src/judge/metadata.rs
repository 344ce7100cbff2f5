//! `metadata`: hyper-parameters, tokenizer and tensors agree.

use apr_engine::model::{Model, Role, Slot};

use super::Planned;
use super::context::{JudgeContext, Look};
use super::look::all_of;
use crate::contract::check::{Metadata, MetadataRule};
use crate::plausible;
use crate::verdict::Verdict;

/// Judges `check` on `case`.
pub(super) fn judge(check: &Metadata, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    Ok(match check.rule {
        MetadataRule::Architecture => {
            let known = apr_engine::model::Family::from_name(model.config().family.name);
            let wrong = match known {
                Some(_) => Vec::new(),
                None => vec![format!("{} is no known family", model.config().family.name)],
            };
            all_of(1, "architectures known", wrong)
        }
        MetadataRule::HyperParameters => hyper_parameters(&model),
        MetadataRule::Ranges => {
            let wrong = plausible::hyper_parameters(model.config());
            let count = plausible::HYPER_PARAMETERS;
            all_of(count, "hyper-parameters in the range of real models", wrong)
        }
        MetadataRule::Vocabulary => {
            let tokenizer = ctx.text(form)?.tokenizer;
            let (tokens, rows) = (tokenizer.vocab_size(), model.config().vocab);
            // Embeddings are often padded to a round size; a token without a row is the error.
            let wrong = if tokens <= rows && tokens > 0 {
                Vec::new()
            } else {
                vec![format!("{tokens} tokens, {rows} rows of the embedding")]
            };
            all_of(tokens as u64, &format!("tokens have one of {rows} rows"), wrong)
        }
        MetadataRule::SpecialTokens => {
            let (count, wrong) = plausible::special_tokens(&model, &ctx.text(form)?.tokenizer);
            all_of(count + 1, "special tokens inside the vocabulary", wrong)
        }
    })
}

/// What the tensors themselves say of the hyper-parameters.
fn hyper_parameters(model: &Model) -> Verdict {
    let config = model.config();
    let dims = |slot: Slot| model.weights().get(slot).map(|entry| entry.tensor.shape());
    let size = |slot: Slot, at: usize| dims(slot).and_then(|shape| shape.dims().get(at).copied());
    let layers = (0..=config.layers)
        .take_while(|&layer| dims(Slot::layer(layer, Role::AttnNorm)).is_some())
        .count();
    let head = config.head_dim as u64;
    let facts = [
        ("vocabulary", config.vocab as u64, size(Slot::model(Role::Embed), 0)),
        ("hidden size", config.hidden as u64, size(Slot::model(Role::Embed), 1)),
        ("layers", config.layers as u64, Some(layers as u64)),
        ("query heads", config.heads as u64, size(Slot::layer(0, Role::Q), 0).map(|n| n / head)),
        ("key heads", config.kv_heads as u64, size(Slot::layer(0, Role::K), 0).map(|n| n / head)),
        ("value heads", config.kv_heads as u64, size(Slot::layer(0, Role::V), 0).map(|n| n / head)),
        ("intermediate size", config.intermediate as u64, size(Slot::layer(0, Role::Gate), 0)),
        ("down width", config.intermediate as u64, size(Slot::layer(0, Role::Down), 1)),
    ];
    let wrong = facts.iter().filter(|(_, declared, found)| *found != Some(*declared));
    let wrong = wrong.map(|(name, declared, found)| {
        format!("{name}: {declared} declared, {found:?} in tensors")
    });
    all_of(facts.len() as u64, "hyper-parameters agree with the tensors", wrong.collect())
}
