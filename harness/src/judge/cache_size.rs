//! `cache-size`: the key-value cache takes the bytes of its type, and no more.

use super::Planned;
use super::context::{BackendSpec, JudgeContext, Look};
use super::look::{all_of, logits, token_sets};
use crate::contract::check::{CacheSize, CacheTypeName};
use crate::verdict::Verdict;

/// Judges `check` on `case`.
pub(super) fn judge(check: &CacheSize, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let spec = BackendSpec::of(&case.info.cell);
    let config = model.config();
    let per_position = 2 * config.layers * config.kv_width();
    let (mut caches, mut violations) = (0, Vec::new());
    for cache_type in check.cache_types.iter().map(|name| name.0) {
        let options = ctx.options_with(Some(CacheTypeName(cache_type)));
        for tokens in token_sets(ctx, form, &model, &[])? {
            let mut lm = ctx.lm(&model, &spec, options)?;
            logits(&mut *lm, &tokens.ids)?;
            let (told, due) = (lm.cache_bytes(), per_position * lm.position() * cache_type.bytes());
            caches += 1;
            if told != due || lm.cache_type() != cache_type {
                violations.push(format!(
                    "{}: {cache_type} was asked for, which takes {due} bytes for {} positions; {told} bytes of {} are kept",
                    tokens.label,
                    lm.position(),
                    lm.cache_type(),
                ));
            }
        }
    }
    Ok(all_of(caches, "caches have the size of their type", violations))
}
