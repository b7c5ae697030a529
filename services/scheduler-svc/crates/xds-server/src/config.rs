//! The flags of the xDS server.

use std::net::IpAddr;

use clap::Args;
use flotilla_config::ListenAddr;

/// Settings of the xDS server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "xDS server")]
#[group(skip)]
pub struct Config {
    /// Where proxies get their configuration (gRPC without TLS).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18000")]
    pub xds_address: ListenAddr,
    /// Ingresses of this class are served, and those without a class.
    #[arg(long, value_name = "NAME", default_value = "flotilla")]
    pub ingress_class: String,
    /// Address proxies listen on for Ingress hosts.
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub ingress_address: IpAddr,
    /// Port proxies listen on for Ingress hosts.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub ingress_port: u16,
    /// IP or host name that is written into the status of served Ingresses; may be given more than once.
    #[arg(long, value_name = "ADDRESS")]
    pub publish_address: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            xds_address: ListenAddr::Tcp(([127, 0, 0, 1], 18000).into()),
            ingress_class: "flotilla".to_owned(),
            ingress_address: IpAddr::from([0, 0, 0, 0]),
            ingress_port: 8000,
            publish_address: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn defaults_agree_with_the_flags() {
        let parsed = <Cli as clap::Parser>::parse_from(["x"]).config;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }
}
