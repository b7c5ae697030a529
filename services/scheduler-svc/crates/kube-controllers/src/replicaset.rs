//! ReplicaSets: as many pods of a template as asked for.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cache::kind::{POD, REPLICA_SET};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::{Cluster, Propagation};
use crate::runner::{Again, Controller};
use crate::{Error, claim, conditions, pods};

/// Pods made or deleted in one sync.
const BURST: usize = 500;

/// The controller.
#[derive(Debug)]
pub struct ReplicaSets(pub Cluster);

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![REPLICA_SET, POD]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        if event.kind == REPLICA_SET {
            return vec![event.object().key()];
        }
        owners(&self.0, event, REPLICA_SET)
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let Some(set) = self.0.cached(REPLICA_SET, key) else { return Ok(None) };
        let selector = claim::selector(&set)?;
        let all = self.0.store(POD).namespace(&key.namespace);
        let candidates = all.into_iter().filter(|p| pods::active(p)).collect();
        let mine = claim::claim(&self.0, (REPLICA_SET, &set), &selector, POD, candidates).await?;
        let failure = if set.deleting() { None } else { self.scale(&set, &mine).await.err() };
        // What was just made or deleted is in the store already.
        let now_mine: Vec<Arc<Object>> = self
            .0
            .store(POD)
            .owned_by(&set.metadata.uid)
            .into_iter()
            .filter(|p| pods::active(p) && p.controlled_by(&set.metadata.uid))
            .filter(|p| selector.matches(&p.metadata.labels))
            .collect();
        let again = self.report(&set, &now_mine, failure.as_ref()).await?;
        failure.map_or(Ok(again), Err)
    }
}

/// Keys of the workloads of `kind` that a change of a pod concerns: its managers, and for an orphan every
/// workload of the namespace whose selector matches.
pub fn owners(cluster: &Cluster, event: &Event, kind: Kind) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for side in event.sides() {
        if let Some(owner) = side.controller().filter(|o| o.kind == kind.kind) {
            keys.push(Key::new(&side.metadata.namespace, &owner.name));
        }
    }
    if let Some(orphan) = event.new.as_ref().filter(|o| o.controller().is_none()) {
        let store = cluster.store(kind);
        let matching = store
            .namespace(&orphan.metadata.namespace)
            .into_iter()
            .filter(|w| claim::selector(w).is_ok_and(|s| s.matches(&orphan.metadata.labels)));
        keys.extend(matching.map(|w| w.key()));
    }
    keys.dedup();
    keys
}

impl ReplicaSets {
    async fn scale(&self, set: &Object, mine: &[Arc<Object>]) -> Result<(), Error> {
        let wanted = usize::try_from(set.int("/spec/replicas").unwrap_or(1)).unwrap_or(0);
        if mine.len() < wanted {
            return self.grow(set, (wanted - mine.len()).min(BURST)).await;
        }
        let surplus = (mine.len() - wanted).min(BURST);
        if surplus == 0 {
            return Ok(());
        }
        let victims = self.rank(set, mine).into_iter().take(surplus);
        let deletions = victims.map(|pod| async move {
            self.0.delete(POD, &pod, Propagation::Background, None).await?;
            let message = format!("Deleted pod: {}", pod.metadata.name);
            self.0.events.normal(set.regarding(REPLICA_SET), "SuccessfulDelete", message);
            Ok::<(), Error>(())
        });
        for result in join_all(deletions).await {
            result?;
        }
        Ok(())
    }

    /// Makes pods in batches of 1, 2, 4, ...: a template that is refused costs one call, not all.
    async fn grow(&self, set: &Object, mut missing: usize) -> Result<(), Error> {
        let template = set.at("/spec/template").cloned().unwrap_or_default();
        let owner = set.owner_reference(REPLICA_SET);
        let meta = &set.metadata;
        let mut batch = 1;
        while missing > 0 {
            let count = batch.min(missing);
            let made = join_all((0..count).map(|_| async {
                let pod =
                    pods::from_template(&template, &meta.namespace, &meta.name, owner.clone());
                self.0.create(POD, &pod).await
            }));
            for result in made.await {
                match result {
                    Ok(pod) => {
                        let message = format!("Created pod: {}", pod.metadata.name);
                        let events = &self.0.events;
                        events.normal(set.regarding(REPLICA_SET), "SuccessfulCreate", message);
                    }
                    Err(error) => {
                        let message = format!("Error creating: {error}");
                        let events = &self.0.events;
                        events.warning(set.regarding(REPLICA_SET), "FailedCreate", message);
                        return Err(error.into());
                    }
                }
            }
            missing -= count;
            batch *= 2;
        }
        Ok(())
    }

    /// Pods in the order in which they are given up.
    fn rank(&self, set: &Object, mine: &[Arc<Object>]) -> Vec<Arc<Object>> {
        let owner = set.controller().map(|o| o.uid.clone());
        let mut together: HashMap<String, usize> = HashMap::new();
        let siblings: Vec<Arc<Object>> = match &owner {
            None => mine.to_vec(),
            Some(uid) => {
                let sets = self.0.store(REPLICA_SET).owned_by(uid);
                let store = self.0.store(POD);
                sets.iter().flat_map(|s| store.owned_by(&s.metadata.uid)).collect()
            }
        };
        for pod in siblings.iter().filter(|p| pods::active(p)) {
            *together.entry(pod.text("/spec/nodeName").to_owned()).or_default() += 1;
        }
        let now = Timestamp::now();
        let mut ranked = mine.to_vec();
        ranked.sort_by_cached_key(|pod| loss(pod, &together, now));
        ranked
    }

    async fn report(
        &self,
        set: &Object,
        mine: &[Arc<Object>],
        failure: Option<&Error>,
    ) -> Result<Again, Error> {
        let now = Timestamp::now();
        let minimum = set.int("/spec/minReadySeconds").unwrap_or(0);
        let template = set.at("/spec/template/metadata/labels").and_then(Value::as_object);
        let (mut labeled, mut ready, mut available) = (0, 0, 0);
        let mut again: Again = None;
        for pod in mine {
            let full = template.into_iter().flatten().all(|(name, value)| {
                pod.metadata.labels.get(name).map(String::as_str) == value.as_str()
            });
            labeled += i64::from(full);
            ready += i64::from(pods::ready(pod));
            match pods::available(pod, minimum, now) {
                Ok(()) => available += 1,
                Err(Some(wait)) => again = Some(again.map_or(wait, |a| a.min(wait))),
                Err(None) => {}
            }
        }
        let mut list = set.list("/status/conditions").to_vec();
        match failure {
            Some(error) => {
                let short = mine.len() < set.int("/spec/replicas").unwrap_or(1) as usize;
                let reason = if short { "FailedCreate" } else { "FailedDelete" };
                conditions::set(&mut list, "ReplicaFailure", "True", reason, &error.to_string());
            }
            None => conditions::remove(&mut list, "ReplicaFailure"),
        }
        let mut status = json!({"replicas": mine.len(),
            "observedGeneration": set.metadata.generation});
        let counts = [
            ("fullyLabeledReplicas", labeled),
            ("readyReplicas", ready),
            ("availableReplicas", available),
        ];
        for (name, count) in counts {
            if count > 0 {
                status[name] = json!(count);
            }
        }
        if !list.is_empty() {
            status["conditions"] = json!(list);
        }
        if comparable(set.body.get("status")) != comparable(Some(&status)) {
            let mut changed = set.clone();
            changed.body.insert("status".to_owned(), status);
            self.0.replace_status(REPLICA_SET, &changed).await?;
        }
        Ok(again)
    }
}

/// A status without zero counts, which servers may write out or leave out.
pub fn comparable(status: Option<&Value>) -> Value {
    let mut status = status.cloned().unwrap_or_else(|| json!({}));
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|_, v| *v != json!(0) && !v.is_null() && *v != json!([]));
    }
    status
}

/// How much the loss of a pod costs; the cheapest goes first.
type Loss =
    (bool, u8, bool, i64, std::cmp::Reverse<usize>, i32, std::cmp::Reverse<i64>, i64, String);

fn loss(pod: &Object, together: &HashMap<String, usize>, now: Timestamp) -> Loss {
    let node = pod.text("/spec/nodeName");
    let phase = match pod.text("/status/phase") {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let cost = pod.metadata.annotations.get("controller.kubernetes.io/pod-deletion-cost");
    let cost = cost.and_then(|c| c.parse().ok()).unwrap_or(0);
    let crowd = together.get(node).copied().unwrap_or(0);
    // Times count by magnitude, so that pods of about the same age are told apart by other means.
    let ready_age = pods::ready_since(pod).map_or(0, |at| magnitude(now, at));
    let age = magnitude(now, pod.created());
    (
        !node.is_empty(),
        phase,
        pods::ready(pod),
        cost,
        std::cmp::Reverse(crowd),
        ready_age,
        std::cmp::Reverse(pods::restarts(pod)),
        i64::from(age),
        pod.metadata.uid.clone(),
    )
}

fn magnitude(now: Timestamp, at: Timestamp) -> i32 {
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    64 - i32::try_from(seconds.leading_zeros()).unwrap_or(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, body: Value) -> Object {
        let mut object: Object = serde_json::from_value(body).unwrap();
        object.metadata.uid = name.to_owned();
        object
    }

    #[test]
    fn cheapest_pods_are_given_up_first() {
        let ready = json!([{"type": "Ready", "status": "True",
            "lastTransitionTime": "2020-01-01T00:00:00Z"}]);
        let pods = [
            pod("running", json!({"spec": {"nodeName": "a"}, "status": {"phase": "Running"}})),
            pod(
                "ready",
                json!({"spec": {"nodeName": "a"},
                "status": {"phase": "Running", "conditions": ready}}),
            ),
            pod("pending", json!({"spec": {"nodeName": "a"}, "status": {"phase": "Pending"}})),
            pod("unassigned", json!({"status": {"phase": "Pending"}})),
            pod(
                "cheap",
                json!({"metadata": {"annotations":
                {"controller.kubernetes.io/pod-deletion-cost": "-5"}},
                "spec": {"nodeName": "a"}, "status": {"phase": "Running", "conditions": ready}}),
            ),
        ];
        let mut sorted: Vec<&Object> = pods.iter().collect();
        sorted.sort_by_cached_key(|p| loss(p, &HashMap::new(), Timestamp::now()));
        let order: Vec<&str> = sorted.iter().map(|p| p.metadata.uid.as_str()).collect();
        assert_eq!(order, ["unassigned", "pending", "running", "cheap", "ready"]);
    }
}
