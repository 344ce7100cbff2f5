//! `apr rosetta`: the table and its last line, the exit codes, and the page.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::program::{output, run};

const GOLDEN: &str = "fixtures/golden";
const Q8: &str = "fixtures/gguf/golden-Q8_0.gguf";

/// `apr rosetta compare-inference` with these arguments: exit code, standard output, its last line.
fn compared(arguments: &[&str]) -> (i32, String, String) {
    let run = run(&[&["rosetta", "compare-inference"], arguments].concat());
    let last = run.out.lines().last().unwrap_or_default().to_owned();
    (run.code, format!("{}{}", run.out, run.err), last)
}

#[test]
fn a_model_compared_with_itself_is_identical_and_every_block_is_shown() {
    let (code, out, last) = compared(&[GOLDEN, GOLDEN]);
    assert_eq!(code, 0, "{out}");
    assert!(last.starts_with("identical in every bit of "), "{last}");
    for block in [
        "[1] Tokenization: ",
        "[2] Embedding lookup (token 0): MATCH",
        "[3] Layer 0 output: MATCH",
        "Final logits: MATCH",
    ] {
        assert!(out.contains(block), "{block} in {out}");
    }
}

#[test]
fn another_format_and_dtype_on_another_backend_differs_by_rounding_alone() {
    let devices =
        ["--source-backend", "scalar", "--target-isa", "portable", "--target-threads", "1"];
    let (code, out, last) = compared(&[&[GOLDEN, Q8][..], &devices].concat());
    assert_eq!(code, 0, "{out}");
    assert!(last.starts_with("no divergence beyond rounding in "), "{last}");
}

#[test]
fn a_planted_fault_is_found_at_its_own_site_and_blamed_on_the_target() {
    for (fault, site) in [
        ("engine/rope-skipped", "layers.1.rope_q"),
        ("engine/up-dropped", "layers.0.swiglu"),
        ("engine/logits-permuted", "logits"),
    ] {
        let (code, out, last) = compared(&[GOLDEN, Q8, "--plant", fault]);
        assert_eq!(code, 1, "{fault}: {out}");
        assert!(last.starts_with(&format!("first divergent site: {site} at ")), "{fault}: {last}");
        assert!(
            last.ends_with("the target computes it wrongly, the oracle agrees with the source"),
            "{fault}: {last}"
        );
    }
}

#[test]
fn damaged_weights_are_not_blamed_on_the_engine() {
    let (code, out, last) = compared(&[GOLDEN, GOLDEN, "--plant", "file/sign-flipped"]);
    assert_eq!(code, 1, "{out}");
    assert!(last.contains("neither computes it wrongly"), "{last}");
}

#[test]
fn a_cache_of_another_type_differs_by_rounding_alone() {
    let (code, out, last) = compared(&[GOLDEN, GOLDEN, "--source-cache-type", "f32"]);
    assert_eq!(code, 0, "{out}");
    assert!(last.starts_with("no divergence beyond rounding"), "{last}");
    let planted = ["--source-cache-type", "f32", "--plant", "engine/cache-coarse"];
    let (code, out, last) = compared(&[&[GOLDEN, GOLDEN][..], &planted].concat());
    assert_eq!(code, 1, "{out}");
    assert!(last.starts_with("first divergent site: layers.0.attn_"), "{last}");
}

#[test]
fn what_others_recorded_is_a_side_too() {
    let oracle = "fixtures/oracle/transformers/golden.safetensors";
    let (code, out, last) = compared(&[GOLDEN, "--against-oracle", oracle]);
    assert_eq!(code, 0, "{out}");
    assert!(last.starts_with("no divergence beyond rounding"), "{last}");
    let theirs = "fixtures/oracle/llama-cpp/golden-F16.safetensors";
    let logits = ["--against-oracle", theirs, "--oracle-logits", "logits.transformers"];
    let (code, out, _) = compared(&[&["fixtures/gguf/golden-F16.gguf"][..], &logits].concat());
    assert_eq!(code, 0, "{out}");
    let planted = ["--against-oracle", oracle, "--plant", "engine/rope-theta"];
    let (code, out, last) = compared(&[&[GOLDEN, GOLDEN][..], &planted].concat());
    assert_eq!(code, 1, "{out}");
    assert!(last.starts_with("first divergent site: layers.0.rope_q"), "{last}");
}

#[test]
fn nothing_compared_is_broken_and_not_green() {
    let (code, out, last) = compared(&[GOLDEN, GOLDEN, "--plant", "harness/compares-nothing"]);
    assert_eq!(code, 3, "{out}");
    assert_eq!(last, "nothing was compared");
}

#[test]
fn one_model_alone_is_a_usage_error() {
    let (code, out, _) = compared(&[GOLDEN]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("--against-oracle"), "{out}");
}

#[test]
fn a_threshold_judges_the_passes_as_a_whole() {
    let (code, out, _) = compared(&[GOLDEN, Q8, "--diff-threshold", "1e-9"]);
    assert_eq!(code, 1, "{out}");
    let (code, out, _) = compared(&[GOLDEN, Q8, "--diff-threshold", "1000"]);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn the_page_is_one_file_and_draws_every_layer() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.html");
    let html = page.to_str().expect("a path");
    let (code, out, _) =
        compared(&[GOLDEN, GOLDEN, "--plant", "engine/rope-style", "--html", html]);
    assert_eq!(code, 1, "{out}");
    let page = std::fs::read_to_string(&page).expect("the page");
    for text in ["layers.0.rope_q position 3", "layers.2.down position 0", "first divergent site"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("<script") && !page.contains("src="), "no script and nothing fetched");
}

#[test]
fn fingerprints_are_equal_for_equal_weights_in_any_container() {
    let folder = tempfile::tempdir().expect("a folder");
    for (model, extension, said) in [
        (GOLDEN, "apr", "the same weights, stored alike"),
        (GOLDEN, "gguf", "the same weights in other dtypes"),
        ("fixtures/pygmy/llama-mha", "gguf", "the same weights, stored alike"),
    ] {
        let path = folder.path().join(model.replace('/', "-")).with_extension(extension);
        let path = path.to_str().expect("a path");
        output(&["convert", model, "-o", path]);
        let told = output(&["rosetta", "fingerprint", model, path]);
        assert_eq!(told.lines().last(), Some(said), "{model} as {extension}: {told}");
    }
    let other = output(&["rosetta", "fingerprint", GOLDEN, Q8]);
    assert!(other.ends_with("other weights\n"), "{other}");
}

#[test]
fn a_diff_of_one_model_is_empty_and_one_of_two_names_what_differs() {
    let same = run(&["rosetta", "diff", GOLDEN, GOLDEN]);
    assert_eq!((same.code, same.out.lines().count()), (0, 1), "{}", same.out);
    let other = run(&["rosetta", "diff", GOLDEN, Q8]);
    assert_eq!(other.code, 1, "{}", other.err);
    assert!(other.out.contains("layers.0.self_attn.q_proj.weight: nmse "), "{}", other.out);
}

/// An engine behind a socket: answers one request with `choice` and hands back what it was asked.
fn engine(choice: Value) -> (String, std::thread::JoinHandle<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).expect("a line") > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let answer = json!({ "choices": [choice] }).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            answer.len()
        );
        let stream = reader.get_mut();
        stream.write_all(head.as_bytes()).expect("a head");
        stream.write_all(answer.as_bytes()).expect("an answer");
        serde_json::from_slice(&body).expect("JSON")
    });
    (address, served)
}

/// What the model itself says to the default prompt, as a completion; each probability is off by `error` nats.
fn completion(error: f64) -> Value {
    let said =
        output(&["run", GOLDEN, "--raw", "What is 2+2?", "-n", "6", "--json", "--logprobs", "5"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let steps = said["logprobs"].as_array().expect("steps");
    let pair = |step: &Value| {
        let logprob = step["logprob"].as_f64().expect("a number") + error;
        json!({ "token": step["text"], "logprob": logprob })
    };
    let content: Vec<Value> = steps
        .iter()
        .map(|step| {
            let mut entry = pair(step);
            entry["top_logprobs"] =
                step["top"].as_array().expect("likely tokens").iter().map(pair).collect();
            entry
        })
        .collect();
    json!({ "text": said["text"], "logprobs": { "content": content } })
}

#[test]
fn an_engine_behind_an_address_is_a_side() {
    let (address, served) = engine(completion(0.001));
    let (code, out, last) = compared(&[GOLDEN, &address, "-n", "6"]);
    assert_eq!((code, last.as_str()), (0, "the same text"), "{out}");
    let asked = served.join().expect("the engine");
    assert_eq!((&asked["prompt"], &asked["max_tokens"]), (&json!("What is 2+2?"), &json!(6)));
    assert_eq!(asked["temperature"], json!(0));
}

#[test]
fn an_engine_that_is_less_sure_or_says_something_else_diverges() {
    let (address, _served) = engine(completion(-1.0));
    let (code, out, last) = compared(&[GOLDEN, &address, "-n", "6"]);
    assert_eq!((code, last.as_str()), (1, "the engines diverge"), "{out}");
    let (address, _served) = engine(json!({ "text": " five", "logprobs": null }));
    let (code, out, _) = compared(&[&address, GOLDEN, "-n", "6"]);
    assert_eq!(code, 1, "{out}");
}

#[test]
fn an_engine_that_is_not_there_or_answers_nonsense_is_broken() {
    let (address, _served) = engine(json!({}));
    let (code, out, _) = compared(&[GOLDEN, &address]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("no text in the answer"), "{out}");
    // The port was given back: nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let (code, out, _) = compared(&[GOLDEN, &format!("http://{}", gone.expect("a port"))]);
    assert_eq!(code, 3, "{out}");
}
