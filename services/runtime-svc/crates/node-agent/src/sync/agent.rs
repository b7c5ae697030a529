//! What all parts of an agent share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};

use crate::engine::env::Service;
use crate::engine::field::NodeFacts;
use crate::engine::kube::Pod;
use crate::engine::resources::CgroupDriver;
use crate::engine::sandbox_config::SandboxFacts;
use crate::host::cgroups::Cgroups;
use crate::host::machine::Machine;
use crate::host::paths::Paths;
use crate::host::resolv;
use crate::metrics::Metrics;
use crate::remote::api_server::ApiServer;
use crate::remote::cri::Cri;
use crate::remote::events::Recorder;

/// Pulls that go on at once.
pub const PARALLEL_PULLS: usize = 3;

/// The shared parts.
#[derive(Debug)]
pub struct Agent {
    /// Name of the node.
    pub node: String,
    /// Address of the node.
    pub node_ip: String,
    /// The runtime.
    pub cri: Cri,
    /// The API server.
    pub api: ApiServer,
    /// Events.
    pub recorder: Recorder,
    /// Folders.
    pub paths: Paths,
    /// Cgroup trees.
    pub cgroups: Cgroups,
    /// Size of the node.
    pub machine: Machine,
    /// Figures.
    pub metrics: Metrics,
    /// Limits the pulls.
    pub pulls: Semaphore,
    /// Services for environments; `None` until they are known.
    pub services: watch::Sender<Option<Arc<Vec<Service>>>>,
    /// Pods and their last status, for the kubelet API.
    pub pods: RwLock<BTreeMap<String, Arc<Pod>>>,
    /// Whether the runtime answers.
    pub runtime_up: watch::Sender<bool>,
    /// How the runtime names cgroups.
    pub cgroup_driver: RwLock<CgroupDriver>,
    /// Flags.
    pub settings: Settings,
}

/// Flags that shape pods.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Resolvers of the cluster.
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The node's resolver configuration.
    pub resolv_conf: PathBuf,
    /// Cgroup below which kubepods lies.
    pub cgroup_root: String,
    /// How often a pod is looked at without a reason.
    pub sync_frequency: Duration,
    /// Pods the node takes.
    pub max_pods: u32,
    /// What must stay free, else the node is under pressure.
    pub eviction_hard: crate::engine::eviction::EvictionHard,
    /// Bytes of a log file at which it is rotated.
    pub log_max_size: u64,
    /// Files kept of a log.
    pub log_max_files: u32,
    /// Percent of the image disk at which unused images go, and down to which.
    pub image_gc: (u8, u8),
}

impl Agent {
    /// What sandboxes need to know.
    pub fn sandbox_facts(&self) -> SandboxFacts {
        SandboxFacts {
            cgroup_root: self.settings.cgroup_root.clone(),
            cgroup_driver: *self.cgroup_driver.read(),
            log_root: self.paths.logs().to_string_lossy().into_owned(),
            cluster_dns: self.settings.cluster_dns.clone(),
            cluster_domain: self.settings.cluster_domain.clone(),
            host_dns: resolv::read(&self.settings.resolv_conf),
        }
    }

    /// What fields of the downward API need to know.
    pub fn node_facts(&self) -> NodeFacts {
        NodeFacts {
            name: self.node.clone(),
            ip: self.node_ip.clone(),
            cpu_milli: self.machine.cpus * 1000,
            memory: self.machine.memory,
            storage: self.machine.storage,
        }
    }

    /// The pod with this name, and its last status.
    pub fn find_pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.pods.read();
        pods.values()
            .find(|pod| pod.metadata.namespace == namespace && pod.metadata.name == name)
            .cloned()
    }
}
