//! The gateway: an edge and service proxy that takes Envoy's place.
//!
//! It reads a plain Envoy v3 bootstrap (`bootstrap/`), follows a control plane over ADS (`xds/`), and puts what both
//! say in force through `manager/`. Requests come in through `net/` (listeners, connection manager, pools), are decided
//! on in `engine/` (routes, balancing, retries) and counted in `stats/` and `access_log/`. `api/` is the admin port.
//!
//! The data path reads shared state only through atomically swapped snapshots: a change of routes, clusters or
//! endpoints never stops a request. Endpoints that leave finish what they have.

pub mod access_log;
pub mod api;
pub mod bootstrap;
pub mod config;
pub mod engine;
pub mod manager;
pub mod net;
pub mod registry;
pub mod state;
pub mod stats;
pub mod xds;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bootstrap::{ConfigError, pb};
use config::Config;
use flotilla_config::{ExitError, ListenAddr};
use flotilla_server::{Grpc, Listener, ServeOptions, Shutdown, serve};
use manager::Manager;
use net::address::Address;
use state::State;

/// How long streams may go on after SIGTERM unless `--drain-time-s` says otherwise.
const DRAIN: Duration = Duration::from_secs(10);

/// Reads the bootstrap and everything in it without binding anything; returns what to call it.
///
/// # Errors
/// Names the field that is unknown, not implemented, or cannot work.
pub fn validate(config: &Config) -> Result<String, ExitError> {
    let (bootstrap, name) = read(config)?;
    let state = State::new(config.workers());
    let manager = Manager::new(state.clone(), config.workers());
    static_clusters(&manager, &bootstrap).map_err(ExitError::config)?;
    for listener in static_listeners(&bootstrap) {
        net::listener_config::ListenerConfig::read(&state, listener).map_err(ExitError::config)?;
    }
    ads(&bootstrap).map_err(ExitError::config)?;
    admin_address(&bootstrap).map_err(ExitError::config)?;
    Ok(name)
}

/// Serves until `shutdown` fires, then drains.
///
/// # Errors
/// When the configuration cannot work or an address cannot be bound.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), ExitError> {
    let (bootstrap, _) = read(&config)?;
    let state = State::new(config.workers());
    let manager = Manager::new(state.clone(), config.workers());
    let ads = ads(&bootstrap).map_err(ExitError::config)?;
    let admin = admin(&config, &bootstrap, &manager, &shutdown).await?;
    static_clusters(&manager, &bootstrap).map_err(ExitError::config)?;
    for listener in static_listeners(&bootstrap) {
        manager.listeners.apply(listener, false).await.map_err(|error| match error {
            ConfigError::Invalid { path, reason } if path.ends_with(".address") => {
                ExitError::Unavailable(format!("{path}: {reason}"))
            }
            error => ExitError::config(error),
        })?;
    }
    match ads {
        Some(ads) => {
            let (manager, shutdown) = (manager.clone(), shutdown.clone());
            tokio::spawn(async move {
                if let Err(error) = xds::run(ads, manager, shutdown).await {
                    tracing::error!(%error, "the control plane cannot be asked");
                }
            });
        }
        None => state.initialized.store(true, Ordering::Release),
    }
    tracing::info!("all listeners are up");
    shutdown.triggered().await;
    state.failing.store(true, Ordering::Release);
    let limit = config.drain_time_s.map_or(DRAIN, Duration::from_secs);
    manager.listeners.drain(limit).await;
    if let Some(admin) = admin {
        // It ends on the same signal; a panic there must not spoil the exit.
        let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    }
    Ok(())
}

fn read(config: &Config) -> Result<(pb::bootstrap::Bootstrap, String), ExitError> {
    let (text, overlay, name) = config.texts()?;
    let read =
        bootstrap::from_text("envoy.config.bootstrap.v3.Bootstrap", &text, overlay.as_deref());
    let mut read: pb::bootstrap::Bootstrap = read.map_err(|error| {
        ExitError::Config(format!("error initializing configuration '{name}': {error}"))
    })?;
    let node = read.node.get_or_insert_default();
    if let Some(id) = &config.service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &config.service_cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &config.service_zone {
        node.locality.get_or_insert_default().zone.clone_from(zone);
    }
    Ok((read, name))
}

fn static_listeners(bootstrap: &pb::bootstrap::Bootstrap) -> &[pb::listener::Listener] {
    bootstrap.static_resources.as_ref().map(|s| s.listeners.as_slice()).unwrap_or_default()
}

fn static_clusters(
    manager: &Manager,
    bootstrap: &pb::bootstrap::Bootstrap,
) -> Result<(), ConfigError> {
    let clusters =
        bootstrap.static_resources.as_ref().map(|s| s.clusters.as_slice()).unwrap_or_default();
    let mut names: Vec<&str> = clusters.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(ConfigError::invalid(
            "static_resources.clusters",
            format!("duplicate cluster '{}'", twice[0]),
        ));
    }
    clusters.iter().try_for_each(|cluster| manager.clusters.apply(cluster, false))
}

/// Where the control plane is, when the bootstrap names one.
fn ads(bootstrap: &pb::bootstrap::Bootstrap) -> Result<Option<xds::AdsConfig>, ConfigError> {
    use pb::core::{api_config_source::ApiType, grpc_service::TargetSpecifier};
    let Some(dynamic) = &bootstrap.dynamic_resources else { return Ok(None) };
    for (source, path) in [
        (&dynamic.cds_config, "dynamic_resources.cds_config"),
        (&dynamic.lds_config, "dynamic_resources.lds_config"),
    ] {
        if source.is_some() {
            net::cluster_config::ads_only(source.as_ref(), path)?;
        }
    }
    let path = "dynamic_resources.ads_config";
    let Some(config) = &dynamic.ads_config else {
        return if dynamic.cds_config.is_some() || dynamic.lds_config.is_some() {
            Err(ConfigError::invalid(path, "it is missing, but ads is asked for"))
        } else {
            Ok(None)
        };
    };
    let delta = match ApiType::try_from(config.api_type) {
        Ok(ApiType::Grpc) => false,
        Ok(ApiType::DeltaGrpc) => true,
        _ => {
            return Err(ConfigError::unsupported(format!(
                "{path}.api_type: kinds other than GRPC and DELTA_GRPC"
            )));
        }
    };
    let [service] = config.grpc_services.as_slice() else {
        return Err(ConfigError::invalid(format!("{path}.grpc_services"), "exactly one is needed"));
    };
    let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
        return Err(ConfigError::unsupported(format!(
            "{path}.grpc_services[0]: kinds other than envoy_grpc"
        )));
    };
    Ok(Some(xds::AdsConfig {
        endpoint: control_plane(bootstrap, &target.cluster_name)?,
        delta,
        node: bootstrap.node.clone().unwrap_or_default(),
        clusters: dynamic.cds_config.is_some(),
        listeners: dynamic.lds_config.is_some(),
    }))
}

/// The address of the static cluster the control plane is.
fn control_plane(bootstrap: &pb::bootstrap::Bootstrap, name: &str) -> Result<String, ConfigError> {
    let path =
        format!("dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name {name}");
    let clusters =
        bootstrap.static_resources.as_ref().map(|s| s.clusters.as_slice()).unwrap_or_default();
    let cluster = clusters.iter().find(|c| c.name == name);
    let cluster = cluster
        .ok_or_else(|| ConfigError::invalid(path.clone(), "there is no such static cluster"))?;
    if cluster.transport_socket.is_some() {
        return Err(ConfigError::unsupported(format!("{path}: a control plane over TLS")));
    }
    let endpoints = cluster
        .load_assignment
        .as_ref()
        .map(|a| net::cluster_config::endpoints(a, true))
        .transpose()?;
    match endpoints.unwrap_or_default().as_slice() {
        [endpoint] => Ok(match &endpoint.address {
            Address::Unix(socket) => format!("unix://{}", socket.display()),
            address => format!("http://{address}"),
        }),
        [] => Err(ConfigError::invalid(path, "it has no endpoint")),
        _ => Err(ConfigError::unsupported(format!("{path}: more than one endpoint"))),
    }
}

fn admin_address(bootstrap: &pb::bootstrap::Bootstrap) -> Result<Option<ListenAddr>, ConfigError> {
    let Some(address) = bootstrap.admin.as_ref().and_then(|admin| admin.address.as_ref()) else {
        return Ok(None);
    };
    Address::read(Some(address), "admin.address", false).map(|address| match address {
        Address::Tcp(address) => Some(ListenAddr::Tcp(address)),
        Address::Unix(path) => Some(ListenAddr::Unix(path)),
        Address::Name(..) => None,
    })
}

async fn admin(
    config: &Config,
    bootstrap: &pb::bootstrap::Bootstrap,
    manager: &Arc<Manager>,
    shutdown: &Shutdown,
) -> Result<Option<tokio::task::JoinHandle<()>>, ExitError> {
    let Some(address) = admin_address(bootstrap).map_err(ExitError::config)? else {
        return Ok(None);
    };
    let listener = Listener::bind(&address).await.map_err(ExitError::unavailable)?;
    let bound = listener.local_addr().map_err(ExitError::unavailable)?;
    tracing::info!(admin = true, address = %bound, "listening");
    if let Some(path) = &config.admin_address_path {
        let fail =
            |error| ExitError::Unavailable(format!("cannot write {}: {error}", path.display()));
        std::fs::write(path, bound.to_string()).map_err(fail)?;
    }
    let instances = registry::Instances::new(manager.clone());
    let expiring = instances.clone();
    let (grpc, health) = Grpc::new(flotilla_proto::ALL_FILE_DESCRIPTOR_SETS.iter().copied())
        .add(api::registry::service(instances))
        .into_router()
        .await;
    health.set_serving(true).await;
    let pages = api::admin::router(Arc::new(api::admin::Admin {
        manager: manager.clone(),
        bootstrap: bootstrap.clone(),
        options: serde_json::to_value(config).map_err(ExitError::runtime)?,
        version: config::version(),
        shutdown: shutdown.clone(),
    }));
    // The pages' fallback answers for both; gRPC paths are all known to the first router.
    let router = grpc.fallback_service(pages);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(250)) => expiring.expire(),
                () = stop.triggered() => return,
            }
        }
    });
    let options = ServeOptions { drain: Duration::from_secs(1), ..ServeOptions::default() };
    Ok(Some(tokio::spawn(serve(listener, router, None, options, shutdown.clone()))))
}
