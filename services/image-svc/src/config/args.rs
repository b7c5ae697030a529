//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// How log lines are written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// OCI registry, node image store and image builder.
#[derive(Debug, Parser)]
#[command(name = "image-svc", version, about, args_conflicts_with_subcommands = false)]
pub struct Args {
    /// What to do; serves with built-in settings when absent.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Folder of the store [default: /var/lib/flotilla/image, or the user's data folder].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Store")]
    pub root: Option<PathBuf>,
    /// How long content without a name is kept [default: 1h].
    #[arg(long, global = true, value_name = "DURATION", help_heading = "Store")]
    pub gc_delay: Option<String>,

    /// Address of the registry, its admin pages and the own API [default: 127.0.0.1:5000].
    #[arg(long, global = true, value_name = "ADDR", help_heading = "Listeners")]
    pub http_addr: Option<String>,
    /// Socket of the CRI image service and containerd's services; empty for none
    /// [default: unix:///run/flotilla/image.sock; none with a configuration file].
    #[arg(long, global = true, value_name = "ADDR", help_heading = "Listeners")]
    pub cri_address: Option<String>,

    /// Folder with HOST/hosts.toml files, as containerd reads them.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/etc/containerd/certs.d",
        help_heading = "Pulling"
    )]
    pub hosts_dir: PathBuf,
    /// Registry (HOST or HOST:PORT) to speak to without TLS; loopback always is. May be repeated.
    #[arg(long, global = true, value_name = "HOST", help_heading = "Pulling")]
    pub insecure_registry: Vec<String>,

    /// Level or filter such as info or image_svc=debug [default: info].
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Logging")]
    pub log_level: Option<String>,
    /// How log lines are written.
    #[arg(long, global = true, value_enum, default_value = "auto", help_heading = "Logging")]
    pub log_format: LogFormat,
}

/// Subcommands, named as distribution's.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve, with a configuration file of distribution (version 0.1) when one is given.
    Serve {
        /// The file; REGISTRY_CONFIGURATION_PATH when absent.
        config: Option<PathBuf>,
    },
    /// Ask a running process whether it is healthy; exit code 0 when it is.
    Healthcheck,
}
