//! Flags of the service proxy.

use clap::Args;
use thiserror::Error;

/// Flags of the service proxy; those without `proxy` in their name are kube-proxy's.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service proxy")]
#[group(skip)]
pub struct Config {
    /// Name of the nftables table
    #[arg(long, value_name = "NAME", default_value = "flotilla-svc")]
    pub proxy_nft_table: String,
    /// Remove the table when the process ends
    #[arg(long)]
    pub proxy_cleanup_on_exit: bool,
    /// Addresses of pods; what comes from elsewhere to a Service address is masqueraded
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// Masquerade everything that goes to a Service address
    #[arg(long)]
    pub masquerade_all: bool,
    /// Bit of the packet mark that asks for masquerading
    #[arg(long, value_name = "BIT", default_value_t = 14, value_parser = clap::value_parser!(u8).range(0..=31))]
    pub iptables_masquerade_bit: u8,
    /// Name of this node, for endpoints that only count locally.
    #[arg(skip)]
    pub node_name: String,
}

/// Why the proxy cannot run.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// A flag is wrong.
    #[error("{0}")]
    Flag(String),
    /// There is no usable nft.
    #[error(
        "cannot run nft: {0}; install nftables, or turn the proxy off with --service-proxy=false"
    )]
    NoNft(std::io::Error),
    /// The kernel or nft refused a transaction.
    #[error("nft: {0}")]
    Refused(String),
}

impl Config {
    /// The packet mark.
    pub fn mark(&self) -> u32 {
        1 << self.iptables_masquerade_bit
    }

    /// Refuses what would end up in a ruleset as something else.
    ///
    /// # Errors
    /// Names the flag.
    pub fn check(&self) -> Result<(), ProxyError> {
        let name = &self.proxy_nft_table;
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic())
            || name.len() > 64
            || !name.bytes().all(fine)
        {
            return Err(ProxyError::Flag(format!("--proxy-nft-table: {name:?} is no table name")));
        }
        for cidr in &self.cluster_cidr {
            let parts = cidr.split_once('/').and_then(|(ip, bits)| {
                Some((ip.parse::<std::net::IpAddr>().ok()?, bits.parse::<u8>().ok()?))
            });
            let fits = parts.is_some_and(|(ip, bits)| bits <= if ip.is_ipv4() { 32 } else { 128 });
            if !fits {
                return Err(ProxyError::Flag(format!("--cluster-cidr: {cidr:?} is no network")));
            }
        }
        Ok(())
    }
}
