//! What a call can fail with.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `meta/v1 Status`, the body of every failed call.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// For people.
    pub message: String,
    /// For programs: `NotFound`, `AlreadyExists`, `Conflict`, `Expired`, ...
    pub reason: String,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The server answered with a failure.
    #[error("{} ({} {})", .0.message, .0.code, .0.reason)]
    Api(Status),
    /// The server could not be reached or the connection broke.
    #[error("the API server cannot be reached: {0}")]
    Connection(String),
    /// The answer is not what was asked for.
    #[error("the API server's answer cannot be read: {0}")]
    Decode(#[from] serde_json::Error),
    /// The settings do not make a client.
    #[error("bad client settings: {0}")]
    Settings(String),
}

impl Error {
    /// Whether the server said so with this HTTP status.
    pub fn is_status(&self, code: u16) -> bool {
        matches!(self, Self::Api(status) if status.code == code)
    }

    /// 404.
    pub fn is_not_found(&self) -> bool {
        self.is_status(404)
    }

    /// 409: the object exists, or somebody else wrote it first.
    pub fn is_conflict(&self) -> bool {
        self.is_status(409)
    }

    /// 410: the resource version is compacted; list anew.
    pub fn is_expired(&self) -> bool {
        self.is_status(410)
    }
}
