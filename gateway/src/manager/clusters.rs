//! Clusters: added, changed, warmed, removed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::WARMING;
use crate::bootstrap::{ConfigError, pb};
use crate::net::cluster::{Cluster, Endpoint};
use crate::net::cluster_config::{ClusterConfig, Discovery};
use crate::net::{dns, health};
use crate::state::State;

/// A cluster and what belongs to it. Dropping it ends its tasks.
#[derive(Debug)]
struct Entry {
    config: pb::cluster::Cluster,
    cluster: Arc<Cluster>,
    via_api: bool,
    warm: bool,
    _tasks: DropGuard,
}

#[derive(Debug, Default)]
struct Inner {
    active: BTreeMap<String, Entry>,
    warming: BTreeMap<String, Entry>,
    assignments: HashMap<String, Vec<Endpoint>>,
}

/// The cluster manager.
#[derive(Debug)]
pub struct Clusters {
    state: Arc<State>,
    connections: usize,
    inner: Arc<Mutex<Inner>>,
}

impl Clusters {
    /// No clusters; endpoints get `connections` HTTP/2 connections each.
    pub fn new(state: Arc<State>, connections: usize) -> Self {
        Self { state, connections, inner: Arc::default() }
    }

    /// Reads a cluster without putting it in force.
    ///
    /// # Errors
    /// Names what cannot work.
    pub fn check(&self, config: &pb::cluster::Cluster) -> Result<ClusterConfig, ConfigError> {
        ClusterConfig::read(config, self.connections)
    }

    /// Adds or changes a cluster. One that did not change is left alone.
    ///
    /// # Errors
    /// Names what cannot work; the old one stays.
    pub fn apply(&self, config: &pb::cluster::Cluster, via_api: bool) -> Result<(), ConfigError> {
        let read = self.check(config)?;
        let mut inner = self.inner.lock();
        let name = config.name.clone();
        let same = |entry: &Entry| entry.config == *config;
        if inner.warming.get(&name).is_some_and(same)
            || (inner.active.get(&name).is_some_and(same) && !inner.warming.contains_key(&name))
        {
            return Ok(());
        }
        if via_api && inner.active.get(&name).is_some_and(|entry| !entry.via_api) {
            tracing::debug!(cluster = name, "a static cluster is not changed by the control plane");
            return Ok(());
        }
        let stop = CancellationToken::new();
        let cluster = Arc::new(Cluster::new(read, self.state.stats.cluster(&name)));
        let entry = Entry {
            config: config.clone(),
            cluster: cluster.clone(),
            via_api,
            warm: false,
            _tasks: stop.clone().drop_guard(),
        };
        self.start(&cluster, &stop, &inner.assignments);
        let ready = match &cluster.config.discovery {
            Discovery::Static(_) => true,
            Discovery::Eds(service) => inner.assignments.contains_key(service),
            Discovery::StrictDns(_) | Discovery::LogicalDns(_) => false,
        };
        // Without an old one there is nothing to keep serving, and static routes need the name at once.
        let publish_now = ready || (!via_api && !inner.active.contains_key(&name));
        if publish_now {
            self.promote(&mut inner, name, entry);
        } else {
            inner.warming.insert(name.clone(), entry);
            self.later(name);
        }
        self.count(&inner);
        Ok(())
    }

    fn start(
        &self,
        cluster: &Arc<Cluster>,
        stop: &CancellationToken,
        assignments: &HashMap<String, Vec<Endpoint>>,
    ) {
        match &cluster.config.discovery {
            Discovery::Static(endpoints) => cluster.update(endpoints),
            Discovery::Eds(service) => {
                if let Some(endpoints) = assignments.get(service) {
                    cluster.update(endpoints);
                }
            }
            Discovery::StrictDns(_) | Discovery::LogicalDns(_) => {
                let (first, resolved) = oneshot::channel();
                tokio::spawn(dns::follow(cluster.clone(), stop.clone(), first));
                let (this, name) = (self.handle(), cluster.config.name.clone());
                tokio::spawn(async move {
                    // An error means that the cluster is gone.
                    if resolved.await.is_ok() {
                        this.warmed(&name);
                    }
                });
            }
        }
        for check in &cluster.config.health_checks {
            tokio::spawn(health::run(cluster.clone(), check.clone(), stop.clone()));
        }
        let (weak, stop) = (Arc::downgrade(cluster), stop.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                }
                match weak.upgrade() {
                    Some(cluster) => cluster.maintain(),
                    None => return,
                }
            }
        });
    }

    fn handle(&self) -> Self {
        Self { state: self.state.clone(), connections: self.connections, inner: self.inner.clone() }
    }

    fn later(&self, name: String) {
        let this = self.handle();
        tokio::spawn(async move {
            tokio::time::sleep(WARMING).await;
            this.warmed(&name);
        });
    }

    fn warmed(&self, name: &str) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.warming.remove(name) {
            self.promote(&mut inner, name.to_owned(), entry);
        } else if let Some(entry) = inner.active.get_mut(name) {
            entry.warm = true;
        }
        self.count(&inner);
    }

    fn promote(&self, inner: &mut Inner, name: String, mut entry: Entry) {
        entry.warm = true;
        let cluster = entry.cluster.clone();
        self.state.clusters.edit(|map| {
            map.insert(name.clone(), cluster.clone());
        });
        let stats = &self.state.stats.cluster_manager;
        if inner.active.insert(name.clone(), entry).is_some() {
            stats.cluster_modified.inc();
        } else {
            stats.cluster_added.inc();
        }
        inner.warming.remove(&name);
    }

    fn count(&self, inner: &Inner) {
        let stats = &self.state.stats.cluster_manager;
        stats.active_clusters.set(i64::try_from(inner.active.len()).unwrap_or(i64::MAX));
        stats.warming_clusters.set(i64::try_from(inner.warming.len()).unwrap_or(i64::MAX));
    }

    /// Removes a cluster the API added; requests in flight finish.
    pub fn remove(&self, name: &str) {
        let mut inner = self.inner.lock();
        inner.warming.remove(name);
        if inner.active.get(name).is_some_and(|entry| entry.via_api) {
            inner.active.remove(name);
            self.state.clusters.edit(|map| {
                map.remove(name);
            });
            self.state.stats.cluster_manager.cluster_removed.inc();
        }
        self.count(&inner);
    }

    /// Puts the endpoints of an EDS service in force, and promotes clusters that waited for them.
    pub fn assign(&self, service: &str, endpoints: Vec<Endpoint>) {
        let mut inner = self.inner.lock();
        let concerned = |entry: &&Entry| matches!(&entry.cluster.config.discovery, Discovery::Eds(name) if name == service);
        for entry in inner.active.values().chain(inner.warming.values()).filter(concerned) {
            entry.cluster.stats.base.update_attempt.inc();
            entry.cluster.stats.base.update_success.inc();
            entry.cluster.update(&endpoints);
        }
        let ready: Vec<String> = inner
            .warming
            .iter()
            .filter(|(_, entry)| concerned(entry))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            if let Some(entry) = inner.warming.remove(&name) {
                self.promote(&mut inner, name, entry);
            }
        }
        inner.assignments.insert(service.to_owned(), endpoints);
        self.count(&inner);
    }

    /// Forgets the endpoints of services no cluster uses.
    pub fn forget_assignments(&self, used: &[String]) {
        self.inner.lock().assignments.retain(|service, _| used.contains(service));
    }

    /// The EDS services clusters wait for or use.
    pub fn services(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let mut names: Vec<String> = inner
            .active
            .values()
            .chain(inner.warming.values())
            .filter_map(|entry| match &entry.cluster.config.discovery {
                Discovery::Eds(service) => Some(service.clone()),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Names of the clusters the API added.
    pub fn api_names(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let active = inner.active.iter().filter(|(_, entry)| entry.via_api).map(|(name, _)| name);
        let mut names: Vec<String> = active.chain(inner.warming.keys()).cloned().collect();
        names.dedup();
        names
    }

    /// Every cluster as configured, and whether the API added it.
    pub fn configs(&self) -> Vec<(pb::cluster::Cluster, bool)> {
        self.inner
            .lock()
            .active
            .values()
            .map(|entry| (entry.config.clone(), entry.via_api))
            .collect()
    }

    /// Whether a cluster waits for its first endpoints.
    pub fn is_warming(&self) -> bool {
        let inner = self.inner.lock();
        !inner.warming.is_empty()
            || inner.active.values().any(|entry| {
                !entry.warm
                    && matches!(
                        entry.cluster.config.discovery,
                        Discovery::StrictDns(_) | Discovery::LogicalDns(_)
                    )
            })
    }
}
