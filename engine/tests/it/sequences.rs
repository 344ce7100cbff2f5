//! Several sequences in one pass: each as if it were alone.

use apr_engine::Code;
use apr_engine::backend::Device;
use apr_engine::model::{Lm, LmOptions, SequenceTokens, Want};
use apr_engine::probe::NoProbe;

use crate::fixture::{PYGMIES, Recording, model};

const DEVICES: [Device; 2] = [Device::Scalar, Device::SIMD];

fn tokens(name: &str) -> Vec<u32> {
    Recording::open(&format!("oracle/transformers/{name}.safetensors")).tokens()
}

fn three(chunk: usize) -> LmOptions {
    LmOptions { chunk, sequences: 3, ..LmOptions::default() }
}

/// Sequences and what is appended to them.
type Parts<'a> = &'a [(usize, &'a [u32])];

/// Logits behind each of `parts`, which are appended together.
fn append(lm: &mut dyn Lm, parts: Parts<'_>) -> apr_engine::Result<Vec<Vec<f32>>> {
    let batch: Vec<_> =
        parts.iter().map(|&(sequence, tokens)| SequenceTokens { sequence, tokens }).collect();
    let vocab = lm.config().vocab;
    Ok(lm.forward_batch(&batch)?.values().chunks_exact(vocab).map(<[f32]>::to_vec).collect())
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-5, "{what}: {worst}");
}

/// Prompts of different lengths and single tokens share passes, some of which are too short for all of them.
#[test]
fn each_of_several_sequences_gets_the_logits_that_it_gets_alone() {
    for name in PYGMIES {
        let (model, tokens) = (model(&format!("pygmy/{name}")), tokens(name));
        let texts = [&tokens[..6], &tokens[1..4], &tokens[2..7]];
        for device in DEVICES {
            for chunk in [2, 4, 128] {
                let mut lm = model.lm_on(&device, three(chunk)).unwrap();
                let mut found = vec![Vec::new(); 3];
                let mut take = |lm: &mut dyn Lm, parts: Parts<'_>| {
                    let rows = append(lm, parts).unwrap();
                    assert_eq!(rows.len(), parts.len());
                    for ((sequence, _), row) in parts.iter().zip(rows) {
                        found[*sequence] = row;
                    }
                };
                take(&mut *lm, &[(1, &texts[1][..1]), (0, &texts[0][..4])]);
                take(&mut *lm, &[(2, &texts[2][..5]), (1, &texts[1][1..2])]);
                take(&mut *lm, &[(0, &texts[0][4..]), (1, &texts[1][2..])]);
                for (sequence, text) in texts.iter().enumerate() {
                    let mut alone = model.lm_on(&device, LmOptions::default()).unwrap();
                    let expected = alone.forward(text, Want::Last, &mut NoProbe).unwrap();
                    let what = format!("{name}, {device}, passes of {chunk}, text {sequence}");
                    assert_near(&found[sequence], expected.last(), &what);
                    assert_eq!(lm.position_of(sequence), text.len());
                }
            }
        }
    }
}

#[test]
fn what_one_sequence_forgets_the_others_keep() {
    let (model, tokens) = (model("pygmy/mistral"), tokens("mistral"));
    let mut lm = model.lm_on(&Device::SIMD, three(128)).unwrap();
    let parts: Vec<_> = (0..3).map(|sequence| (sequence, &tokens[sequence..5])).collect();
    append(&mut *lm, &parts).unwrap();
    lm.truncate_sequence(1, 2);
    lm.truncate_sequence(7, 0);
    let positions: Vec<_> = (0..4).map(|sequence| lm.position_of(sequence)).collect();
    assert_eq!(positions, [5, 2, 3, 0]);
    let found = append(&mut *lm, &[(1, &tokens[3..6]), (0, &tokens[5..6])]).unwrap();
    for (found, text) in found.iter().zip([&tokens[1..6], &tokens[..6]]) {
        let mut alone = model.lm_on(&Device::SIMD, LmOptions::default()).unwrap();
        let expected = alone.forward(text, Want::Last, &mut NoProbe).unwrap();
        assert_near(found, expected.last(), "behind a shared pass");
    }
}

/// The twelfth token is the last one that the short divisors serve.
#[test]
fn a_sequence_that_becomes_long_is_rotated_anew_and_the_others_are_not() {
    let (model, tokens) = (model("pygmy/longrope"), tokens("longrope"));
    let mut lm = model.lm_on(&Device::Scalar, three(5)).unwrap();
    append(&mut *lm, &[(0, &tokens[..11]), (2, &tokens[..4])]).unwrap();
    let found = append(&mut *lm, &[(2, &tokens[4..6]), (0, &tokens[11..13])]).unwrap();
    for (found, end) in found.iter().zip([6, 13]) {
        let mut alone = model.lm_on(&Device::Scalar, LmOptions::default()).unwrap();
        let expected = alone.forward(&tokens[..end], Want::Last, &mut NoProbe).unwrap();
        assert_near(found, expected.last(), &format!("{end} tokens"));
    }
}

#[test]
fn a_batch_that_is_refused_changes_nothing() {
    let model = model("pygmy/mistral");
    let options = LmOptions { context: Some(4), ..three(128) };
    let mut lm = model.lm_on(&Device::Scalar, options).unwrap();
    assert_eq!(lm.sequences(), 3);
    append(&mut *lm, &[(0, &[1, 2]), (1, &[3])]).unwrap();
    let refused: [(Parts<'_>, Code); 5] = [
        (&[(0, &[1]), (3, &[1])], Code::SequenceNumber),
        (&[(0, &[1]), (0, &[1])], Code::SequenceNumber),
        (&[(0, &[1]), (1, &[])], Code::EmptyPrompt),
        (&[(0, &[1]), (1, &[320])], Code::TokenId),
        (&[(1, &[1]), (0, &[1, 2, 3])], Code::ContextExceeded),
    ];
    for (parts, code) in refused {
        assert_eq!(append(&mut *lm, parts).unwrap_err().code(), code, "{parts:?}");
        assert_eq!([0, 1, 2].map(|sequence| lm.position_of(sequence)), [2, 1, 0], "{parts:?}");
    }
    assert_eq!(append(&mut *lm, &[]).unwrap(), Vec::<Vec<f32>>::new());
    append(&mut *lm, &[(0, &[1, 2]), (1, &[1, 2, 3])]).unwrap();
}
