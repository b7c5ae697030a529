//! Command line: Prometheus' flags under their own names.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};
use flotilla_config::{ExitError, ListenAddr, go_style_args, parse_args};
use metrics_model::parse_millis;

use crate::config::Size;

/// Version of Prometheus whose API and file formats this server follows.
pub const COMPATIBLE: &str = "3.14.0";

/// Flags of Prometheus that are known and refused.
const MISSING: &[&str] = &[
    "agent",
    "alertmanager.drain-notification-queue-on-shutdown",
    "alertmanager.notification-batch-size",
    "alertmanager.notification-queue-capacity",
    "auto-gomaxprocs",
    "auto-gomemlimit",
    "auto-gomemlimit.ratio",
    "config.auto-reload-interval",
    "enable-feature",
    "query.auto-limit",
    "rules.alert.for-grace-period",
    "rules.alert.for-outage-tolerance",
    "rules.alert.resend-delay",
    "rules.max-concurrent-evals",
    "scrape.adjust-timestamps",
    "scrape.discovery-reload-interval",
    "scrape.name-escaping-scheme",
    "scrape.timestamp-tolerance",
    "server.disable-http2-for-prom2",
    "storage.agent.path",
    "storage.agent.retention.max-time",
    "storage.agent.retention.min-time",
    "storage.agent.wal-compression",
    "storage.agent.wal-segment-size",
    "storage.remote.flush-deadline",
    "storage.remote.read-concurrent-limit",
    "storage.remote.read-max-bytes-in-frame",
    "storage.remote.read-sample-limit",
    "storage.tsdb.allow-overlapping-blocks",
    "storage.tsdb.delayed-compaction.max-percent",
    "storage.tsdb.head-chunks-write-queue-size",
    "storage.tsdb.max-block-chunk-segment-size",
    "storage.tsdb.no-lockfile",
    "storage.tsdb.retention",
    "storage.tsdb.retention.percentage",
    "storage.tsdb.samples-per-chunk",
    "web.config.file",
    "web.console.libraries",
    "web.console.templates",
    "web.cors.origin",
    "web.enable-otlp-receiver",
    "web.max-connections",
    "web.max-notifications-subscribers",
    "web.page-title",
    "web.read-timeout",
    "web.remote-write-receiver.accepted-protobuf-messages",
    "web.route-prefix",
    "web.user-assets",
];

fn duration(text: &str) -> Result<Duration, String> {
    let millis = parse_millis(text).map_err(|e| e.to_string())?;
    Ok(Duration::from_millis(millis.cast_unsigned()))
}

fn size(text: &str) -> Result<Size, String> {
    Size::parse(text).ok_or_else(|| format!("{text:?} is not a size such as 512MB"))
}

/// metrics-svc: scrapes, stores, evaluates rules and answers PromQL like Prometheus.
#[derive(Debug, Clone, Parser)]
#[command(name = "metrics-svc", disable_version_flag = true)]
#[allow(missing_docs, reason = "the help texts say it")]
pub struct Flags {
    /// Prometheus configuration file path. Without the flag, prometheus.yml is read if there is one; else the server scrapes itself.
    #[arg(long = "config.file", help_heading = "Configuration")]
    pub config_file: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long = "config.check", help_heading = "Configuration")]
    pub check: bool,

    /// Address to listen on for API and telemetry; can be repeated.
    #[arg(long = "web.listen-address", default_value = "127.0.0.1:9090", action = ArgAction::Append, global = true, help_heading = "Web")]
    pub listen: Vec<ListenAddr>,
    /// The URL under which the server is reached from outside.
    #[arg(long = "web.external-url", default_value = "", help_heading = "Web")]
    pub external_url: String,
    /// Enable reload and shutdown by HTTP request.
    #[arg(long = "web.enable-lifecycle", help_heading = "Web")]
    pub lifecycle: bool,
    /// Enable API endpoints for admin actions.
    #[arg(long = "web.enable-admin-api", help_heading = "Web")]
    pub admin_api: bool,

    /// Take samples that others push to /api/v1/write.
    #[arg(long = "web.enable-remote-write-receiver", help_heading = "Web")]
    pub remote_write_receiver: bool,

    /// Base path for metrics storage.
    #[arg(long = "storage.tsdb.path", default_value = "data/", help_heading = "Storage")]
    pub path: PathBuf,
    /// How long to keep samples (15d unless a size is given); 0s keeps them for ever.
    #[arg(long = "storage.tsdb.retention.time", value_parser = duration, help_heading = "Storage")]
    pub retention_time: Option<Duration>,
    /// Bytes of blocks and log to keep, such as 512MB.
    #[arg(long = "storage.tsdb.retention.size", value_parser = size, default_value = "0", help_heading = "Storage")]
    pub retention_size: Size,
    /// Shortest block range, for tests.
    #[arg(long = "storage.tsdb.min-block-duration", value_parser = duration, default_value = "2h", help_heading = "Storage")]
    pub min_block: Duration,
    /// Longest block range; a tenth of the retention time unless given.
    #[arg(long = "storage.tsdb.max-block-duration", value_parser = duration, help_heading = "Storage")]
    pub max_block: Option<Duration>,
    /// Size of a segment of the write-ahead log.
    #[arg(long = "storage.tsdb.wal-segment-size", value_parser = size, default_value = "128MB", help_heading = "Storage")]
    pub wal_segment: Size,
    /// Compress the write-ahead log.
    #[arg(long = "storage.tsdb.wal-compression", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", help_heading = "Storage")]
    pub wal_compression: bool,

    /// How far back an instant query looks for a sample.
    #[arg(long = "query.lookback-delta", value_parser = duration, default_value = "5m", help_heading = "Query")]
    pub lookback: Duration,
    /// How long a query may take.
    #[arg(long = "query.timeout", value_parser = duration, default_value = "2m", help_heading = "Query")]
    pub timeout: Duration,
    /// Queries evaluated at once.
    #[arg(long = "query.max-concurrency", default_value_t = 20, help_heading = "Query")]
    pub max_concurrency: usize,
    /// Samples one query may load.
    #[arg(long = "query.max-samples", default_value_t = 50_000_000, help_heading = "Query")]
    pub max_samples: usize,

    /// Only log messages with the given severity or above: debug, info, warn or error.
    #[arg(long = "log.level", default_value = "info", help_heading = "Logs")]
    pub log_level: String,
    /// logfmt or json; json unless stderr is a terminal.
    #[arg(long = "log.format", default_value = "", help_heading = "Logs")]
    pub log_format: String,

    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Ask /-/ready of the first listen address; exit 0 when the server is ready.
    Healthcheck,
}

impl Flags {
    /// Reads the process' arguments. `--version` prints and exits.
    ///
    /// # Errors
    /// A usage error that names the flag.
    pub fn read(args: impl IntoIterator<Item = String>) -> Result<Self, ExitError> {
        let args = go_style_args(args);
        if args.iter().skip(1).any(|a| a == "--version") {
            #[allow(clippy::print_stdout, reason = "the answer to --version")]
            {
                println!(
                    "metrics-svc, version {} (compatible with prometheus {COMPATIBLE})\n  platform:         {}/{}",
                    flotilla_telemetry::VERSION,
                    std::env::consts::OS,
                    std::env::consts::ARCH
                );
            }
            std::process::exit(0);
        }
        let mut kept = Vec::with_capacity(args.len());
        for arg in args {
            let name = arg.trim_start_matches("--").split('=').next().unwrap_or_default();
            let plain = name.strip_prefix("no-").unwrap_or(name);
            if arg.starts_with("--") && MISSING.contains(&plain) {
                return Err(ExitError::Usage(format!(
                    "not supported yet: --{plain}; leave the flag out"
                )));
            }
            match name {
                // The negated forms of flags that are off anyway.
                "no-web.enable-lifecycle"
                | "no-web.enable-admin-api"
                | "no-web.enable-remote-write-receiver" => {}
                "no-storage.tsdb.wal-compression" => {
                    kept.push("--storage.tsdb.wal-compression=false".to_owned())
                }
                _ => kept.push(arg),
            }
        }
        let flags: Self = parse_args(kept)?;
        if !["", "logfmt", "json"].contains(&flags.log_format.as_str()) {
            return Err(ExitError::Usage(format!(
                "--log.format: {:?} is neither logfmt nor json",
                flags.log_format
            )));
        }
        if !["debug", "info", "warn", "error"].contains(&flags.log_level.as_str()) {
            return Err(ExitError::Usage(format!(
                "--log.level: {:?} is not debug, info, warn or error",
                flags.log_level
            )));
        }
        Ok(flags)
    }

    /// How long samples are kept, in milliseconds; 0 means for ever.
    pub fn retention_millis(&self) -> i64 {
        match self.retention_time {
            Some(time) => time.as_millis() as i64,
            None if self.retention_size.0 > 0 => 0,
            None => 15 * 86_400_000,
        }
    }

    /// The flags as /api/v1/status/flags shows them.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let millis = |d: Duration| metrics_model::format_millis(d.as_millis() as i64);
        let listen: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
        vec![
            (
                "config.file",
                self.config_file
                    .as_deref()
                    .unwrap_or("prometheus.yml".as_ref())
                    .display()
                    .to_string(),
            ),
            ("log.format", self.log_format.clone()),
            ("log.level", self.log_level.clone()),
            ("query.lookback-delta", millis(self.lookback)),
            ("query.max-concurrency", self.max_concurrency.to_string()),
            ("query.max-samples", self.max_samples.to_string()),
            ("query.timeout", millis(self.timeout)),
            ("storage.tsdb.min-block-duration", millis(self.min_block)),
            ("storage.tsdb.path", self.path.display().to_string()),
            ("storage.tsdb.retention.size", format!("{}B", self.retention_size.0)),
            ("storage.tsdb.retention.time", metrics_model::format_millis(self.retention_millis())),
            ("storage.tsdb.wal-compression", self.wal_compression.to_string()),
            ("storage.tsdb.wal-segment-size", format!("{}B", self.wal_segment.0)),
            ("web.enable-admin-api", self.admin_api.to_string()),
            ("web.enable-lifecycle", self.lifecycle.to_string()),
            ("web.enable-remote-write-receiver", self.remote_write_receiver.to_string()),
            ("web.external-url", self.external_url.clone()),
            ("web.listen-address", listen.join(",")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Flags, ExitError> {
        Flags::read(text.split(' ').map(str::to_owned))
    }

    #[test]
    fn flags_of_prometheus_are_known() {
        let flags = read("metrics-svc --web.listen-address=127.0.0.1:0 -web.listen-address 127.0.0.1:1 --web.enable-lifecycle --storage.tsdb.retention.time=1d").unwrap();
        assert_eq!(
            (flags.listen.len(), flags.lifecycle, flags.retention_millis()),
            (2, true, 86_400_000)
        );
        assert_eq!(read("metrics-svc").unwrap().listen[0].to_string(), "127.0.0.1:9090");
        assert!(!read("metrics-svc --no-storage.tsdb.wal-compression").unwrap().wal_compression);
    }

    #[test]
    fn missing_and_unknown_flags_are_refused_by_name() {
        let error = read("metrics-svc --web.config.file=x").unwrap_err().to_string();
        assert!(error.contains("not supported yet: --web.config.file"), "{error}");
        assert!(
            read("metrics-svc --web.colour=x").unwrap_err().to_string().contains("--web.colour")
        );
    }
}
