//! `flotilla init`: what compose and other deployments need once, and `up` does by itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use flotilla_config::ExitError;
use flotilla_kube_client::{Client, KubeConfig};
use nix::unistd::{Gid, Uid, chown};

use crate::config_files::{DnsService, apply_dns_service};
use crate::pki::KubeletClient;

/// Flags of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// What to prepare.
    #[command(subcommand)]
    pub what: What,
}

/// The things to prepare.
#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Make the certificates the services show each other, unless they are there
    Pki {
        /// Folder for them
        #[arg(long)]
        dir: PathBuf,
        /// User and group to own them
        #[arg(long)]
        owner: Option<u32>,
    },
    /// Lead the cluster's DNS address to a DNS server
    Cluster {
        /// Kubeconfig of an administrator
        #[arg(long)]
        kubeconfig: PathBuf,
        /// Address of the Service kube-dns
        #[arg(long)]
        dns_service: std::net::Ipv4Addr,
        /// Where the DNS server listens
        #[arg(long)]
        dns_endpoint: SocketAddr,
    },
}

/// Prepares one thing.
///
/// # Errors
/// Names what could not be written or created.
pub async fn run(args: &InitArgs) -> Result<(), ExitError> {
    match &args.what {
        What::Pki { dir, owner } => {
            std::fs::create_dir_all(dir).map_err(|e| {
                ExitError::unavailable(format!("cannot make {}: {e}", dir.display()))
            })?;
            let files = KubeletClient::paths(dir);
            files.ensure().map_err(ExitError::unavailable)?;
            if let Some(owner) = owner {
                for path in [dir, &files.ca, &files.cert, &files.key] {
                    chown(path, Some(Uid::from_raw(*owner)), Some(Gid::from_raw(*owner))).map_err(
                        |e| {
                            ExitError::unavailable(format!(
                                "cannot give {} to {owner}: {e}",
                                path.display()
                            ))
                        },
                    )?;
                }
            }
            Ok(())
        }
        What::Cluster { kubeconfig, dns_service, dns_endpoint } => {
            let config = KubeConfig::from_file(kubeconfig).map_err(ExitError::config)?;
            let client = Client::new(config, "flotilla").map_err(ExitError::config)?;
            let dns = DnsService { service: *dns_service, endpoint: *dns_endpoint };
            apply_dns_service(&client, dns).await.map_err(ExitError::unavailable)
        }
    }
}
