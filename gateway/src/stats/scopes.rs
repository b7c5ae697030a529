//! The scopes: per cluster, HTTP connection manager, TCP proxy, listener, and the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::{Counter, Stat, scope};

scope! {
    /// `cluster.NAME.*`
    ClusterStats {
        counters: membership_change update_attempt update_success update_failure update_empty update_no_rebuild
            assignment_timeout_received lb_healthy_panic
            upstream_cx_total upstream_cx_http1_total upstream_cx_http2_total upstream_cx_connect_fail
            upstream_cx_connect_timeout upstream_cx_destroy upstream_cx_none_healthy upstream_cx_overflow
            upstream_cx_idle_timeout upstream_cx_max_requests
            upstream_rq_total upstream_rq_completed upstream_rq_pending_total upstream_rq_pending_overflow
            upstream_rq_pending_failure_eject upstream_rq_cancelled upstream_rq_timeout upstream_rq_per_try_timeout
            upstream_rq_rx_reset upstream_rq_tx_reset upstream_rq_retry upstream_rq_retry_success
            upstream_rq_retry_overflow upstream_rq_retry_limit_exceeded upstream_rq_retry_backoff_exponential
            upstream_rq_1xx upstream_rq_2xx upstream_rq_3xx upstream_rq_4xx upstream_rq_5xx;
        gauges: membership_total membership_healthy membership_degraded upstream_cx_active upstream_rq_active
            upstream_rq_pending_active version warming_state;
        histograms: upstream_rq_time upstream_cx_connect_ms;
    }
}

scope! {
    /// `cluster.NAME.outlier_detection.*`
    OutlierStats {
        counters: ejections_enforced_total ejections_enforced_consecutive_5xx
            ejections_enforced_consecutive_gateway_failure ejections_overflow;
        gauges: ejections_active;
        histograms: ;
    }
}

scope! {
    /// `cluster.NAME.health_check.*`
    HealthStats {
        counters: attempt success failure network_failure passive_failure;
        gauges: healthy;
        histograms: ;
    }
}

scope! {
    /// `http.PREFIX.*`
    HttpStats {
        counters: downstream_cx_total downstream_cx_destroy downstream_cx_http1_total downstream_cx_http2_total
            downstream_cx_ssl_total downstream_cx_upgrades_total downstream_cx_protocol_error downstream_cx_drain_close
            downstream_cx_idle_timeout
            downstream_rq_total downstream_rq_http1_total downstream_rq_http2_total downstream_rq_completed
            downstream_rq_rx_reset downstream_rq_tx_reset downstream_rq_timeout downstream_rq_idle_timeout
            downstream_rq_non_relative_path downstream_rq_failed_path_normalization downstream_rq_ws_on_non_ws_route
            downstream_rq_1xx downstream_rq_2xx downstream_rq_3xx downstream_rq_4xx downstream_rq_5xx
            rq_total rq_direct_response rq_redirect no_route no_cluster rq_reset_after_downstream_response_started;
        gauges: downstream_cx_active downstream_cx_http1_active downstream_cx_http2_active downstream_cx_ssl_active
            downstream_cx_upgrades_active downstream_rq_active;
        histograms: downstream_rq_time downstream_cx_length_ms;
    }
}

scope! {
    /// `tcp.PREFIX.*`
    TcpStats {
        counters: downstream_cx_total downstream_cx_no_route downstream_cx_rx_bytes_total downstream_cx_tx_bytes_total
            idle_timeout;
        gauges: ;
        histograms: ;
    }
}

scope! {
    /// `listener.ADDRESS.*`
    ListenerStats {
        counters: downstream_cx_total downstream_cx_destroy downstream_cx_overflow no_filter_chain_match
            downstream_pre_cx_timeout;
        gauges: downstream_cx_active;
        histograms: downstream_cx_length_ms;
    }
}

scope! {
    /// `listener_manager.*`
    ListenerManagerStats {
        counters: listener_added listener_modified listener_removed listener_create_success listener_create_failure;
        gauges: total_listeners_active total_listeners_warming total_listeners_draining;
        histograms: ;
    }
}

scope! {
    /// `cluster_manager.*`
    ClusterManagerStats {
        counters: cluster_added cluster_modified cluster_removed;
        gauges: active_clusters warming_clusters;
        histograms: ;
    }
}

scope! {
    /// `listener_manager.lds.*`, `cluster_manager.cds.*` and `http.PREFIX.rds.NAME.*`
    AdsStats {
        counters: update_attempt update_success update_failure update_rejected;
        gauges: ;
        histograms: ;
    }
}

scope! {
    /// `control_plane.*`
    ControlPlaneStats {
        counters: rate_limit_enforced;
        gauges: connected_state pending_requests;
        histograms: ;
    }
}

scope! {
    /// `filesystem.*`, of access logs.
    LogStats {
        counters: write_completed write_failed write_buffered reopen_failed;
        gauges: ;
        histograms: ;
    }
}

/// Counts per response code, 100 to 599.
#[derive(Debug)]
pub struct Codes(Box<[AtomicU64]>);

impl Default for Codes {
    fn default() -> Self {
        Self((0..500).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Codes {
    /// Counts a response.
    pub fn inc(&self, code: u16) {
        if let Some(count) = self.0.get(usize::from(code).wrapping_sub(100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The codes seen.
    pub fn seen(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.0
            .iter()
            .enumerate()
            .map(|(i, n)| (i + 100, n.load(Ordering::Relaxed)))
            .filter(|(_, n)| *n > 0)
    }
}

/// All stats of one cluster.
#[derive(Debug, Default)]
pub struct ClusterScope {
    /// The common ones.
    pub base: ClusterStats,
    /// Outlier detection.
    pub outlier: OutlierStats,
    /// Active health checks.
    pub health: HealthStats,
    /// Responses per code.
    pub codes: Codes,
}

impl ClusterScope {
    /// Counts a completed response.
    pub fn completed(&self, code: u16) {
        self.base.upstream_rq_completed.inc();
        self.codes.inc(code);
        match code / 100 {
            1 => self.base.upstream_rq_1xx.inc(),
            2 => self.base.upstream_rq_2xx.inc(),
            3 => self.base.upstream_rq_3xx.inc(),
            4 => self.base.upstream_rq_4xx.inc(),
            _ => self.base.upstream_rq_5xx.inc(),
        }
    }
}

/// Scopes by name; they outlive the clusters and listeners they count for, so that counters never go back.
#[derive(Debug)]
pub struct Registry {
    clusters: Mutex<Vec<(String, Arc<ClusterScope>)>>,
    http: Mutex<Vec<(String, Arc<HttpStats>)>>,
    tcp: Mutex<Vec<(String, Arc<TcpStats>)>>,
    listeners: Mutex<Vec<(String, Arc<ListenerStats>)>>,
    rds: Mutex<Vec<(String, Arc<AdsStats>)>>,
    /// `listener_manager.*`
    pub listener_manager: ListenerManagerStats,
    /// `listener_manager.lds.*`
    pub lds: AdsStats,
    /// `cluster_manager.*`
    pub cluster_manager: ClusterManagerStats,
    /// `cluster_manager.cds.*`
    pub cds: AdsStats,
    /// `control_plane.*`
    pub control_plane: ControlPlaneStats,
    /// `filesystem.*`
    pub logs: LogStats,
    /// When the process started.
    pub started: Instant,
    /// `server.concurrency`
    pub concurrency: usize,
}

fn scope_of<T: Default>(list: &Mutex<Vec<(String, Arc<T>)>>, name: &str) -> Arc<T> {
    let mut list = list.lock();
    match list.binary_search_by(|(known, _)| known.as_str().cmp(name)) {
        Ok(index) => list[index].1.clone(),
        Err(index) => {
            let scope = Arc::new(T::default());
            list.insert(index, (name.to_owned(), scope.clone()));
            scope
        }
    }
}

impl Registry {
    /// No scopes yet.
    pub fn new(concurrency: usize) -> Self {
        Self {
            clusters: Mutex::default(),
            http: Mutex::default(),
            tcp: Mutex::default(),
            listeners: Mutex::default(),
            rds: Mutex::default(),
            listener_manager: ListenerManagerStats::default(),
            lds: AdsStats::default(),
            cluster_manager: ClusterManagerStats::default(),
            cds: AdsStats::default(),
            control_plane: ControlPlaneStats::default(),
            logs: LogStats::default(),
            started: Instant::now(),
            concurrency,
        }
    }

    /// Scope of a cluster.
    pub fn cluster(&self, name: &str) -> Arc<ClusterScope> {
        scope_of(&self.clusters, name)
    }

    /// Scope of the connection managers with a prefix.
    pub fn http(&self, prefix: &str) -> Arc<HttpStats> {
        scope_of(&self.http, prefix)
    }

    /// Scope of the TCP proxies with a prefix.
    pub fn tcp(&self, prefix: &str) -> Arc<TcpStats> {
        scope_of(&self.tcp, prefix)
    }

    /// Scope of a listener's address.
    pub fn listener(&self, address: &str) -> Arc<ListenerStats> {
        scope_of(&self.listeners, &address.replace(':', "_"))
    }

    /// Scope of a route configuration's updates, `PREFIX.rds.NAME`.
    pub fn rds(&self, name: &str) -> Arc<AdsStats> {
        scope_of(&self.rds, name)
    }

    /// Calls `f` with every stat under its flat name.
    pub fn visit(&self, f: &mut dyn FnMut(&str, Stat<'_>)) {
        let code_counter = Counter::default();
        for (name, scope) in self.clusters.lock().iter() {
            let prefixed = |prefix: &str| {
                let prefix = format!("cluster.{name}.{prefix}");
                move |stat: &str| format!("{prefix}{stat}")
            };
            let (base, outlier, health) =
                (prefixed(""), prefixed("outlier_detection."), prefixed("health_check."));
            scope.base.visit(&mut |stat, value| f(&base(stat), value));
            scope.outlier.visit(&mut |stat, value| f(&outlier(stat), value));
            scope.health.visit(&mut |stat, value| f(&health(stat), value));
            for (code, count) in scope.codes.seen() {
                code_counter.reset();
                code_counter.add(count);
                f(&format!("cluster.{name}.upstream_rq_{code}"), Stat::Counter(&code_counter));
            }
        }
        for (name, scope) in self.http.lock().iter() {
            scope.visit(&mut |stat, value| f(&format!("http.{name}.{stat}"), value));
        }
        for (name, scope) in self.rds.lock().iter() {
            scope.visit(&mut |stat, value| f(&format!("http.{name}.{stat}"), value));
        }
        for (name, scope) in self.tcp.lock().iter() {
            scope.visit(&mut |stat, value| f(&format!("tcp.{name}.{stat}"), value));
        }
        for (name, scope) in self.listeners.lock().iter() {
            scope.visit(&mut |stat, value| f(&format!("listener.{name}.{stat}"), value));
        }
        self.listener_manager
            .visit(&mut |stat, value| f(&format!("listener_manager.{stat}"), value));
        self.lds.visit(&mut |stat, value| f(&format!("listener_manager.lds.{stat}"), value));
        self.cluster_manager.visit(&mut |stat, value| f(&format!("cluster_manager.{stat}"), value));
        self.cds.visit(&mut |stat, value| f(&format!("cluster_manager.cds.{stat}"), value));
        self.control_plane.visit(&mut |stat, value| f(&format!("control_plane.{stat}"), value));
        self.logs.visit(&mut |stat, value| f(&format!("filesystem.{stat}"), value));
        self.server(f);
    }

    fn server(&self, f: &mut dyn FnMut(&str, Stat<'_>)) {
        let seconds = i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX);
        f("server.uptime", Stat::Gauge(seconds));
        f("server.concurrency", Stat::Gauge(i64::try_from(self.concurrency).unwrap_or(i64::MAX)));
        f("server.memory_physical_size", Stat::Gauge(resident_bytes()));
        let connections: i64 =
            self.listeners.lock().iter().map(|(_, s)| s.downstream_cx_active.get()).sum();
        f("server.total_connections", Stat::Gauge(connections));
    }
}

impl Registry {
    /// Zeroes all counters.
    pub fn reset_counters(&self) {
        self.visit(&mut |_, stat| {
            if let Stat::Counter(counter) = stat {
                counter.reset();
            }
        });
    }
}

/// Resident memory of this process; 0 where /proc is missing.
fn resident_bytes() -> i64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok()));
    pages.unwrap_or(0) * 4096
}
