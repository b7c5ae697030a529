//! Configuration in force: clusters, listeners and routes are added, changed and removed here, one change at a time,
//! whoever asks for it (the bootstrap, the control plane, the registry).
//!
//! A change is applied whole or not at all: resources are read completely before the old ones go. What is new waits
//! (warms) until its endpoints or routes are there, and the old serves until then.

mod clusters;
mod listeners;

use std::sync::Arc;
use std::time::Duration;

pub use clusters::Clusters;
pub use listeners::Listeners;

use crate::bootstrap::{ConfigError, pb};
use crate::engine::route_compile::compile;
use crate::state::State;

/// How long something new waits for what it depends on; Envoy's `initial_fetch_timeout`.
const WARMING: Duration = Duration::from_secs(15);

/// All managers.
#[derive(Debug)]
pub struct Manager {
    /// Shared state.
    pub state: Arc<State>,
    /// Clusters.
    pub clusters: Clusters,
    /// Listeners.
    pub listeners: Listeners,
    /// Route configurations of the control plane as received, for `/config_dump`.
    pub routes:
        parking_lot::Mutex<std::collections::BTreeMap<String, pb::route::RouteConfiguration>>,
}

impl Manager {
    /// Nothing configured.
    pub fn new(state: Arc<State>, concurrency: usize) -> Arc<Self> {
        Arc::new(Self {
            clusters: Clusters::new(state.clone(), concurrency),
            listeners: Listeners::new(state.clone()),
            state,
            routes: parking_lot::Mutex::default(),
        })
    }

    /// Puts a route configuration of the control plane in force.
    ///
    /// # Errors
    /// Names what cannot work; the old one stays.
    pub fn apply_routes(&self, config: &pb::route::RouteConfiguration) -> Result<(), ConfigError> {
        let table = compile(config)?;
        self.state.route_slot(&config.name).store(Some(Arc::new(table)));
        self.routes.lock().insert(config.name.clone(), config.clone());
        self.listeners.routes_arrived();
        Ok(())
    }
}
