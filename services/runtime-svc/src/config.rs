//! Flags of the daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use flotilla_config::{ListenAddr, parse_duration};

use crate::engine::ipam::Cidr;

/// CRI v1 container runtime with an embedded launcher and pod network.
#[derive(Debug, Clone, Parser)]
#[command(name = "runtime-svc", version, about, args_conflicts_with_subcommands = true)]
pub struct Config {
    /// Address of the CRI socket (runtime and image service) and of flotilla.engine.v1.
    #[arg(
        long,
        short = 'a',
        default_value = "unix:///run/flotilla/runtime.sock",
        env = "RUNTIME_ADDRESS"
    )]
    pub address: ListenAddr,
    /// Folder for records and pod files; kept across reboots.
    #[arg(long, default_value = "/var/lib/flotilla/runtime")]
    pub root: PathBuf,
    /// Folder for sockets and exit codes; may be lost at reboot.
    #[arg(long, default_value = "/run/flotilla/runtime")]
    pub state: PathBuf,
    /// What this process does.
    #[arg(long, value_delimiter = ',', default_value = "runtime")]
    pub roles: Vec<Role>,
    /// Log level or filter.
    #[arg(long, short = 'l', default_value = "info")]
    pub log_level: String,
    /// gRPC endpoint of the image service: image-svc or containerd.
    #[arg(long, default_value = "unix:///run/flotilla/image.sock", help_heading = "Images")]
    pub image_endpoint: String,
    /// Snapshotter to ask for root filesystems.
    #[arg(long, default_value = "overlayfs", help_heading = "Images")]
    pub snapshotter: String,
    /// Range of the pods' addresses; the first is the bridge's.
    #[arg(long, default_value = "10.244.0.0/24", help_heading = "Network")]
    pub pod_cidr: Cidr,
    /// Name of the bridge.
    #[arg(long, default_value = "flt0", value_parser = device_name, help_heading = "Network")]
    pub bridge_name: String,
    /// Name of the nftables table.
    #[arg(long, default_value = "flotilla-runtime", value_parser = table_name, help_heading = "Network")]
    pub nft_table: String,
    /// Cgroup of pods that name no parent.
    #[arg(long, default_value = "/flotilla", help_heading = "Limits")]
    pub cgroup_parent: String,
    /// Address of the metrics and health pages.
    #[arg(long, default_value = "127.0.0.1:10257", help_heading = "Addresses")]
    pub metrics_address: ListenAddr,
    /// Address of the exec, attach and port-forward streams.
    #[arg(long, default_value = "127.0.0.1:0", help_heading = "Addresses")]
    pub stream_address: ListenAddr,
    /// How long an idle stream is kept.
    #[arg(long, default_value = "4h", value_parser = parse_duration, help_heading = "Addresses")]
    pub stream_idle_timeout: Duration,
    /// Flags of the role agent.
    #[command(flatten)]
    pub agent: node_agent::Config,
    /// Other things to do than serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Parts of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The container runtime.
    Runtime,
    /// The node agent.
    Agent,
}

/// Subcommands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Ask the health page of a running process and exit 0 when it is healthy.
    Healthcheck {
        /// Address of the metrics and health pages.
        #[arg(long, default_value = "127.0.0.1:10257")]
        address: std::net::SocketAddr,
    },
}

fn device_name(text: &str) -> Result<String, String> {
    let fits = (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a device name has 1 to 15 letters, digits, - _ or .".to_owned())
    }
}

fn table_name(text: &str) -> Result<String, String> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let fits = starts
        && text.len() < 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a table name starts with a letter and has letters, digits, - and _".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sound_and_bad_values_named() {
        use clap::CommandFactory;
        Config::command().debug_assert();
        for (flag, value) in [
            ("--pod-cidr", "10.0.0.0/31"),
            ("--bridge-name", "a-name-that-is-too-long"),
            ("--nft-table", "x{}"),
            ("--roles", "cook"),
        ] {
            let error =
                Config::try_parse_from(["runtime-svc", flag, value]).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
