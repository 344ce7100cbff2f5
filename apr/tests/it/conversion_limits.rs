//! Conversions and validation at the limits of the machine: memory, space on the disk, and a user who stops them.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Map, Value, json};

use super::program::root;

const HIDDEN: usize = 1024;
const INTERMEDIATE: usize = 2816;
const LAYERS: usize = 12;
const VOCAB: usize = 320;

/// Name and shape of every tensor of the model.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let (hidden, ffn) = (HIDDEN, INTERMEDIATE);
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, hidden])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![hidden, hidden]),
            ("self_attn.v_proj", vec![hidden, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![ffn, hidden]),
            ("mlp.up_proj", vec![ffn, hidden]),
            ("mlp.down_proj", vec![hidden, ffn]),
        ] {
            all.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    all.push(("model.norm.weight".to_owned(), vec![hidden]));
    all
}

/// A llama of 300 MiB in BF16, 111 tensors of at most 6 MiB; the bytes of its weight file.
fn large_model(folder: &Path) -> u64 {
    let config = json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS, "num_attention_heads": 16, "vocab_size": VOCAB,
        "rms_norm_eps": 1e-5, "rope_theta": 1e4, "max_position_embeddings": 64,
        "tie_word_embeddings": true,
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("a configuration");
    let mut entries = Map::new();
    let mut end = 0;
    for (name, shape) in tensors() {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        entries.insert(name, entry);
    }
    let head = Value::Object(entries).to_string();
    let path = folder.join("model.safetensors");
    let mut file = BufWriter::new(File::create(&path).expect("a weight file"));
    file.write_all(&(head.len() as u64).to_le_bytes()).expect("a length");
    file.write_all(head.as_bytes()).expect("a header");
    // Numbers of both signs around 1, none like its neighbour.
    let pattern: Vec<u8> = (0u32..1 << 16)
        .flat_map(|at| (0x3F00 | (at.wrapping_mul(40_503) >> 8 & 0x80FF) as u16).to_le_bytes())
        .collect();
    let mut left = end;
    while left > 0 {
        let piece = left.min(pattern.len());
        file.write_all(&pattern[..piece]).expect("weights");
        left -= piece;
    }
    file.flush().expect("weights");
    fs::metadata(path).expect("the file").len()
}

/// A folder with the model, and an empty one for what is made of it.
struct Bench {
    folder: tempfile::TempDir,
    bytes: u64,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("model")).expect("a folder");
        fs::create_dir(folder.path().join("out")).expect("a folder");
        let bytes = large_model(&folder.path().join("model"));
        Self { folder, bytes }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// What lies where the result belongs.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.out()).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect()
    }

    /// Starts a conversion behind a line of shell.
    fn start(&self, before: &str, arguments: &str) -> Child {
        let call = "convert \"$MODEL\" -o \"$OUT/model.gguf\" --skip-contract --quiet";
        self.start_call(before, &format!("{call} {arguments}"))
    }

    /// Starts the program behind a line of shell.
    fn start_call(&self, before: &str, call: &str) -> Child {
        let line = format!("{before}; exec \"$APR\" {call}");
        Command::new("sh")
            .args(["-c", &line])
            .env("APR", env!("CARGO_BIN_EXE_apr"))
            .env("MODEL", self.folder.path().join("model"))
            .env("OUT", self.out())
            // Each thread has a stack and an arena of its own, which no conversion needs more of.
            .env("RAYON_NUM_THREADS", "2")
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell")
    }

    fn run(&self, before: &str, arguments: &str) -> ExitStatus {
        self.start(before, arguments).wait().expect("an end")
    }

    /// Starts a conversion and sends it a signal in the midst of its writing.
    fn stopped(&self, signal: &str) -> ExitStatus {
        let mut child = self.start(":", "--dtype q8_0");
        let grown = |entry: fs::DirEntry| entry.metadata().is_ok_and(|data| data.len() > 1 << 20);
        while !fs::read_dir(self.out()).expect("a folder").flatten().any(grown) {
            assert!(child.try_wait().expect("a child").is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        // The shell's own: not every machine has a program of that name.
        let line = format!("kill {signal} {}", child.id());
        let sent = Command::new("sh").args(["-c", &line]).status().expect("a signal");
        assert!(sent.success());
        child.wait().expect("an end")
    }
}

/// The limit is on private memory alone: pages of mapped files come and go with the cache.
#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_model() {
    let bench = Bench::new();
    let quarter = bench.bytes / 4 / 1024;
    assert!(bench.bytes > 300_000_000);
    let ended = bench.run(&format!("ulimit -d {quarter}"), "--dtype q8_0");
    assert!(ended.success(), "{ended} with {quarter} KiB");
    assert_eq!(bench.left(), ["model.gguf"]);
    // The limit is one: with next to nothing it does not go.
    fs::remove_file(bench.out().join("model.gguf")).expect("the file");
    assert!(!bench.run("ulimit -d 4096", "--dtype q8_0").success());
    assert!(!bench.left().contains(&"model.gguf".to_owned()));
}

/// A copy of the weights would be five times as much.
#[test]
#[cfg(target_os = "linux")]
fn every_value_is_validated_in_64_mebibytes_beyond_the_mapped_file() {
    let bench = Bench::new();
    let validated = |before: &str| {
        let mut child = bench.start_call(before, "validate \"$MODEL\" --quality --quiet");
        child.wait().expect("an end").success()
    };
    assert!(validated("ulimit -d 65536"));
    // The limit is one.
    assert!(!validated("ulimit -d 2048"));
}

#[test]
fn a_disk_that_is_full_leaves_nothing() {
    let bench = Bench::new();
    // Half of what is needed, in blocks of 512 bytes.
    let blocks = bench.bytes / 2 / 512;
    let ended = bench.run(&format!("trap '' XFSZ; ulimit -f {blocks}"), "--dtype f16");
    assert_eq!(ended.code(), Some(3), "{ended}");
    assert_eq!(bench.left(), Vec::<String>::new());
}

#[test]
fn a_conversion_that_is_interrupted_leaves_nothing_and_one_that_is_killed_no_name() {
    let bench = Bench::new();
    assert_eq!(bench.stopped("-INT").code(), Some(130));
    assert_eq!(bench.left(), Vec::<String>::new());
    assert_eq!(bench.stopped("-TERM").code(), Some(130));
    assert_eq!(bench.left(), Vec::<String>::new());
    // Nobody can tidy up after this; what is there says by its name that it is no model.
    assert_eq!(bench.stopped("-KILL").signal(), Some(9));
    let left = bench.left();
    assert!(left.iter().all(|name| name.ends_with(".partial")), "{left:?}");
}
