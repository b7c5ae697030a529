//! What can go wrong in the domain.

use thiserror::Error;

/// A failed operation. The edge turns it into a gRPC status.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// No such sandbox or container.
    #[error("{0}: not found")]
    NotFound(String),
    /// The request is malformed.
    #[error("{0}")]
    Invalid(String),
    /// The object is in a state that does not allow the operation.
    #[error("{0}")]
    State(String),
    /// A neighbour does not answer; trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// Known, but not built.
    #[error("not supported yet: {0}")]
    Unsupported(String),
    /// The deadline of the request passed.
    #[error("{0}")]
    Deadline(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// A failure that names what was tried.
    pub fn failed(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {cause}"))
    }

    /// Puts what was tried before the message and keeps the kind.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        match self {
            Self::NotFound(text) => Self::NotFound(format!("{what}: {text}")),
            Self::Invalid(text) => Self::Invalid(format!("{what}: {text}")),
            Self::State(text) => Self::State(format!("{what}: {text}")),
            Self::Unavailable(text) => Self::Unavailable(format!("{what}: {text}")),
            Self::Unsupported(text) => Self::Unsupported(text),
            Self::Deadline(text) => Self::Deadline(format!("{what}: {text}")),
            Self::Failed(text) => Self::Failed(format!("{what}: {text}")),
        }
    }
}

/// Result of the domain.
pub type Result<T> = std::result::Result<T, Error>;
