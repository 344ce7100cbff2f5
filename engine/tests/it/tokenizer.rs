//! Tokenizers built from files: what must be refused, and what the facade promises.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use apr_engine::Code;
use apr_engine::text::{PreparedTokens, Special, Tokenizer, prepare_raw};
use serde_json::{Value, json};

/// The spelling of all 256 bytes in the byte-level alphabet, in byte order.
pub(crate) fn byte_alphabet() -> Vec<String> {
    let mut next = 256_u32;
    (0..=255_u32)
        .map(|byte| {
            let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let code = if printable {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect()
}

/// A small valid `tokenizer.json`: 256 bytes, the merges "he" and "Ġhe", two control tokens.
fn valid() -> Value {
    let mut vocab = serde_json::Map::new();
    for token in byte_alphabet().into_iter().chain(["he".to_owned(), "Ġhe".to_owned()]) {
        let id = vocab.len();
        vocab.insert(token, json!(id));
    }
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [
            {"id": 258, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 259, "content": "<think>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": ["h e", "Ġ he"]}
    })
}

fn load(document: &Value) -> apr_engine::Result<Tokenizer> {
    Tokenizer::from_json(document.to_string().as_bytes(), None)
}

/// Loads `valid()` with the value at `pointer` replaced.
fn load_with(pointer: &str, value: Value) -> apr_engine::Result<Tokenizer> {
    let mut document = valid();
    *document.pointer_mut(pointer).unwrap() = value;
    load(&document)
}

#[track_caller]
fn refused(code: Code, pointer: &str, value: Value) {
    let error = load_with(pointer, value).map(|_| ()).expect_err(pointer);
    assert_eq!(error.code(), code, "{error}");
}

#[test]
fn words_merge_and_control_strings_follow_the_mode() {
    let tokenizer = load(&valid()).unwrap();
    let he = |special| tokenizer.encode("he he<s>", special).unwrap();
    assert_eq!(he(Special::Parse), [256, 257, 258]);
    assert_eq!(he(Special::Plain), [256, 257, u32::from(b'<'), u32::from(b's'), u32::from(b'>')]);
    assert_eq!(tokenizer.encode("<think>", Special::Plain).unwrap(), [259], "not a control token");
    assert_eq!(tokenizer.vocab_size(), 260);
    assert_eq!(
        (tokenizer.id_of("Ġhe"), tokenizer.id_of("<s>"), tokenizer.id_of("x y")),
        (Some(257), Some(258), None)
    );
    assert!(tokenizer.is_special(258) && !tokenizer.is_special(259) && !tokenizer.is_special(9999));
}

#[test]
fn every_byte_string_survives_encoding_and_decoding() {
    let tokenizer = load(&valid()).unwrap();
    let text: String =
        (0..0x3000_u32).filter_map(char::from_u32).chain(['🦙', '\u{10FFFF}']).collect();
    let ids = tokenizer.encode(&text, Special::Plain).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
}

#[test]
fn ids_outside_the_vocabulary_are_errors() {
    let tokenizer = load(&valid()).unwrap();
    for id in [260, u32::MAX] {
        assert_eq!(tokenizer.token_bytes(id).expect_err("outside").code(), Code::TokenId);
        assert_eq!(tokenizer.decode(&[256, id], true).expect_err("outside").code(), Code::TokenId);
    }
    assert_eq!(
        PreparedTokens::from_ids(&[0, 260], 260).expect_err("outside").code(),
        Code::TokenId
    );
    assert_eq!(PreparedTokens::from_ids(&[0, 259], 260).unwrap().ids(), [0, 259]);
}

#[test]
fn padding_rows_of_the_model_decode_to_nothing_and_are_no_tokens() {
    let mut tokenizer = load(&valid()).unwrap();
    tokenizer.pad_to(264);
    assert_eq!(tokenizer.decode(&[256, 260, 263, 256], false).unwrap(), "hehe");
    assert_eq!(tokenizer.token_bytes(264).expect_err("outside").code(), Code::TokenId);
    assert_eq!(tokenizer.vocab_size(), 260, "padding is not part of the vocabulary");
    assert_eq!(tokenizer.add_ends([260]).expect_err("no token").code(), Code::TokenId);
    tokenizer.pad_to(3);
    assert_eq!(tokenizer.decode(&[256], false).unwrap(), "he", "a small model hides no token");
}

#[test]
fn the_config_names_the_special_tokens_and_whether_they_are_added() {
    let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "<s>", "add_bos_token": true, "add_eos_token": false});
    let tokenizer =
        Tokenizer::from_json(valid().to_string().as_bytes(), Some(config.to_string().as_bytes()))
            .unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.unk()), (Some(258), Some(258), None));
    assert_eq!(prepare_raw(&tokenizer, "he").unwrap().ids(), [258, 256]);
    assert_eq!(tokenizer.eos_set().iter().copied().collect::<Vec<_>>(), [258]);
}

#[test]
fn the_post_processor_adds_its_tokens() {
    let template = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [258], "tokens": ["<s>"]}}});
    let tokenizer = load_with("/post_processor", template.clone()).unwrap();
    assert_eq!(tokenizer.encode("he", Special::Add).unwrap(), [258, 256]);
    assert_eq!(tokenizer.encode("he", Special::Parse).unwrap(), [256]);
    // A token that is not declared panics in the library; here it is an error.
    let mut undeclared = template;
    undeclared["special_tokens"] = json!({});
    refused(Code::TokenizerInvalid, "/post_processor", undeclared);
}

#[test]
fn merges_that_join_into_nothing_are_refused() {
    refused(Code::TokenizerInvalid, "/model/merges", json!(["h e", "he he"]));
    refused(Code::TokenizerInvalid, "/model/merges", json!([["aaaaaaaa", "bbbbbbbb"]]));
    refused(Code::TokenizerInvalid, "/model/merges", json!(["he"]));
    refused(Code::TokenizerInvalid, "/model/merges", json!(["h e", ["Ġ", "he"]]));
}

#[test]
fn components_that_crash_or_change_results_are_refused() {
    refused(Code::TokenizerUnsupported, "/model/continuing_subword_prefix", json!("a long prefix"));
    refused(Code::TokenizerUnsupported, "/model/dropout", json!(0.1));
    refused(Code::TokenizerUnsupported, "/model/type", json!("WordPiece"));
    refused(
        Code::TokenizerUnsupported,
        "/pre_tokenizer",
        json!({"type": "FixedLength", "length": 0}),
    );
    refused(
        Code::TokenizerUnsupported,
        "/normalizer",
        json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    );
    refused(Code::TokenizerUnsupported, "/pre_tokenizer", json!({"type": "NoSuchThing"}));
    let bad_regex = json!({"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": false});
    refused(Code::TokenizerInvalid, "/pre_tokenizer", bad_regex);
}

#[test]
fn options_that_crash_the_library_but_change_no_ids_are_not_reached() {
    let truncation =
        json!({"max_length": 4, "stride": 9, "strategy": "LongestFirst", "direction": "Right"});
    let tokenizer = load_with("/truncation", truncation).unwrap();
    assert_eq!(tokenizer.encode("hhhhhhhhhhhhhh", Special::Add).unwrap().len(), 14, "never cut");
    let strip = json!({"type": "Strip", "content": "h", "start": 9, "stop": 9});
    let tokenizer = load_with(
        "/decoder",
        json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, strip]}),
    )
    .unwrap();
    assert_eq!(tokenizer.decode(&[256], false).unwrap(), "he");
    load_with("/padding", json!({"strategy": {"Fixed": 1_000_000}})).unwrap();
}

#[test]
fn replacements_cannot_multiply_a_text_without_bound() {
    let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaa"});
    let chain = json!({"type": "Sequence", "normalizers": vec![replace; 8]});
    refused(Code::TokenizerInvalid, "/normalizer", chain);
}

#[test]
fn ids_and_added_tokens_are_checked() {
    refused(Code::TokenizerInvalid, "/added_tokens/0/id", json!(u32::MAX));
    refused(Code::TokenizerInvalid, "/added_tokens/0/content", json!(""));
    refused(Code::TokenizerInvalid, "/added_tokens/0/content", json!("<think>"));
    refused(Code::TokenizerInvalid, "/model/vocab/he", json!(u32::MAX));
    refused(Code::TokenizerInvalid, "/model/vocab/he", json!(0));
    refused(Code::TokenizerInvalid, "/model/vocab", json!({}));
    refused(Code::TokenizerInvalid, "/model/unk_token", json!("<nowhere>"));
}

#[test]
fn bytes_without_an_entry_are_left_out_as_in_transformers_and_named() {
    let mut document = valid();
    let vocab = document["model"]["vocab"].as_object_mut().unwrap();
    for byte in [b'!', 0x04, 0xf1] {
        vocab.remove(&byte_alphabet()[usize::from(byte)]);
    }
    let tokenizer = load(&document).unwrap();
    // The ids are those of the `tokenizers` package 0.23 in Python.
    for (text, ids, lost) in [
        ("he!", vec![256], vec!['!']),
        ("!", vec![], vec!['!']),
        ("h\u{4}e he", vec![104, 101, 257], vec!['\u{4}']),
        ("\u{50000}x", vec![144, 128, 128, 120], vec!['\u{50000}']),
        ("ñ he", vec![195, 177, 257], vec![]),
    ] {
        assert_eq!(tokenizer.encode(text, Special::Plain).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.unspelled(text), lost, "{text:?}");
    }
    assert!(load(&valid()).unwrap().unspelled("he!\u{4}\u{50000}").is_empty());
}

#[test]
fn a_byte_level_vocabulary_with_words_and_no_merges_is_refused() {
    let error = load_with("/model/merges", json!([])).map(|_| ()).expect_err("no merges");
    assert_eq!(error.code(), Code::TokenizerInvalid);
    assert!(error.to_string().contains("model.merges"), "{error}");
    // Nothing is missing where every entry is one byte.
    let mut bytes = valid();
    bytes["model"]["merges"] = json!([]);
    for word in ["he", "Ġhe"] {
        bytes["model"]["vocab"].as_object_mut().unwrap().remove(word);
    }
    assert_eq!(load(&bytes).unwrap().encode("he", Special::Plain).unwrap(), [104, 101]);
}

#[test]
fn bytes_that_are_not_the_json_of_a_tokenizer_are_errors() {
    let nested = "[".repeat(200);
    let inputs: [&[u8]; 7] = [
        b"",
        b"\xEF\xBB\xBF{}",
        b"\xFF\xFE{\0}\0",
        b"{}",
        b"[]",
        b"{\"model\": 3}",
        nested.as_bytes(),
    ];
    for input in inputs {
        let error = Tokenizer::from_json(input, None).map(|_| ()).expect_err("not a tokenizer");
        assert_eq!(error.code(), Code::TokenizerInvalid, "{error}");
    }
    let error = Tokenizer::from_json(valid().to_string().as_bytes(), Some(b"{"));
    assert_eq!(error.map(|_| ()).expect_err("bad config").code(), Code::ConfigJson);
}

#[test]
fn a_text_above_the_limit_is_refused_not_cut() {
    let tokenizer = load(&valid()).unwrap();
    let text = "a".repeat((16 << 20) + 1);
    assert_eq!(
        tokenizer.encode(&text, Special::Add).expect_err("too long").code(),
        Code::PromptTooLarge
    );
}
