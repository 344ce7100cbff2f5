//! Tokenizers out of the carried model files, and vocabularies that must be refused.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use apr_engine::Code;
use apr_engine::format::{apr, gguf};
use apr_engine::text::{
    ChatOptions, ChatTemplate, GgufVocab, Message, Special, StopMatcher, StreamDecoder, Tokenizer,
    prepare_chat,
};
use proptest::prelude::*;

use crate::tokenizer::byte_alphabet;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

fn from_file(path: &Path) -> (Tokenizer, apr_engine::Result<ChatTemplate>) {
    let bytes = fs::read(path).unwrap();
    let is_apr = path.extension().is_some_and(|extension| extension == "apr");
    let container = if is_apr { apr::parse(&bytes) } else { gguf::parse(&bytes) }.unwrap();
    let tokenizer = Tokenizer::from_metadata(&container.metadata).unwrap();
    (tokenizer, ChatTemplate::from_metadata(&container.metadata))
}

fn from_directory(name: &str) -> Tokenizer {
    let read = |file: &str| fs::read(fixture(name).join(file)).unwrap();
    Tokenizer::from_json(&read("tokenizer.json"), Some(&read("tokenizer_config.json"))).unwrap()
}

const TEXTS: [&str; 6] = [
    "Hello",
    "What is 2+2? Answer with just the number.",
    "<|im_start|>user\n12 + 30 = 42<|im_end|>\n",
    "你好 🦙 caf\u{e9}",
    "  two  spaces\n\n\tand\r\ntabs ",
    "def f(x):\n    return x * 100\n",
];

#[test]
fn every_form_of_the_interop_model_gives_the_ids_of_its_source() {
    // The two sources disagree about words: tokenizer.json has those of GPT-2, the GGUF says qwen2.
    let (gguf, _) = from_file(&fixture("apr-interop/tiny-q8_0.gguf"));
    let json = from_directory("apr-interop");
    for (name, source) in [
        ("from-st.apr", &json),
        ("from-st-int8.apr", &json),
        ("from-gguf-q8.apr", &gguf),
        ("preserve.apr", &gguf),
    ] {
        let (tokenizer, template) = from_file(&fixture("apr-interop").join(name));
        for text in TEXTS {
            let expected = source.encode(text, Special::Parse).unwrap();
            assert_eq!(
                tokenizer.encode(text, Special::Parse).unwrap(),
                expected,
                "{name}: {text:?}"
            );
            assert_eq!(tokenizer.decode(&expected, false).unwrap(), text);
        }
        assert_eq!(tokenizer.eos(), source.eos(), "{name}");
        if let Ok(template) = template {
            let messages = [Message::new("user", "Hello <|im_end|>")];
            let prepare =
                |t| prepare_chat(t, &template, &messages, &ChatOptions::default()).unwrap();
            assert_eq!(prepare(&tokenizer), prepare(source), "{name}");
        }
    }
}

#[test]
fn every_form_of_the_golden_model_gives_the_ids_of_its_source() {
    let source = from_directory("golden");
    let config = fs::read(fixture("golden/tokenizer_config.json")).unwrap();
    let template = ChatTemplate::from_config(&config);
    let template = template.unwrap_or_else(|_| {
        ChatTemplate::new(&fs::read_to_string(fixture("golden/chat_template.jinja")).unwrap())
            .unwrap()
    });
    for name in ["golden-F16.gguf", "golden-Q4_K_M.gguf", "golden-Q8_0.gguf"] {
        let (tokenizer, inside) = from_file(&fixture("gguf").join(name));
        for text in TEXTS {
            let expected = source.encode(text, Special::Parse).unwrap();
            assert_eq!(
                tokenizer.encode(text, Special::Parse).unwrap(),
                expected,
                "{name}: {text:?}"
            );
        }
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        let messages = [Message::new("system", "Be brief."), Message::new("user", "What is 2+2?")];
        let expected = prepare_chat(&source, &template, &messages, &options).unwrap();
        let found = prepare_chat(&tokenizer, &inside.unwrap(), &messages, &options).unwrap();
        assert_eq!(found, expected, "{name}");
        assert!(!tokenizer.eos_set().is_empty(), "{name} has no end token");
        assert_eq!(tokenizer.eos_set(), source.eos_set(), "{name}");
    }
}

/// A valid SentencePiece vocabulary: control tokens, 256 bytes, three pieces.
struct Parts {
    tokens: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i64>,
}

impl Parts {
    fn new() -> Self {
        let mut parts = Self { tokens: Vec::new(), scores: Vec::new(), types: Vec::new() };
        for (token, kind) in [("<unk>", 2), ("<s>", 3), ("</s>", 3)] {
            parts.push(token, 0.0, kind);
        }
        for byte in 0..256 {
            parts.push(&format!("<0x{byte:02X}>"), 0.0, 6);
        }
        for (token, score) in [("▁", -3.0), ("a", -2.0), ("▁a", -1.0)] {
            parts.push(token, score, 1);
        }
        parts
    }

    fn push(&mut self, token: &str, score: f32, kind: i64) {
        self.tokens.push(token.to_owned());
        self.scores.push(score);
        self.types.push(kind);
    }

    fn vocab(&self) -> GgufVocab<'_> {
        GgufVocab {
            model: "llama",
            tokens: self.tokens.iter().map(String::as_str).collect(),
            scores: self.scores.clone(),
            token_types: self.types.clone(),
            bos: Some(1),
            eos: Some(2),
            unk: Some(0),
            ..GgufVocab::default()
        }
    }
}

#[test]
fn a_sentencepiece_vocabulary_prefixes_a_space_and_falls_back_to_bytes() {
    let parts = Parts::new();
    let tokenizer = Tokenizer::from_vocab(&parts.vocab()).unwrap();
    assert_eq!(tokenizer.encode("a", Special::Add).unwrap(), [1, 261]);
    assert_eq!(tokenizer.encode("aé", Special::Plain).unwrap(), [261, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(tokenizer.encode("a</s>a", Special::Parse).unwrap(), [261, 2, 261]);
    assert_eq!(tokenizer.encode("", Special::Add).unwrap(), [1]);
    assert_eq!(tokenizer.decode(&[1, 261, 261, 2], true).unwrap(), "a a");
    // The spelling of a byte token is text.
    let ids = tokenizer.encode("<0x41>", Special::Parse).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<0x41>");
    assert_eq!(tokenizer.token_bytes(3 + 0x41).unwrap(), b"A");
}

#[test]
fn broken_vocabularies_are_refused() {
    type Break = fn(&mut GgufVocab<'_>);
    let cases: [(&str, Break, Code); 12] = [
        ("no scores", |v| v.scores.clear(), Code::TokenizerInvalid),
        ("unknown type", |v| v.token_types[5] = 7, Code::TokenizerInvalid),
        ("byte token -1", |v| v.tokens[3] = "<0x-1>", Code::TokenizerInvalid),
        ("byte token ZZ", |v| v.tokens[3] = "<0xZZ>", Code::TokenizerInvalid),
        ("byte token of one digit", |v| v.tokens[3] = "<0x1>", Code::TokenizerInvalid),
        ("eos outside", |v| v.eos = Some(262), Code::TokenId),
        ("eos far outside", |v| v.eos = Some(u64::MAX), Code::TokenId),
        ("bos outside", |v| v.bos = Some(1 << 32), Code::TokenId),
        (
            "no way to spell a byte",
            |v| (v.unk, v.token_types[3]) = (None, 5),
            Code::TokenizerInvalid,
        ),
        ("model", |v| v.model = "wordpiece", Code::TokenizerUnsupported),
        ("pre", |v| (v.model, v.pre) = ("gpt2", "no-such-pre"), Code::TokenizerUnsupported),
        ("bytes of gpt2", |v| (v.model, v.pre) = ("gpt2", "gpt-2"), Code::TokenizerInvalid),
    ];
    let parts = Parts::new();
    for (what, damage, code) in cases {
        let mut vocab = parts.vocab();
        damage(&mut vocab);
        let error = Tokenizer::from_vocab(&vocab).map(|_| ()).expect_err(what);
        assert_eq!(error.code(), code, "{what}: {error}");
    }
}

#[test]
fn a_megabyte_token_is_refused() {
    let mut parts = Parts::new();
    parts.push(&"x".repeat(1 << 20), 0.0, 1);
    let error = Tokenizer::from_vocab(&parts.vocab()).map(|_| ()).expect_err("too long");
    assert_eq!(error.code(), Code::LimitExceeded);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_survives_tokens_and_streaming(text in "\\PC*", cut in 0_usize..40) {
        let parts = Parts::new();
        let tokenizer = Tokenizer::from_vocab(&parts.vocab()).unwrap();
        // `▁` is how the vocabulary spells a space.
        let text = text.replace('▁', "_");
        let mut ids = tokenizer.encode(&text, Special::Plain).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        ids.truncate(cut);
        let mut decoder = StreamDecoder::new(&tokenizer, false);
        let mut streamed: String = ids.iter().map(|id| decoder.push(*id).unwrap()).collect();
        streamed.push_str(&decoder.finish());
        prop_assert_eq!(streamed, tokenizer.decode(&ids, false).unwrap());
    }

    #[test]
    fn stop_strings_are_found_wherever_the_pieces_break(
        text in "[abé]{0,30}",
        stop in "[abé]{1,4}",
        breaks in prop::collection::vec(1_usize..4, 0..30),
    ) {
        let characters: Vec<char> = text.chars().collect();
        let mut matcher = StopMatcher::new([stop.as_str()]);
        let mut out = String::new();
        let mut rest = characters.as_slice();
        for len in breaks.into_iter().chain([usize::MAX]) {
            let (piece, tail) = rest.split_at(len.min(rest.len()));
            out.push_str(&matcher.push(&piece.iter().collect::<String>()));
            rest = tail;
        }
        prop_assert_eq!(matcher.stopped(), text.contains(&stop));
        out.push_str(&matcher.finish());
        prop_assert_eq!(out, text.split(&stop).next().unwrap());
    }
}

#[test]
fn a_byte_level_vocabulary_of_a_file_needs_its_merges_and_may_lack_bytes() {
    let alphabet = byte_alphabet();
    let lacking = [0x04, 0xf1].map(|byte: usize| alphabet[byte].as_str());
    let mut tokens: Vec<&str> =
        alphabet.iter().map(String::as_str).filter(|token| !lacking.contains(token)).collect();
    tokens.push("he");
    let vocab = GgufVocab { model: "gpt2", pre: "gpt-2", tokens, ..GgufVocab::default() };
    let error = Tokenizer::from_vocab(&vocab).map(|_| ()).expect_err("no merges");
    assert_eq!(error.code(), Code::TokenizerInvalid);
    assert!(error.to_string().contains("tokenizer.ggml.merges"), "{error}");
    let whole = GgufVocab { merges: vec!["h e"], ..vocab };
    let tokenizer = Tokenizer::from_vocab(&whole).unwrap();
    let ids = tokenizer.encode("h\u{4}he", Special::Plain).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "hhe");
    assert_eq!((ids.len(), tokenizer.unspelled("h\u{4}he")), (2, vec!['\u{4}']));
}
