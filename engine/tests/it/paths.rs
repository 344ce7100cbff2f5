//! The same tokens by different ways: cached or at once, in chunks or whole, after a truncation.

use apr_engine::Code;
use apr_engine::backend::{Backend as _, CacheType, Device, KvRows, KvShape, Scalar};
use apr_engine::model::{LmOptions, Want};
use apr_engine::probe::NoProbe;

use crate::fixture::{PYGMIES, Recorder, Recording, model};

fn tokens(name: &str) -> Vec<u32> {
    Recording::open(&format!("oracle/transformers/{name}.safetensors")).tokens()
}

/// Largest absolute difference.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn cached_equals_uncached_at_every_position() {
    for name in PYGMIES {
        let (model, tokens) = (model(&format!("pygmy/{name}")), tokens(name));
        let mut cached = model.lm_on(&Device::Scalar, LmOptions::default()).unwrap();
        for end in 1..=tokens.len() {
            let mut fresh = model.lm_on(&Device::Scalar, LmOptions::default()).unwrap();
            let whole = fresh.forward(&tokens[..end], Want::Last, &mut NoProbe).unwrap();
            let step = cached.forward(&tokens[end - 1..end], Want::Last, &mut NoProbe).unwrap();
            assert!(distance(step.last(), whole.last()) <= 1e-5, "{name} at {end}");
        }
    }
}

#[test]
fn chunked_equals_unchunked_at_every_site() {
    for name in PYGMIES {
        let (model, tokens) = (model(&format!("pygmy/{name}")), tokens(name));
        let run = |chunk| {
            let options = LmOptions { chunk, ..LmOptions::default() };
            let mut lm = model.lm_on(&Device::Scalar, options).unwrap();
            let mut recorder = Recorder::default();
            lm.forward(&tokens, Want::All, &mut recorder).unwrap();
            recorder.0
        };
        let whole = run(tokens.len());
        for chunk in [1, 3, 5] {
            for (site, values) in run(chunk) {
                // Rows of scores are as long as the context at their chunk, so they do not line up.
                if !site.ends_with("attn_scores") {
                    assert!(distance(&values, &whole[&site]) <= 1e-5, "{name} {site} by {chunk}");
                }
            }
        }
    }
}

#[test]
fn a_truncated_cache_forgets_what_it_held() {
    let (model, tokens) = (model("pygmy/qwen2-tied"), tokens("qwen2-tied"));
    let mut lm = model.lm_on(&Device::Scalar, LmOptions::default()).unwrap();
    let first = lm.forward(&tokens, Want::Last, &mut NoProbe).unwrap().last().to_vec();
    lm.truncate(4);
    assert_eq!(lm.position(), 4);
    lm.forward(&[1, 2, 3], Want::Last, &mut NoProbe).unwrap();
    lm.truncate(4);
    let again = lm.forward(&tokens[4..], Want::Last, &mut NoProbe).unwrap().last().to_vec();
    assert_eq!(first, again);
    lm.reset();
    assert_eq!(lm.position(), 0);
}

/// The twelfth token is the last one that the short divisors serve: a text that grows beyond it is rotated anew, and
/// once more when it shrinks below.
#[test]
fn a_text_that_becomes_long_and_short_again_is_rotated_as_what_it_is() {
    let (model, tokens) = (model("pygmy/longrope"), tokens("longrope"));
    let fresh = |tokens: &[u32]| {
        let mut lm = model.lm_on(&Device::Scalar, LmOptions::default()).unwrap();
        lm.forward(tokens, Want::Last, &mut NoProbe).unwrap().last().to_vec()
    };
    let mut lm =
        model.lm_on(&Device::Scalar, LmOptions { chunk: 3, ..LmOptions::default() }).unwrap();
    lm.forward(&tokens[..8], Want::Last, &mut NoProbe).unwrap();
    for (keep, end) in [(8, 12), (12, 13), (13, 14), (4, 9), (9, 13)] {
        lm.truncate(keep);
        let found =
            lm.forward(&tokens[keep..end], Want::Last, &mut NoProbe).unwrap().last().to_vec();
        assert!(distance(&found, &fresh(&tokens[..end])) <= 1e-5, "{keep} to {end}");
        assert_eq!(lm.position(), end);
    }
}

#[test]
fn last_is_the_last_row_of_all() {
    let (model, tokens) = (model("pygmy/mistral"), tokens("mistral"));
    let mut lm =
        model.lm_on(&Device::Scalar, LmOptions { chunk: 4, ..LmOptions::default() }).unwrap();
    let all = lm.forward(&tokens, Want::All, &mut NoProbe).unwrap();
    assert_eq!(all.rows(), tokens.len());
    let expected = all.row(tokens.len() - 1).unwrap().to_vec();
    lm.reset();
    let last = lm.forward(&tokens, Want::Last, &mut NoProbe).unwrap();
    assert_eq!(last.rows(), 1);
    assert_eq!(last.last(), expected);
}

#[test]
fn the_context_limit_is_refused_with_both_numbers() {
    let model = model("pygmy/mistral");
    let options = LmOptions { context: Some(8), ..LmOptions::default() };
    let mut lm = model.lm_on(&Device::Scalar, options).unwrap();
    lm.forward(&[1; 5], Want::Last, &mut NoProbe).unwrap();
    let error = lm.forward(&[1; 4], Want::Last, &mut NoProbe).unwrap_err();
    assert_eq!(error.code(), Code::ContextExceeded);
    assert_eq!((error.expected_text(), error.found_text()), ("at most 8 tokens", "9 tokens"));
    assert_eq!(lm.position(), 5, "a refused call changes nothing");
    lm.forward(&[1; 3], Want::Last, &mut NoProbe).unwrap();
}

#[test]
fn tokens_outside_the_vocabulary_and_empty_prompts_are_refused() {
    let model = model("pygmy/mistral");
    let mut lm = model.lm_on(&Device::Scalar, LmOptions::default()).unwrap();
    let code = |tokens: &[u32], lm: &mut dyn apr_engine::model::Lm| {
        lm.forward(tokens, Want::Last, &mut NoProbe).unwrap_err().code()
    };
    assert_eq!(code(&[320], &mut *lm), Code::TokenId);
    assert_eq!(code(&[], &mut *lm), Code::EmptyPrompt);
}

#[test]
fn a_gap_in_the_cache_is_refused() {
    let shape = KvShape { layers: 1, width: 2, capacity: 4, cache_type: CacheType::F16 };
    let mut kv = Scalar::default().kv_alloc(shape).unwrap();
    let rows = |position| KvRows { layer: 0, first_row: 0, position, rows: 1 };
    let row = vec![0.0; 2];
    assert_eq!(
        Scalar::default().kv_append(&mut kv, &row, &row, rows(1)).unwrap_err().code(),
        Code::BackendShape
    );
    Scalar::default().kv_append(&mut kv, &row, &row, rows(0)).unwrap();
    assert_eq!(
        Scalar::default().kv_append(&mut kv, &row, &row, rows(4)).unwrap_err().code(),
        Code::ContextExceeded
    );
}
