//! Service VIPs.
/// Flags
#[derive(Debug, Clone, clap::Args)]
pub struct Config {}
/// Error
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {}
