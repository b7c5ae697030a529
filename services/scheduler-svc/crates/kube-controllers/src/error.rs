//! Why the controllers stop, or one object could not be brought to its desired state.

use thiserror::Error;

/// A failure of the whole process or of one sync.
#[derive(Debug, Error)]
pub enum Error {
    /// The API refused or could not be reached.
    #[error(transparent)]
    Api(#[from] flotilla_kube_client::Error),
    /// A flag is wrong.
    #[error("{0}")]
    Settings(String),
    /// Another process leads now.
    #[error("the leader lease is lost")]
    LeaseLost,
    /// The object cannot be worked on as it is; the next change of it is waited for.
    #[error("{0}")]
    Object(String),
}

impl Error {
    /// Whether the namespace is going away: nothing new can be made there, and need not.
    pub fn is_ending_namespace(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_status(403)
            && error.to_string().contains("because it is being terminated"))
    }

    /// Whether the object changed meanwhile: not worth a line in the log, the next try sees it.
    pub fn is_race(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_conflict() || error.is_not_found())
    }
}
