//! One endpoint of a cluster: its health, its counters and its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::address::Address;
use super::pool::Pool;
use crate::engine::balance::Candidate;
use crate::stats::{Counter, Gauge};

/// Why an endpoint is left out.
#[derive(Debug, Clone, Copy)]
pub enum Ill {
    /// Active health checks fail.
    Checks = 1,
    /// Outlier detection ejected it.
    Ejected = 2,
    /// The control plane says so.
    Assigned = 4,
}

/// Counters of one endpoint, as `/clusters` shows them.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as /clusters shows them")]
pub struct HostStats {
    pub cx_total: Counter,
    pub cx_active: Gauge,
    pub cx_connect_fail: Counter,
    pub rq_total: Counter,
    pub rq_success: Counter,
    pub rq_error: Counter,
    pub rq_timeout: Counter,
}

/// An endpoint. It lives as long as requests to it, also after it left its cluster.
#[derive(Debug)]
pub struct Host {
    /// Where it listens.
    pub address: Address,
    /// The address as text, for logs.
    pub name: String,
    /// Its host name, for `auto_host_rewrite`.
    pub hostname: String,
    /// Its connections.
    pub pool: Pool,
    /// Its counters.
    pub stats: HostStats,
    /// Failures in a row, for outlier detection.
    pub consecutive_5xx: AtomicU32,
    /// Gateway failures (502, 503, 504, no connection) in a row.
    pub consecutive_gateway: AtomicU32,
    /// How often it was ejected.
    pub ejections: AtomicU32,
    weight: AtomicU32,
    priority: AtomicU32,
    ill: AtomicU32,
    active: AtomicU64,
    gone: AtomicBool,
}

impl Host {
    /// A healthy endpoint without connections.
    pub fn new(address: Address, hostname: String, connections: usize) -> Self {
        Self {
            name: address.to_string(),
            address,
            hostname,
            pool: Pool::new(connections),
            stats: HostStats::default(),
            consecutive_5xx: AtomicU32::new(0),
            consecutive_gateway: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            weight: AtomicU32::new(1),
            priority: AtomicU32::new(0),
            ill: AtomicU32::new(0),
            active: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        }
    }

    /// Sets weight and priority.
    pub fn place(&self, weight: u32, priority: u32) {
        self.weight.store(weight, Ordering::Relaxed);
        self.priority.store(priority, Ordering::Relaxed);
    }

    /// Its priority level; 0 is used first.
    pub fn priority(&self) -> u32 {
        self.priority.load(Ordering::Relaxed)
    }

    /// Marks it ill or well; says whether that changed anything.
    pub fn mark(&self, reason: Ill, ill: bool) -> bool {
        let bit = reason as u32;
        let before = if ill {
            self.ill.fetch_or(bit, Ordering::AcqRel)
        } else {
            self.ill.fetch_and(!bit, Ordering::AcqRel)
        };
        (before & bit != 0) != ill
    }

    /// Whether nothing speaks against using it.
    pub fn is_healthy(&self) -> bool {
        self.ill.load(Ordering::Acquire) == 0
    }

    /// Whether it is ill for this reason.
    pub fn has(&self, reason: Ill) -> bool {
        self.ill.load(Ordering::Acquire) & reason as u32 != 0
    }

    /// Envoy's text for `/clusters`.
    pub fn health_flags(&self) -> String {
        let names = [
            (Ill::Checks, "/failed_active_hc"),
            (Ill::Ejected, "/failed_outlier_check"),
            (Ill::Assigned, "/failed_eds_health"),
        ];
        let text: String =
            names.iter().filter(|(ill, _)| self.has(*ill)).map(|(_, name)| *name).collect();
        if text.is_empty() { "healthy".to_owned() } else { text }
    }

    /// It left its cluster: idle connections close, requests in flight finish.
    pub fn retire(&self) {
        self.gone.store(true, Ordering::Release);
        self.pool.close_idle(Duration::ZERO);
    }

    /// Whether it left its cluster.
    pub fn is_retired(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Counts a request for as long as the guard lives.
    pub fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.stats.rq_total.inc();
        ActiveRequest(self.clone())
    }
}

impl Candidate for Arc<Host> {
    fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }
}

/// A request at an endpoint.
#[derive(Debug)]
pub struct ActiveRequest(pub Arc<Host>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
