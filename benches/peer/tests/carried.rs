//! The whole way on the carried model: llama.cpp loads it, both sides answer, and a wrong answer is found.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use apr_peer::failure::Result;
use apr_peer::measure::Options;
use apr_peer::report::Row;
use apr_peer::side::{Ours, Side};
use apr_peer::{files, quantize};

const OPTIONS: Options =
    Options { prompt: 24, first: 8, decode: 8, rounds: 2, settle: Duration::ZERO };

fn carried(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf").join(name)
}

#[expect(clippy::disallowed_methods, reason = "a test of a bench reads the clock")]
fn clock() -> impl Fn() -> u64 {
    let start = Instant::now();
    move || start.elapsed().as_nanos() as u64
}

fn measured(path: &Path) -> Row {
    files::row(path, 2, &[true, false], &OPTIONS, &clock()).expect("a measured model")
}

/// Our engine with two logits that swapped places, as a defect in the head would do: the best and that at this place.
struct Swapped {
    side: Ours,
    logits: Vec<f32>,
    place: usize,
}

impl Side for Swapped {
    fn name(&self) -> String {
        "apr (swapped)".to_owned()
    }

    fn vocab(&self) -> usize {
        self.side.vocab()
    }

    fn reset(&mut self) {
        self.side.reset();
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.logits = self.side.feed(tokens)?.to_vec();
        let mut order: Vec<usize> = (0..self.logits.len()).collect();
        order.sort_by(|a, b| self.logits[*b].total_cmp(&self.logits[*a]));
        self.logits.swap(order[0], order[self.place.min(order.len() - 1)]);
        Ok(&self.logits)
    }
}

#[test]
fn both_sides_answer_alike_on_every_carried_storage() {
    for name in ["golden-F16.gguf", "golden-Q8_0.gguf", "golden-Q4_K_M.gguf"] {
        let row = measured(&carried(name));
        assert_eq!(row.outcome.fault, None, "{}", row.text());
        assert_eq!((row.outcome.compared.len(), row.outcome.answers.len()), (4, 2));
        assert!(row.outcome.memory.is_some());
    }
}

#[test]
fn an_altered_answer_is_not_comparable() {
    // The worst logit in the place of the best shows in the whole row, the second best only where the tokens part.
    for (place, sign) in [(usize::MAX, "NMSE"), (1, "a lead of")] {
        let path = carried("golden-Q8_0.gguf");
        let open = || {
            let side = Ours::open(&path, 1, OPTIONS.room())?;
            Ok(Box::new(Swapped { side, logits: Vec::new(), place }) as Box<dyn Side>)
        };
        let row = files::judged(&path, 1, &open, &[true], &OPTIONS, &clock()).unwrap();
        assert!(row.outcome.fault.clone().unwrap().contains(sign), "{}", row.text());
        assert!(row.outcome.compared.is_empty());
    }
}

#[test]
fn a_file_that_llama_cpp_quantised_is_measured_too() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("q4.gguf");
    quantize::quantize(&carried("golden-F16.gguf"), &path, "Q4_K_M", 1).unwrap();
    let row = measured(&path);
    assert_eq!(row.outcome.fault, None, "{}", row.text());
    // A file that is quantised already is refused, and nothing is left behind.
    let again = home.path().join("again.gguf");
    let error = quantize::quantize(&path, &again, "Q8_0", 1).unwrap_err();
    assert!(error.to_string().starts_with("llama.cpp: cannot quantise"), "{error}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn the_program_writes_its_report_and_tells_usage_from_failure() {
    let home = tempfile::tempdir().unwrap();
    let (json, report) = (home.path().join("peer.json"), home.path().join("peer.md"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_apr-peer"));
    program.arg("measure").arg("--model").arg(carried("golden-Q8_0.gguf"));
    program.args(["--threads", "1", "--prompt-tokens", "24", "--first-tokens", "8"]);
    program.args(["--decode-tokens", "8", "--rounds", "1", "--settle-ms", "0"]);
    let output = program.arg("--json").arg(&json).arg("--report").arg(&report).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(value["rows"][0]["threads"], 1);
    let text = std::fs::read_to_string(report).unwrap();
    assert!(text.contains("| golden-Q8_0.gguf | 1 | decode, tok/s |"), "{text}");
    assert!(!text.contains(&*home.path().to_string_lossy()), "folders stay out of it: {text}");
    let missing = |args: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_apr-peer"));
        program.args(args).output().unwrap().status.code()
    };
    assert_eq!(missing(&["measure", "--model", "nowhere.gguf"]), Some(3));
    assert_eq!(missing(&["quantize", "nowhere.gguf", "out.gguf", "Q9_X"]), Some(2));
}
