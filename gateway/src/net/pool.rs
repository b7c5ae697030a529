//! Connections to one endpoint: idle HTTP/1.1 ones on a stack, HTTP/2 ones shared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::cluster::Cluster;
use super::codec::{Http1, Http2};
use super::connect::{DialError, dial};
use super::host::Host;

/// The connections of an endpoint.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
    shared: Vec<Slot>,
    released: Notify,
}

#[derive(Debug)]
struct Idle {
    sender: Http1,
    since: Instant,
    served: u32,
}

#[derive(Debug, Default)]
struct Slot {
    sender: RwLock<Option<Http2>>,
    connecting: tokio::sync::Mutex<()>,
}

/// An HTTP/1.1 connection on loan.
#[derive(Debug)]
pub struct Lease {
    /// The connection.
    pub sender: Http1,
    host: Arc<Host>,
    served: u32,
    limit: u32,
    /// Whether it has carried a request before, so that it may have been closed meanwhile.
    pub reused: bool,
}

impl Lease {
    /// Gives the connection back when its response was read to the end.
    pub fn give_back(self) {
        if self.host.is_retired()
            || self.sender.is_closed()
            || (self.limit > 0 && self.served >= self.limit)
        {
            self.host.pool.released.notify_one();
            return;
        }
        let Self { mut sender, host, served, .. } = self;
        if sender.is_ready() {
            return host.pool.put(Idle { sender, since: Instant::now(), served });
        }
        // The connection's task has not seen the end yet.
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                host.pool.put(Idle { sender, since: Instant::now(), served });
            } else {
                host.pool.released.notify_one();
            }
        });
    }
}

/// Why the pool gave no connection.
#[derive(Debug)]
pub enum PoolError {
    /// It could not be made.
    Dial(DialError),
    /// The cluster's limits of connections and waiting requests are reached.
    Overflow,
}

impl Pool {
    /// No connections; `connections` is how many HTTP/2 connections share the load.
    pub fn new(connections: usize) -> Self {
        Self {
            idle: Mutex::default(),
            shared: (0..connections.max(1)).map(|_| Slot::default()).collect(),
            released: Notify::new(),
        }
    }

    fn put(&self, idle: Idle) {
        self.idle.lock().push(idle);
        self.released.notify_one();
    }

    /// Closes connections idle for longer than `limit`.
    pub fn close_idle(&self, limit: Duration) -> usize {
        let mut idle = self.idle.lock();
        let before = idle.len();
        idle.retain(|entry| {
            !entry.sender.is_closed() && !limit.is_zero() && entry.since.elapsed() < limit
        });
        let closed = before - idle.len();
        drop(idle);
        if limit.is_zero() {
            for slot in &self.shared {
                // Streams in flight hold the connection until they end.
                slot.sender.write().take();
            }
        }
        closed
    }

    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.idle.lock();
        while let Some(entry) = idle.pop() {
            if !entry.sender.is_closed() {
                return Some(entry);
            }
        }
        None
    }

    /// An HTTP/1.1 connection: an idle one, a new one, or the next that is given back when the limit is reached.
    pub async fn http1(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        fresh: bool,
    ) -> Result<Lease, PoolError> {
        let lease = |entry: Idle, reused| Lease {
            sender: entry.sender,
            host: host.clone(),
            served: entry.served + 1,
            limit: cluster.config.max_requests_per_connection,
            reused,
        };
        if !fresh && let Some(entry) = self.take_idle() {
            return Ok(lease(entry, true));
        }
        let stats = &cluster.stats.base;
        stats.upstream_rq_pending_total.inc();
        if stats.upstream_cx_active.get() < i64::from(cluster.config.max_connections) {
            return self
                .connect1(cluster, host)
                .await
                .map(|sender| lease(Idle { sender, since: Instant::now(), served: 0 }, false));
        }
        stats.upstream_cx_overflow.inc();
        if !stats.upstream_rq_pending_active.try_inc(cluster.config.max_pending) {
            stats.upstream_rq_pending_overflow.inc();
            return Err(PoolError::Overflow);
        }
        let _pending = Pending(cluster);
        loop {
            let released = self.released.notified();
            if let Some(entry) = self.take_idle() {
                return Ok(lease(entry, true));
            }
            if stats.upstream_cx_active.get() < i64::from(cluster.config.max_connections) {
                return self
                    .connect1(cluster, host)
                    .await
                    .map(|sender| lease(Idle { sender, since: Instant::now(), served: 0 }, false));
            }
            // The tick covers connections that other endpoints of the cluster gave up.
            let _ = tokio::time::timeout(Duration::from_millis(50), released).await;
        }
    }

    async fn connect1(&self, cluster: &Arc<Cluster>, host: &Arc<Host>) -> Result<Http1, PoolError> {
        let mut connection = Connection::open(cluster, host);
        let io = connection.dial().await?;
        let handshake =
            hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(io)).await;
        let (sender, driver) = handshake
            .map_err(|error| PoolError::Dial(DialError::Refused(std::io::Error::other(error))))?;
        cluster.stats.base.upstream_cx_http1_total.inc();
        tokio::spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
            drop(connection);
        });
        Ok(sender)
    }

    /// An HTTP/2 connection; callers with different `turn`s spread over the connections.
    pub async fn http2(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        turn: usize,
    ) -> Result<Http2, PoolError> {
        let slot = &self.shared[turn % self.shared.len()];
        let current = || slot.sender.read().as_ref().filter(|sender| !sender.is_closed()).cloned();
        if let Some(sender) = current() {
            return Ok(sender);
        }
        cluster.stats.base.upstream_rq_pending_total.inc();
        if !cluster.stats.base.upstream_rq_pending_active.try_inc(cluster.config.max_pending) {
            cluster.stats.base.upstream_rq_pending_overflow.inc();
            return Err(PoolError::Overflow);
        }
        let _pending = Pending(cluster);
        let _only_one_connects = slot.connecting.lock().await;
        if let Some(sender) = current() {
            return Ok(sender);
        }
        let sender = self.connect2(cluster, host).await?;
        if !host.is_retired() {
            *slot.sender.write() = Some(sender.clone());
        }
        Ok(sender)
    }

    async fn connect2(&self, cluster: &Arc<Cluster>, host: &Arc<Host>) -> Result<Http2, PoolError> {
        let mut connection = Connection::open(cluster, host);
        let io = connection.dial().await?;
        let options = &cluster.config.http2;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(options.stream_window)
            .initial_connection_window_size(options.connection_window)
            .max_header_list_size(1 << 20)
            .max_concurrent_reset_streams(1024);
        if let Some((interval, timeout)) = options.keepalive {
            builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
        }
        let handshake = tokio::time::timeout(
            cluster.config.connect_timeout,
            builder.handshake(TokioIo::new(io)),
        )
        .await;
        let (sender, driver) = match handshake {
            Err(_) => return Err(PoolError::Dial(DialError::Timeout)),
            Ok(Err(error)) => {
                return Err(PoolError::Dial(DialError::Refused(std::io::Error::other(error))));
            }
            Ok(Ok(parts)) => parts,
        };
        cluster.stats.base.upstream_cx_http2_total.inc();
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "upstream connection ended");
            }
            drop(connection);
        });
        Ok(sender)
    }
}

/// Counts a waiting request for as long as it lives.
struct Pending<'a>(&'a Arc<Cluster>);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.stats.base.upstream_rq_pending_active.dec();
    }
}

/// Counts a connection for as long as it lives.
struct Connection {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
}

impl Connection {
    fn open(cluster: &Arc<Cluster>, host: &Arc<Host>) -> Self {
        cluster.stats.base.upstream_cx_total.inc();
        cluster.stats.base.upstream_cx_active.inc();
        host.stats.cx_total.inc();
        host.stats.cx_active.inc();
        Self { cluster: cluster.clone(), host: host.clone() }
    }

    async fn dial(&mut self) -> Result<Box<dyn flotilla_server::Connection>, PoolError> {
        let config = &self.cluster.config;
        let begun = Instant::now();
        let result = dial(&self.host.address, config.tls.as_ref(), config.connect_timeout).await;
        let stats = &self.cluster.stats.base;
        match result {
            Ok(io) => {
                stats.upstream_cx_connect_ms.record_ms(begun.elapsed());
                Ok(io)
            }
            Err(error) => {
                stats.upstream_cx_connect_fail.inc();
                self.host.stats.cx_connect_fail.inc();
                if matches!(error, DialError::Timeout) {
                    stats.upstream_cx_connect_timeout.inc();
                }
                tracing::debug!(host = self.host.name, ?error, "cannot connect");
                Err(PoolError::Dial(error))
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.cluster.stats.base.upstream_cx_active.dec();
        self.cluster.stats.base.upstream_cx_destroy.inc();
        self.host.stats.cx_active.dec();
        self.host.pool.released.notify_one();
    }
}
