//! Why a command failed, and what the process's exit code says of it.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::telemetry::TelemetryError;

/// The process's exit codes; documented in the help and in docs/commands.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Also after SIGINT or SIGTERM.
    Success = 0,
    Failure = 1,
    /// Bad usage or configuration.
    Usage = 2,
    /// A pipeline halted.
    Halted = 3,
    /// The source or the database could not be reached at the start.
    Unreachable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("cannot start the asynchronous runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
    /// Stands where a command's work will be.
    #[error("`debshrew {command}` is not built yet")]
    Unbuilt { command: &'static str },
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Error::Config(_) | Error::Telemetry(TelemetryError::Filter { .. }) => Exit::Usage,
            Error::Telemetry(TelemetryError::SetUp(_)) => Exit::Failure,
            Error::Runtime(_) | Error::Output(_) | Error::Unbuilt { .. } => Exit::Failure,
        }
    }

    /// What to do, where the message does not say it already.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Config(error) => error.hint(),
            _ => None,
        }
    }
}
