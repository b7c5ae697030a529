//! Commands and flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Starts, watches and stops the suite on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "flotilla",
    version,
    about,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Examples:\n  flotilla up                      start everything, stream the logs, Ctrl-C stops\n  \
    flotilla up --detach             the same in the background\n  \
    flotilla up --kv-endpoints http://10.0.0.5:2379   use an etcd that runs elsewhere\n  \
    kubectl --kubeconfig <(flotilla kubeconfig) get pods -A\n  flotilla logs -f gateway"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the services and watch over them
    Up(Box<UpArgs>),
    /// Stop the services, their pods and what they made on this machine
    Down(DownArgs),
    /// Show each service: state, process, restarts, addresses
    Status(RootArgs),
    /// Show the log of one service or of all
    Logs(LogsArgs),
    /// Print the administrator's kubeconfig
    Kubeconfig(RootArgs),
    /// Say what this machine lacks and how to fix it
    Doctor(DoctorArgs),
    /// Build, push, pull and list images
    Image(crate::image::ImageArgs),
    /// Prepare what compose and other deployments need once
    Init(crate::init::InitArgs),
    /// Do the main job from an image to a rollout, step by step
    Demo(Box<crate::demo::DemoArgs>),
}

/// Where the suite keeps everything.
#[derive(Debug, Clone, Args)]
pub struct RootArgs {
    /// Folder for data, configuration, logs and state
    #[arg(long, env = "FLOTILLA_ROOT", default_value = "/var/lib/flotilla")]
    pub root: PathBuf,
}

/// Flags of `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub root: RootArgs,
    /// Return when everything is ready and leave it running in the background
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// Take consecutive ports from here instead of the originals' default ports
    #[arg(long, value_name = "PORT")]
    pub port_base: Option<u16>,
    /// Folder with the service binaries [default: the folder of this program]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Seconds everything may take to get ready
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
    /// Only start what this user may start: no runtime-svc (pods stay Pending)
    #[arg(long)]
    pub without_runtime: bool,

    /// etcd to use instead of starting kv-svc
    #[arg(long, value_name = "URL", help_heading = "Use instead of starting")]
    pub kv_endpoints: Option<String>,
    /// CRI image service and containerd snapshots socket to use instead of starting image-svc
    #[arg(long, value_name = "unix:///PATH", help_heading = "Use instead of starting")]
    pub image_endpoint: Option<String>,

    /// Bridge that joins the pods of this machine
    #[arg(long, default_value = "flt0", help_heading = "Network")]
    pub bridge_name: String,
    /// Addresses of the pods of this machine; the first one is the bridge's
    #[arg(long, default_value = "10.244.0.0/24", help_heading = "Network")]
    pub pod_cidr: String,
    /// Addresses of Services
    #[arg(long, default_value = "10.96.0.0/16", help_heading = "Network")]
    pub service_cidr: String,
    /// Name of the node
    #[arg(long, default_value = "flotilla", help_heading = "Network")]
    pub node_name: String,
}

/// Flags of `down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub root: RootArgs,
    /// Remove the root folder too: every object, image and sample is lost
    #[arg(long)]
    pub purge: bool,
}

/// Flags of `logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub root: RootArgs,
    /// Service to show, for example kv-svc [default: all]
    pub service: Option<String>,
    /// Go on showing what is added
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Lines to show of what is there
    #[arg(long, default_value_t = 50)]
    pub tail: usize,
}

/// Flags of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub root: RootArgs,
    /// Take consecutive ports from here instead of the originals' default ports
    #[arg(long, value_name = "PORT")]
    pub port_base: Option<u16>,
    /// Folder with the service binaries [default: the folder of this program]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}
