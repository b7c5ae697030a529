//! The Kubernetes REST API over an etcd v3 store.

mod config;

pub use config::Config;

/// The Kubernetes version whose API is served.
pub const GIT_VERSION: &str = "v1.35.0";
