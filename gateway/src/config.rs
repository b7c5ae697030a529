//! The flags, Envoy's under their own names.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use flotilla_config::ExitError;
use serde::Serialize;

/// The bootstrap used when none is named.
pub const SHIPPED_BOOTSTRAP: &str = include_str!("../bootstrap/flotilla.yaml");

/// Envoy-compatible edge and service proxy of the Flotilla suite.
///
/// Without -c and --config-yaml it serves the bootstrap it ships with: the suite on 127.0.0.1:8080, Ingress hosts on
/// 8000, the Kubernetes API on 16443, admin on 9901.
#[derive(Debug, Clone, Parser)]
#[command(name = "gateway", disable_version_flag = true, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags.
    #[command(flatten)]
    pub config: Config,
    /// Flags of Envoy this gateway does not implement.
    #[command(flatten)]
    pub unsupported: Unsupported,
    /// Print the version and exit.
    #[arg(long)]
    pub version: bool,
}

/// What to do instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Ask a running gateway whether it is ready; exit 0 when it is.
    Healthcheck {
        /// Admin address.
        #[arg(long, default_value = "127.0.0.1:9901")]
        address: SocketAddr,
    },
}

/// Serve, or only check the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Serve traffic.
    Serve,
    /// Check the configuration and exit.
    Validate,
}

/// The flags that matter while serving.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Config {
    /// Bootstrap file, YAML or JSON.
    #[arg(short = 'c', long, value_name = "FILE", help_heading = "Configuration")]
    pub config_path: Option<PathBuf>,
    /// Bootstrap as YAML; merged over --config-path when both are given.
    #[arg(long, value_name = "YAML", help_heading = "Configuration")]
    pub config_yaml: Option<String>,
    /// `serve`, or `validate` the configuration and exit.
    #[arg(long, value_enum, default_value = "serve", help_heading = "Configuration")]
    pub mode: Mode,
    /// Node id the control plane sees; wins over the bootstrap.
    #[arg(long, value_name = "ID", help_heading = "Configuration")]
    pub service_node: Option<String>,
    /// Node cluster the control plane sees; wins over the bootstrap.
    #[arg(long, value_name = "NAME", help_heading = "Configuration")]
    pub service_cluster: Option<String>,
    /// Node zone the control plane sees; wins over the bootstrap.
    #[arg(long, value_name = "ZONE", help_heading = "Configuration")]
    pub service_zone: Option<String>,
    /// Worker threads; the number of cores by default.
    #[arg(long, value_name = "N", help_heading = "Process")]
    pub concurrency: Option<usize>,
    /// Tells hot-restart families apart. There is no hot restart here, so any number works.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Process")]
    pub base_id: u32,
    /// Hot restart is never on.
    #[arg(long, help_heading = "Process")]
    pub disable_hot_restart: bool,
    /// How long requests in flight may go on after SIGTERM; 10 when not given.
    #[arg(long, value_name = "SECONDS", help_heading = "Process")]
    pub drain_time_s: Option<u64>,
    /// Write the admin address, with the port the kernel chose, to this file.
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    pub admin_address_path: Option<PathBuf>,
    /// trace, debug, info, warning, error, critical or off.
    #[arg(
        short = 'l',
        long,
        value_name = "LEVEL",
        default_value = "info",
        help_heading = "Logging"
    )]
    pub log_level: String,
}

/// Flags of Envoy that are known and refused.
#[derive(Debug, Clone, Args)]
#[allow(missing_docs, reason = "hidden; named as Envoy names them")]
pub struct Unsupported {
    #[arg(long, hide = true)]
    allow_unknown_static_fields: bool,
    #[arg(long, hide = true)]
    allow_unknown_fields: bool,
    #[arg(long, hide = true)]
    reject_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    ignore_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    skip_deprecated_logs: bool,
    #[arg(long, hide = true)]
    local_address_ip_version: Option<String>,
    #[arg(long, hide = true)]
    component_log_level: Option<String>,
    #[arg(long, hide = true)]
    log_format: Option<String>,
    #[arg(long, hide = true)]
    log_format_escaped: bool,
    #[arg(long, hide = true)]
    log_path: Option<String>,
    #[arg(long, hide = true)]
    enable_fine_grain_logging: bool,
    #[arg(long, hide = true)]
    restart_epoch: Option<u32>,
    #[arg(long, hide = true)]
    hot_restart_version: bool,
    #[arg(long, hide = true)]
    use_dynamic_base_id: bool,
    #[arg(long, hide = true)]
    base_id_path: Option<String>,
    #[arg(long, hide = true)]
    parent_shutdown_time_s: Option<u64>,
    #[arg(long, hide = true)]
    drain_strategy: Option<String>,
    #[arg(long, hide = true)]
    file_flush_interval_msec: Option<u64>,
    #[arg(long, hide = true)]
    file_flush_min_size_kb: Option<u64>,
    #[arg(long, hide = true)]
    cpuset_threads: bool,
    #[arg(long, hide = true)]
    enable_mutex_tracing: bool,
    #[arg(long, hide = true)]
    enable_core_dump: bool,
    #[arg(long, hide = true)]
    disable_extensions: Option<String>,
    #[arg(long, hide = true)]
    socket_path: Option<String>,
    #[arg(long, hide = true)]
    socket_mode: Option<String>,
    #[arg(long, hide = true)]
    stats_tag: Option<String>,
}

impl Unsupported {
    /// # Errors
    /// Names the first flag that was given.
    pub fn refuse(&self) -> Result<(), ExitError> {
        let given = [
            ("--allow-unknown-static-fields", self.allow_unknown_static_fields),
            ("--allow-unknown-fields", self.allow_unknown_fields),
            ("--reject-unknown-dynamic-fields", self.reject_unknown_dynamic_fields),
            ("--ignore-unknown-dynamic-fields", self.ignore_unknown_dynamic_fields),
            ("--skip-deprecated-logs", self.skip_deprecated_logs),
            ("--local-address-ip-version", self.local_address_ip_version.is_some()),
            ("--component-log-level", self.component_log_level.is_some()),
            ("--log-format", self.log_format.is_some()),
            ("--log-format-escaped", self.log_format_escaped),
            ("--log-path", self.log_path.is_some()),
            ("--enable-fine-grain-logging", self.enable_fine_grain_logging),
            ("--restart-epoch", self.restart_epoch.is_some_and(|epoch| epoch != 0)),
            ("--hot-restart-version", self.hot_restart_version),
            ("--use-dynamic-base-id", self.use_dynamic_base_id),
            ("--base-id-path", self.base_id_path.is_some()),
            ("--parent-shutdown-time-s", self.parent_shutdown_time_s.is_some()),
            ("--drain-strategy", self.drain_strategy.is_some()),
            ("--file-flush-interval-msec", self.file_flush_interval_msec.is_some()),
            ("--file-flush-min-size-kb", self.file_flush_min_size_kb.is_some()),
            ("--cpuset-threads", self.cpuset_threads),
            ("--enable-mutex-tracing", self.enable_mutex_tracing),
            ("--enable-core-dump", self.enable_core_dump),
            ("--disable-extensions", self.disable_extensions.is_some()),
            ("--socket-path", self.socket_path.is_some()),
            ("--socket-mode", self.socket_mode.is_some()),
            ("--stats-tag", self.stats_tag.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(ExitError::Usage(format!("not supported yet: {name}"))),
            None => Ok(()),
        }
    }
}

impl Config {
    /// Worker threads to run.
    pub fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.concurrency.filter(|n| *n > 0).unwrap_or(cores)
    }

    /// The level in the form the log set-up knows.
    ///
    /// # Errors
    /// When it is no level of Envoy's.
    pub fn filter(&self) -> Result<String, ExitError> {
        Ok(match self.log_level.as_str() {
            level @ ("trace" | "debug" | "info" | "error" | "off") => level,
            "warning" | "warn" => "warn",
            "critical" => "error",
            other => {
                return Err(ExitError::Usage(format!(
                    "invalid log level {other:?} for --log-level: use trace, debug, info, warning, error, critical or off"
                )));
            }
        }
        .to_owned())
    }

    /// The configuration's text, the text to merge over it, and what to call it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn texts(&self) -> Result<(String, Option<String>, String), ExitError> {
        match (&self.config_path, &self.config_yaml) {
            (Some(path), yaml) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    ExitError::Config(format!("unable to read file: {}: {error}", path.display()))
                })?;
                Ok((text, yaml.clone(), path.display().to_string()))
            }
            (None, Some(yaml)) => Ok((yaml.clone(), None, String::new())),
            (None, None) => {
                Ok((SHIPPED_BOOTSTRAP.to_owned(), None, "flotilla.yaml (built in)".to_owned()))
            }
        }
    }
}

/// Like Envoy's: name, revision, version, status, build, TLS library.
pub fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("{v}/{v}/Clean/{build}/rustls", v = flotilla_telemetry::VERSION)
}
