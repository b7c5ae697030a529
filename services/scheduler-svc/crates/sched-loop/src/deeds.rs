//! What the scheduler does to the cluster: binds pods, says why it cannot, and removes victims.

use std::sync::Arc;

use flotilla_kube_client::{Client, Error, EventRecorder, Patch, Regarding, now_rfc3339};
use sched_core::PodInfo;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Calls in flight besides bindings.
const REPORTS: usize = 64;

/// Writes to the API. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Deeds {
    client: Client,
    events: EventRecorder,
    reports: Arc<Semaphore>,
}

fn path(pod: &PodInfo) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name)
}

fn regarding(pod: &PodInfo) -> Regarding {
    Regarding {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    }
}

impl Deeds {
    pub(crate) fn new(client: Client, name: &str) -> Self {
        let events = EventRecorder::new(client.clone(), name);
        Self { client, events, reports: Arc::new(Semaphore::new(REPORTS)) }
    }

    /// Binds a pod. The API refuses a pod that has a node already.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), Error> {
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let path = format!("{}/binding", path(pod));
        self.client.create::<Value>(&path, &binding).await?;
        let message = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
        self.events.normal(regarding(pod), "Scheduled", message);
        Ok(())
    }

    /// Says why a pod has no node, as a condition and as an event.
    pub(crate) fn report(&self, pod: Arc<PodInfo>, reason: &'static str, message: String) {
        self.events.warning(regarding(&pod), "FailedScheduling", message.clone());
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason,
            "message": message, "lastProbeTime": null, "lastTransitionTime": now_rfc3339()});
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
        self.patch_later(pod, patch);
    }

    /// Notes on the pod which node is being cleared for it.
    pub(crate) fn nominate(&self, pod: Arc<PodInfo>, node: &str) {
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": node}});
        self.patch_later(pod, patch);
    }

    fn patch_later(&self, pod: Arc<PodInfo>, patch: Value) {
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(_permit) = this.reports.acquire().await else { return };
            let path = format!("{}/status", path(&pod));
            let result = this.client.patch::<Value>(&path, Patch::Strategic(&patch)).await;
            if let Err(error) = result
                && !error.is_not_found()
                && !error.is_conflict()
            {
                tracing::warn!(pod = pod.name, %error, "cannot write the pod's status");
            }
        });
    }

    /// Removes a pod of lower priority.
    pub(crate) fn evict(&self, victim: Arc<PodInfo>, preemptor: &PodInfo, node: &str) {
        let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
        self.events.normal(regarding(&victim), "Preempted", message);
        let by =
            format!("{}: preempting to accommodate a higher priority pod", "default-scheduler");
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(_permit) = this.reports.acquire().await else { return };
            let condition = json!({"type": "DisruptionTarget", "status": "True",
                "reason": "PreemptionByScheduler", "message": by, "lastTransitionTime": now_rfc3339()});
            let patch =
                json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
            let status = format!("{}/status", path(&victim));
            let _ = this.client.patch::<Value>(&status, Patch::Strategic(&patch)).await;
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
                "preconditions": {"uid": victim.uid}});
            if let Err(error) = this.client.delete(&path(&victim), &options).await
                && !error.is_not_found()
                && !error.is_conflict()
            {
                tracing::warn!(pod = victim.name, %error, "cannot remove a victim");
            }
        });
    }
}
