//! Token ids and renderings against outside truth: vocabularies and templates of real models.
//!
//! The data is not part of the repository. It is looked for in `shared/data` beside the checkout; where it
//! is missing each test says so by name and ends.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use apr_engine::format::gguf;

use apr_engine::text::{ChatTemplate, Special, StreamDecoder, Tokenizer};
use sha2::{Digest, Sha256};

/// Ends each test text.
const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

/// The data folder, or `None` with a word about which test is skipped.
fn data(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {test}: conformance data folder not found");
    None
}

/// Texts and expected ids of a vocabulary.
fn cases(folder: &Path, name: &str) -> Vec<(String, Vec<u32>)> {
    let base = folder.join(format!("tokenizers/ggml-vocab-{name}.gguf"));
    let texts = fs::read_to_string(format!("{}.inp", base.display())).unwrap();
    let ids = fs::read_to_string(format!("{}.out", base.display())).unwrap();
    // A separator ends each part, the last one too.
    let texts = texts.strip_suffix(SEPARATOR).unwrap();
    let ids: Vec<Vec<u32>> = ids
        .lines()
        .map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect())
        .collect();
    let texts: Vec<&str> = texts.split(SEPARATOR).collect();
    assert_eq!(texts.len(), ids.len(), "{name}: parts and id lines");
    texts.into_iter().map(str::to_owned).zip(ids).collect()
}

fn gguf_tokenizer(path: &Path) -> Tokenizer {
    let bytes = fs::read(path).unwrap();
    let container = gguf::parse(&bytes).unwrap();
    Tokenizer::from_metadata(&container.metadata).unwrap()
}

fn check_vocabulary(test: &str, name: &str) {
    let Some(folder) = data(test) else { return };
    let path = folder.join(format!("tokenizers/ggml-vocab-{name}.gguf"));
    let tokenizer = gguf_tokenizer(&path);
    let cases = cases(&folder, name);
    assert!(cases.len() >= 46, "{name}: only {} parts", cases.len());
    let mut wrong = Vec::new();
    for (text, expected) in &cases {
        for special in [Special::Plain, Special::Parse] {
            let ids = tokenizer.encode(text, special).unwrap();
            if ids != *expected {
                wrong.push((special, text.clone(), ids, expected.clone()));
            }
        }
        check_decoding(&tokenizer, text, expected);
    }
    assert!(wrong.is_empty(), "{name}: {} of {} parts: {wrong:#?}", wrong.len(), cases.len());
}

/// Ids decode to their text, in one go and piece by piece.
fn check_decoding(tokenizer: &Tokenizer, text: &str, ids: &[u32]) {
    assert_eq!(tokenizer.decode(ids, false).unwrap(), text);
    let mut decoder = StreamDecoder::new(tokenizer, false);
    let mut streamed = String::new();
    for id in ids {
        let piece = decoder.push(*id).unwrap();
        assert!(!piece.contains('\u{FFFD}'), "half a character in {piece:?} of {text:?}");
        streamed.push_str(&piece);
    }
    streamed.push_str(&decoder.finish());
    assert_eq!(streamed, text);
}

#[test]
fn qwen2_vocabulary_gives_the_original_ids() {
    check_vocabulary("qwen2_vocabulary_gives_the_original_ids", "qwen2");
}

#[test]
fn llama_bpe_vocabulary_gives_the_original_ids() {
    check_vocabulary("llama_bpe_vocabulary_gives_the_original_ids", "llama-bpe");
}

#[test]
fn gpt2_vocabulary_gives_the_original_ids() {
    check_vocabulary("gpt2_vocabulary_gives_the_original_ids", "gpt-2");
}

#[test]
fn llama_spm_vocabulary_gives_the_original_ids() {
    check_vocabulary("llama_spm_vocabulary_gives_the_original_ids", "llama-spm");
}

#[test]
fn phi3_vocabulary_gives_the_original_ids() {
    check_vocabulary("phi3_vocabulary_gives_the_original_ids", "phi-3");
}

#[test]
fn the_interop_tokenizer_gives_equal_ids_from_json_and_gguf() {
    let test = "the_interop_tokenizer_gives_equal_ids_from_json_and_gguf";
    let Some(folder) = data(test).map(|folder| folder.join("apr-interop")) else { return };
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let from_json =
        Tokenizer::from_json(&read("tokenizer.json"), Some(&read("tokenizer_config.json")))
            .unwrap();
    let from_gguf = gguf_tokenizer(&folder.join("tiny-q8_0.gguf"));
    let texts =
        ["Hello", "What is the capital of France?", "<|im_start|>user\n2+2<|im_end|>\n", "日本 🦙"];
    for text in texts {
        for special in [Special::Plain, Special::Parse, Special::Add] {
            let expected = from_json.encode(text, special).unwrap();
            assert_eq!(from_gguf.encode(text, special).unwrap(), expected, "{text:?} {special:?}");
            assert_eq!(from_json.decode(&expected, false).unwrap(), text);
        }
    }
    assert_eq!(from_json.eos(), Some(319));
    assert_eq!(
        (from_gguf.bos(), from_gguf.eos(), from_gguf.pad()),
        (Some(317), Some(319), Some(317))
    );
    assert_eq!(from_json.eos_set(), from_gguf.eos_set());
}

#[test]
fn real_templates_render_what_jinja2_renders() {
    let Some(folder) = data("real_templates_render_what_jinja2_renders") else { return };
    let recorded = crate::template::Recorded::read();
    assert!(recorded.templates.len() >= 12);
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, rows) in &recorded.templates {
        let source = fs::read_to_string(folder.join("templates").join(name)).unwrap();
        let hash = Sha256::digest(source.as_bytes());
        let hash = hash.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        assert_eq!(hash, rows.sha256, "{name} is not the file of the recording");
        let template = ChatTemplate::new(&source).unwrap();
        for case in &rows.cases {
            compared += 1;
            wrong.extend(
                recorded.judge(&template, case).err().map(|text| format!("{name}: {text}")),
            );
        }
    }
    assert!(compared > 400, "only {compared} renderings");
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
}
