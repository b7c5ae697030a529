//! Starting the server: certificates, store, cache, listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use flotilla_config::{ExitError, ListenAddr};
use flotilla_kube_client::KubeConfig;
use flotilla_server::{Listener, Readiness, ServeOptions, Shutdown, TlsFiles, TlsServer, serve};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::addresses::Addresses;
use crate::identity::{Authenticator, Authorizer, Certs, Mode, ServiceTokens};
use crate::metrics::Metrics;
use crate::server::{Api, router};
use crate::store::{Cache, Etcd, Feed, follow};
use crate::subresources::KubeletClient;
use crate::{Config, bootstrap};

/// A server that serves.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The authority of the generated certificates (PEM file).
    pub ca: PathBuf,
    /// Settings for clients inside this process.
    pub client: KubeConfig,
    /// Whether the cache follows the store.
    pub readiness: Readiness,
    /// Ends when the server has drained.
    pub task: JoinHandle<()>,
}

/// Binds the address and serves until `shutdown` fires. The store may come later.
///
/// # Errors
/// When a flag, file or address cannot be used; the message names it.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Running, ExitError> {
    let modes: Result<Vec<Mode>, String> =
        config.authorization_mode.iter().map(|m| m.parse()).collect();
    let modes = modes.map_err(ExitError::Usage)?;
    let addresses =
        Addresses::new(&config.service_cluster_ip_range, &config.service_node_port_range)
            .map_err(ExitError::Usage)?;
    let advertised = advertised(&config);
    let certs = certificates(&config, advertised, &addresses)?;
    let key =
        config.service_account_signing_key_file.clone().unwrap_or_else(|| certs.path("sa.key"));
    let tokens =
        ServiceTokens::load(&key, &config.service_account_issuer).map_err(ExitError::Config)?;
    let tokens = Arc::new(tokens);
    let channel = flotilla_client::balanced_channel(&config.etcd_servers)
        .map_err(|e| ExitError::Usage(format!("--etcd-servers: {e}")))?;
    let cache = Arc::new(Cache::default());
    let own_tokens = certs.path("tokens.csv");
    let mut files = vec![own_tokens.as_path()];
    files.extend(config.token_auth_file.as_deref());
    let authenticator =
        Authenticator::new(&files, tokens.clone(), cache.clone(), config.anonymous_auth)
            .map_err(ExitError::Config)?;
    let tls = tls(&config, &certs)?;
    let listener =
        Listener::bind(&ListenAddr::Tcp(SocketAddr::new(config.bind_address, config.secure_port)))
            .await
            .map_err(ExitError::unavailable)?;
    let address = match listener.local_addr().map_err(ExitError::unavailable)? {
        ListenAddr::Tcp(address) => address,
        ListenAddr::Unix(_) => {
            return Err(ExitError::Usage("--bind-address is no TCP address".to_owned()));
        }
    };
    let kubeconfig = certs.write_kubeconfig(address).map_err(ExitError::unavailable)?;
    let client = KubeConfig::from_file(&kubeconfig).map_err(ExitError::config)?;
    let kubelets = KubeletClient::new(&config).map_err(ExitError::Config)?;
    let prefix = format!("{}/", config.etcd_prefix.trim_end_matches('/'));
    let readiness = Readiness::new();
    let api = Arc::new(Api {
        etcd: Etcd::new(channel),
        cache: cache.clone(),
        prefix: prefix.clone(),
        readiness: readiness.clone(),
        addresses,
        authenticator,
        authorizer: Authorizer::new(modes, cache.clone()),
        tokens,
        metrics: Metrics::default(),
        kubelets,
        shutdown: shutdown.clone(),
        event_lease: Mutex::default(),
        config,
    });
    let feed = Feed { etcd: api.etcd.clone(), cache, prefix, readiness: readiness.clone() };
    tokio::spawn(follow(feed, shutdown.clone()));
    tokio::spawn(bootstrap::keep(api.clone(), SocketAddr::new(advertised, address.port())));
    tokio::spawn(bootstrap::compact(api.clone()));
    tracing::info!(%address, "serving the Kubernetes API (https)");
    let task =
        tokio::spawn(serve(listener, router(api), Some(tls), ServeOptions::default(), shutdown));
    Ok(Running { address, kubeconfig, ca: certs.path("ca.crt"), client, readiness, task })
}

fn advertised(config: &Config) -> IpAddr {
    match config.advertise_address {
        Some(address) => address,
        None if config.bind_address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => config.bind_address,
    }
}

fn certificates(
    config: &Config,
    advertised: IpAddr,
    addresses: &Addresses,
) -> Result<Certs, ExitError> {
    let mut names = config.tls_sans.clone();
    names.push(addresses.first().to_string());
    names.push(advertised.to_string());
    if !config.bind_address.is_unspecified() {
        names.push(config.bind_address.to_string());
    }
    names.sort();
    names.dedup();
    Certs::prepare(&config.cert_dir, &names).map_err(ExitError::unavailable)
}

fn tls(config: &Config, certs: &Certs) -> Result<Arc<TlsServer>, ExitError> {
    let files = TlsFiles {
        cert: config.tls_cert_file.clone().unwrap_or_else(|| certs.path("apiserver.crt")),
        key: config.tls_private_key_file.clone().unwrap_or_else(|| certs.path("apiserver.key")),
        client_ca: Some(config.client_ca_file.clone().unwrap_or_else(|| certs.path("ca.crt"))),
        require_client_cert: false,
    };
    TlsServer::load(files).map(Arc::new).map_err(ExitError::config)
}
