//! A cluster: endpoints that serve the same thing, their limits and their health.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::address::Address;
use super::cluster_config::ClusterConfig;
use super::host::{Host, Ill};
use super::host_set::{HostSet, Picked};
use crate::stats::ClusterScope;

/// An endpoint as configured or discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Its host name; may be empty.
    pub hostname: String,
    /// Its share.
    pub weight: u32,
    /// Its level.
    pub priority: u32,
    /// Whether the source says it may be used.
    pub healthy: bool,
}

/// A cluster in use.
#[derive(Debug)]
pub struct Cluster {
    /// How it is used.
    pub config: ClusterConfig,
    /// Its stats.
    pub stats: Arc<ClusterScope>,
    /// Retries going on.
    pub retries: AtomicU64,
    hosts: ArcSwap<HostSet>,
    // Serialises membership changes; readers never take it.
    change: Mutex<HashMap<String, Instant>>,
}

impl Cluster {
    /// A cluster without endpoints.
    pub fn new(config: ClusterConfig, stats: Arc<ClusterScope>) -> Self {
        Self {
            config,
            stats,
            retries: AtomicU64::new(0),
            hosts: ArcSwap::default(),
            change: Mutex::default(),
        }
    }

    /// The endpoints now.
    pub fn hosts(&self) -> Arc<HostSet> {
        self.hosts.load_full()
    }

    /// Chooses an endpoint.
    pub fn pick(&self, avoid: &dyn Fn(&Arc<Host>) -> bool) -> Option<Picked> {
        let picked = self.hosts.load().pick(self.config.policy, avoid);
        match &picked {
            None => self.stats.base.upstream_cx_none_healthy.inc(),
            Some(picked) if picked.panic => self.stats.base.lb_healthy_panic.inc(),
            Some(_) => {}
        }
        picked
    }

    /// Replaces the endpoints. Those that stay keep their connections and health; those that go finish what they have.
    pub fn update(&self, endpoints: &[Endpoint]) {
        let mut ejected = self.change.lock();
        let old = self.hosts.load_full();
        let mut known: HashMap<&Address, &Arc<Host>> =
            old.all.iter().map(|host| (&host.address, host)).collect();
        let mut changed = false;
        let mut all = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let host = known.remove(&endpoint.address).cloned().unwrap_or_else(|| {
                changed = true;
                let host = Host::new(
                    endpoint.address.clone(),
                    endpoint.hostname.clone(),
                    self.config.connections,
                );
                // A host that is actively checked is used after its first good check.
                host.mark(Ill::Checks, !self.config.health_checks.is_empty());
                Arc::new(host)
            });
            host.place(endpoint.weight, endpoint.priority);
            host.mark(Ill::Assigned, !endpoint.healthy);
            all.push(host);
        }
        let gone: Vec<Arc<Host>> = known.into_values().cloned().collect();
        if changed || !gone.is_empty() {
            self.stats.base.membership_change.inc();
        }
        ejected.retain(|name, _| all.iter().any(|host| host.name == *name));
        self.publish(all);
        gone.iter().for_each(|host| host.retire());
    }

    /// Recomputes which endpoints may be used, after the health of one changed.
    pub fn health_changed(&self) {
        let _change = self.change.lock();
        self.publish(self.hosts.load().all.clone());
    }

    fn publish(&self, all: Vec<Arc<Host>>) {
        let set = HostSet::new(all, self.config.panic_percent);
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.stats.base.membership_total.set(count(set.all.len()));
        self.stats.base.membership_healthy.set(count(set.healthy()));
        self.stats.health.healthy.set(count(set.healthy()));
        self.hosts.store(Arc::new(set));
    }

    /// Tells outlier detection how a request went; `code` 0 means that there was no connection or no response.
    pub fn report(&self, host: &Arc<Host>, code: u16) {
        match code {
            0 | 500.. => host.stats.rq_error.inc(),
            _ => host.stats.rq_success.inc(),
        }
        let Some(outlier) = &self.config.outlier else { return };
        let gateway = matches!(code, 0 | 502..=504);
        if !gateway {
            host.consecutive_gateway.store(0, Ordering::Relaxed);
        }
        if code > 0 && code < 500 {
            host.consecutive_5xx.store(0, Ordering::Relaxed);
            return;
        }
        let five = host.consecutive_5xx.fetch_add(1, Ordering::Relaxed) + 1;
        let bad =
            if gateway { host.consecutive_gateway.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        if outlier.consecutive_5xx > 0 && five == outlier.consecutive_5xx {
            if self.eject(host) {
                self.stats.outlier.ejections_enforced_consecutive_5xx.inc();
            }
        } else if outlier.consecutive_gateway > 0
            && bad == outlier.consecutive_gateway
            && self.eject(host)
        {
            self.stats.outlier.ejections_enforced_consecutive_gateway_failure.inc();
        }
    }

    fn eject(&self, host: &Arc<Host>) -> bool {
        let Some(outlier) = &self.config.outlier else { return false };
        let mut ejected = self.change.lock();
        let total = self.hosts.load().all.len();
        // As in Envoy, one endpoint may always be ejected.
        let allowed = (total * outlier.max_percent as usize / 100).max(1);
        if ejected.len() >= allowed {
            self.stats.outlier.ejections_overflow.inc();
            return false;
        }
        if !host.mark(Ill::Ejected, true) {
            return false;
        }
        let times = host.ejections.fetch_add(1, Ordering::Relaxed) + 1;
        let until = Instant::now() + (outlier.base * times).min(outlier.max);
        ejected.insert(host.name.clone(), until);
        self.stats.outlier.ejections_enforced_total.inc();
        self.stats.outlier.ejections_active.inc();
        tracing::info!(cluster = self.config.name, host = host.name, times, "endpoint ejected");
        self.publish(self.hosts.load().all.clone());
        true
    }

    /// Lets ejected endpoints back whose time is over, and closes connections that idled too long.
    pub fn maintain(&self) {
        let mut ejected = self.change.lock();
        let now = Instant::now();
        let all = self.hosts.load().all.clone();
        let mut changed = false;
        ejected.retain(|name, until| {
            if *until > now {
                return true;
            }
            if let Some(host) = all.iter().find(|host| host.name == *name) {
                host.consecutive_5xx.store(0, Ordering::Relaxed);
                host.consecutive_gateway.store(0, Ordering::Relaxed);
                changed |= host.mark(Ill::Ejected, false);
            }
            self.stats.outlier.ejections_active.dec();
            false
        });
        if changed {
            self.publish(all.clone());
        }
        drop(ejected);
        for host in &all {
            let closed =
                host.pool.close_idle(self.config.idle_timeout.max(Duration::from_millis(1)));
            self.stats.base.upstream_cx_idle_timeout.add(closed as u64);
        }
    }
}

/// A request the circuit breaker let through.
#[derive(Debug)]
pub struct Admitted(Arc<Cluster>);

impl Cluster {
    /// Counts a request against `max_requests`; `None` when the limit is reached.
    pub fn admit(self: &Arc<Self>) -> Option<Admitted> {
        if !self.stats.base.upstream_rq_active.try_inc(self.config.max_requests) {
            self.stats.base.upstream_rq_pending_overflow.inc();
            return None;
        }
        self.stats.base.upstream_rq_total.inc();
        Some(Admitted(self.clone()))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.stats.base.upstream_rq_active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::from_text;

    fn cluster(extra: &str) -> Cluster {
        let text = format!("name: c\nload_assignment: {{cluster_name: c}}\n{extra}");
        let config = from_text("envoy.config.cluster.v3.Cluster", &text, None).unwrap();
        Cluster::new(ClusterConfig::read(&config, 1).unwrap(), Arc::default())
    }

    fn endpoint(port: u16) -> Endpoint {
        let address = Address::Tcp(([127, 0, 0, 1], port).into());
        Endpoint { address, hostname: String::new(), weight: 1, priority: 0, healthy: true }
    }

    #[test]
    fn endpoint_that_stays_keeps_its_identity() {
        let cluster = cluster("");
        cluster.update(&[endpoint(1), endpoint(2)]);
        let before = cluster.hosts().all[1].clone();
        cluster.update(&[endpoint(2), endpoint(3)]);
        assert!(Arc::ptr_eq(&before, &cluster.hosts().all[0]));
        assert_eq!(cluster.stats.base.membership_change.get(), 2);
    }

    #[test]
    fn failing_endpoint_is_ejected_and_returns() {
        let cluster = cluster(
            "outlier_detection: {consecutive_5xx: 3, base_ejection_time: 0.001s, max_ejection_percent: 50}",
        );
        cluster.update(&[endpoint(1), endpoint(2)]);
        let bad = cluster.hosts().all[0].clone();
        for code in [503, 503, 200, 500, 0, 503] {
            assert!(bad.is_healthy());
            cluster.report(&bad, code);
        }
        assert!(!bad.is_healthy());
        let other = cluster.hosts().all[1].clone();
        (0..5).for_each(|_| cluster.report(&other, 503));
        assert!(other.is_healthy(), "not more than half are ejected");
        std::thread::sleep(Duration::from_millis(2));
        cluster.maintain();
        assert!(bad.is_healthy());
    }

    #[test]
    fn request_limit_holds() {
        let cluster = Arc::new(cluster("circuit_breakers: {thresholds: [{max_requests: 1}]}"));
        let first = cluster.admit().unwrap();
        assert!(cluster.admit().is_none());
        drop(first);
        assert!(cluster.admit().is_some());
    }
}
