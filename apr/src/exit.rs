//! Exit codes. They are an interface: scripts and CI act on them, so a code never changes its meaning.

use apr_engine::Code;

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything required is green; the command did what it was asked.
    Success = 0,
    /// A claim was refuted, or a computation produced numbers that are not finite.
    Falsified = 1,
    /// The command line, a parameter, the prompt or the catalogue is wrong.
    Usage = 2,
    /// The harness, the environment or a file operation failed.
    Broken = 3,
    /// Nothing that was asked for could be run.
    NothingRan = 4,
    /// The model file violates its format or its contract.
    Contract = 5,
    /// Interrupted by the user.
    Interrupted = 130,
}

/// The table printed by `apr --help` and in the documentation; the runner's own codes 4, 6 and 7 included.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    success; all required cases corroborated
  1    a claim was falsified
  2    usage, parameter or catalogue error
  3    harness or environment broken
  4    nothing ran
  5    the model violates its format or contract
  6    inconclusive, or a required case was skipped
  7    an expired waiver
  130  interrupted";

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit as Self
    }
}

impl Exit {
    /// The exit that follows from an engine error.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            Code::Io | Code::FileChanged | Code::DeviceUnavailable | Code::OutOfMemory => {
                Self::Broken
            }
            Code::ContextExceeded
            | Code::SamplerValue
            | Code::EmptyPrompt
            | Code::PromptTooLarge
            | Code::IsaUnavailable
            | Code::TemplateRaised => Self::Usage,
            Code::NonFinite | Code::BackendShape => Self::Falsified,
            _ => Self::Contract,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_file_is_a_contract_violation_and_a_missing_one_is_not() {
        assert_eq!(Exit::of(Code::GgufTruncated), Exit::Contract);
        assert_eq!(Exit::of(Code::Io), Exit::Broken);
        assert_eq!(Exit::of(Code::ContextExceeded), Exit::Usage);
        assert_eq!(Exit::of(Code::NonFinite), Exit::Falsified);
    }
}
