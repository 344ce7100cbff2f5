//! What hyper-parameters and special tokens of real models have in common.
//!
//! Shared by the `metadata` judge and by [`crate::validate`], to the strict.

use apr_engine::model::{Config, Model};
use apr_engine::text::Tokenizer;

/// Largest plausible context, in tokens.
const CONTEXT_MAX: usize = 16 << 20;
/// Plausible epsilons of a root-mean-square norm.
const EPS: std::ops::RangeInclusive<f32> = 1e-12..=1e-2;
/// Plausible bases of the rotary embedding.
const ROPE_BASE: std::ops::RangeInclusive<f64> = 100.0..=1e9;

/// How many things [`hyper_parameters`] looks at.
pub(crate) const HYPER_PARAMETERS: u64 = 5;

/// Hyper-parameters that no real model has.
pub(crate) fn hyper_parameters(config: &Config) -> Vec<String> {
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
    wrong
}

/// How many special tokens there are, and what is wrong with them: outside the vocabulary, ordinary, or none that ends.
pub(crate) fn special_tokens(model: &Model, tokenizer: &Tokenizer) -> (u64, Vec<String>) {
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
    (named.len() as u64, wrong)
}
