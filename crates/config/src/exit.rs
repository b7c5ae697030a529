//! How a process ends early: one line on stderr and an exit code from sysexits(3).

use std::fmt::Display;

use thiserror::Error;

/// A failure that ends the process. The message names the flag, file or line, and the fix.
#[derive(Debug, Error)]
pub enum ExitError {
    /// A flag, argument or environment variable is wrong (EX_USAGE, 64).
    #[error("{0}")]
    Usage(String),
    /// A configuration file is wrong (EX_CONFIG, 78).
    #[error("{0}")]
    Config(String),
    /// Something the process needs is missing or taken: a port, a folder, a capability (EX_UNAVAILABLE, 69).
    #[error("{0}")]
    Unavailable(String),
    /// The process failed while it ran (1).
    #[error("{0}")]
    Runtime(String),
}

impl ExitError {
    /// A usage error from anything that can be shown.
    pub fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }

    /// A configuration error from anything that can be shown.
    pub fn config(error: impl Display) -> Self {
        Self::Config(error.to_string())
    }

    /// An unavailable resource, from anything that can be shown.
    pub fn unavailable(error: impl Display) -> Self {
        Self::Unavailable(error.to_string())
    }

    /// A failure while running, from anything that can be shown.
    pub fn runtime(error: impl Display) -> Self {
        Self::Runtime(error.to_string())
    }

    /// The exit code that goes with the error.
    pub fn code(&self) -> i32 {
        match self {
            Self::Usage(_) => 64,
            Self::Unavailable(_) => 69,
            Self::Config(_) => 78,
            Self::Runtime(_) => 1,
        }
    }
}

/// Prints `program: error` on stderr and ends the process with the error's code.
pub fn exit_with(program: &str, error: &ExitError) -> ! {
    #[allow(clippy::print_stderr, reason = "the last line of a process that could not start")]
    {
        eprintln!("{program}: {error}");
    }
    std::process::exit(error.code())
}
