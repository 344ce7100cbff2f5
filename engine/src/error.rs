//! The one error type of the engine: a stable code, a place, what was expected, what was found, and a hint.
//!
//! Every broken invariant has its own [`Code`]. Codes are an interface: they are printed, put into
//! reports and matched by the hostile-file gates, so a code is never reused for another meaning.

use std::fmt;
use std::path::{Path, PathBuf};

/// Result of every fallible engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Longest piece of foreign text (file content, names) that an error message carries, in characters.
const FOREIGN_TEXT_CHARS_MAX: usize = 120;

macro_rules! codes {
    ($($name:ident = $number:literal, $meaning:literal;)+) => {
        /// Stable identity of a broken invariant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $meaning] $name,)+
        }

        impl Code {
            /// Every code, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The printed form, for example `E0101`.
            pub const fn number(self) -> &'static str {
                match self { $(Self::$name => $number),+ }
            }

            /// The invariant that was broken, in one sentence fragment.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }

            /// The identifier used in data files, for example `GgufMagic`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

// One block of numbers per area; a new code goes to the end of its area.
codes! {
    // E00xx: files and limits.
    Io = "E0001", "the operating system refused an operation on a file";
    NotAModel = "E0002", "the bytes are of no supported model format";
    NotRegularFile = "E0003", "a model must be a regular file or a Hugging Face directory";
    FileChanged = "E0004", "the file changed while it was open";
    LimitExceeded = "E0005", "a size in the file is above the limit of this reader";
    ConversionUnsupported = "E0006", "no conversion between these formats";
    ConversionMismatch = "E0007", "parts of a model that are converted together contradict each other";
    Cancelled = "E0008", "the caller stopped the operation";
    // E01xx: GGUF.
    GgufTruncated = "E0101", "the file ends inside a GGUF structure";
    GgufVersion = "E0102", "unsupported GGUF version";
    GgufBigEndian = "E0103", "big-endian GGUF files are not supported";
    GgufCount = "E0104", "a declared count cannot fit into the file";
    GgufString = "E0105", "a string is longer than the rest of the file or not UTF-8";
    GgufKey = "E0106", "an invalid metadata key";
    GgufDuplicateKey = "E0107", "a metadata key stands twice";
    GgufValueType = "E0108", "an unknown metadata value type";
    GgufArray = "E0109", "an invalid metadata array";
    GgufBool = "E0110", "a boolean byte is neither 0 nor 1";
    GgufAlignment = "E0111", "general.alignment is not a power of two between 1 and 1 MiB stored as u32";
    GgufTensorName = "E0112", "an invalid or duplicate tensor name";
    GgufTensorRank = "E0113", "a tensor has more than four dimensions";
    GgufTensorSize = "E0114", "the size of a tensor overflows or is not a whole number of blocks";
    GgufTensorType = "E0115", "an unknown tensor type id";
    GgufTensorUnsupported = "E0116", "a valid tensor type that this engine does not support";
    GgufTensorOffset = "E0117", "a tensor offset is unaligned or outside the file";
    GgufTensorOverlap = "E0118", "two tensors overlap";
    GgufSplit = "E0119", "an invalid split description";
    // E02xx: SafeTensors.
    StTruncated = "E0201", "the file ends inside the SafeTensors header or data";
    StHeaderLength = "E0202", "the SafeTensors header length is zero, too large or beyond the file";
    StHeaderJson = "E0203", "the SafeTensors header is not the JSON object the format demands";
    StDuplicate = "E0204", "a name or field stands twice in the SafeTensors header";
    StDtype = "E0205", "an unknown SafeTensors dtype";
    StOffsets = "E0206", "SafeTensors data offsets are invalid, overlap or leave a gap";
    StShape = "E0207", "shape times dtype is not the byte range of the tensor";
    StTrailing = "E0208", "bytes follow the last SafeTensors tensor";
    StIndex = "E0209", "an invalid model.safetensors.index.json";
    StMetadata = "E0210", "a SafeTensors metadata value is not a string";
    // E03xx: APR.
    AprTruncated = "E0301", "the file ends inside an APR structure";
    AprVersion = "E0302", "an unsupported APR version or historic magic";
    AprHeaderChecksum = "E0303", "the APR header checksum does not match";
    AprFooterChecksum = "E0304", "the APR footer checksum does not match";
    AprFlags = "E0305", "an APR flag that this reader must refuse";
    AprOffsets = "E0306", "APR section offsets are out of order, overlap or leave the file";
    AprMetadata = "E0307", "the APR metadata is not a valid JSON object";
    AprCount = "E0308", "the APR tensor count cannot fit into its index";
    AprIndex = "E0309", "an invalid APR tensor index entry";
    AprDuplicate = "E0310", "APR tensor names are not unique";
    AprDtype = "E0311", "an unknown or contradictory APR dtype code";
    AprTensorRange = "E0312", "an APR tensor payload has the wrong size, overlaps or leaves the file";
    AprTrailing = "E0313", "bytes follow the APR footer";
    AprUnsorted = "E0314", "the APR tensor index is not sorted by name";
    // E04xx: tensors and blocks.
    TensorBytes = "E0401", "the bytes of a tensor do not match its dtype and shape";
    TensorRagged = "E0402", "a row is not a whole number of quantisation blocks";
    TensorShape = "E0403", "an invalid tensor shape";
    DtypeUnsupported = "E0404", "the operation does not support this dtype";
    NonFinite = "E0405", "a value is NaN or infinite";
    // E05xx: model configuration and weights.
    ConfigJson = "E0501", "a configuration file is not valid JSON";
    ConfigMissing = "E0502", "a required hyper-parameter is missing";
    ConfigValue = "E0503", "a hyper-parameter is outside its valid range";
    Architecture = "E0504", "an unsupported model architecture";
    WeightMissing = "E0505", "a weight that the architecture needs is missing";
    WeightShape = "E0506", "a weight has another shape than the hyper-parameters demand";
    WeightDtype = "E0507", "a weight has a dtype that cannot be computed with";
    RopeScaling = "E0508", "an unsupported or invalid RoPE scaling";
    WeightUnexpected = "E0509", "the file holds a weight that the hyper-parameters do not declare";
    // E06xx: tokenizers.
    TokenizerMissing = "E0601", "the model carries no tokenizer";
    TokenizerInvalid = "E0602", "the tokenizer description is invalid";
    TokenizerPanic = "E0603", "the tokenizer library failed on this input";
    TokenizerUnsupported = "E0604", "a tokenizer type that this engine does not support";
    TokenId = "E0605", "a token id is outside the vocabulary";
    PromptTooLarge = "E0606", "the prompt is larger than the input limit";
    // E07xx: chat templates.
    TemplateMissing = "E0701", "the model carries no chat template";
    TemplateLimit = "E0702", "the chat template exceeds a limit";
    TemplateSyntax = "E0703", "the chat template does not parse";
    TemplateRaised = "E0704", "the chat template refused the conversation";
    TemplateRender = "E0705", "the chat template failed while rendering";
    // E08xx: generation.
    ContextExceeded = "E0801", "the tokens do not fit into the context";
    SamplerValue = "E0802", "a sampling parameter is outside its valid range";
    EmptyPrompt = "E0803", "the prompt has no token";
    SequenceNumber = "E0804", "there is no such sequence, or it is named twice";
    // E09xx: backends and devices.
    DeviceUnavailable = "E0901", "the requested device is not available";
    IsaUnavailable = "E0902", "the requested instruction set is not available on this machine";
    OutOfMemory = "E0903", "an allocation would exceed the available memory";
    BackendShape = "E0904", "an operation received operands of the wrong size";
    CacheRange = "E0905", "a key or value is outside the range of the cache type";
}

/// Where an error was found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Place {
    /// No finer place than the file or the call.
    #[default]
    Whole,
    /// Byte offset from the start of the file.
    Offset(u64),
    /// A metadata key, JSON field or parameter.
    Field(String),
    /// A tensor, by its name in the file.
    Tensor(String),
    /// Line and column of a text (both from 1).
    Line(u32, u32),
    /// A trace point of the forward pass.
    Site(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Offset(offset) => write!(f, "at byte {offset}"),
            Self::Field(field) => write!(f, "at field {field}"),
            Self::Tensor(name) => write!(f, "at tensor {name}"),
            Self::Line(line, column) => write!(f, "at line {line}, column {column}"),
            Self::Site(site) => write!(f, "at site {site}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    code: Code,
    file: Option<PathBuf>,
    place: Place,
    expected: String,
    found: String,
    hint: String,
}

/// An engine error. Boxed inside, so that `Result` stays one word wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Inner>);

impl Error {
    /// A bare error of `code`; add the rest with the builder methods.
    pub fn new(code: Code) -> Self {
        Self(Box::new(Inner {
            code,
            file: None,
            place: Place::Whole,
            expected: String::new(),
            found: String::new(),
            hint: String::new(),
        }))
    }

    /// Sets the byte offset at which the error was found.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.place = Place::Offset(offset);
        self
    }

    /// Sets the field (metadata key, JSON path, parameter) at which the error was found.
    #[must_use]
    pub fn field(mut self, field: impl AsRef<str>) -> Self {
        self.0.place = Place::Field(printable(field.as_ref()));
        self
    }

    /// Sets the tensor at which the error was found.
    #[must_use]
    pub fn tensor(mut self, name: impl AsRef<str>) -> Self {
        self.0.place = Place::Tensor(printable(name.as_ref()));
        self
    }

    /// Sets any place.
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.0.place = place;
        self
    }

    /// Sets what a valid input would have had here.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.0.expected = printable(&expected.to_string());
        self
    }

    /// Sets what was found instead.
    #[must_use]
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.0.found = printable(&found.to_string());
        self
    }

    /// Sets what the reader of the message can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint = hint.to_string();
        self
    }

    /// Names the file, unless an inner frame already did.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        self.0.file.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// The broken invariant.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The file, when known.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The place inside the file or call.
    pub fn location(&self) -> &Place {
        &self.0.place
    }

    /// What was expected; empty when nothing useful can be said.
    pub fn expected_text(&self) -> &str {
        &self.0.expected
    }

    /// What was found; empty when nothing useful can be said.
    pub fn found_text(&self) -> &str {
        &self.0.found
    }

    /// What to do; empty when nothing useful can be said.
    pub fn hint_text(&self) -> &str {
        &self.0.hint
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(f, "{}: {}", inner.code.number(), inner.code.meaning())?;
        if let Some(file) = &inner.file {
            write!(f, " in {}", printable(&file.display().to_string()))?;
        }
        if inner.place != Place::Whole {
            write!(f, " {}", inner.place)?;
        }
        if !inner.expected.is_empty() {
            write!(f, "; expected {}", inner.expected)?;
        }
        if !inner.found.is_empty() {
            write!(f, "; found {}", inner.found)?;
        }
        if !inner.hint.is_empty() {
            write!(f, "; hint: {}", inner.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Escapes control characters and shortens: text out of a file must neither steer a terminal nor flood a log.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == FOREIGN_TEXT_CHARS_MAX {
            out.push('…');
            break;
        }
        if character.is_control() || is_bidi_control(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// Characters that reorder the text around them on a terminal.
fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_ascending() {
        let numbers: Vec<_> = Code::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    }

    #[test]
    fn a_message_names_code_file_place_expected_found_and_hint() {
        let error = Error::new(Code::GgufVersion)
            .at(4)
            .expected("2 or 3")
            .found(9)
            .hint("convert the file again")
            .in_file(Path::new("m.gguf"));
        assert_eq!(
            error.to_string(),
            "E0102: unsupported GGUF version in m.gguf at byte 4; expected 2 or 3; found 9; \
             hint: convert the file again"
        );
    }

    #[test]
    fn foreign_text_is_escaped_and_shortened() {
        assert_eq!(printable("a\u{1b}[2J\u{202e}"), "a\\u{1b}[2J\\u{202e}");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), FOREIGN_TEXT_CHARS_MAX + 1);
    }
}
