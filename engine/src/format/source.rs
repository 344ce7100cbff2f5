//! An opened model: its weight files, mapped, and the side files that describe it.
//!
//! A model is one `.gguf`, `.safetensors` or `.apr` file, recognised by its first bytes and never by its name,
//! or a Hugging Face directory. A GGUF that is split into several files is opened by any of them. This is the
//! only place of the engine that decides which files belong to a model; it does not know what they mean.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};

use super::lenience::Lenience;
use super::mmap::{MappedFile, read_small};
use super::safetensors::ShardIndex;
use super::{Container, Format, Note, TensorEntry, apr, gguf, safetensors, sniff};
use crate::error::{Code, Error, Result};
use crate::tensor::Tensor;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Longest shard index; an index of 65,536 tensors takes about 7 MB.
const INDEX_MAX: u64 = 32 << 20;
/// Longest `tokenizer.json`; the largest real ones take about 35 MB.
const TOKENIZER_MAX: u64 = 128 << 20;
/// Longest other side file.
const SIDECAR_MAX: u64 = 16 << 20;
/// Most files of a split GGUF.
const SPLITS_MAX: u32 = 1024;

/// Side files of a model as raw bytes; `None` where a file does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecars {
    /// `config.json`.
    pub config: Option<Vec<u8>>,
    /// `generation_config.json`.
    pub generation_config: Option<Vec<u8>>,
    /// `tokenizer.json`.
    pub tokenizer_json: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `chat_template.jinja`.
    pub chat_template: Option<Vec<u8>>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Vec<u8>>,
}

impl Sidecars {
    /// Reads the side files that exist in `directory`.
    ///
    /// # Errors
    /// [`Code::LimitExceeded`] for a file above its limit, [`Code::NotRegularFile`], [`Code::Io`].
    pub fn read(directory: &Path) -> Result<Self> {
        let read = |name: &str, limit| {
            let path = directory.join(name);
            // A link that leads nowhere is an error, not an absent file.
            if path.symlink_metadata().is_err() {
                return Ok(None);
            }
            read_small(&path, limit).map(Some)
        };
        Ok(Self {
            config: read("config.json", SIDECAR_MAX)?,
            generation_config: read("generation_config.json", SIDECAR_MAX)?,
            tokenizer_json: read("tokenizer.json", TOKENIZER_MAX)?,
            tokenizer_config: read("tokenizer_config.json", SIDECAR_MAX)?,
            chat_template: read("chat_template.jinja", SIDECAR_MAX)?,
            special_tokens_map: read("special_tokens_map.json", SIDECAR_MAX)?,
        })
    }
}

/// An opened model.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    format: Format,
    files: Vec<MappedFile>,
    index: Option<ShardIndex>,
    sidecars: Sidecars,
    /// Whether checksums over the whole file were verified by an earlier parse.
    verified: AtomicBool,
}

impl Source {
    /// Opens the file or Hugging Face directory at `path`.
    ///
    /// Files are mapped, not read; they are parsed by [`Source::containers`].
    ///
    /// # Errors
    /// [`Code::NotAModel`] for unknown content, with a hint for what it looks like; the errors of the
    /// operating system, of the shard index and of the limits on side files.
    pub fn open(path: &Path) -> Result<Self> {
        let is_directory = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
        if is_directory { Self::open_directory(path) } else { Self::open_file(path) }
    }

    fn open_file(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let format = sniff::format(file.bytes()).map_err(|error| error.in_file(path))?;
        let sidecars = match format {
            // A GGUF carries everything itself.
            Format::Gguf => Sidecars::default(),
            Format::SafeTensors | Format::Apr => Sidecars::read(parent(path))?,
        };
        let files = match format {
            Format::Gguf => open_splits(file)?,
            Format::SafeTensors | Format::Apr => vec![file],
        };
        Ok(Self::new(path, format, files, None, sidecars))
    }

    fn open_directory(path: &Path) -> Result<Self> {
        let (files, index) = open_shards(path)?;
        for file in &files {
            let format = sniff::format(file.bytes()).map_err(|error| error.in_file(file.path()))?;
            if format != Format::SafeTensors {
                return Err(Error::new(Code::NotAModel)
                    .expected("SafeTensors in a Hugging Face directory")
                    .found(format.name())
                    .in_file(file.path()));
            }
        }
        Ok(Self::new(path, Format::SafeTensors, files, index, Sidecars::read(path)?))
    }

    fn new(
        path: &Path,
        format: Format,
        files: Vec<MappedFile>,
        index: Option<ShardIndex>,
        sidecars: Sidecars,
    ) -> Self {
        let path = path.to_path_buf();
        Self { path, format, files, index, sidecars, verified: AtomicBool::new(false) }
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format of the weight files.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The side files.
    pub fn sidecars(&self) -> &Sidecars {
        &self.sidecars
    }

    /// The weight files, in shard order.
    pub fn files(&self) -> &[MappedFile] {
        &self.files
    }

    /// Bytes of all weight files together.
    pub fn bytes_total(&self) -> u64 {
        self.files.iter().map(|file| file.bytes().len() as u64).sum()
    }

    /// Parses the weight files: one container per shard, in shard order. Tensor names are unique over all.
    ///
    /// Checksums over whole files are verified by the first successful call only.
    ///
    /// # Errors
    /// The first broken invariant, with the file it was found in.
    pub fn containers(&self) -> Result<Vec<Container<'_>>> {
        let verify = !self.verified.load(Ordering::Relaxed);
        let mut containers = Vec::new();
        for file in &self.files {
            let parsed = parse(self.format, file.bytes(), verify);
            containers.push(parsed.map_err(|error| error.in_file(file.path()))?);
        }
        match (self.format, &self.index) {
            (Format::Gguf, _) => check_splits(&containers, &self.files)?,
            (_, Some(index)) => {
                index.check(&containers).map_err(|error| error.in_file(&self.path.join(INDEX)))?;
                containers.extend_first_notes(index.total_size);
            }
            (_, None) => {}
        }
        self.verified.store(true, Ordering::Relaxed);
        Ok(containers)
    }

    /// Everything that is wrong with the structure of the weight files, where [`Source::containers`] stops at the first.
    pub fn violations(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        for file in &self.files {
            let mut lenience = Lenience::listing();
            let last = read(self.format, file.bytes(), &mut lenience).err();
            let found = lenience.into_errors().into_iter().chain(last);
            errors.extend(found.map(|error| error.in_file(file.path())));
        }
        if errors.is_empty() {
            // What files say of each other shows only when each of them is whole.
            errors.extend(self.containers().err());
        }
        errors
    }

    /// A handle on a tensor of shard `shard` that keeps the mapping alive and copies nothing.
    ///
    /// # Errors
    /// [`Code::TensorBytes`] when `entry` is not of that shard.
    pub fn tensor(&self, shard: usize, entry: &TensorEntry<'_>) -> Result<Tensor> {
        let handle = || {
            let bytes = self.files.get(shard)?.bytes();
            let start = usize::try_from(entry.offset).ok()?;
            bytes.slice(start..start.checked_add(entry.view.bytes().len())?)
        };
        let bytes = if entry.view.bytes().is_empty() { Some(Vec::new().into()) } else { handle() };
        let bytes = bytes.ok_or_else(|| {
            Error::new(Code::TensorBytes)
                .tensor(&entry.name)
                .expected(format_args!("a tensor of shard {shard}"))
                .found("a range outside of it")
        })?;
        Tensor::new(entry.view.dtype(), entry.view.shape(), bytes)
    }

    /// SHA-256 over the weight files one after the other: of a single file, what `sha256sum` prints.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for file in &self.files {
            hash.update(&**file.bytes());
        }
        hash.finalize().into()
    }

    /// Lets the system take back the memory that holds pages of the weight files; they are read again when needed.
    pub fn release_pages(&self) {
        self.files.iter().for_each(MappedFile::release_pages);
    }

    /// Checks that no weight file was written to since it was opened.
    ///
    /// # Errors
    /// [`Code::FileChanged`].
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(MappedFile::check_unchanged)
    }
}

/// Parses the bytes of one file; checksums over the whole of it only when `verify`.
fn parse(format: Format, bytes: &[u8], verify: bool) -> Result<Container<'_>> {
    match format {
        Format::Gguf => gguf::parse(bytes),
        Format::SafeTensors => safetensors::parse(bytes),
        Format::Apr if verify => apr::parse(bytes),
        Format::Apr => apr::parse_structure(bytes),
    }
}

/// Parses what can be parsed of one file, checksums included.
fn read<'a>(format: Format, bytes: &'a [u8], lenience: &mut Lenience) -> Result<Container<'a>> {
    match format {
        Format::Gguf => gguf::read(bytes, lenience),
        Format::SafeTensors => safetensors::read(bytes, lenience),
        Format::Apr => apr::read(bytes, true, lenience),
    }
}

trait ExtendFirstNotes {
    /// Notes on the first container that the index and the files disagree about the total size.
    fn extend_first_notes(&mut self, total_size: Option<u64>);
}

impl ExtendFirstNotes for Vec<Container<'_>> {
    fn extend_first_notes(&mut self, total_size: Option<u64>) {
        let found: u64 = self
            .iter()
            .flat_map(|container| &container.tensors)
            .map(|entry| entry.view.bytes().len() as u64)
            .sum();
        if let (Some(first), Some(total)) = (self.first_mut(), total_size)
            && total != found
        {
            // Published models are often off here (tied weights counted twice): no reason to refuse them.
            let text =
                format!("the index states {total} bytes of tensors, the shards hold {found}");
            first.notes.push(Note { rule: "st-index-total-size", text });
        }
    }
}

/// The directory of a file; of a bare file name the current one.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory.as_os_str().is_empty() => Path::new("."),
        Some(directory) => directory,
        None => Path::new("."),
    }
}

/// The SafeTensors files of a Hugging Face directory: the single file before the index, as its library does.
fn open_shards(directory: &Path) -> Result<(Vec<MappedFile>, Option<ShardIndex>)> {
    let single = directory.join(SINGLE);
    if single.symlink_metadata().is_ok() {
        return Ok((vec![MappedFile::open(&single)?], None));
    }
    let index_path = directory.join(INDEX);
    if index_path.symlink_metadata().is_err() {
        return Err(Error::new(Code::NotAModel)
            .expected(format_args!("{SINGLE} or {INDEX} in the directory"))
            .found("neither")
            .hint("name the model file itself; PyTorch checkpoints must be saved as SafeTensors first")
            .in_file(directory));
    }
    let index = read_small(&index_path, INDEX_MAX)?;
    let index = ShardIndex::parse(&index).map_err(|error| error.in_file(&index_path))?;
    let mut files = Vec::new();
    for shard in &index.shards {
        let path = directory.join(shard);
        if path.symlink_metadata().is_err() {
            return Err(Error::new(Code::StIndex)
                .expected(format_args!("the shard {shard}"))
                .found("no such file")
                .in_file(&index_path));
        }
        files.push(MappedFile::open(&path)?);
    }
    Ok((files, Some(index)))
}

/// Number and count of a split GGUF by its name, `NAME-00002-of-00003.gguf`, with `NAME`.
fn split_name(path: &Path) -> Option<(&str, u32, u32)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let parse = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse::<u32>().ok() } else { None }
    };
    Some((stem, parse(number)?, parse(count)?))
}

/// All files of the split that `file` belongs to; just `file` when it is not split.
fn open_splits(file: MappedFile) -> Result<Vec<MappedFile>> {
    // What cannot be read names no other file; why it cannot be is told when it is read.
    let Ok(container) = gguf::read(file.bytes(), &mut Lenience::listing()) else {
        return Ok(vec![file]);
    };
    let Some(split) = Split::read(&container).map_err(|error| error.in_file(file.path()))? else {
        return Ok(vec![file]);
    };
    drop(container);
    let wrong = || Error::new(Code::GgufSplit).in_file(file.path());
    if split.count > SPLITS_MAX {
        let expected = format!("at most {SPLITS_MAX} files");
        return Err(wrong().field("split.count").expected(expected).found(split.count));
    }
    let (stem, number, count) = match split_name(file.path()) {
        Some((stem, number, count)) if count == split.count && number == split.number + 1 => {
            (stem, number, count)
        }
        _ => {
            return Err(wrong()
                .expected(format_args!(
                    "the file name NAME-{:05}-of-{:05}.gguf",
                    split.number + 1,
                    split.count
                ))
                .found(file.path().display())
                .hint("keep the names that the splitter gave, all files in one directory"));
        }
    };
    let directory = parent(file.path()).to_path_buf();
    let mut files = Vec::new();
    for other in (1..=count).filter(|&other| other != number) {
        let path = directory.join(format!("{stem}-{other:05}-of-{count:05}.gguf"));
        if path.symlink_metadata().is_err() {
            return Err(wrong().expected(path.display()).found("no such file"));
        }
        files.push(MappedFile::open(&path)?);
    }
    files.insert(split.number as usize, file);
    Ok(files)
}

/// What a GGUF says of the split it belongs to.
struct Split {
    /// From 0.
    number: u32,
    count: u32,
}

impl Split {
    /// `None` when the file is whole.
    fn read(container: &Container<'_>) -> Result<Option<Self>> {
        let number = |key: &str| match container.metadata.gguf(key) {
            None => Ok(None),
            Some(value) => value.as_u32().map(Some).ok_or_else(|| {
                Error::new(Code::GgufSplit).field(key).expected("a u16").found(value.kind())
            }),
        };
        let (Some(count), no) = (number("split.count")?, number("split.no")?) else {
            return Ok(None);
        };
        let no = no.unwrap_or(0);
        if no >= count && count > 0 {
            return Err(Error::new(Code::GgufSplit)
                .field("split.no")
                .expected(format_args!("below split.count = {count}"))
                .found(no));
        }
        Ok(if count > 1 { Some(Self { number: no, count }) } else { None })
    }
}

/// Every file of a split must say that it is that part, and no tensor may stand in two.
fn check_splits(containers: &[Container<'_>], files: &[MappedFile]) -> Result<()> {
    if containers.len() < 2 {
        return Ok(());
    }
    let mut names = std::collections::BTreeSet::new();
    for (position, (container, file)) in containers.iter().zip(files).enumerate() {
        let split = Split::read(container).map_err(|error| error.in_file(file.path()))?;
        let right = split.is_some_and(|split| {
            split.number as usize == position && split.count as usize == files.len()
        });
        if !right {
            return Err(Error::new(Code::GgufSplit)
                .expected(format_args!("part {} of {}", position + 1, files.len()))
                .found("another part")
                .in_file(file.path()));
        }
        for entry in &container.tensors {
            if !names.insert(&*entry.name) {
                return Err(Error::new(Code::GgufTensorName)
                    .tensor(&entry.name)
                    .expected("a tensor in one part only")
                    .found("a second one")
                    .in_file(file.path()));
            }
        }
    }
    Ok(())
}
