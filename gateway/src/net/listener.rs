//! A bound listener: accepts connections and hands them to the filter in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use flotilla_config::ListenAddr;
use flotilla_server::{BindError, Connection, Listener, PeerInfo};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::Address;
use super::hcm::ConnectionInfo;
use super::listener_config::{Filter, ListenerConfig};
use super::serve;
use crate::stats::{ListenerStats, Registry};

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// A configuration in force, and the end of its connections.
#[derive(Debug)]
struct Generation {
    config: ListenerConfig,
    builder: Option<Arc<Builder<TokioExecutor>>>,
    drain: CancellationToken,
}

impl Generation {
    fn new(config: ListenerConfig) -> Self {
        let builder = match &config.filter {
            Filter::Http(hcm) => Some(Arc::new(serve::builder(hcm))),
            Filter::Tcp(_) => None,
        };
        Self { config, builder, drain: CancellationToken::new() }
    }
}

/// A listener in use.
#[derive(Debug)]
pub struct ActiveListener {
    /// The bound address, with the port the kernel chose.
    pub bound: ListenAddr,
    current: Arc<ArcSwap<Generation>>,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl ActiveListener {
    /// Binds and starts to accept.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(
        config: ListenerConfig,
        stats: &Registry,
        connections: TaskTracker,
    ) -> Result<Self, BindError> {
        let address = match &config.address {
            Address::Tcp(address) => ListenAddr::Tcp(*address),
            Address::Unix(path) => ListenAddr::Unix(path.clone()),
            Address::Name(..) => unreachable!("names are refused in listeners"),
        };
        let listener = Listener::bind(&address).await?;
        let bound = listener.local_addr().unwrap_or(address);
        tracing::info!(listener = config.name, address = %bound, "listening");
        let stats = stats.listener(&bound.to_string());
        let current = Arc::new(ArcSwap::from_pointee(Generation::new(config)));
        let stop = CancellationToken::new();
        let this = Self { bound, current, stop, connections };
        let (current, stop, connections) =
            (this.current.clone(), this.stop.clone(), this.connections.clone());
        tokio::spawn(accept(listener, current, stop, connections, stats));
        Ok(this)
    }

    /// New connections get `config`; old ones end after the requests in flight.
    pub fn replace(&self, config: ListenerConfig) {
        let old = self.current.swap(Arc::new(Generation::new(config)));
        old.drain.cancel();
    }

    /// The configuration in force.
    pub fn config(&self) -> ListenerConfig {
        self.current.load().config.clone()
    }

    /// Stops accepting; connections end after the requests in flight.
    pub fn drain(&self) {
        self.stop.cancel();
        self.current.load().drain.cancel();
    }
}

async fn accept(
    listener: Listener,
    current: Arc<ArcSwap<Generation>>,
    stop: CancellationToken,
    connections: TaskTracker,
    stats: Arc<ListenerStats>,
) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (generation, stats) = (current.load_full(), stats.clone());
                let turn = TURN.fetch_add(1, Ordering::Relaxed);
                connections.spawn(async move {
                    let begun = Instant::now();
                    stats.downstream_cx_total.inc();
                    stats.downstream_cx_active.inc();
                    serve_one(&generation, stream.boxed(), peer, turn, &stats).await;
                    stats.downstream_cx_active.dec();
                    stats.downstream_cx_destroy.inc();
                    stats.downstream_cx_length_ms.record_ms(begun.elapsed());
                });
            }
            Err(error) => {
                // Out of descriptors, or the peer left between SYN and accept: pause so as not to spin.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_one(
    generation: &Generation,
    mut io: Box<dyn Connection>,
    peer: PeerInfo,
    turn: usize,
    stats: &ListenerStats,
) {
    let mut scheme = "http";
    if let Some(acceptor) = &generation.config.tls {
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(io)).await {
            Ok(Ok(secured)) => io = Box::new(secured),
            Ok(Err(error)) => {
                return tracing::debug!(%error, remote = ?peer.remote, "TLS handshake failed");
            }
            Err(_) => return stats.downstream_pre_cx_timeout.inc(),
        }
        scheme = "https";
    }
    let info = ConnectionInfo { remote: peer.remote, local: peer.local, scheme, turn };
    match (&generation.config.filter, &generation.builder) {
        (Filter::Http(hcm), Some(builder)) => {
            serve::serve(hcm.clone(), builder.clone(), io, info, generation.drain.clone()).await;
        }
        (Filter::Tcp(proxy), _) => {
            tokio::select! {
                () = proxy.serve(io, &info) => {}
                () = after(&generation.drain, Duration::from_secs(5)) => {}
            }
        }
        (Filter::Http(_), None) => {}
    }
}

/// Bytes have no end of a request to wait for: a drained TCP connection gets this long.
async fn after(drain: &CancellationToken, grace: Duration) {
    drain.cancelled().await;
    tokio::time::sleep(grace).await;
}
