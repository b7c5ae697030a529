//! Other registries: a client of the distribution protocol.

mod auth;
mod client;
mod hosts;

use thiserror::Error;

use crate::engine::Digest;

pub use auth::Credentials;
pub use client::{Client, Fetched};
pub use hosts::{Host, Hosts};

/// Why a registry did not do what it was asked for.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// It says there is no such thing.
    #[error("{0}: not found")]
    NotFound(String),
    /// It wants other credentials.
    #[error(
        "{url}: {status}: pull access denied, repository does not exist or may require authorization"
    )]
    Denied {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// Any other status.
    #[error("{url}: unexpected status {status}: {body}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// Start of the answer.
        body: String,
    },
    /// No connection, or it broke.
    #[error("{url}: {reason}")]
    Transport {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The bytes are not what their digest says.
    #[error("{url}: content has digest {found}, {expected} was asked for")]
    Digest {
        /// What was asked for.
        url: String,
        /// Of the bytes.
        found: Digest,
        /// Of the request.
        expected: Digest,
    },
    /// More bytes than expected.
    #[error("{url}: answer is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// A settings file is wrong.
    #[error("{0}")]
    Hosts(String),
}

impl RemoteError {
    /// Whether asking again, or another host, may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}
