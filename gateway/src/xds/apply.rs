//! Resources of the control plane, put in force.

use std::sync::Arc;

use prost_types::Any;

use crate::bootstrap::{ConfigError, from_bytes, pb, type_url};
use crate::manager::Manager;
use crate::net::cluster_config::endpoints;
use crate::stats::AdsStats;

/// The types subscribed to, in the order they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route];

    /// Full name of the message.
    pub fn message(self) -> &'static str {
        match self {
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::Route => "envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// As in discovery requests.
    pub fn type_url(self) -> String {
        type_url(self.message())
    }

    /// The type a response is of.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// Whether everything is subscribed to, rather than names.
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

/// What came in one response.
#[derive(Debug, Default)]
pub struct Update {
    /// Added or changed.
    pub resources: Vec<Any>,
    /// Named as gone (delta).
    pub removed: Vec<String>,
    /// What is not in `resources` is gone (state of the world, wildcard types).
    pub complete: bool,
}

/// Applies updates.
#[derive(Debug, Clone)]
pub struct Applier {
    /// Where they go.
    pub manager: Arc<Manager>,
}

impl Applier {
    /// Applies what can be applied.
    ///
    /// # Errors
    /// Why the rest cannot, one reason after the other.
    pub async fn apply(&self, kind: Kind, update: Update) -> Result<(), String> {
        let stats = self.stats(kind);
        stats.iter().for_each(|stats| stats.update_attempt.inc());
        let mut errors: Vec<String> = Vec::new();
        match kind {
            Kind::Cluster => self.clusters(&update, &mut errors),
            Kind::Endpoint => self.endpoints(&update, &mut errors),
            Kind::Listener => self.listeners(&update, &mut errors).await,
            Kind::Route => self.routes(&update, &mut errors),
        }
        if errors.is_empty() {
            stats.iter().for_each(|stats| stats.update_success.inc());
            return Ok(());
        }
        stats.iter().for_each(|stats| stats.update_rejected.inc());
        Err(errors.join("; "))
    }

    fn stats(&self, kind: Kind) -> Option<&AdsStats> {
        match kind {
            Kind::Cluster => Some(&self.manager.state.stats.cds),
            Kind::Listener => Some(&self.manager.state.stats.lds),
            Kind::Endpoint | Kind::Route => None,
        }
    }

    fn decode<M: prost::Message + Default>(&self, kind: Kind, any: &Any) -> Result<M, ConfigError> {
        let holds = any.type_url.rsplit('/').next().unwrap_or_default();
        if holds != kind.message() {
            return Err(ConfigError::invalid(
                any.type_url.clone(),
                format!("{} is expected", kind.message()),
            ));
        }
        from_bytes(kind.message(), &any.value)
    }

    fn clusters(&self, update: &Update, errors: &mut Vec<String>) {
        let mut names = Vec::new();
        for any in &update.resources {
            // A bad resource must not make its old self disappear: its name counts as present.
            names.extend(name_of(any));
            let result = self
                .decode::<pb::cluster::Cluster>(Kind::Cluster, any)
                .and_then(|cluster| self.manager.clusters.apply(&cluster, true));
            if let Err(error) = result {
                errors.push(format!("Error adding/updating cluster(s): {error}"));
            }
        }
        let gone = self
            .manager
            .clusters
            .api_names()
            .into_iter()
            .filter(|name| update.complete && !names.contains(name));
        for name in gone.chain(update.removed.iter().cloned()) {
            self.manager.clusters.remove(&name);
        }
        self.manager.clusters.forget_assignments(&self.manager.clusters.services());
    }

    fn endpoints(&self, update: &Update, errors: &mut Vec<String>) {
        for any in &update.resources {
            let result = self
                .decode::<pb::endpoint::ClusterLoadAssignment>(Kind::Endpoint, any)
                .and_then(|assignment| {
                    let endpoints = endpoints(&assignment, false)
                        .map_err(|e| e.within(&assignment.cluster_name))?;
                    self.manager.clusters.assign(&assignment.cluster_name, endpoints);
                    Ok(())
                });
            if let Err(error) = result {
                errors.push(error.to_string());
            }
        }
        for name in &update.removed {
            self.manager.clusters.assign(name, Vec::new());
        }
    }

    async fn listeners(&self, update: &Update, errors: &mut Vec<String>) {
        let mut names = Vec::new();
        for any in &update.resources {
            names.extend(name_of(any));
            let result = match self.decode::<pb::listener::Listener>(Kind::Listener, any) {
                Ok(listener) => self.manager.listeners.apply(&listener, true).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                errors.push(format!("Error adding/updating listener(s): {error}"));
            }
        }
        let api = self.manager.listeners.api_names().await;
        let gone = api.into_iter().filter(|name| update.complete && !names.contains(name));
        for name in gone.chain(update.removed.iter().cloned()) {
            self.manager.listeners.remove(&name).await;
        }
    }

    fn routes(&self, update: &Update, errors: &mut Vec<String>) {
        for any in &update.resources {
            let name = name_of(any).unwrap_or_default();
            let stats = self.manager.state.stats.rds(&format!("ads.rds.{name}"));
            stats.update_attempt.inc();
            let decoded = self.decode::<pb::route::RouteConfiguration>(Kind::Route, any);
            match decoded.and_then(|routes| self.manager.apply_routes(&routes)) {
                Ok(()) => stats.update_success.inc(),
                Err(error) => {
                    stats.update_rejected.inc();
                    errors.push(format!("route config {name}: {error}"));
                }
            }
        }
    }
}

/// The name of a resource whose message cannot be used: field 1 of all four types.
fn name_of(any: &Any) -> Option<String> {
    use prost::Message;
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    Named::decode(any.value.as_slice()).ok().map(|named| named.name).filter(|name| !name.is_empty())
}
