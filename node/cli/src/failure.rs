//! How a command fails: an exit code that scripts can rely on, and one line.

use std::{io, process::ExitCode};

use raftlog_client::Error;

/// Failed, unhealthy, diverged.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Refused with nothing appended, or no leader in time.
pub(crate) const REFUSED: u8 = 3;
/// Outcome unknown.
pub(crate) const UNKNOWN: u8 = 4;

/// Why a command ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// With this code, saying this.
    Exit {
        /// Exit code.
        code: u8,
        /// One line: what, where, what to do.
        message: String,
    },
    /// Whoever read the output has enough: quietly, with 0.
    OutputClosed,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Exit {
            code: FAILED,
            message: message.into(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Exit {
            code: USAGE,
            message: message.into(),
        }
    }

    /// From writing to stdout.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::failed(format!("cannot write to stdout: {error}; check where it goes"))
        }
    }

    /// With something behind what it says.
    #[must_use]
    pub(crate) fn adding(self, more: &str) -> Self {
        match self {
            Self::OutputClosed => Self::OutputClosed,
            Self::Exit { code, message } => Self::Exit {
                code,
                message: format!("{message}; {more}"),
            },
        }
    }

    /// Says it, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Exit { code, message } => {
                eprintln!("raftctl: {}", message.replace(['\n', '\r'], " "));
                ExitCode::from(*code)
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Invalid(_) | Error::Refused { .. } | Error::NoLeader(_) => REFUSED,
            Error::Unknown { .. } => UNKNOWN,
            Error::NoLongerHeld { .. } | Error::OtherPast(_) | Error::Failed(_) => FAILED,
        };
        Self::Exit {
            code,
            message: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_what_became_of_the_operation() {
        let refused = Error::Refused {
            reason: "DISK_FULL".to_owned(),
            message: "m".to_owned(),
        };
        let unknown = Error::Unknown {
            reason: String::new(),
            message: "m".to_owned(),
        };
        let gone = Error::NoLongerHeld {
            first_index: 7,
            message: "m".to_owned(),
        };
        for (error, expected) in [
            (Error::Invalid("m".to_owned()), REFUSED),
            (refused, REFUSED),
            (Error::NoLeader("m".to_owned()), REFUSED),
            (unknown, UNKNOWN),
            (Error::Failed("m".to_owned()), FAILED),
            (gone, FAILED),
            (Error::OtherPast("m".to_owned()), FAILED),
        ] {
            assert_eq!(
                Failure::from(error),
                Failure::Exit {
                    code: expected,
                    message: "m".to_owned()
                }
            );
        }
    }

    #[test]
    fn a_closed_output_is_no_failure() {
        assert_eq!(
            Failure::output(&io::ErrorKind::BrokenPipe.into()),
            Failure::OutputClosed
        );
        assert!(matches!(
            Failure::output(&io::ErrorKind::StorageFull.into()),
            Failure::Exit { code: FAILED, .. }
        ));
    }
}
