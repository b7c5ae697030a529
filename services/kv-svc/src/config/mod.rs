//! What the process is told by flags, `ETCD_*` variables or a configuration file - etcd's names throughout.
//!
//! Every flag of etcd 3.7 is known. One that asks for something this service does not do is refused by name; one
//! that tunes a mechanism this service does not have is accepted with a warning. Unknown names are errors.

mod flags;
mod help;
mod parse;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use flotilla_config::{ExitError, ListenAddr, format_duration, parse_duration};

use crate::engine::retention::{Retention, parse as parse_retention};
use flotilla_server::TlsFiles;
pub use help::{help, version};
pub use parse::Parsed;
pub use values::Url;

use crate::config::values::{Lookup, peers, urls};

/// Version of etcd whose API is served.
pub const ETCD_VERSION: &str = "3.7.1";
/// Version a cluster of this version agrees on.
pub const CLUSTER_VERSION: &str = "3.7.0";
/// Version of the stored format.
pub const STORAGE_VERSION: &str = "3.7.0";

/// What the process does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Serves.
    Serve(Box<Config>),
    /// Prints a text and ends.
    Print(String),
    /// Asks a running process for its health and ends.
    Healthcheck(std::net::SocketAddr),
}

/// Settings of a member.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name.
    pub name: String,
    /// Folder of everything that is kept.
    pub data_dir: PathBuf,
    /// Folder of the log, if another.
    pub wal_dir: Option<PathBuf>,
    /// Where clients connect.
    pub listen_client: Vec<ListenAddr>,
    /// Which of them use TLS.
    pub secure_clients: Vec<bool>,
    /// Where only /metrics and the health pages are served besides.
    pub listen_metrics: Vec<ListenAddr>,
    /// How clients reach this member.
    pub advertise_client: Vec<String>,
    /// How peers reach this member.
    pub advertise_peer: Vec<String>,
    /// First members by name.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// Token that makes ids of this cluster differ from others'.
    pub token: String,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Without a heartbeat before an election.
    pub election: Duration,
    /// Entries between two flushes of the store.
    pub snapshot_count: u64,
    /// Entries kept for members that lag.
    pub catchup_entries: usize,
    /// Bytes the store may have; see [`crate::engine::server::Limits`].
    pub quota_bytes: i64,
    /// Operations a transaction may have.
    pub max_txn_ops: usize,
    /// Bytes a request may have.
    pub max_request_bytes: usize,
    /// Cost of a password hash.
    pub bcrypt_cost: u32,
    /// Time an unused token lives.
    pub token_ttl: Duration,
    /// Streams a client may open on a connection.
    pub max_streams: u32,
    /// Idle time after which a connection is pinged.
    pub keepalive: Duration,
    /// Between two bookmarks of an idle watcher.
    pub watch_progress: Duration,
    /// Whether writes wait for the disk.
    pub fsync: bool,
    /// Level or filter of the log.
    pub log_level: String,
    /// Whether log lines are for people.
    pub log_console: bool,
    /// History to keep.
    pub retention: Retention,
    /// Certificate for clients, when they use TLS.
    pub client_tls: Option<TlsFiles>,
    /// Flags that were accepted but have nothing to tune here.
    pub moot: Vec<&'static str>,
}

impl Config {
    /// Shortest time to live of a lease in seconds: what an election may take, rounded up.
    pub fn min_lease_ttl(&self) -> i64 {
        let election = self.election.as_secs_f64() * 1.5;
        election.ceil() as i64
    }

    /// Reads settings from parsed flags.
    ///
    /// # Errors
    /// Names the flag, its value and what is wrong.
    pub fn from_flags(parsed: &Parsed) -> Result<Self, ExitError> {
        parsed.refuse_unsupported()?;
        let flag = Lookup(parsed);
        let name = flag.text("name");
        let data_dir = match flag.text("data-dir").as_str() {
            "" => PathBuf::from(format!("{name}.etcd")),
            dir => PathBuf::from(dir),
        };
        let advertise_peer =
            urls("initial-advertise-peer-urls", &flag.text("initial-advertise-peer-urls"))?;
        let initial = match flag.text("initial-cluster").as_str() {
            "" => vec![(name.clone(), advertise_peer.clone())],
            text => peers(text)?,
        };
        if initial.len() > 1 {
            return Err(ExitError::usage(
                "not supported yet: --initial-cluster with more than one member",
            ));
        }
        if !initial.iter().any(|(member, _)| *member == name) {
            return Err(ExitError::usage(format!(
                "--initial-cluster does not name this member ({name}); add {name}=PEER_URL or set --name"
            )));
        }
        let config = Self {
            data_dir,
            wal_dir: Some(flag.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            listen_client: flag.listen("listen-client-urls")?,
            secure_clients: urls("listen-client-urls", &flag.text("listen-client-urls"))?
                .iter()
                .map(|url| url.starts_with("https://") || url.starts_with("unixs://"))
                .collect(),
            listen_metrics: flag.listen("listen-metrics-urls")?,
            advertise_client: urls("advertise-client-urls", &flag.text("advertise-client-urls"))?,
            advertise_peer,
            initial_cluster: initial,
            token: flag.text("initial-cluster-token"),
            heartbeat: Duration::from_millis(flag.number("heartbeat-interval")?),
            election: Duration::from_millis(flag.number("election-timeout")?),
            snapshot_count: flag.number("snapshot-count")?,
            catchup_entries: flag.number("snapshot-catchup-entries")?,
            quota_bytes: flag.number("quota-backend-bytes")?,
            max_txn_ops: flag.number("max-txn-ops")?,
            max_request_bytes: flag.number("max-request-bytes")?,
            bcrypt_cost: flag.number("bcrypt-cost")?,
            token_ttl: Duration::from_secs(flag.number("auth-token-ttl")?),
            max_streams: flag.number("max-concurrent-streams")?,
            keepalive: flag.duration("grpc-keepalive-interval")?,
            watch_progress: flag.duration("watch-progress-notify-interval")?,
            fsync: !flag.switch("unsafe-no-fsync")?,
            log_level: flag.text("log-level"),
            log_console: flag.text("log-format") == "console",
            retention: parse_retention(
                &flag.text("auto-compaction-mode"),
                &flag.text("auto-compaction-retention"),
            )
            .map_err(ExitError::usage)?,
            client_tls: flag.client_tls()?,
            moot: parsed.moot(),
            name,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ExitError> {
        if self.election < 5 * self.heartbeat {
            return Err(ExitError::usage(format!(
                "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
                self.election.as_millis(),
                self.heartbeat.as_millis()
            )));
        }
        if self.watch_progress < Duration::from_millis(100) {
            return Err(ExitError::usage(format!(
                "--watch-progress-notify-interval {} is too short; use 100ms or more",
                format_duration(self.watch_progress)
            )));
        }
        let secure = self.secure_clients.iter().any(|secure| *secure);
        if secure && self.client_tls.is_none() {
            return Err(ExitError::usage(
                "--listen-client-urls has https URLs; give --cert-file and --key-file",
            ));
        }
        if self.client_tls.is_some() && self.secure_clients.iter().any(|secure| !*secure) {
            return Err(ExitError::usage(
                "--cert-file is set; make every URL of --listen-client-urls https",
            ));
        }
        if self.listen_client.is_empty() {
            return Err(ExitError::usage("--listen-client-urls is empty; give at least one URL"));
        }
        Ok(())
    }
}

/// Reads the command line; variables come from `env`.
///
/// # Errors
/// Names what is unknown, malformed or not supported yet.
pub fn read(
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Action, ExitError> {
    let args: Vec<String> = args.into_iter().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "healthcheck") {
        return healthcheck(&args[1..]);
    }
    let parsed = Parsed::read(&args, env)?;
    if parsed.wants_version() {
        return Ok(Action::Print(version()));
    }
    if parsed.wants_help() {
        return Ok(Action::Print(help()));
    }
    Config::from_flags(&parsed).map(|config| Action::Serve(Box::new(config)))
}

fn healthcheck(args: &[String]) -> Result<Action, ExitError> {
    let address = match args {
        [] => "127.0.0.1:2379",
        [address] => address.trim_start_matches("--address=").trim_start_matches("http://"),
        [flag, address] if flag == "--address" => address.trim_start_matches("http://"),
        _ => {
            return Err(ExitError::usage(
                "healthcheck takes one address: healthcheck [--address IP:PORT]",
            ));
        }
    };
    let address = address.parse().map_err(|_| {
        ExitError::usage(format!("healthcheck: {address:?} is no address; write IP:PORT"))
    })?;
    Ok(Action::Healthcheck(address))
}

/// Reads a duration as Go writes it; a bare number is refused.
fn duration(flag: &str, text: &str) -> Result<Duration, ExitError> {
    parse_duration(text).map_err(|error| ExitError::usage(format!("--{flag}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ExitError> {
        let args = std::iter::once("kv-svc").chain(args.iter().copied()).map(str::to_owned);
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        match read(args, env)? {
            Action::Serve(config) => Ok(*config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_etcds() {
        let config = config(&[], &[]).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.listen_client[0].to_string(), "127.0.0.1:2379");
        assert_eq!(config.advertise_peer, ["http://localhost:2380"]);
        assert_eq!((config.max_txn_ops, config.max_request_bytes), (128, 1_572_864));
        assert_eq!(config.min_lease_ttl(), 2);
    }

    #[test]
    fn flags_win_over_variables_and_every_spelling_is_read() {
        let env = [("ETCD_NAME", "env"), ("ETCD_MAX_TXN_OPS", "7"), ("PATH", "x")];
        let config =
            config(&["-name=flag", "--unsafe-no-fsync", "--quota-backend-bytes", "5"], &env)
                .unwrap();
        assert_eq!((config.name.as_str(), config.max_txn_ops, config.quota_bytes), ("flag", 7, 5));
        assert!(!config.fsync);
    }

    #[test]
    fn refusals_name_the_flag() {
        for (args, want) in [
            (&["--colour"][..], "--colour"),
            (&["--auto-tls"], "not supported yet: --auto-tls"),
            (&["--cert-file", "x"], "--key-file"),
            (&["--max-txn-ops=many"], "--max-txn-ops"),
            (&["--election-timeout=100"], "5 times"),
            (&["--name"], "--name"),
            (&["extra"], "extra"),
        ] {
            let error = config(args, &[]).unwrap_err().to_string();
            assert!(error.contains(want), "{args:?}: {error}");
        }
        let error = config(&[], &[("ETCD_COLOUR", "red")]).unwrap_err().to_string();
        assert!(error.contains("ETCD_COLOUR"), "{error}");
    }
}
