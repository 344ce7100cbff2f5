//! Where a run comes from: hashes, the machine, the time.
//!
//! The only place of the harness that reads the calendar and the machine's description. Nothing here judges anything, and nothing a
//! judge sees depends on it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::contract::parameter::ParameterValue;
use crate::event::Provenance;

/// Bytes hashed per read.
const CHUNK: usize = 1 << 20;
/// Deepest directory below a model directory that is hashed.
const DEPTH_MAX: usize = 4;

/// What only the front end knows about a run.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Version of the tool.
    pub apr_version: String,
    /// The running executable, when it can be read.
    pub binary: Option<std::path::PathBuf>,
    /// SHA-256 over the resolved catalogue.
    pub catalogue_sha256: String,
    /// The parameters of the judged contracts.
    pub parameters: Vec<ParameterValue>,
    /// `model.form` → where it lies.
    pub models: BTreeMap<String, std::path::PathBuf>,
    /// The command line.
    pub command: Vec<String>,
    /// Seed of everything random.
    pub seed: u64,
}

/// Gathers the provenance of a run that starts now.
///
/// # Errors
/// When a model or the executable cannot be read, naming the path.
pub fn gather(origin: &Origin) -> io::Result<Provenance> {
    let mut models = BTreeMap::new();
    for (name, path) in &origin.models {
        models.insert(name.clone(), sha256_path(path)?);
    }
    let binary_sha256 = match &origin.binary {
        Some(path) => sha256_path(path)?,
        None => String::new(),
    };
    Ok(Provenance {
        apr_version: origin.apr_version.clone(),
        binary_sha256,
        catalogue_sha256: origin.catalogue_sha256.clone(),
        models,
        parameters: origin.parameters.iter().filter(|value| value.is_changed()).cloned().collect(),
        machine: machine(),
        command: origin.command.clone(),
        seed: origin.seed,
        started: now_rfc3339(),
    })
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// SHA-256 over several parts, each preceded by its length so that no two lists of parts hash alike.
pub fn sha256_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hexadecimal(&hash.finalize())
}

/// SHA-256 of a file; of a directory, over the sorted names and hashes of the files below it.
///
/// # Errors
/// When something cannot be read, is neither a file nor a directory, or lies too deep; the path is named.
pub fn sha256_path(path: &Path) -> io::Result<String> {
    hash_path(path, 0)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn hash_path(path: &Path, depth: usize) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() {
        return sha256_reader(File::open(path)?);
    }
    if !metadata.is_dir() || depth > DEPTH_MAX {
        // A FIFO or a device would be read forever.
        let message = "neither a file nor a shallow directory of files";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name());
    }
    names.sort();
    let mut parts = Vec::new();
    for name in names {
        let hash = hash_path(&path.join(&name), depth + 1)?;
        parts.extend([name.to_string_lossy().into_owned(), hash]);
    }
    Ok(sha256_parts(parts.iter().map(String::as_str)))
}

fn sha256_reader(mut reader: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(hexadecimal(&hash.finalize())),
            Ok(read) => hash.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .collect()
}

/// What is known of the machine: system, architecture, processors, and on Linux model, memory and load. A fact that cannot
/// be read is left out.
pub fn machine() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    facts.insert("os".to_owned(), std::env::consts::OS.to_owned());
    facts.insert("arch".to_owned(), std::env::consts::ARCH.to_owned());
    if let Ok(processors) = std::thread::available_parallelism() {
        facts.insert("processors".to_owned(), processors.to_string());
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    facts.extend(cpu_facts(&read("/proc/cpuinfo")));
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    facts.extend(memory.map(|value| ("memory".to_owned(), value)));
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().map(str::to_owned);
    facts.extend(load.map(|value| ("load".to_owned(), value)));
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    if !kernel.is_empty() {
        facts.insert("kernel".to_owned(), kernel);
    }
    facts
}

/// Instruction sets that change which kernels run.
const NAMED_FEATURES: [&str; 6] = ["avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni"];

fn cpu_facts(cpuinfo: &str) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    facts.extend(field(cpuinfo, "model name").map(|name| ("cpu".to_owned(), name)));
    if let Some(flags) = field(cpuinfo, "flags") {
        let known = |name: &&str| flags.split_whitespace().any(|flag| flag == *name);
        let found: Vec<&str> = NAMED_FEATURES.into_iter().filter(known).collect();
        facts.push(("cpu features".to_owned(), found.join(" ")));
    }
    facts
}

/// The value of the first line `name: value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

/// The time now, UTC, RFC 3339, to the second.
pub fn now_rfc3339() -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(elapsed.as_secs())
}

/// Seconds since 1970 as UTC, RFC 3339.
pub fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970-01-01 as year, month and day of the Gregorian calendar.
///
/// Years are counted from March so that the leap day ends them; an era is 400 years or 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on have 153 days, and so have the next five.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_the_published_one() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b""), empty);
        assert_eq!(sha256(b"abc"), abc);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in known {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn each_day_of_eight_centuries_follows_the_one_before() {
        let mut before = civil(0);
        for days in 1..292_194 {
            let now = civil(days);
            let next_day = now == (before.0, before.1, before.2 + 1);
            let next_month = now == (before.0, before.1 + 1, 1) && before.2 >= 28;
            let next_year = now == (before.0 + 1, 1, 1) && (before.1, before.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{before:?} → {now:?}");
            before = now;
        }
        assert_eq!(civil(292_194), (2770, 1, 1));
    }

    #[test]
    fn parts_are_told_apart_by_where_they_end() {
        assert_ne!(sha256_parts(["ab", "c"]), sha256_parts(["a", "bc"]));
    }

    #[test]
    fn a_directory_hashes_by_names_and_contents() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("a"), b"1").unwrap();
        let one = sha256_path(home.path()).unwrap();
        assert_eq!(sha256_path(home.path()).unwrap(), one);
        fs::rename(home.path().join("a"), home.path().join("b")).unwrap();
        assert_ne!(sha256_path(home.path()).unwrap(), one);
    }

    #[test]
    fn a_missing_model_is_named() {
        let error = sha256_path(Path::new("/nowhere/model.gguf")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/model.gguf"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_refused_not_read_forever() {
        assert!(sha256_path(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn processor_facts_come_from_cpuinfo() {
        let text = "processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: fpu avx avx2 fma\n";
        let facts = cpu_facts(text);
        assert_eq!(facts[0].1, "Example 9000");
        assert_eq!(facts[1].1, "avx avx2 fma");
    }
}
