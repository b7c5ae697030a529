//! Everything that runs on this node: the index of sandboxes and containers, and their names.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::error::{Error, Result};
use super::events::{Change, Event, Events};
use super::identity::{Match, resolve};
use super::ipam::{Cidr, Ipam};
use super::ports::{Images, Machine, Network, Records, Shims};
use super::records::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord};

/// What the domain can be told by configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Range of the pods' addresses.
    pub pod_cidr: Cidr,
    /// Cgroup for sandboxes that name no parent.
    pub cgroup_parent: String,
}

/// The node. Shared by all services.
pub struct Node {
    pub(super) settings: Settings,
    pub(super) images: Arc<dyn Images>,
    pub(super) network: Arc<dyn Network>,
    pub(super) shims: Arc<dyn Shims>,
    pub(super) records: Arc<dyn Records>,
    pub(super) machine: Arc<dyn Machine>,
    pub(super) index: Mutex<Index>,
    /// Changes of containers and sandboxes.
    pub events: Events,
}

/// A sandbox in memory.
#[derive(Debug)]
pub struct Sandbox {
    /// Sandbox id.
    pub id: String,
    pub(super) record: Mutex<SandboxRecord>,
    /// Held while the sandbox is started, stopped or removed.
    pub(super) operation: tokio::sync::Mutex<()>,
}

/// A container in memory.
#[derive(Debug)]
pub struct Container {
    /// Container id.
    pub id: String,
    pub(super) record: Mutex<ContainerRecord>,
    /// Held while the container is started or removed.
    pub(super) operation: tokio::sync::Mutex<()>,
    /// Fires at every change of phase.
    pub(super) changed: watch::Sender<()>,
}

/// The index. Names are reserved from before the first step until the last record is gone.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) sandboxes: BTreeMap<String, Arc<Sandbox>>,
    pub(super) containers: BTreeMap<String, Arc<Container>>,
    pub(super) names: HashMap<String, String>,
    pub(super) addresses: Ipam,
}

impl Sandbox {
    pub(super) fn new(record: SandboxRecord) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            operation: tokio::sync::Mutex::new(()),
        })
    }

    /// A copy of its record.
    pub fn record(&self) -> SandboxRecord {
        self.record.lock().clone()
    }

    /// How far it got.
    pub fn phase(&self) -> SandboxPhase {
        self.record.lock().phase()
    }
}

impl Container {
    pub(super) fn new(record: ContainerRecord) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            operation: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(()),
        })
    }

    /// A copy of its record.
    pub fn record(&self) -> ContainerRecord {
        self.record.lock().clone()
    }

    /// How far it got.
    pub fn phase(&self) -> ContainerPhase {
        self.record.lock().phase()
    }

    /// Waits until it no longer runs.
    pub async fn ended(&self) {
        let mut changes = self.changed.subscribe();
        while matches!(self.phase(), ContainerPhase::Running | ContainerPhase::Starting) {
            // The sender lives as long as `self`.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Node {
    /// A node without pods; [`Node::recover`](Self::recover) fills it from the records.
    pub fn new(
        settings: Settings,
        images: Arc<dyn Images>,
        network: Arc<dyn Network>,
        shims: Arc<dyn Shims>,
        records: Arc<dyn Records>,
        machine: Arc<dyn Machine>,
    ) -> Arc<Self> {
        let index = Index {
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            names: HashMap::new(),
            addresses: Ipam::new(settings.pod_cidr),
        };
        Arc::new(Self {
            settings,
            images,
            network,
            shims,
            records,
            machine,
            index: Mutex::new(index),
            events: Events::default(),
        })
    }

    /// The machine below.
    pub fn machine(&self) -> &dyn Machine {
        self.machine.as_ref()
    }

    /// The images.
    pub fn images(&self) -> &dyn Images {
        self.images.as_ref()
    }

    /// All sandboxes that exist for clients.
    pub fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        let visible = |sandbox: &&Arc<Sandbox>| {
            matches!(sandbox.phase(), SandboxPhase::Ready | SandboxPhase::Stopped)
        };
        self.index.lock().sandboxes.values().filter(visible).cloned().collect()
    }

    /// All containers that exist for clients.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        let visible = |c: &&Arc<Container>| {
            !matches!(c.phase(), ContainerPhase::Creating | ContainerPhase::Removing)
        };
        self.index.lock().containers.values().filter(visible).cloned().collect()
    }

    /// Containers of a sandbox, in any phase.
    pub fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let index = self.index.lock();
        index
            .containers
            .values()
            .filter(|c| c.record.lock().sandbox_id == sandbox)
            .cloned()
            .collect()
    }

    /// The sandbox whose id is or starts with `part`.
    ///
    /// # Errors
    /// NotFound, or when several ids start like this.
    pub fn sandbox(&self, part: &str) -> Result<Arc<Sandbox>> {
        let index = self.index.lock();
        match resolve(part, index.sandboxes.keys()) {
            Match::One(id) => Ok(index.sandboxes[id].clone()),
            Match::None => {
                Err(Error::NotFound(format!("an error occurred when try to find sandbox {part:?}")))
            }
            Match::Many => Err(Error::Invalid(format!(
                "several sandboxes have an id that starts with {part:?}"
            ))),
        }
    }

    /// The container whose id is or starts with `part`.
    ///
    /// # Errors
    /// NotFound, or when several ids start like this.
    pub fn container(&self, part: &str) -> Result<Arc<Container>> {
        let index = self.index.lock();
        match resolve(part, index.containers.keys()) {
            Match::One(id) => Ok(index.containers[id].clone()),
            Match::None => Err(Error::NotFound(format!(
                "an error occurred when try to find container {part:?}"
            ))),
            Match::Many => Err(Error::Invalid(format!(
                "several containers have an id that starts with {part:?}"
            ))),
        }
    }

    /// Reserves a name.
    pub(super) fn reserve_name(&self, name: &str, id: &str, what: &str) -> Result<()> {
        let mut index = self.index.lock();
        if let Some(holder) = index.names.get(name) {
            let text = format!(
                "failed to reserve {what} name {name:?}: name {name:?} is reserved for {holder:?}"
            );
            return Err(Error::Failed(text));
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    pub(super) fn release_name(&self, name: &str) {
        self.index.lock().names.remove(name);
    }

    pub(super) fn release_address(&self, ip: &str) {
        if let Ok(ip) = ip.parse::<Ipv4Addr>() {
            self.index.lock().addresses.release(ip);
        }
    }

    /// Changes a sandbox's record and saves it.
    pub(super) fn update_sandbox(
        &self,
        sandbox: &Sandbox,
        change: impl FnOnce(&mut SandboxRecord),
    ) -> Result<()> {
        let mut record = sandbox.record.lock();
        change(&mut record);
        self.records.save_sandbox(&record)
    }

    /// Changes a container's record and saves it; those who wait for a change are woken.
    pub(super) fn update_container(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<()> {
        let saved = {
            let mut record = container.record.lock();
            change(&mut record);
            self.records.save_container(&record)
        };
        container.changed.send_replace(());
        saved
    }

    pub(super) fn tell(&self, id: &str, sandbox_id: &str, change: Change) {
        let event = Event {
            id: id.to_owned(),
            sandbox_id: sandbox_id.to_owned(),
            change,
            at: self.machine.now(),
        };
        self.events.send(event);
    }
}
