//! Flags of the API role, under kube-apiserver's names.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flotilla_config::parse_duration;

/// Settings of the API server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API server")]
#[group(skip)]
pub struct Config {
    /// Client URLs of the etcd v3 store, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub etcd_servers: Vec<String>,
    /// Prefix of every key in the store
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// Address to serve HTTPS on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind_address: IpAddr,
    /// Port to serve HTTPS on; 0 lets the kernel choose
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address other members of the cluster reach this server at (the endpoint of the kubernetes Service)
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Folder for generated certificates, keys and kubeconfigs
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// Further names and addresses the generated serving certificate is valid for
    #[arg(long, value_delimiter = ',')]
    pub tls_sans: Vec<String>,
    /// Serving certificate (PEM); generated into --cert-dir when absent
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate (PEM)
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Authority whose client certificates are accepted (PEM); default: the generated CA
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// CSV file of bearer tokens: token,user,uid,"group1,group2"
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// Let requests without credentials in as system:anonymous (they may read health pages and /version)
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub anonymous_auth: bool,
    /// Authorizers in order: RBAC, AlwaysAllow, AlwaysDeny
    #[arg(long, value_delimiter = ',', default_value = "RBAC")]
    pub authorization_mode: Vec<String>,
    /// Range of Service addresses (CIDR)
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: String,
    /// Ports of NodePort Services
    #[arg(long, default_value = "30000-32767")]
    pub service_node_port_range: String,
    /// Issuer of service account tokens
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: String,
    /// Key (PKCS#8 PEM, ECDSA P-256) that signs service account tokens; generated into --cert-dir when absent
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// How long events are kept
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    pub event_ttl: Duration,
    /// Client certificate shown to kubelets (PEM)
    #[arg(long, requires = "kubelet_client_key")]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Key of the client certificate shown to kubelets (PEM)
    #[arg(long, requires = "kubelet_client_certificate")]
    pub kubelet_client_key: Option<PathBuf>,
    /// Bearer token shown to kubelets
    #[arg(long)]
    pub kubelet_client_token: Option<String>,
    /// Authority that signs kubelets' serving certificates (PEM); without it they are not verified
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            config: Config,
        }
        <Only as clap::Parser>::parse_from(["kube-api"]).config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_flags() {
        let config = Config::default();
        assert_eq!(config.secure_port, 6443);
        assert_eq!(config.event_ttl, Duration::from_secs(3600));
        assert!(config.anonymous_auth);
    }
}
