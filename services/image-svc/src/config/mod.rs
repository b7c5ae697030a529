//! Flags, and the configuration file of distribution.

mod args;
mod distribution_yml;

use std::path::PathBuf;
use std::time::Duration;

use flotilla_config::{ExitError, ListenAddr};
use flotilla_server::TlsFiles;
use http::{HeaderName, HeaderValue};

pub use args::{Args, Command, LogFormat};

/// Everything a process needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the registry, the admin pages and the own API listen.
    pub http: ListenAddr,
    /// Where admin pages listen besides (`http.debug.addr`).
    pub debug: Option<ListenAddr>,
    /// TLS of the registry.
    pub tls: Option<TlsFiles>,
    /// Socket of the CRI image service and containerd's services.
    pub cri: Option<ListenAddr>,
    /// Folder of the store.
    pub root: PathBuf,
    /// Folder of `HOST/hosts.toml` files.
    pub hosts_dir: PathBuf,
    /// Registries spoken to without TLS, besides loopback.
    pub insecure: Vec<String>,
    /// Registry behaviour.
    pub registry: RegistrySettings,
    /// How long content without a name is kept.
    pub gc_delay: Duration,
    /// Age at which unfinished uploads are dropped, and how often that is looked at.
    pub purge: Option<(Duration, Duration)>,
    /// How long requests may go on after SIGTERM.
    pub drain: Duration,
    /// Log level of the file; a flag wins.
    pub log_level: Option<String>,
}

/// How the registry behaves.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Whether DELETE works.
    pub delete: bool,
    /// Whether only reads work.
    pub read_only: bool,
    /// Prefix of Location headers; they are relative without it.
    pub host: Option<String>,
    /// Headers of every response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Largest manifest, bytes.
    pub max_manifest: usize,
    /// Largest blob, bytes.
    pub max_blob: u64,
    /// Unfinished uploads at once.
    pub max_uploads: usize,
    /// Whether manifests may name content that is not there.
    pub sparse: bool,
    /// Realm and htpasswd file; everyone is let in without.
    pub htpasswd: Option<(String, PathBuf)>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            delete: true,
            read_only: false,
            host: None,
            headers: Vec::new(),
            max_manifest: 4 << 20,
            max_blob: 1 << 40,
            max_uploads: 20_000,
            sparse: false,
            htpasswd: None,
        }
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn default_root() -> PathBuf {
    if is_root() {
        return "/var/lib/flotilla/image".into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into()))
            .join(".local/share")
    };
    data.unwrap_or_else(home).join("flotilla/image")
}

fn default_socket() -> PathBuf {
    if is_root() {
        return "/run/flotilla/image.sock".into();
    }
    std::env::var_os("XDG_RUNTIME_DIR")
        .map_or_else(default_root, PathBuf::from)
        .join("flotilla/image.sock")
}

impl Config {
    /// What flags, environment and the configuration file say.
    ///
    /// # Errors
    /// One line that names the flag, variable, or the file and its line.
    pub fn load(args: &Args) -> Result<Self, ExitError> {
        let mut config = Self {
            http: ListenAddr::Tcp(([127, 0, 0, 1], 5000).into()),
            debug: None,
            tls: None,
            cri: Some(ListenAddr::Unix(default_socket())),
            root: default_root(),
            hosts_dir: args.hosts_dir.clone(),
            insecure: args.insecure_registry.clone(),
            registry: RegistrySettings::default(),
            gc_delay: Duration::from_secs(3600),
            purge: Some((Duration::from_secs(7 * 86_400), Duration::from_secs(86_400))),
            drain: Duration::from_secs(10),
            log_level: None,
        };
        let file = match &args.command {
            Some(Command::Serve { config }) => config
                .clone()
                .or_else(|| std::env::var_os("REGISTRY_CONFIGURATION_PATH").map(PathBuf::from)),
            _ => None,
        };
        if let Some(path) = &file {
            // As a stand-in for distribution's registry it opens no other socket unless asked.
            config.cri = None;
            let text = std::fs::read_to_string(path).map_err(|error| {
                ExitError::Config(format!("cannot read {}: {error}", path.display()))
            })?;
            distribution_yml::apply(
                &mut config,
                &path.display().to_string(),
                &text,
                std::env::vars(),
            )?;
        } else {
            distribution_yml::apply(
                &mut config,
                "environment",
                "version: 0.1\n",
                std::env::vars(),
            )?;
        }
        if let Some(address) = &args.http_addr {
            config.http = address
                .parse()
                .map_err(|error| ExitError::Usage(format!("--http-addr: {error}")))?;
        }
        match args.cri_address.as_deref() {
            None => {}
            Some("") => config.cri = None,
            Some(text) => {
                let address = text
                    .parse()
                    .map_err(|error| ExitError::Usage(format!("--cri-address: {error}")))?;
                config.cri = Some(address);
            }
        }
        if let Some(root) = &args.root {
            config.root.clone_from(root);
        }
        if let Some(delay) = &args.gc_delay {
            config.gc_delay = flotilla_config::parse_duration(delay)
                .map_err(|error| ExitError::Usage(format!("--gc-delay: {error}")))?;
        }
        Ok(config)
    }
}
