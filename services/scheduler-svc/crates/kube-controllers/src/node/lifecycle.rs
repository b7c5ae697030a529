//! Node health: heartbeats and leases to conditions, conditions to taints.
//!
//! A node's sign of life is any change of its Ready condition's heartbeat or its lease, at the time this
//! process sees it: the clocks of nodes do not matter. When no node at all is healthy the fault is taken to
//! be ours, and nothing is evicted.

use std::collections::HashMap;
use std::time::Duration;

use flotilla_kube_client::{Patch, now_rfc3339};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cache::kind::{LEASE, NODE, POD};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::Cluster;
use crate::runner::{Again, Controller};
use crate::{Error, pods};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Condition, status and the NoSchedule taint that goes with it.
const TAINTS: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const LEASES: &str = "kube-node-lease";

#[derive(Debug)]
struct Health {
    heartbeat: Value,
    renewal: Value,
    seen: Instant,
}

/// The controller.
#[derive(Debug)]
pub struct NodeLifecycle {
    cluster: Cluster,
    health: Mutex<HashMap<String, Health>>,
    /// When the next node may be tainted NoExecute.
    next_eviction: Mutex<Option<Instant>>,
}

impl NodeLifecycle {
    /// A controller that has seen nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, health: Mutex::default(), next_eviction: Mutex::default() }
    }
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-lifecycle-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![NODE, LEASE, POD]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        match event.kind {
            kind if kind == NODE => vec![event.object().key()],
            // A pod that comes to a node that is down must lose its readiness too; the next look does it.
            _ => Vec::new(),
        }
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let Some(node) = self.cluster.cached(NODE, key) else {
            self.health.lock().remove(&key.name);
            return Ok(None);
        };
        let mut node = (*node).clone();
        if self.silent(&node) {
            node = self.mark_unknown(&node).await?;
        }
        if status(&node, "Ready") != "True" {
            self.unready_pods(&node).await?;
        }
        self.taint(&node).await?;
        Ok(Some(self.cluster.config.node_monitor_period))
    }
}

fn status<'a>(node: &'a Object, condition: &str) -> &'a str {
    node.condition(condition).and_then(|c| c["status"].as_str()).unwrap_or_default()
}

impl NodeLifecycle {
    /// Whether the node has given no sign of life for too long.
    fn silent(&self, node: &Object) -> bool {
        let name = &node.metadata.name;
        let condition = |field: &str| node.condition("Ready").map(|c| c[field].clone());
        let known = node.condition("Ready").is_some();
        let unknown = status(node, "Ready") == "Unknown";
        // Our own change of the condition is no sign of life; the heartbeat in it stays as it was.
        let heartbeat = condition("lastHeartbeatTime").unwrap_or_default();
        let lease = self.cluster.cached(LEASE, &Key::new(LEASES, name));
        let renewal = lease.and_then(|l| l.at("/spec/renewTime").cloned()).unwrap_or_default();
        let mut all = self.health.lock();
        let now = Instant::now();
        let health = all.entry(name.clone()).or_insert_with(|| Health {
            heartbeat: heartbeat.clone(),
            renewal: renewal.clone(),
            seen: now,
        });
        if health.heartbeat != heartbeat || health.renewal != renewal {
            *health = Health { heartbeat, renewal, seen: now };
        }
        let config = &self.cluster.config;
        let grace =
            if known { config.node_monitor_grace_period } else { config.node_startup_grace_period };
        !unknown && health.seen.elapsed() > grace
    }

    async fn mark_unknown(&self, node: &Object) -> Result<Object, Error> {
        let now = now_rfc3339();
        let unknown = |kind: &&str| {
            let old = node.condition(kind);
            let (reason, message) = match old {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            let created = json!(node.metadata.creation_timestamp);
            let heartbeat = old.map_or(created, |c| c["lastHeartbeatTime"].clone());
            json!({"type": kind, "status": "Unknown", "reason": reason, "message": message,
                "lastHeartbeatTime": heartbeat, "lastTransitionTime": now})
        };
        let kinds = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
        let changed: Vec<Value> =
            kinds.iter().filter(|k| status(node, k) != "Unknown").map(unknown).collect();
        let name = &node.metadata.name;
        tracing::info!(node = name, "node stopped reporting");
        let message = format!("Node {name} status is now: NodeNotReady");
        self.cluster.events.normal(node.regarding(NODE), "NodeNotReady", message);
        Ok(self.cluster.patch_conditions(NODE, node, &changed).await?)
    }

    /// Pods of a node that is not ready are not ready either, so that services stop sending to them.
    async fn unready_pods(&self, node: &Object) -> Result<(), Error> {
        let name = &node.metadata.name;
        for pod in self.cluster.store(POD).all() {
            if pod.text("/spec/nodeName") != name || !pods::ready(&pod) {
                continue;
            }
            let condition = json!({"type": "Ready", "status": "False",
                "lastTransitionTime": now_rfc3339()});
            match self.cluster.patch_conditions(POD, &pod, &[condition]).await {
                Ok(_) => {
                    let message = "Node is not ready";
                    self.cluster.events.warning(pod.regarding(POD), "NodeNotReady", message);
                }
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn taint(&self, node: &Object) -> Result<(), Error> {
        let old = node.list("/spec/taints");
        let mut wanted: Vec<(&str, &str)> = TAINTS
            .iter()
            .filter(|(condition, bad, _)| status(node, condition) == *bad)
            .map(|(_, _, key)| (*key, "NoSchedule"))
            .collect();
        if node.flag("/spec/unschedulable") {
            wanted.push((UNSCHEDULABLE, "NoSchedule"));
        }
        let has =
            |key: &str, effect: &str| old.iter().any(|t| t["key"] == key && t["effect"] == effect);
        let cause = match status(node, "Ready") {
            "False" => Some(NOT_READY),
            "Unknown" => Some(UNREACHABLE),
            _ => None,
        };
        if let Some(key) = cause {
            let marked = has(NOT_READY, "NoExecute") || has(UNREACHABLE, "NoExecute");
            if self.some_node_is_healthy() && (marked || self.may_evict()) {
                wanted.push((key, "NoExecute"));
            }
        }
        let managed = |taint: &Value| {
            let key = taint["key"].as_str().unwrap_or_default();
            let no_execute =
                taint["effect"] == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&key);
            let no_schedule = taint["effect"] == "NoSchedule"
                && (key == UNSCHEDULABLE || TAINTS.iter().any(|(_, _, k)| *k == key));
            no_execute || no_schedule
        };
        let keep = |taint: &&Value| {
            !managed(taint)
                || wanted.iter().any(|(k, e)| taint["key"] == *k && taint["effect"] == *e)
        };
        let mut taints: Vec<Value> = old.iter().filter(keep).cloned().collect();
        for (key, effect) in wanted.iter().filter(|(key, effect)| !has(key, effect)) {
            taints.push(json!({"key": key, "effect": effect, "timeAdded": now_rfc3339()}));
        }
        if taints.as_slice() == old {
            return Ok(());
        }
        let meta = &node.metadata;
        let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
            "spec": {"taints": taints}});
        let changed: Object =
            self.cluster.client.patch(&NODE.path(&node.key()), Patch::Merge(&patch)).await?;
        self.cluster.informers.wrote(NODE, changed);
        Ok(())
    }

    fn some_node_is_healthy(&self) -> bool {
        self.cluster.store(NODE).all().iter().any(|node| status(node, "Ready") == "True")
    }

    /// Whether one more node may be emptied now.
    fn may_evict(&self) -> bool {
        let rate = self.cluster.config.node_eviction_rate;
        if rate <= 0.0 {
            return false;
        }
        let mut next = self.next_eviction.lock();
        let now = Instant::now();
        if next.is_some_and(|at| at > now) {
            return false;
        }
        *next =
            Duration::try_from_secs_f64(1.0 / rate).ok().and_then(|pause| now.checked_add(pause));
        true
    }
}
