//! Why the scheduler stops.

use thiserror::Error;

/// A failure of the whole process.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// Another process leads now.
    #[error("the leader lease is lost")]
    LeaseLost,
}
