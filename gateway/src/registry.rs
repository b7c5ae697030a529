//! Instances that announced themselves, in memory, with a time to live. Every change is put in force at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::broadcast;

use crate::bootstrap::{ConfigError, pb};
use crate::manager::Manager;
use crate::net::address::Address;
use crate::net::cluster::Endpoint;

const MAX_INSTANCES: usize = 65_536;
const MAX_WEIGHT: u32 = 128;
const EVENTS: usize = 1024;

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in registry.proto")]
pub struct Instance {
    pub service: String,
    pub id: String,
    pub address: String,
    pub weight: u32,
    pub http2: bool,
    pub labels: BTreeMap<String, String>,
}

/// A change.
#[derive(Debug, Clone)]
pub enum Event {
    /// New or changed.
    Put(Instance),
    /// Gone.
    Delete(Instance),
}

/// Why an instance is refused.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// A field cannot work.
    #[error("{0}")]
    Invalid(String),
    /// The instances of a service disagree.
    #[error("service {0} has instances that speak another protocol")]
    Protocol(String),
    /// Too many.
    #[error("the registry is full")]
    Full,
    /// The cluster cannot be made.
    #[error("{0}")]
    Config(#[from] ConfigError),
}

/// The instances.
#[derive(Debug)]
pub struct Instances {
    manager: Arc<Manager>,
    map: Mutex<BTreeMap<(String, String), (Instance, Instant)>>,
    events: broadcast::Sender<Event>,
}

impl Instances {
    /// None yet.
    pub fn new(manager: Arc<Manager>) -> Arc<Self> {
        Arc::new(Self { manager, map: Mutex::default(), events: broadcast::channel(EVENTS).0 })
    }

    /// Adds or renews an instance for `ttl`.
    ///
    /// # Errors
    /// When a field cannot work or the registry is full.
    pub fn put(&self, instance: Instance, ttl: Duration) -> Result<(), RegistryError> {
        check(&instance)?;
        let mut map = self.map.lock();
        let key = (instance.service.clone(), instance.id.clone());
        let others = map
            .values()
            .filter(|(other, _)| other.service == instance.service && other.id != instance.id);
        if others.clone().any(|(other, _)| other.http2 != instance.http2) {
            return Err(RegistryError::Protocol(instance.service));
        }
        if map.len() >= MAX_INSTANCES && !map.contains_key(&key) {
            return Err(RegistryError::Full);
        }
        let changed = map.get(&key).is_none_or(|(old, _)| *old != instance);
        map.insert(key, (instance.clone(), Instant::now() + ttl));
        if changed {
            self.publish(&map, &instance)?;
            // Nobody may be watching.
            let _ = self.events.send(Event::Put(instance));
        }
        Ok(())
    }

    /// Removes an instance; says whether it was there.
    pub fn remove(&self, service: &str, id: &str) -> bool {
        let mut map = self.map.lock();
        let Some((instance, _)) = map.remove(&(service.to_owned(), id.to_owned())) else {
            return false;
        };
        self.gone(&map, instance);
        true
    }

    fn gone(&self, map: &BTreeMap<(String, String), (Instance, Instant)>, instance: Instance) {
        if let Err(error) = self.publish(map, &instance) {
            tracing::error!(service = instance.service, %error, "cannot update a registered service");
        }
        // Nobody may be watching.
        let _ = self.events.send(Event::Delete(instance));
    }

    /// Removes the instances whose time is over.
    pub fn expire(&self) {
        let mut map = self.map.lock();
        let now = Instant::now();
        let over: Vec<_> = map
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            if let Some((instance, _)) = map.remove(&key) {
                tracing::info!(
                    service = instance.service,
                    id = instance.id,
                    "registration expired"
                );
                self.gone(&map, instance);
            }
        }
    }

    /// The instances of a service, or all of them.
    pub fn list(&self, service: &str) -> Vec<Instance> {
        let map = self.map.lock();
        map.values()
            .map(|(instance, _)| instance)
            .filter(|i| service.is_empty() || i.service == service)
            .cloned()
            .collect()
    }

    /// The instances now and every change from now on.
    pub fn watch(&self, service: &str) -> (Vec<Instance>, broadcast::Receiver<Event>) {
        let map = self.map.lock();
        let events = self.events.subscribe();
        let list = map
            .values()
            .map(|(instance, _)| instance)
            .filter(|i| service.is_empty() || i.service == service);
        (list.cloned().collect(), events)
    }

    fn publish(
        &self,
        map: &BTreeMap<(String, String), (Instance, Instant)>,
        changed: &Instance,
    ) -> Result<(), RegistryError> {
        let name = format!("registry/{}", changed.service);
        let mut endpoints = Vec::new();
        for (instance, _) in
            map.values().filter(|(instance, _)| instance.service == changed.service)
        {
            endpoints.push(Endpoint {
                address: address(&instance.address)?,
                hostname: String::new(),
                weight: instance.weight,
                priority: 0,
                healthy: true,
            });
        }
        if self.manager.state.clusters.get(&name).is_none() {
            let config = pb::cluster::Cluster {
                name: name.clone(),
                http2_protocol_options: changed.http2.then(pb::core::Http2ProtocolOptions::default),
                ..pb::cluster::Cluster::default()
            };
            self.manager.clusters.apply(&config, false)?;
        }
        if let Some(cluster) = self.manager.state.clusters.get(&name) {
            cluster.update(&endpoints);
        }
        Ok(())
    }
}

fn check(instance: &Instance) -> Result<(), RegistryError> {
    let name = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !name(&instance.service) {
        return Err(RegistryError::Invalid(
            "service must be 1 to 253 letters, digits, '-', '_' or '.'".to_owned(),
        ));
    }
    if instance.id.is_empty() || instance.id.len() > 253 {
        return Err(RegistryError::Invalid("id must have 1 to 253 bytes".to_owned()));
    }
    if instance.weight > MAX_WEIGHT {
        return Err(RegistryError::Invalid(format!("weight must be at most {MAX_WEIGHT}")));
    }
    address(&instance.address).map(drop)
}

fn address(text: &str) -> Result<Address, RegistryError> {
    if let Some(path) = text.strip_prefix("unix://").filter(|path| !path.is_empty()) {
        return Ok(Address::Unix(path.into()));
    }
    let parsed = text.parse().map(Address::Tcp);
    parsed.map_err(|_| {
        RegistryError::Invalid(format!("address {text:?} is neither IP:PORT nor unix:///path"))
    })
}
