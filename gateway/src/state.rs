//! What every part of the process shares: clusters and routes in force, stats, logs, and whether it serves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use crate::access_log::Sinks;
use crate::engine::table::RouteTable;
use crate::net::cluster::Cluster;
use crate::stats::Registry;

/// A route table that may not have come yet.
pub type RouteSlot = Arc<ArcSwapOption<RouteTable>>;

/// Clusters by name, read on every request without a lock.
#[derive(Debug, Default)]
pub struct ClusterMap(ArcSwap<HashMap<String, Arc<Cluster>>>);

impl ClusterMap {
    /// The cluster with this name.
    pub fn get(&self, name: &str) -> Option<Arc<Cluster>> {
        self.0.load().get(name).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Arc<HashMap<String, Arc<Cluster>>> {
        self.0.load_full()
    }

    /// Replaces the map by an edited copy.
    pub fn edit(&self, edit: impl Fn(&mut HashMap<String, Arc<Cluster>>)) {
        self.0.rcu(|map| {
            let mut map = HashMap::clone(map);
            edit(&mut map);
            map
        });
    }
}

/// The shared state.
#[derive(Debug)]
pub struct State {
    /// Clusters in force.
    pub clusters: ClusterMap,
    /// Stats.
    pub stats: Arc<Registry>,
    /// Access logs.
    pub sinks: Sinks,
    routes: Mutex<HashMap<String, RouteSlot>>,
    /// Set when the first configuration is in force.
    pub initialized: AtomicBool,
    /// Set by `/healthcheck/fail` and while draining.
    pub failing: AtomicBool,
}

impl State {
    /// Nothing configured.
    pub fn new(concurrency: usize) -> Arc<Self> {
        let stats = Arc::new(Registry::new(concurrency));
        Arc::new(Self {
            clusters: ClusterMap::default(),
            sinks: Sinks::new(stats.clone()),
            stats,
            routes: Mutex::default(),
            initialized: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        })
    }

    /// Where the control plane's route configuration `name` is kept; empty until it came.
    pub fn route_slot(&self, name: &str) -> RouteSlot {
        self.routes.lock().entry(name.to_owned()).or_default().clone()
    }

    /// `LIVE`, `DRAINING` or `PRE_INITIALIZING`.
    pub fn phase(&self) -> &'static str {
        if self.failing.load(Ordering::Acquire) {
            "DRAINING"
        } else if self.initialized.load(Ordering::Acquire) {
            "LIVE"
        } else {
            "PRE_INITIALIZING"
        }
    }
}
