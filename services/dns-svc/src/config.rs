//! Command line, as CoreDNS's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use flotilla_config::ExitError;

use crate::plan::Plan;

/// A CoreDNS server: answers DNS as a Corefile says.
#[derive(Debug, Parser)]
#[command(name = "dns-svc", about, disable_version_flag = true)]
#[command(
    after_help = "Examples:\n  dns-svc -conf Corefile\n  dns-svc -conf Corefile -dns.port 1053\n  dns-svc -plugins\n  \
    dns-svc healthcheck --ready-address 127.0.0.1:8181"
)]
pub struct Args {
    /// Corefile to load [default: ./Corefile if there is one, else a builtin one with whoami and log]
    #[arg(long = "conf", value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Port of server blocks that name none
    #[arg(long = "dns.port", short = 'p', default_value_t = 53)]
    pub port: u16,
    /// File to write the process id to
    #[arg(long = "pidfile", value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// List the plugins and end
    #[arg(long = "plugins")]
    pub plugins: bool,
    /// Print no banner
    #[arg(long = "quiet")]
    pub quiet: bool,
    /// Print the version and end
    #[arg(long = "version")]
    pub version: bool,
    /// Another task than serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Tasks besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask a running server whether it is ready; ends with 0 if so
    Healthcheck {
        /// Address of its `ready` plugin
        #[arg(long, default_value = "127.0.0.1:8181")]
        ready_address: SocketAddr,
    },
}

/// Where the Corefile comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file named by `-conf`.
    pub file: Option<PathBuf>,
    /// Port of server blocks that name none.
    pub port: u16,
}

impl Source {
    /// Reads and checks the Corefile, or the builtin one; returns its text too.
    ///
    /// # Errors
    /// When it cannot be read or is wrong.
    pub fn load(&self) -> Result<(Plan, String), ExitError> {
        let default = Path::new("Corefile");
        let file = match &self.file {
            Some(file) => file.as_path(),
            None if default.exists() => default,
            None => {
                let plan = Plan::builtin(self.port).map_err(ExitError::config)?;
                return Ok((plan, String::new()));
            }
        };
        let text = std::fs::read_to_string(file).map_err(|error| {
            ExitError::config(format!("cannot read {}: {error}", file.display()))
        })?;
        let dir = file.parent().unwrap_or(Path::new("."));
        let plan = Plan::parse(&file.display().to_string(), &text, dir, self.port)
            .map_err(ExitError::config)?;
        Ok((plan, text))
    }
}
