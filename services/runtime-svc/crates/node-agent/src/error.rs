//! Why an agent cannot start or go on.

use flotilla_config::ExitError;
use thiserror::Error;

/// Failure of the agent as a whole. Failures of single pods are events and statuses, never this.
#[derive(Debug, Error)]
pub enum AgentError {
    /// A flag is wrong.
    #[error("{0}")]
    Flag(String),
    /// The kubeconfig cannot be used.
    #[error("--kubeconfig: {0}")]
    KubeConfig(#[from] flotilla_kube_client::ConfigError),
    /// The API client cannot be made.
    #[error("--kubeconfig: {0}")]
    Client(#[from] flotilla_kube_client::Error),
    /// An endpoint is malformed.
    #[error("--container-runtime-endpoint: {0}")]
    Endpoint(#[from] flotilla_client::EndpointError),
    /// The kubelet port cannot be bound.
    #[error("--kubelet-port: {0}")]
    Bind(#[from] flotilla_server::BindError),
    /// Certificates cannot be used.
    #[error("--cert-dir: {0}")]
    Tls(#[from] flotilla_server::TlsError),
    /// The serving certificate cannot be made.
    #[error("--cert-dir: {0}")]
    Certificate(String),
    /// A folder cannot be used.
    #[error("{flag}: cannot use {path}: {source}")]
    Folder {
        /// The flag that names it.
        flag: &'static str,
        /// The folder.
        path: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A part of the agent ended that never should.
    #[error("a part of the agent failed: {0}")]
    Task(String),
    /// The service proxy cannot run.
    #[error("service proxy: {0}")]
    Proxy(#[from] svcproxy::ProxyError),
}

impl From<AgentError> for ExitError {
    fn from(error: AgentError) -> Self {
        match &error {
            AgentError::Flag(_) | AgentError::Endpoint(_) => Self::usage(error),
            AgentError::KubeConfig(_) | AgentError::Client(_) | AgentError::Tls(_) => {
                Self::config(error)
            }
            AgentError::Task(_) => Self::runtime(error),
            _ => Self::unavailable(error),
        }
    }
}
