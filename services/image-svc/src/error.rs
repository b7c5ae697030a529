//! Errors at the edge of the process.

use flotilla_config::ExitError;
use flotilla_server::{BindError, TlsError};
use thiserror::Error;

use crate::node::NodeError;
use crate::registry::AuthError;
use crate::store::StoreError;

/// Why the service could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The htpasswd file does not serve.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// TLS files do not work.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store does not open.
    #[error("cannot open the store: {0} (is another image-svc using the same --root?)")]
    Store(#[from] StoreError),
    /// Leftovers of an earlier process cannot be cleared.
    #[error("cannot clear what an earlier run left: {0}")]
    Node(#[from] NodeError),
    /// The bound address is unknown.
    #[error("cannot read a bound address: {0}")]
    Address(#[from] std::io::Error),
}

impl From<StartError> for ExitError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Tls(_) | StartError::Auth(_) => Self::config(error),
            _ => Self::unavailable(error),
        }
    }
}
