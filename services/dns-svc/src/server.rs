//! From a plan to running servers: compiles sites, binds every address, then serves.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use flotilla_config::{ExitError, ListenAddr};
use flotilla_kube_client::{Client, KubeConfig};
use flotilla_proto::dns::flotilla::dns::v1 as pb;
use flotilla_server::{Grpc, Listener, ServeOptions, Shutdown, serve as serve_http};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::api::{self, AdminService};
use crate::corefile::Scheme;
use crate::engine::kubernetes::{PodsMode, Store};
use crate::engine::{Backend, Cache, Hosts, Kubernetes, Site, Sites};
use crate::metrics::Metrics;
use crate::plan::{Block, KubernetesSettings, Plan};
use crate::remote::{Forward, follow};

/// How long startup waits for the API server before it serves without its names.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(5);
const NAMESPACES_SERVICES: u8 = 1 | 2;
const SLICES: u8 = 4;
const PODS: u8 = 8;

/// Serves a plan until `shutdown` fires.
///
/// # Errors
/// When an address cannot be bound or a kubeconfig cannot be read; nothing is left running then.
pub async fn serve(
    plan: Plan,
    corefile: &str,
    quiet: bool,
    shutdown: Shutdown,
) -> Result<(), ExitError> {
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let registry = Arc::new(registry);
    let mut builder = Builder { ports: BTreeMap::new(), stores: Vec::new() };
    for block in &plan.blocks {
        builder.add(block)?;
    }
    let stores = std::mem::take(&mut builder.stores);
    let ports: BTreeMap<u16, Arc<ArcSwap<Sites>>> = builder
        .ports
        .into_iter()
        .map(|(port, sites)| {
            (port, Arc::new(ArcSwap::from_pointee(Sites::new(sites, port, metrics.clone()))))
        })
        .collect();
    let bound = bind(&plan, &ports).await?;
    let pages = bind_pages(&plan, &registry, &stores, corefile, &ports).await?;
    wait_for_sync(&stores).await;
    let lameduck =
        plan.blocks.iter().filter_map(|block| block.health).map(|(_, lameduck)| lameduck).max();
    let mut tasks = Vec::new();
    for (listener, router) in pages {
        tasks.push(tokio::spawn(serve_http(
            listener,
            router,
            None,
            ServeOptions::default(),
            shutdown.clone(),
        )));
    }
    let mut workers = Vec::new();
    for (udp, tcp, sites) in bound {
        for socket in udp {
            workers.push(tokio::spawn(api::serve_udp(Arc::new(socket), sites.clone())));
        }
        workers.push(tokio::spawn(api::serve_tcp(tcp, sites)));
    }
    metrics.reloaded.set(now());
    banner(&plan, quiet);
    shutdown.triggered().await;
    // Health pages say no more, but queries are answered for as long as clients may still come.
    tokio::time::sleep(lameduck.unwrap_or_default()).await;
    workers.iter().for_each(tokio::task::JoinHandle::abort);
    for task in tasks {
        // A page that panicked has ended as well.
        let _ = task.await;
    }
    Ok(())
}

struct Builder {
    ports: BTreeMap<u16, Vec<Arc<Site>>>,
    stores: Vec<(Arc<Store>, u8)>,
}

impl Builder {
    /// Compiles one block: its plugins are shared by all of its zones.
    fn add(&mut self, block: &Block) -> Result<(), ExitError> {
        let kubernetes =
            block.kubernetes.as_ref().map(|settings| self.kubernetes(settings)).transpose()?;
        for key in &block.keys {
            let Scheme::Dns = key.scheme;
            let mut backends = Vec::new();
            backends.extend(
                block
                    .hosts
                    .as_ref()
                    .map(|(text, ttl, pass)| Backend::Hosts(Hosts::new(text, *ttl, *pass))),
            );
            backends.extend(kubernetes.clone().map(Backend::Kubernetes));
            backends.extend(
                block.forward.clone().map(|options| Backend::Forward(Forward::new(options))),
            );
            backends.extend(block.whoami.then_some(Backend::Whoami));
            let site = Site {
                zone: key.zone.clone(),
                zone_text: key.zone.to_string(),
                server: format!("dns://:{}", key.port),
                backends,
                cache: block.cache.clone().map(Cache::new),
                errors: block.errors,
                log: block.log,
                metrics: block.prometheus.is_some(),
            };
            self.ports.entry(key.port).or_default().push(Arc::new(site));
        }
        Ok(())
    }

    fn kubernetes(&mut self, settings: &KubernetesSettings) -> Result<Arc<Kubernetes>, ExitError> {
        let config = match (&settings.kubeconfig, &settings.endpoint) {
            (Some(file), _) => KubeConfig::from_file(file).map_err(ExitError::config)?,
            (None, Some(url)) => KubeConfig::plain(url),
            (None, None) => KubeConfig::in_cluster().map_err(ExitError::config)?,
        };
        let client = Client::new(config, "dns-svc").map_err(ExitError::config)?;
        let store = Arc::new(Store::default());
        follow(&client, &settings.watch, &store);
        let mut wanted = NAMESPACES_SERVICES;
        wanted |= if settings.watch.endpoints { SLICES } else { 0 };
        wanted |= if settings.options.pods == PodsMode::Verified { PODS } else { 0 };
        self.stores.push((store.clone(), wanted));
        Ok(Arc::new(Kubernetes::new(settings.options.clone(), store)))
    }
}

type Bound = (Vec<tokio::net::UdpSocket>, TcpListener, Arc<ArcSwap<Sites>>);

async fn bind(
    plan: &Plan,
    ports: &BTreeMap<u16, Arc<ArcSwap<Sites>>>,
) -> Result<Vec<Bound>, ExitError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for block in &plan.blocks {
        for key in &block.keys {
            addresses.extend(block.bind.iter().map(|ip| SocketAddr::new(*ip, key.port)));
        }
    }
    addresses.sort();
    addresses.dedup();
    let mut bound = Vec::new();
    for address in addresses {
        let Some(sites) = ports.get(&address.port()) else { continue };
        // TCP first: it does not share its port, so it finds another server there.
        let Listener::Tcp(tcp) =
            Listener::bind(&ListenAddr::Tcp(address)).await.map_err(ExitError::unavailable)?
        else {
            continue;
        };
        let address = tcp.local_addr().map_err(ExitError::unavailable)?;
        let fail =
            |error| ExitError::unavailable(format!("cannot listen on {address} (udp): {error}"));
        let udp: Result<Vec<_>, _> = (0..workers).map(|_| api::bind_udp(address)).collect();
        tracing::info!(%address, "listening for DNS over UDP and TCP");
        bound.push((udp.map_err(fail)?, tcp, sites.clone()));
    }
    Ok(bound)
}

async fn bind_pages(
    plan: &Plan,
    registry: &Arc<Registry>,
    stores: &[(Arc<Store>, u8)],
    corefile: &str,
    ports: &BTreeMap<u16, Arc<ArcSwap<Sites>>>,
) -> Result<Vec<(Listener, Router)>, ExitError> {
    let mut routers: HashMap<SocketAddr, Router> = HashMap::new();
    let mut add = |address: SocketAddr, router: Router, what: &str| {
        tracing::debug!(%address, what, "page");
        let merged = routers.remove(&address).unwrap_or_default().merge(router);
        routers.insert(address, merged);
    };
    let mut pages: [HashMap<SocketAddr, ()>; 4] = Default::default();
    for block in &plan.blocks {
        // The same page on the same address in several blocks is one page.
        if let Some((address, _)) = block.health
            && pages[0].insert(address, ()).is_none()
        {
            add(address, api::health(), "health");
        }
        if let Some(address) = block.ready
            && pages[1].insert(address, ()).is_none()
        {
            let stores = stores.to_vec();
            let unready = move || {
                stores
                    .iter()
                    .filter(|(store, wanted)| !store.is_synced(*wanted))
                    .map(|_| "kubernetes")
                    .collect()
            };
            add(address, api::ready(unready), "ready");
        }
        if let Some(address) = block.prometheus
            && pages[2].insert(address, ()).is_none()
        {
            add(address, api::metrics(registry.clone()), "metrics");
        }
        if let Some(address) = block.admin
            && pages[3].insert(address, ()).is_none()
        {
            let service = AdminService::new(corefile, ports.values().cloned().collect());
            let grpc = Grpc::new([flotilla_proto::dns::FILE_DESCRIPTOR_SET])
                .add(pb::cache_service_server::CacheServiceServer::new(service.clone()))
                .add(pb::config_service_server::ConfigServiceServer::new(service.clone()))
                .add(pb::resolve_service_server::ResolveServiceServer::new(service));
            let (router, health) = grpc.into_router().await;
            health.set_serving(true).await;
            add(address, router, "admin");
        }
    }
    let mut listeners = Vec::new();
    for (address, router) in routers {
        let listener =
            Listener::bind(&ListenAddr::Tcp(address)).await.map_err(ExitError::unavailable)?;
        let bound = listener.local_addr().map_err(ExitError::unavailable)?;
        tracing::info!(address = %bound, "listening for HTTP");
        listeners.push((listener, router));
    }
    Ok(listeners)
}

/// Waits a moment for the names of the cluster; without them the server starts all the same, and is not ready.
async fn wait_for_sync(stores: &[(Arc<Store>, u8)]) {
    let synced = async {
        while !stores.iter().all(|(store, wanted)| store.is_synced(*wanted)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(STARTUP_TIMEOUT, synced).await.is_err() {
        tracing::warn!("plugin/kubernetes: starting server with unsynced Kubernetes API");
    }
}

#[allow(clippy::print_stdout, reason = "scripts wait for CoreDNS's banner on stdout")]
fn banner(plan: &Plan, quiet: bool) {
    if quiet {
        return;
    }
    for block in &plan.blocks {
        for key in &block.keys {
            for ip in block.bind.iter().filter(|ip| !ip.is_unspecified()) {
                println!("{}:{} on {ip}", key.zone, key.port);
            }
            if block.bind.iter().any(std::net::IpAddr::is_unspecified) {
                println!("{}:{}", key.zone, key.port);
            }
        }
    }
    println!(
        "CoreDNS-{}\nlinux/{}, dns-svc {}",
        crate::COREDNS_VERSION,
        std::env::consts::ARCH,
        flotilla_telemetry::VERSION
    );
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)).unwrap_or_default()
}
