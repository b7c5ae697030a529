//! Pods nobody else removes: finished ones above the threshold, ones of nodes that are gone, and ones that
//! were deleted before they got a node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use crate::cache::kind::{NODE, POD};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::{Cluster, Propagation};
use crate::runner::{Again, Controller};
use crate::{Error, pods};

const PERIOD: Duration = Duration::from_secs(20);
/// A node must be gone this long before its pods are: it may only have been renamed or recreated.
const QUARANTINE: Duration = Duration::from_secs(40);

/// The controller.
#[derive(Debug)]
pub struct PodGc {
    cluster: Cluster,
    missing: Mutex<HashMap<String, Instant>>,
}

impl PodGc {
    /// A collector that has seen nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, missing: Mutex::default() }
    }
}

impl Controller for PodGc {
    const NAME: &'static str = "pod-garbage-collector-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![POD, NODE]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        let gone = event.kind == NODE && event.new.is_none();
        if gone { vec![Key::default()] } else { Vec::new() }
    }

    fn first(&self) -> Vec<Key> {
        vec![Key::default()]
    }

    async fn sync(&self, _: &Key) -> Result<Again, Error> {
        let all = self.cluster.store(POD).all();
        self.finished(&all).await?;
        for pod in &all {
            let unassigned = pod.text("/spec/nodeName").is_empty();
            if unassigned && pod.deleting() {
                self.remove(pod).await?;
            }
        }
        self.orphans(&all).await?;
        Ok(Some(PERIOD))
    }
}

impl PodGc {
    async fn finished(&self, all: &[Arc<Object>]) -> Result<(), Error> {
        let threshold = self.cluster.config.terminated_pod_gc_threshold;
        let Ok(threshold) = usize::try_from(threshold) else { return Ok(()) };
        let mut done: Vec<&Arc<Object>> =
            all.iter().filter(|p| pods::finished(p) && !p.deleting()).collect();
        if threshold == 0 || done.len() <= threshold {
            return Ok(());
        }
        done.sort_by_key(|pod| (pod.created(), pod.metadata.name.clone()));
        for pod in &done[..done.len() - threshold] {
            self.remove(pod).await?;
        }
        Ok(())
    }

    async fn orphans(&self, all: &[Arc<Object>]) -> Result<(), Error> {
        let nodes = self.cluster.store(NODE);
        let mut lost: HashMap<String, Vec<&Arc<Object>>> = HashMap::new();
        for pod in all {
            let node = pod.text("/spec/nodeName");
            if !node.is_empty() && nodes.get(&Key::new("", node)).is_none() {
                lost.entry(node.to_owned()).or_default().push(pod);
            }
        }
        let due: Vec<String> = {
            let mut missing = self.missing.lock();
            missing.retain(|node, _| lost.contains_key(node));
            let now = Instant::now();
            let since = |node: &String, missing: &mut HashMap<String, Instant>| {
                *missing.entry(node.clone()).or_insert(now)
            };
            lost.keys()
                .filter(|n| since(n, &mut missing).elapsed() >= QUARANTINE)
                .cloned()
                .collect()
        };
        for node in due {
            if self.cluster.live(NODE, &Key::new("", &node)).await?.is_some() {
                continue;
            }
            for pod in lost.remove(&node).unwrap_or_default() {
                self.remove(pod).await?;
            }
        }
        Ok(())
    }

    /// Deletes a pod at once; one that still counts as running is marked as failed before.
    async fn remove(&self, pod: &Object) -> Result<(), Error> {
        if !pods::finished(pod) && !pod.text("/spec/nodeName").is_empty() {
            let now = flotilla_kube_client::now_rfc3339();
            let mut changed = pod.clone();
            let mut conditions = pod.list("/status/conditions").to_vec();
            conditions.retain(|c| c["type"] != "DisruptionTarget");
            conditions.push(json!({"type": "DisruptionTarget", "status": "True",
                "reason": "DeletionByPodGC", "lastTransitionTime": now,
                "message": "PodGC: node no longer exists"}));
            changed.set("status", "conditions", json!(conditions));
            changed.set("status", "phase", json!("Failed"));
            match self.cluster.replace_status(POD, &changed).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        self.cluster.delete(POD, pod, Propagation::Background, Some(0)).await?;
        Ok(())
    }
}
