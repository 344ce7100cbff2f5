//! Checks of the executable: command line, hostile files, speed.

use apr_engine::format::Format;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Scope;
use crate::contract::tolerance::{Positive, Share, Why};

/// Parameters of `cli`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cli {
    /// Arguments; `{model}`, `{backend}`, `{work}` and `{fixtures}` are filled in.
    pub args: Vec<String>,
    /// Text for standard input; empty when absent.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Whether the call is interrupted, as Ctrl-C does it, as soon as it has printed something.
    #[serde(default)]
    pub interrupt: bool,
    /// Private memory that the call may take; as much as there is when absent.
    #[serde(default)]
    pub memory: Option<PrivateMemory>,
    /// What is expected.
    pub expect: CliExpect,
    /// Seconds after which the call counts as hung.
    #[serde(default = "time_limit")]
    pub time_limit_s: u64,
}

const fn time_limit() -> u64 {
    60
}

impl Cli {
    /// Depends on what the arguments mention.
    pub(super) fn scope(&self) -> Scope {
        let mentions = |name: &str| self.args.iter().any(|arg| arg.contains(name));
        if mentions("{backend}") {
            Scope::FormBackend
        } else if mentions("{model}") {
            Scope::Form
        } else {
            Scope::Once
        }
    }
}

/// What a call of the executable must do. Patterns are plain text, or `/…/` with `^`, `$`, `.`, `*`, `+`, `?`, classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CliExpect {
    /// Exit code.
    pub exit: i32,
    /// Patterns that standard output must have.
    #[serde(default)]
    pub stdout: Vec<String>,
    /// Patterns that standard output must not have.
    #[serde(default)]
    pub stdout_not: Vec<String>,
    /// Patterns that standard error must have.
    #[serde(default)]
    pub stderr: Vec<String>,
    /// Patterns that standard error must not have.
    #[serde(default)]
    pub stderr_not: Vec<String>,
    /// Standard output is exactly one JSON value with these properties.
    #[serde(default)]
    pub json: Vec<JsonExpect>,
    /// Files that must exist and not be empty afterwards; placeholders as in `args`.
    #[serde(default)]
    pub files: Vec<String>,
}

/// A property of a place in a JSON value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JsonExpect {
    /// JSON pointer (RFC 6901).
    pub at: String,
    /// The property.
    pub is: JsonTest,
}

/// What a JSON value must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum JsonTest {
    /// Exactly this text.
    Text(String),
    /// A text with this pattern.
    Matches(String),
    /// Exactly this number.
    Number(f64),
    /// A number not below.
    AtLeast(f64),
    /// A number not above.
    AtMost(f64),
    /// This truth value.
    Bool(bool),
    /// An array or text of exactly this length.
    Length(usize),
    /// An array, object or text that is not empty.
    NotEmpty,
    /// Not there, or null.
    Absent,
}

/// Private memory that a call of the executable may take: a share of the model's files and a fixed part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PrivateMemory {
    /// Bytes for everything but the weights, in MiB.
    pub fixed_mib: u64,
    /// Share of the bytes of the model's files.
    pub share_of_files: Share,
    /// Why that much.
    pub why: Why,
}

/// Parameters of `steady-memory`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SteadyMemory {
    /// Inferences that are made before memory is first looked at.
    pub warm_up: usize,
    /// Inferences in between.
    pub runs: usize,
    /// Largest mean growth of the process's resident private memory, in bytes per inference.
    pub growth_at_most: Positive,
    /// Why that much.
    pub why: Why,
}

/// Parameters of `history`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct History {
    /// What must hold of the trace of a short run.
    pub holds: HistoryRule,
}

/// What must hold of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryRule {
    /// Only known members; ids without holes, links that lead back, times in ISO 8601, all that is entered is left.
    Whole,
    /// It says what ran: schema, model, configuration, prompt; and every step has its input and its output.
    Facts,
    /// The statistics of every site are those of the values that the engine computes there.
    Statistics,
    /// Weights of every head are sorted and sum to one; the entropy is possible.
    Attention,
    /// Ranks are those of the logits that are told, the decisive layer follows from them, greedy choices have rank 1.
    Evolution,
    /// The cache grows by what was read, drops nothing and is as wide as the model says.
    Cache,
    /// The error of every product is possible, and every product has one.
    Products,
    /// No list is longer than what a person reads.
    Bounded,
}

/// Parameters of `convert-run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConvertRun {
    /// The format that is converted to.
    pub to: Target,
    /// What both models are asked, as a user would: through the chat template where the model has one.
    pub prompts: Vec<String>,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Seconds after which a call counts as hung.
    #[serde(default = "time_limit")]
    pub time_limit_s: u64,
}

/// A format that can be converted to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A directory: weights, with what belongs to them beside them.
    Safetensors,
    /// One file.
    Gguf,
    /// One file.
    Apr,
}

impl Target {
    /// The format of the engine.
    pub const fn format(self) -> Format {
        match self {
            Self::Safetensors => Format::SafeTensors,
            Self::Gguf => Format::Gguf,
            Self::Apr => Format::Apr,
        }
    }

    /// Name of the format.
    pub const fn name(self) -> &'static str {
        self.format().name()
    }

    /// What a converted model is called in a folder of its own; the extension, or the slash, says which format it is.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Safetensors => "model/",
            Self::Gguf => "model.gguf",
            Self::Apr => "model.apr",
        }
    }
}

/// Parameters of `hostile`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hostile {
    /// Prefix of the row names that are judged (`gguf-`); every row when empty.
    #[serde(default)]
    pub rows: String,
    /// Fewest rows that must have been judged, so that a lost corpus is not a green gate.
    pub rows_at_least: usize,
    /// Most CPU time one file may take, in milliseconds; wall time where the system tells no other.
    pub time_limit_ms: u64,
    /// Most private writable memory one file may take, in MiB. The file itself, which is mapped, is not in it.
    pub memory_limit_mib: u64,
}

/// Parameters of `throughput`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Throughput {
    /// What is timed.
    pub phase: Phase,
    /// What it is timed against, interleaved in the same run.
    pub against: Rival,
    /// Tokens per sample.
    pub tokens: usize,
    /// Whether the tested side is traced, every site of it; the rival never is.
    #[serde(default)]
    pub traced: bool,
    /// Tested speed divided by the rival's, at least.
    pub ratio_at_least: Positive,
    /// Which clock is judged; the other is reported.
    #[serde(default)]
    pub clock: Clock,
    /// Pairs at most; fewer when the decision is clear earlier.
    #[serde(default = "pairs")]
    pub pairs_at_most: usize,
    /// Why that ratio.
    pub why: Why,
}

const fn pairs() -> usize {
    60
}

/// The timed part of generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The prompt at once.
    Prefill,
    /// Token by token.
    Decode,
}

/// The clock by which speed is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// CPU time of all threads: other tenants of the machine are not in it, but neither is what threads gain.
    #[default]
    Cpu,
    /// Wall time: noisier, and the only one for what threads gain.
    Wall,
}

/// What a speed is compared with. Speeds are per token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Rival {
    /// The same thing: calibration, the ratio must be one.
    Itself,
    /// Another backend on the same form.
    Backend(String),
    /// The same backend on another form of the same model.
    Form(String),
    /// The other phase on the same tokens.
    Phase(Phase),
    /// The same thing on this many tokens: what grows faster than linear loses speed per token.
    Tokens(usize),
}
