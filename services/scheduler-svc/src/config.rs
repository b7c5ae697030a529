//! Flags of the binary: which roles run, and the flags of each role.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// What part of the control plane a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The Kubernetes REST API (kube-apiserver).
    Api,
    /// Controllers and xDS (kube-controller-manager).
    Controllers,
    /// The scheduler (kube-scheduler).
    Scheduler,
}

/// The Kubernetes cluster API, controllers and scheduler in one binary.
#[derive(Debug, Clone, Parser)]
#[command(name = "scheduler-svc", version = VERSION, max_term_width = 110)]
#[group(skip)]
pub struct Config {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Roles this process has
    #[arg(long, value_enum, value_delimiter = ',', default_value = "api,controllers,scheduler")]
    pub roles: Vec<Role>,
    /// Address of the plaintext port: own gRPC, /metrics, /healthz
    #[arg(long, default_value = "127.0.0.1:10259")]
    pub grpc_address: String,
    /// API server of the roles controllers and scheduler when this process has no role api
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Log level or filter, for example info or kube_api=debug
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// Flags of the role api.
    #[command(flatten)]
    pub api: kube_api::Config,
    /// Flags of the role controllers.
    #[command(flatten)]
    pub controllers: kube_controllers::Config,
    /// Flags of the role scheduler.
    #[command(flatten)]
    pub scheduler: sched_loop::Config,
    /// Flags of the xDS server (role controllers).
    #[command(flatten)]
    pub xds: xds_server::Config,
}

/// Subcommands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Ask a running process for its health; exit code 0 when healthy
    Healthcheck {
        /// Where the process serves /healthz
        #[arg(long, default_value = "127.0.0.1:10259")]
        address: SocketAddr,
        /// The page to ask for
        #[arg(long, default_value = "/readyz")]
        path: String,
    },
}

const VERSION: &str = concat!("Kubernetes v1.35.0 (flotilla ", env!("CARGO_PKG_VERSION"), ")");
