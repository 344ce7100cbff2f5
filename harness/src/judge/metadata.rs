//! `metadata`: hyper-parameters, tokenizer and tensors agree.

use apr_engine::model::{Model, Role, Slot};

use super::Planned;
use super::context::{JudgeContext, Look};
use super::look::all_of;
use crate::contract::check::{Metadata, MetadataRule};
use crate::verdict::Verdict;

/// Largest plausible context, in tokens.
const CONTEXT_MAX: usize = 16 << 20;
/// Plausible epsilons of a root-mean-square norm.
const EPS: std::ops::RangeInclusive<f32> = 1e-12..=1e-2;
/// Plausible bases of the rotary embedding.
const ROPE_BASE: std::ops::RangeInclusive<f64> = 100.0..=1e9;

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
        MetadataRule::Ranges => ranges(&model),
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
        MetadataRule::SpecialTokens => special_tokens(&model, &ctx.text(form)?.tokenizer),
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

fn ranges(model: &Model) -> Verdict {
    let config = model.config();
    let mut wrong = Vec::new();
    if config.context == 0 || config.context > CONTEXT_MAX {
        wrong.push(format!("context {}", config.context));
    }
    if !EPS.contains(&config.norm_eps) {
        wrong.push(format!("norm epsilon {:e}", config.norm_eps));
    }
    let base = config.rope.theta;
    if !ROPE_BASE.contains(&base) {
        wrong.push(format!("RoPE base {base}"));
    }
    if config.rope.dims == 0
        || !config.rope.dims.is_multiple_of(2)
        || config.rope.dims > config.head_dim
    {
        wrong.push(format!("{} rotated of {} values per head", config.rope.dims, config.head_dim));
    }
    if config.kv_heads == 0 || !config.heads.is_multiple_of(config.kv_heads) {
        wrong.push(format!("{} query heads over {} key heads", config.heads, config.kv_heads));
    }
    all_of(5, "hyper-parameters in the range of real models", wrong)
}

fn special_tokens(model: &Model, tokenizer: &apr_engine::text::Tokenizer) -> Verdict {
    let vocab = model.config().vocab as u64;
    let mut named: Vec<(&str, u32)> = Vec::new();
    named.extend(model.generation().bos.map(|id| ("bos", id)));
    named.extend(model.generation().eos.iter().map(|&id| ("eos", id)));
    named.extend(tokenizer.bos().map(|id| ("tokenizer bos", id)));
    named.extend(tokenizer.eos().map(|id| ("tokenizer eos", id)));
    named.extend(tokenizer.pad().map(|id| ("tokenizer pad", id)));
    let outside = named.iter().filter(|(_, id)| u64::from(*id) >= vocab);
    let mut wrong: Vec<String> =
        outside.map(|(name, id)| format!("{name} {id} is outside of {vocab}")).collect();
    if model.generation().eos.is_empty() && tokenizer.eos_set().is_empty() {
        wrong.push("no token ends generation".into());
    }
    // An answer that ends at an ordinary word ends too early, and one whose end is never chosen does not end.
    let ends = named.iter().filter(|(name, _)| name.ends_with("eos"));
    let ordinary = ends.filter(|(_, id)| !tokenizer.is_special(*id));
    wrong.extend(ordinary.map(|(name, id)| format!("{name} {id} is an ordinary token")));
    all_of(named.len() as u64 + 1, "special tokens inside the vocabulary", wrong)
}
