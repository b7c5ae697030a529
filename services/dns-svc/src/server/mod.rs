//! From a Corefile to running servers, and from one Corefile to the next without losing a query.
//!
//! A reload compiles and binds everything new before anything old is touched; then the sites of each port are
//! swapped at once. Sockets that both plans want, and blocks that say the same in both, are kept as they are.

mod build;
mod pages;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use build::{Compiled, compile};
use flotilla_config::{ExitError, ListenAddr};
use flotilla_server::{Listener, Shutdown};
use pages::Page;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::api::{self, Running};
use crate::config::Source;
use crate::engine::{LoopGuard, Site, Sites};
use crate::metrics::Metrics;
use crate::plan::{Plan, Reload};

/// How long startup waits for the API server before it serves without its names.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves what `source` says until `shutdown` fires.
///
/// # Errors
/// When the Corefile is wrong, an address cannot be bound or a kubeconfig cannot be read, and nothing is left
/// running then; and when a forwarding loop is found.
pub async fn serve(source: Source, quiet: bool, shutdown: Shutdown) -> Result<(), ExitError> {
    let (plan, corefile) = source.load()?;
    let mut server = Server::new(source);
    server.apply(&plan, &corefile).await?;
    banner(&plan, quiet);
    let mut usr1 = signal(SignalKind::user_defined1()).map_err(ExitError::runtime)?;
    // A terminal that closes ends nothing, as with CoreDNS.
    let _hangup = signal(SignalKind::hangup()).map_err(ExitError::runtime)?;
    loop {
        tokio::select! {
            () = shutdown.triggered() => break,
            _ = usr1.recv() => server.reload(true).await,
            () = pause(server.reload) => server.reload(false).await,
            guard = found_loop(&server.guards) => {
                return Err(ExitError::runtime(guard.report()));
            }
        }
    }
    // The health page and the answers go on for as long as clients may still come; only readiness is over.
    server.running.end();
    tokio::time::sleep(server.lameduck).await;
    server.sockets.values().flat_map(|socket| &socket.tasks).for_each(JoinHandle::abort);
    for (_, page) in server.pages {
        page.close().await;
    }
    Ok(())
}

async fn pause(reload: Option<Reload>) {
    match reload {
        Some(reload) => {
            let jitter = reload.jitter.mul_f64(rand::random::<f64>());
            tokio::time::sleep((reload.interval + jitter).saturating_sub(reload.jitter / 2)).await;
        }
        None => std::future::pending().await,
    }
}

async fn found_loop(guards: &[Arc<LoopGuard>]) -> Arc<LoopGuard> {
    loop {
        if let Some(guard) = guards.iter().find(|guard| guard.is_found()) {
            return guard.clone();
        }
        if guards.iter().all(|guard| guard.is_off()) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sockets bound to one address.
struct Socket {
    tasks: Vec<JoinHandle<()>>,
}

struct Server {
    source: Source,
    metrics: Arc<Metrics>,
    registry: Arc<Registry>,
    running: Arc<Running>,
    blocks: Vec<Compiled>,
    guards: Vec<Arc<LoopGuard>>,
    ports: BTreeMap<u16, Arc<ArcSwap<Sites>>>,
    sockets: HashMap<SocketAddr, Socket>,
    pages: BTreeMap<SocketAddr, Page>,
    lameduck: Duration,
    reload: Option<Reload>,
    digest: String,
}

impl Server {
    fn new(source: Source) -> Self {
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        Self {
            source,
            metrics,
            registry: Arc::new(registry),
            running: Arc::default(),
            blocks: Vec::new(),
            guards: Vec::new(),
            ports: BTreeMap::new(),
            sockets: HashMap::new(),
            pages: BTreeMap::new(),
            lameduck: Duration::ZERO,
            reload: None,
            digest: String::new(),
        }
    }

    /// Reads the Corefile again and serves it if it differs, or in any case when `forced`.
    async fn reload(&mut self, forced: bool) {
        let result = match self.source.load() {
            Ok((plan, _)) if !forced && plan.digest == self.digest => return,
            Ok((plan, corefile)) => {
                tracing::info!("Reloading");
                self.apply(&plan, &corefile).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => tracing::info!("Reloading complete"),
            Err(error) => {
                tracing::error!("Restart failed: {error}");
                tracing::error!("plugin/reload: Corefile changed but reload failed: {error}");
                self.metrics.reload_failed.inc();
            }
        }
    }

    /// Serves a plan. On error everything stays as it was.
    async fn apply(&mut self, plan: &Plan, corefile: &str) -> Result<(), ExitError> {
        let blocks = self.compile(plan)?;
        let mut sites: BTreeMap<u16, Vec<Arc<Site>>> = BTreeMap::new();
        for (port, site) in blocks.iter().flat_map(|block| &block.sites) {
            sites.entry(*port).or_default().push(site.clone());
        }
        let addresses = addresses(plan);
        let mut bound = Vec::new();
        for address in addresses.iter().filter(|address| !self.sockets.contains_key(*address)) {
            bound.push((*address, bind(*address).await?));
        }
        let pages = pages::wanted(plan);
        let mut opened = Vec::new();
        for (address, kinds) in &pages {
            if !self.pages.contains_key(address) {
                let page = Page::open(*address, *kinds, &self.registry, &self.running).await?;
                opened.push((*address, page));
            }
        }
        wait_for_sync(&blocks).await;

        // From here on nothing fails.
        for (port, sites) in sites {
            let sites = Arc::new(Sites::new(sites, port, &self.metrics));
            match self.ports.get(&port) {
                Some(slot) => slot.store(sites),
                None => drop(self.ports.insert(port, Arc::new(ArcSwap::new(sites)))),
            }
        }
        for (address, (udp, tcp)) in bound {
            let Some(sites) = self.ports.get(&address.port()) else { continue };
            let mut tasks: Vec<_> = udp
                .into_iter()
                .map(|socket| tokio::spawn(api::serve_udp(Arc::new(socket), sites.clone())))
                .collect();
            tasks.push(tokio::spawn(api::serve_tcp(tcp, sites.clone())));
            self.sockets.insert(address, Socket { tasks });
        }
        self.sockets.retain(|address, socket| {
            let kept = addresses.contains(address);
            if !kept {
                socket.tasks.iter().for_each(JoinHandle::abort);
            }
            kept
        });
        self.ports.retain(|port, _| addresses.iter().any(|address| address.port() == *port));
        self.replace_pages(&pages, opened).await;
        self.settle(plan, blocks, corefile);
        Ok(())
    }

    /// Blocks of a plan, with those that are already served taken over.
    fn compile(&self, plan: &Plan) -> Result<Vec<Compiled>, ExitError> {
        let mut blocks = Vec::new();
        for block in &plan.blocks {
            let said = format!("{block:?}");
            match self.blocks.iter().find(|old| old.said == said) {
                Some(old) => blocks.push(old.clone()),
                None => blocks.push(compile(block, &self.metrics)?),
            }
        }
        Ok(blocks)
    }

    async fn replace_pages(
        &mut self,
        wanted: &BTreeMap<SocketAddr, pages::Kinds>,
        opened: Vec<(SocketAddr, Page)>,
    ) {
        let stale: Vec<SocketAddr> = self
            .pages
            .iter()
            .filter(|(address, page)| wanted.get(address) != Some(&page.kinds))
            .map(|(address, _)| *address)
            .collect();
        for address in stale {
            if let Some(page) = self.pages.remove(&address) {
                page.close().await;
            }
            if let Some(kinds) = wanted.get(&address) {
                match Page::open(address, *kinds, &self.registry, &self.running).await {
                    Ok(page) => drop(self.pages.insert(address, page)),
                    Err(error) => tracing::error!("the pages at {address} are gone: {error}"),
                }
            }
        }
        self.pages.extend(opened);
    }

    fn settle(&mut self, plan: &Plan, blocks: Vec<Compiled>, corefile: &str) {
        let new = |block: &&Compiled| !self.blocks.iter().any(|old| old.said == block.said);
        for block in blocks.iter().filter(new) {
            if let (Some(guard), Some((port, _))) = (&block.guard, block.sites.first()) {
                let ip = plan
                    .blocks
                    .iter()
                    .find(|b| b.keys.iter().any(|key| key.port == *port))
                    .and_then(|b| b.bind.first().copied())
                    .filter(|ip| !ip.is_unspecified())
                    .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                tokio::spawn(crate::remote::test_loop(guard.clone(), SocketAddr::new(ip, *port)));
            }
        }
        self.guards = blocks.iter().filter_map(|block| block.guard.clone()).collect();
        let stores = blocks.iter().filter_map(|block| block.store.clone()).collect();
        self.running.set(corefile, self.ports.values().cloned().collect(), stores);
        self.blocks = blocks;
        self.lameduck = plan
            .blocks
            .iter()
            .filter_map(|block| block.health)
            .map(|(_, lameduck)| lameduck)
            .max()
            .unwrap_or_default();
        self.reload = plan.blocks.iter().filter_map(|block| block.reload).next_back();
        self.digest.clone_from(&plan.digest);
        self.metrics.loaded(&plan.digest);
        if self.reload.is_some() {
            tracing::info!("plugin/reload: Running configuration SHA512 = {}", plan.digest);
        }
    }
}

fn addresses(plan: &Plan) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for block in &plan.blocks {
        for key in &block.keys {
            addresses.extend(block.bind.iter().map(|ip| SocketAddr::new(*ip, key.port)));
        }
    }
    addresses.sort();
    addresses.dedup();
    addresses
}

async fn bind(address: SocketAddr) -> Result<(Vec<UdpSocket>, TcpListener), ExitError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // TCP first: it does not share its port, so it finds another server there.
    let Listener::Tcp(tcp) =
        Listener::bind(&ListenAddr::Tcp(address)).await.map_err(ExitError::unavailable)?
    else {
        return Err(ExitError::unavailable(format!("cannot listen on {address}")));
    };
    let address = tcp.local_addr().map_err(ExitError::unavailable)?;
    let fail = |error| ExitError::unavailable(format!("cannot listen on {address} (udp): {error}"));
    let udp: Result<Vec<_>, _> = (0..workers).map(|_| api::bind_udp(address)).collect();
    tracing::info!(%address, "listening for DNS over UDP and TCP");
    Ok((udp.map_err(fail)?, tcp))
}

/// Waits a moment for the names of the cluster; without them the server starts all the same, and is not ready.
async fn wait_for_sync(blocks: &[Compiled]) {
    let stores: Vec<_> = blocks.iter().filter_map(|block| block.store.as_ref()).collect();
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
            if block.bind.iter().any(IpAddr::is_unspecified) {
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
