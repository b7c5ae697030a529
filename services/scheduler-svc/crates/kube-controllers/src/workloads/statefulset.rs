//! StatefulSets: pods with stable names, made and replaced in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{REVISION_LABEL, current_revision, pod_revision, revisions, trim_revisions};
use crate::cache::kind::{CONTROLLER_REVISION, PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::{Cluster, Propagation};
use crate::replicaset::{comparable, owners};
use crate::runner::{Again, Controller};
use crate::{Error, claim, pods};

const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

/// The controller.
#[derive(Debug)]
pub struct StatefulSets(pub Cluster);

/// One set in one sync.
struct Work<'a> {
    cluster: &'a Cluster,
    set: Arc<Object>,
    /// Hashes of the revision pods have and the one they shall have.
    current: String,
    update: Arc<Object>,
    again: Again,
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![STATEFUL_SET, POD, CONTROLLER_REVISION, PERSISTENT_VOLUME_CLAIM]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        match event.kind {
            kind if kind == STATEFUL_SET => vec![event.object().key()],
            kind if kind == POD => owners(&self.0, event, STATEFUL_SET),
            _ => Vec::new(),
        }
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let Some(set) = self.0.cached(STATEFUL_SET, key).filter(|set| !set.deleting()) else {
            return Ok(None);
        };
        let selector = claim::selector(&set)?;
        let update = current_revision(&self.0, STATEFUL_SET, &set).await?;
        let update_hash = update.metadata.name.clone();
        let stored = set.text("/status/currentRevision").to_owned();
        let known = |name: &str| revisions(&self.0, &set).iter().any(|r| r.metadata.name == name);
        let current = if known(&stored) { stored } else { update_hash };
        let prefix = format!("{}-", set.metadata.name);
        let mut candidates = self.0.store(POD).namespace(&key.namespace);
        candidates.retain(|pod| {
            pod.controlled_by(&set.metadata.uid) || pod.metadata.name.starts_with(&prefix)
        });
        let owner = (STATEFUL_SET, &*set);
        claim::claim(&self.0, owner, &selector, POD, candidates).await?;
        let mut work = Work { cluster: &self.0, set, current, update, again: None };
        let result = work.step().await;
        work.report().await?;
        result?;
        let (current, update) = (work.current.clone(), work.update.metadata.name.clone());
        let used: Vec<String> = work.pods().values().map(|p| pod_revision(p).to_owned()).collect();
        let live = |hash: &str| {
            used.iter().any(|u| u.ends_with(hash))
                || current.ends_with(hash)
                || update.ends_with(hash)
        };
        trim_revisions(&self.0, &work.set, live).await?;
        Ok(work.again)
    }
}

impl Work<'_> {
    fn start(&self) -> i64 {
        self.set.int("/spec/ordinals/start").unwrap_or(0)
    }

    fn replicas(&self) -> i64 {
        self.set.int("/spec/replicas").unwrap_or(1)
    }

    /// Own pods by ordinal.
    fn pods(&self) -> BTreeMap<i64, Arc<Object>> {
        let uid = &self.set.metadata.uid;
        let prefix = format!("{}-", self.set.metadata.name);
        let own = self.cluster.store(POD).owned_by(uid);
        let ordinal = |pod: &Arc<Object>| pod.metadata.name.strip_prefix(&prefix)?.parse().ok();
        own.into_iter()
            .filter(|pod| pod.controlled_by(uid))
            .filter_map(|pod| Some((ordinal(&pod)?, pod)))
            .collect()
    }

    fn up(&mut self, pod: &Object) -> bool {
        let minimum = self.set.int("/spec/minReadySeconds").unwrap_or(0);
        match pods::available(pod, minimum, Timestamp::now()) {
            Ok(()) => !pod.deleting(),
            Err(wait) => {
                self.again = self.again.into_iter().chain(wait).min();
                false
            }
        }
    }

    /// One step towards the desired state; in order, unless the policy is Parallel.
    async fn step(&mut self) -> Result<(), Error> {
        let ordered = self.set.text("/spec/podManagementPolicy") != "Parallel";
        let (first, end) = (self.start(), self.start() + self.replicas());
        let mut have = self.pods();
        let condemned = have.split_off(&end);
        let low: Vec<Arc<Object>> = have.range(..first).map(|(_, pod)| pod.clone()).collect();
        for ordinal in first..end {
            match have.get(&ordinal).cloned() {
                None => {
                    self.create(ordinal).await?;
                    if ordered {
                        return Ok(());
                    }
                }
                Some(pod) if pods::finished(&pod) => {
                    if !pod.deleting() {
                        self.remove(&pod).await?;
                    }
                    if ordered {
                        return Ok(());
                    }
                }
                Some(pod) => {
                    let up = self.up(&pod);
                    if ordered && !up {
                        return self.replace_broken(&have).await;
                    }
                }
            }
        }
        for pod in condemned.into_values().rev().chain(low.into_iter().rev()) {
            if !pod.deleting() {
                self.remove(&pod).await?;
            }
            if ordered {
                return Ok(());
            }
        }
        self.roll(&have).await
    }

    /// Replaces pods of older revisions from the highest ordinal down to the partition, one at a time.
    async fn roll(&mut self, have: &BTreeMap<i64, Arc<Object>>) -> Result<(), Error> {
        if self.set.text("/spec/updateStrategy/type") == "OnDelete" {
            return Ok(());
        }
        let partition = self.set.int("/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
        let end = self.start() + self.replicas();
        for (_, pod) in have.range((self.start() + partition).min(end)..end).rev() {
            if pod_revision(pod) != self.update.metadata.name && !pod.deleting() {
                return self.remove(pod).await;
            }
            if !self.up(pod) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A pod of an old revision that is not ready must not hold the update back for ever.
    async fn replace_broken(&mut self, have: &BTreeMap<i64, Arc<Object>>) -> Result<(), Error> {
        if self.set.text("/spec/updateStrategy/type") == "OnDelete" {
            return Ok(());
        }
        let partition = self.set.int("/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
        let others_up = have.values().filter(|pod| !pods::ready(pod)).count() == 1;
        for (_, pod) in have.range(self.start() + partition..).rev() {
            let stale = pod_revision(pod) != self.update.metadata.name;
            if stale && !pods::ready(pod) && !pod.deleting() && others_up {
                return self.remove(pod).await;
            }
        }
        Ok(())
    }

    async fn create(&self, ordinal: i64) -> Result<(), Error> {
        let meta = &self.set.metadata;
        let name = format!("{}-{ordinal}", meta.name);
        for claim in self.set.list("/spec/volumeClaimTemplates") {
            self.create_claim(claim, &name).await?;
        }
        let revision = self.revision(ordinal);
        let template = revision.at("/data/spec/template").cloned().unwrap_or_default();
        let owner = self.set.owner_reference(STATEFUL_SET);
        let mut pod = pods::from_template(&template, &meta.namespace, &meta.name, owner);
        pod.metadata.rest.remove("generateName");
        pod.metadata.name.clone_from(&name);
        let labels = [
            (NAME_LABEL, name.clone()),
            (INDEX_LABEL, ordinal.to_string()),
            (REVISION_LABEL, revision.metadata.name.clone()),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value));
        pod.metadata.labels.extend(labels);
        let spec = pod.body.entry("spec").or_insert_with(|| json!({}));
        spec["hostname"] = json!(name);
        spec["subdomain"] = self.set.at("/spec/serviceName").cloned().unwrap_or_else(|| json!(""));
        let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
        for claim in self.set.list("/spec/volumeClaimTemplates") {
            let volume = claim["metadata"]["name"].as_str().unwrap_or_default();
            volumes.retain(|v| v["name"] != volume);
            volumes.push(json!({"name": volume,
                "persistentVolumeClaim": {"claimName": format!("{volume}-{name}")}}));
        }
        if !volumes.is_empty() {
            spec["volumes"] = json!(volumes);
        }
        let about = self.set.regarding(STATEFUL_SET);
        match self.cluster.create(POD, &pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {} successful", meta.name);
                self.cluster.events.normal(about, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                let message =
                    format!("create Pod {name} in StatefulSet {} failed error: {error}", meta.name);
                self.cluster.events.warning(about, "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    async fn create_claim(&self, template: &Value, pod: &str) -> Result<(), Error> {
        let volume = template["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = &self.set.metadata.namespace;
        let name = format!("{volume}-{pod}");
        let kind = PERSISTENT_VOLUME_CLAIM;
        if self.cluster.cached(kind, &Key::new(namespace, &name)).is_some() {
            return Ok(());
        }
        let mut claim = Object::new(kind, namespace, &name);
        let labels = template["metadata"]["labels"].clone();
        claim.metadata.labels = serde_json::from_value(labels).unwrap_or_default();
        let selector = self.set.at("/spec/selector/matchLabels").cloned().unwrap_or_default();
        let selector: BTreeMap<String, String> =
            serde_json::from_value(selector).unwrap_or_default();
        claim.metadata.labels.extend(selector);
        claim.body.insert("spec".to_owned(), template["spec"].clone());
        match self.cluster.create(kind, &claim).await {
            Err(error) if !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The revision a pod is made of: the old one below the partition while an update is held there.
    fn revision(&self, ordinal: i64) -> Arc<Object> {
        let partition = self.set.int("/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
        let below = ordinal < self.start() + partition;
        let old = || {
            let all = revisions(self.cluster, &self.set);
            all.into_iter().find(|r| r.metadata.name == self.current)
        };
        let held = below.then(old).flatten();
        held.unwrap_or_else(|| self.update.clone())
    }

    async fn remove(&self, pod: &Object) -> Result<(), Error> {
        self.cluster.delete(POD, pod, Propagation::Background, None).await?;
        let (name, set) = (&pod.metadata.name, &self.set.metadata.name);
        let message = format!("delete Pod {name} in StatefulSet {set} successful");
        self.cluster.events.normal(self.set.regarding(STATEFUL_SET), "SuccessfulDelete", message);
        Ok(())
    }

    async fn report(&mut self) -> Result<(), Error> {
        let have = self.pods();
        let update = self.update.metadata.name.clone();
        let alive: Vec<&Arc<Object>> = have.values().filter(|p| !p.deleting()).collect();
        let of = |name: &str| alive.iter().filter(|p| pod_revision(p) == name).count();
        let (mut current, updated) = (of(&self.current), of(&update));
        let ready = alive.iter().filter(|p| pods::ready(p)).count();
        let mut available = 0;
        for pod in alive.iter().copied().cloned().collect::<Vec<_>>() {
            available += i64::from(self.up(&pod));
        }
        let wanted = self.replicas();
        let done =
            updated as i64 == wanted && have.len() as i64 == wanted && ready as i64 == wanted;
        if done {
            self.current.clone_from(&update);
            current = updated;
        }
        let mut status = json!({"observedGeneration": self.set.metadata.generation,
            "replicas": have.len(), "readyReplicas": ready, "availableReplicas": available,
            "currentReplicas": current, "updatedReplicas": updated,
            "currentRevision": self.current, "updateRevision": update, "collisionCount": 0});
        if let Some(conditions) = self.set.at("/status/conditions") {
            status["conditions"] = conditions.clone();
        }
        if comparable(self.set.body.get("status")) != comparable(Some(&status)) {
            let mut changed = (*self.set).clone();
            changed.body.insert("status".to_owned(), status);
            self.cluster.replace_status(STATEFUL_SET, &changed).await?;
        }
        Ok(())
    }
}
