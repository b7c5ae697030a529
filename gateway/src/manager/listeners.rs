//! Listeners: bound, changed, warmed, drained.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_config::ListenAddr;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::WARMING;
use crate::bootstrap::{ConfigError, pb};
use crate::net::listener::ActiveListener;
use crate::net::listener_config::ListenerConfig;
use crate::state::State;

#[derive(Debug)]
struct Entry {
    config: pb::listener::Listener,
    listener: ActiveListener,
    via_api: bool,
}

#[derive(Debug, Default)]
struct Inner {
    active: BTreeMap<String, Entry>,
    warming: BTreeMap<String, (pb::listener::Listener, ListenerConfig, bool)>,
}

/// The listener manager.
#[derive(Debug)]
pub struct Listeners {
    state: Arc<State>,
    inner: Arc<Mutex<Inner>>,
    connections: TaskTracker,
}

impl Listeners {
    /// No listeners.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, inner: Arc::default(), connections: TaskTracker::new() }
    }

    fn handle(&self) -> Self {
        Self {
            state: self.state.clone(),
            inner: self.inner.clone(),
            connections: self.connections.clone(),
        }
    }

    /// Adds or changes a listener. It serves as soon as its routes are there.
    ///
    /// # Errors
    /// Names what cannot work or be bound; the old one stays.
    pub async fn apply(
        &self,
        config: &pb::listener::Listener,
        via_api: bool,
    ) -> Result<(), ConfigError> {
        let read = ListenerConfig::read(&self.state, config)?;
        let mut inner = self.inner.lock().await;
        let name = read.name.clone();
        if inner.active.get(&name).is_some_and(|entry| entry.config == *config) {
            inner.warming.remove(&name);
            return Ok(());
        }
        if via_api && inner.active.get(&name).is_some_and(|entry| !entry.via_api) {
            tracing::debug!(
                listener = name,
                "a static listener is not changed by the control plane"
            );
            return Ok(());
        }
        let waits = read
            .waits_for
            .as_ref()
            .is_some_and(|routes| self.state.route_slot(routes).load().is_none());
        if waits {
            let fresh =
                inner.warming.insert(name.clone(), (config.clone(), read, via_api)).is_none();
            self.count(&inner);
            if fresh {
                let this = self.handle();
                tokio::spawn(async move {
                    tokio::time::sleep(WARMING).await;
                    this.warmed(true).await;
                });
            }
            return Ok(());
        }
        self.put(&mut inner, config.clone(), read, via_api).await
    }

    async fn put(
        &self,
        inner: &mut Inner,
        config: pb::listener::Listener,
        read: ListenerConfig,
        via_api: bool,
    ) -> Result<(), ConfigError> {
        let (name, stats) = (read.name.clone(), &self.state.stats.listener_manager);
        inner.warming.remove(&name);
        if let Some(entry) = inner.active.get_mut(&name)
            && entry.listener.config().address == read.address
        {
            entry.listener.replace(read);
            (entry.config, entry.via_api) = (config, via_api);
            stats.listener_modified.inc();
            self.count(inner);
            return Ok(());
        }
        let started =
            ActiveListener::start(read, &self.state.stats, self.connections.clone()).await;
        let listener = started.map_err(|error| {
            stats.listener_create_failure.inc();
            ConfigError::invalid(format!("listeners[{name}].address"), error.to_string())
        })?;
        stats.listener_create_success.inc();
        stats.listener_added.inc();
        if let Some(old) = inner.active.insert(name, Entry { config, listener, via_api }) {
            old.listener.drain();
        }
        self.count(inner);
        Ok(())
    }

    /// A route configuration arrived: listeners that waited for it start.
    pub fn routes_arrived(&self) {
        let this = self.handle();
        tokio::spawn(async move { this.warmed(false).await });
    }

    async fn warmed(&self, whatever: bool) {
        let mut inner = self.inner.lock().await;
        let has = |read: &ListenerConfig| {
            whatever
                || read
                    .waits_for
                    .as_ref()
                    .is_none_or(|routes| self.state.route_slot(routes).load().is_some())
        };
        let ready: Vec<String> = inner
            .warming
            .iter()
            .filter(|(_, (_, read, _))| has(read))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let Some((config, read, via_api)) = inner.warming.remove(&name) else { continue };
            if let Err(error) = self.put(&mut inner, config, read, via_api).await {
                tracing::error!(listener = name, %error, "cannot start a listener");
            }
        }
        self.count(&inner);
    }

    /// Removes a listener the API added; its connections end after the requests in flight.
    pub async fn remove(&self, name: &str) {
        let mut inner = self.inner.lock().await;
        inner.warming.remove(name);
        if inner.active.get(name).is_some_and(|entry| entry.via_api)
            && let Some(entry) = inner.active.remove(name)
        {
            entry.listener.drain();
            self.state.stats.listener_manager.listener_removed.inc();
        }
        self.count(&inner);
    }

    fn count(&self, inner: &Inner) {
        let stats = &self.state.stats.listener_manager;
        stats.total_listeners_active.set(i64::try_from(inner.active.len()).unwrap_or(i64::MAX));
        stats.total_listeners_warming.set(i64::try_from(inner.warming.len()).unwrap_or(i64::MAX));
    }

    /// Route configurations listeners use or wait for.
    pub async fn route_names(&self) -> Vec<String> {
        let inner = self.inner.lock().await;
        let active = inner.active.values().filter_map(|entry| entry.listener.config().waits_for);
        let mut names: Vec<String> = active
            .chain(inner.warming.values().filter_map(|(_, read, _)| read.waits_for.clone()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Names of the listeners the API added.
    pub async fn api_names(&self) -> Vec<String> {
        let inner = self.inner.lock().await;
        let active = inner.active.iter().filter(|(_, entry)| entry.via_api).map(|(name, _)| name);
        active.chain(inner.warming.keys()).cloned().collect()
    }

    /// Name, bound address, configuration and origin of every listener.
    pub async fn list(&self) -> Vec<(String, ListenAddr, pb::listener::Listener, bool)> {
        let inner = self.inner.lock().await;
        let list = inner.active.iter().map(|(name, entry)| {
            (name.clone(), entry.listener.bound.clone(), entry.config.clone(), entry.via_api)
        });
        list.collect()
    }

    /// Stops all listeners and waits until their connections ended, at most `limit`.
    pub async fn drain(&self, limit: std::time::Duration) {
        for entry in self.inner.lock().await.active.values() {
            entry.listener.drain();
        }
        self.connections.close();
        if tokio::time::timeout(limit, self.connections.wait()).await.is_err() {
            tracing::warn!(
                seconds = limit.as_secs(),
                "connections still open after the drain time were cut"
            );
        }
    }

    /// Stops accepting on all listeners; connections end after the requests in flight.
    pub async fn stop_accepting(&self) {
        for entry in self.inner.lock().await.active.values() {
            entry.listener.drain();
        }
    }
}
