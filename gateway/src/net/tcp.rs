//! The TCP proxy: bytes between a client and an endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use flotilla_server::Connection;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connect::dial;
use super::hcm::ConnectionInfo;
use super::hcm_config::access_logs;
use super::host::Host;
use crate::access_log::{AccessLog, Entry, Flags};
use crate::bootstrap::{ConfigError, duration, pb};
use crate::engine::route::ClusterChoice;
use crate::state::State;
use crate::stats::TcpStats;

const BUFFER: usize = 32 << 10;

/// A TCP proxy's settings.
#[derive(Debug)]
pub struct TcpProxy {
    state: Arc<State>,
    stats: Arc<TcpStats>,
    cluster: ClusterChoice,
    idle: Option<Duration>,
    attempts: u32,
    access_logs: Vec<AccessLog>,
}

impl TcpProxy {
    /// Reads the API's form.
    ///
    /// # Errors
    /// Names what cannot work.
    pub fn read(state: &Arc<State>, config: &pb::tcp_proxy::TcpProxy) -> Result<Self, ConfigError> {
        use pb::tcp_proxy::tcp_proxy::ClusterSpecifier;
        let cluster = match &config.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => ClusterChoice::One(name.as_str().into()),
            Some(ClusterSpecifier::WeightedClusters(list)) => {
                let list: Vec<(Arc<str>, u64)> = list
                    .clusters
                    .iter()
                    .map(|c| (c.name.as_str().into(), u64::from(c.weight)))
                    .collect();
                let total = list.iter().map(|(_, weight)| weight).sum();
                ClusterChoice::Weighted(list, total)
            }
            None => return Err(ConfigError::invalid("tcp_proxy", "a cluster is needed")),
        };
        let idle = config
            .idle_timeout
            .as_ref()
            .map(|t| duration(t, "tcp_proxy.idle_timeout"))
            .transpose()?;
        Ok(Self {
            state: state.clone(),
            stats: state.stats.tcp(&config.stat_prefix),
            cluster,
            idle: Some(idle.unwrap_or(Duration::from_secs(3600))).filter(|idle| !idle.is_zero()),
            attempts: config.max_connect_attempts.unwrap_or(1).max(1),
            access_logs: access_logs(state, &config.access_log)?,
        })
    }

    /// Carries one connection to its end.
    pub async fn serve(&self, client: Box<dyn Connection>, info: &ConnectionInfo) {
        self.stats.downstream_cx_total.inc();
        let (wall, begun) = (SystemTime::now(), Instant::now());
        let mut record = Record::default();
        self.carry(client, &mut record).await;
        let (headers, text) = (HeaderMap::new(), |address: Option<std::net::SocketAddr>| {
            address.map(|a| a.to_string()).unwrap_or_default()
        });
        let entry = Entry {
            start: wall,
            duration: begun.elapsed(),
            method: "",
            path: "",
            original_path: None,
            authority: "",
            protocol: "",
            code: 0,
            flags: record.flags,
            bytes_received: record.received,
            bytes_sent: record.sent,
            request: &headers,
            response: &headers,
            upstream_host: record.host.as_ref().map(|host| host.name.as_str()),
            upstream_cluster: record.cluster.as_deref(),
            route_name: "",
            downstream_remote: &text(info.remote),
            downstream_local: &text(info.local),
        };
        self.access_logs.iter().for_each(|log| log.log(&entry));
    }

    async fn carry(&self, mut client: Box<dyn Connection>, record: &mut Record) {
        let name = self.cluster.choose(&HeaderMap::new()).unwrap_or_else(|| "".into());
        record.cluster = Some(name.to_string());
        let Some(cluster) = self.state.clusters.get(&name) else {
            self.stats.downstream_cx_no_route.inc();
            return record.flags.set(Flags::NO_CLUSTER);
        };
        let Some(_admitted) = cluster.admit() else {
            return record.flags.set(Flags::UPSTREAM_OVERFLOW);
        };
        let mut tried: Vec<Arc<Host>> = Vec::new();
        for _ in 0..self.attempts {
            let picked = cluster.pick(&|host| tried.iter().any(|t| Arc::ptr_eq(t, host)));
            let Some(host) = picked.map(|picked| picked.host) else {
                return record.flags.set(Flags::NO_HEALTHY_UPSTREAM);
            };
            record.host = Some(host.clone());
            let config = &cluster.config;
            cluster.stats.base.upstream_cx_total.inc();
            host.stats.cx_total.inc();
            match dial(&host.address, config.tls.as_ref(), config.connect_timeout).await {
                Ok(mut upstream) => {
                    let _active = host.begin();
                    cluster.stats.base.upstream_cx_active.inc();
                    let (received, sent, idle) =
                        exchange(&mut client, &mut upstream, self.idle).await;
                    cluster.stats.base.upstream_cx_active.dec();
                    cluster.stats.base.upstream_cx_destroy.inc();
                    (record.received, record.sent) = (received, sent);
                    self.stats.downstream_cx_rx_bytes_total.add(received);
                    self.stats.downstream_cx_tx_bytes_total.add(sent);
                    if idle {
                        self.stats.idle_timeout.inc();
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!(host = host.name, ?error, "cannot connect");
                    cluster.stats.base.upstream_cx_connect_fail.inc();
                    host.stats.cx_connect_fail.inc();
                    cluster.report(&host, 0);
                    tried.push(host);
                }
            }
        }
        record.flags.set(Flags::UPSTREAM_CONNECTION_FAILURE);
        if self.attempts > 1 {
            record.flags.set(Flags::RETRY_LIMIT);
        }
    }
}

#[derive(Default)]
struct Record {
    cluster: Option<String>,
    host: Option<Arc<Host>>,
    received: u64,
    sent: u64,
    flags: Flags,
}

/// Copies both ways until both ends are done, one breaks, or nothing moves for `idle`. Each direction has one buffer,
/// so a slow reader stops its writer.
async fn exchange(
    client: &mut Box<dyn Connection>,
    upstream: &mut Box<dyn Connection>,
    idle: Option<Duration>,
) -> (u64, u64, bool) {
    let begun = Instant::now();
    let (up, down, moved) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let both = async {
        tokio::try_join!(
            copy(&mut client_read, &mut upstream_write, &up, &moved, begun),
            copy(&mut upstream_read, &mut client_write, &down, &moved, begun),
        )
    };
    let timer = async {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            let last = begun + Duration::from_millis(moved.load(Ordering::Relaxed));
            if last.elapsed() >= idle {
                return;
            }
            tokio::time::sleep_until((last + idle).into()).await;
        }
    };
    let timed_out = tokio::select! {
        // A reset of either end is the end of both; there is nobody left to tell.
        _ = both => false,
        () = timer => true,
    };
    (up.into_inner(), down.into_inner(), timed_out)
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
    moved: &AtomicU64,
    begun: Instant,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        moved.store(
            u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}
