//! DaemonSets: one pod on every node that lets it in.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use sched_core::class::{Columns, PodInfo};
use sched_core::taints::{Taint, Toleration, untolerated};
use serde_json::{Value, json};

use super::{REVISION_LABEL, current_revision, pod_revision, revision_hash, trim_revisions};
use crate::cache::kind::{CONTROLLER_REVISION, DAEMON_SET, NODE, POD};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::{Cluster, Propagation};
use crate::deployment::scaled;
use crate::replicaset::{comparable, owners};
use crate::runner::{Again, Controller};
use crate::{Error, claim, pods};

/// Taints of the node that its own daemons ignore.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The controller.
#[derive(Debug)]
pub struct DaemonSets(pub Cluster);

type ByNode = BTreeMap<String, Vec<Arc<Object>>>;

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![DAEMON_SET, POD, NODE, CONTROLLER_REVISION]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        if event.kind == DAEMON_SET {
            return vec![event.object().key()];
        }
        if event.kind == POD {
            return owners(&self.0, event, DAEMON_SET);
        }
        let place = |n: &Arc<Object>| {
            (
                n.metadata.labels.clone(),
                n.at("/spec/taints").cloned(),
                n.flag("/spec/unschedulable"),
            )
        };
        let same = event.kind != NODE
            || event
                .old
                .as_ref()
                .zip(event.new.as_ref())
                .is_some_and(|(o, n)| place(o) == place(n));
        if same {
            return Vec::new();
        }
        self.0.store(DAEMON_SET).all().iter().map(|set| set.key()).collect()
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let Some(set) = self.0.cached(DAEMON_SET, key).filter(|set| !set.deleting()) else {
            return Ok(None);
        };
        let selector = claim::selector(&set)?;
        let revision = current_revision(&self.0, DAEMON_SET, &set).await?;
        let hash = revision_hash(&revision).to_owned();
        let candidates = self.0.store(POD).namespace(&key.namespace);
        let owner = (DAEMON_SET, &*set);
        let mine = claim::claim(&self.0, owner, &selector, POD, candidates).await?;
        let wanted = self.wanted(&set)?;
        self.place(&set, &hash, &wanted, by_node(&mine)).await?;
        self.update(&set, &hash, &wanted).await?;
        let again = self.report(&set, &hash, &wanted).await?;
        let live: Vec<Arc<Object>> = self.mine(&set);
        let used = |h: &str| h == hash || live.iter().any(|pod| pod_revision(pod) == h);
        trim_revisions(&self.0, &set, used).await?;
        Ok(again)
    }
}

/// Node a pod of a daemon set is for: the one it is on, or the one its affinity names.
fn target(pod: &Object) -> String {
    let node = pod.text("/spec/nodeName");
    if !node.is_empty() {
        return node.to_owned();
    }
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let fields =
        pod.list(terms).iter().flat_map(|t| t["matchFields"].as_array().into_iter().flatten());
    let mut names = fields.filter(|f| f["key"] == "metadata.name").map(|f| &f["values"][0]);
    names.next().and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn by_node(pods: &[Arc<Object>]) -> ByNode {
    let mut nodes = ByNode::new();
    for pod in pods {
        nodes.entry(target(pod)).or_default().push(pod.clone());
    }
    nodes
}

impl DaemonSets {
    fn mine(&self, set: &Object) -> Vec<Arc<Object>> {
        let uid = &set.metadata.uid;
        let mut all = self.0.store(POD).owned_by(uid);
        all.retain(|pod| pod.controlled_by(uid));
        all
    }

    /// Nodes that should run a pod, and nodes where one may go on although it would not be started.
    fn wanted(&self, set: &Object) -> Result<BTreeMap<String, bool>, Error> {
        let template = set.at("/spec/template").cloned().unwrap_or_default();
        let pod = serde_json::from_value(template).map_err(|e| Error::Object(e.to_string()))?;
        let pod = PodInfo::new(&pod, &mut Columns::default()).map_err(Error::Object)?;
        let mut tolerations = pod.class.tolerations.clone();
        let own =
            own_tolerations(&json!({"hostNetwork": set.flag("/spec/template/spec/hostNetwork")}));
        tolerations.extend(
            own.iter().filter_map(|t| serde_json::from_value::<Toleration>(t.clone()).ok()),
        );
        let mut wanted = BTreeMap::new();
        for node in self.0.store(NODE).all() {
            let name = &node.metadata.name;
            if (!pod.node_name.is_empty() && pod.node_name != *name)
                || !pod.class.selects(name, &node.metadata.labels)
            {
                continue;
            }
            let taints: Vec<Taint> = node
                .list("/spec/taints")
                .iter()
                .filter_map(|t| serde_json::from_value(t.clone()).ok())
                .collect();
            match untolerated(&taints, &tolerations) {
                None => drop(wanted.insert(name.clone(), true)),
                Some(taint) if taint.effect == sched_core::taints::Effect::NoSchedule => {
                    wanted.insert(name.clone(), false);
                }
                Some(_) => {}
            }
        }
        Ok(wanted)
    }

    /// Makes missing pods and removes those that are too many, have ended or are on the wrong node.
    async fn place(
        &self,
        set: &Object,
        hash: &str,
        wanted: &BTreeMap<String, bool>,
        mut have: ByNode,
    ) -> Result<(), Error> {
        for (node, start) in wanted {
            let here = have.remove(node).unwrap_or_default();
            let (alive, leaving): (Vec<_>, Vec<_>) = here.iter().partition(|p| !p.deleting());
            let (ended, mut running): (Vec<_>, Vec<_>) =
                alive.into_iter().partition(|p| pods::finished(p));
            for pod in ended {
                self.remove(set, pod).await?;
            }
            // The oldest stays; during an update with surge one of each revision does.
            running.sort_by_key(|pod| (pod.created(), pod.metadata.name.clone()));
            let surge = surge(set, wanted.len()) > 0;
            let mut kept: Vec<bool> = Vec::new();
            for pod in &running {
                let fresh = pod_revision(pod) == hash;
                if kept.is_empty() || (surge && kept == [!fresh]) {
                    kept.push(fresh);
                } else {
                    self.remove(set, pod).await?;
                }
            }
            if *start && running.is_empty() && leaving.is_empty() {
                self.create(set, hash, node).await?;
            }
        }
        for pod in have.into_values().flatten().filter(|p| !p.deleting()) {
            self.remove(set, &pod).await?;
        }
        Ok(())
    }

    async fn create(&self, set: &Object, hash: &str, node: &str) -> Result<(), Error> {
        let meta = &set.metadata;
        let template = set.at("/spec/template").cloned().unwrap_or_default();
        let owner = set.owner_reference(DAEMON_SET);
        let mut pod = pods::from_template(&template, &meta.namespace, &meta.name, owner);
        pod.metadata.labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
        let spec = pod.body.entry("spec").or_insert_with(|| json!({}));
        let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
        let required =
            &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        match required["nodeSelectorTerms"].as_array_mut() {
            Some(terms) if !terms.is_empty() => {
                terms.iter_mut().for_each(|term| term["matchFields"] = field.clone());
            }
            _ => required["nodeSelectorTerms"] = json!([{"matchFields": field}]),
        }
        let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
        for own in own_tolerations(spec) {
            if !tolerations.contains(&own) {
                tolerations.push(own);
            }
        }
        spec["tolerations"] = json!(tolerations);
        match self.0.create(POD, &pod).await {
            Ok(made) => {
                let message = format!("Created pod: {}", made.metadata.name);
                self.0.events.normal(set.regarding(DAEMON_SET), "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.0.events.warning(set.regarding(DAEMON_SET), "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    async fn remove(&self, set: &Object, pod: &Object) -> Result<(), Error> {
        self.0.delete(POD, pod, Propagation::Background, None).await?;
        let message = format!("Deleted pod: {}", pod.metadata.name);
        self.0.events.normal(set.regarding(DAEMON_SET), "SuccessfulDelete", message);
        Ok(())
    }

    /// Replaces pods of older revisions, at most so many at a time.
    async fn update(
        &self,
        set: &Object,
        hash: &str,
        wanted: &BTreeMap<String, bool>,
    ) -> Result<(), Error> {
        if set.text("/spec/updateStrategy/type") == "OnDelete" {
            return Ok(());
        }
        let minimum = set.int("/spec/minReadySeconds").unwrap_or(0);
        let now = Timestamp::now();
        let surge = surge(set, wanted.len());
        let one = json!(1);
        let limit = set.at("/spec/updateStrategy/rollingUpdate/maxUnavailable").unwrap_or(&one);
        let limit = scaled(limit, wanted.len() as i64, true);
        let mut have = by_node(&self.mine(set));
        let (mut unavailable, mut surging) = (0, 0);
        let mut old: Vec<(bool, Arc<Object>)> = Vec::new();
        for node in wanted.keys() {
            let mut here = have.remove(node).unwrap_or_default();
            here.retain(|pod| !pod.deleting() && !pods::finished(pod));
            let up = |pod: &Arc<Object>| pods::available(pod, minimum, now).is_ok();
            let available = here.iter().any(up);
            unavailable += i64::from(!available);
            let fresh = here.iter().find(|pod| pod_revision(pod) == hash);
            let stale = here.iter().find(|pod| pod_revision(pod) != hash);
            match (fresh, stale) {
                (Some(fresh), Some(stale)) if up(fresh) => self.remove(set, stale).await?,
                (Some(_), Some(_)) => surging += 1,
                (None, Some(stale)) => old.push((up(stale), stale.clone())),
                _ => {}
            }
        }
        // Pods that do no work anyway are replaced first and cost nothing.
        old.sort_by_key(|(up, pod)| (*up, pod.metadata.name.clone()));
        for (up, pod) in old {
            if surge > 0 {
                if !up {
                    self.remove(set, &pod).await?;
                } else if surging < surge {
                    surging += 1;
                    self.create(set, hash, &target(&pod)).await?;
                }
                continue;
            }
            if up && unavailable >= limit.max(1) {
                break;
            }
            unavailable += i64::from(up);
            self.remove(set, &pod).await?;
        }
        Ok(())
    }

    async fn report(
        &self,
        set: &Object,
        hash: &str,
        wanted: &BTreeMap<String, bool>,
    ) -> Result<Again, Error> {
        let have = by_node(&self.mine(set));
        let now = Timestamp::now();
        let minimum = set.int("/spec/minReadySeconds").unwrap_or(0);
        let (mut current, mut misplaced, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0);
        let mut again: Again = None;
        for (node, here) in &have {
            let alive: Vec<&Arc<Object>> = here.iter().filter(|p| !p.deleting()).collect();
            if alive.is_empty() {
                continue;
            }
            if !wanted.contains_key(node) {
                misplaced += 1;
                continue;
            }
            current += 1;
            ready += i64::from(alive.iter().any(|p| pods::ready(p)));
            updated += i64::from(alive.iter().any(|p| pod_revision(p) == hash));
            let waits = alive.iter().map(|p| pods::available(p, minimum, now));
            available += i64::from(waits.clone().any(|w| w.is_ok()));
            let soonest = waits.filter_map(|w| w.err().flatten()).min();
            again = again.into_iter().chain(soonest).min();
        }
        let desired = wanted.values().filter(|start| **start).count() as i64;
        let mut status = json!({"observedGeneration": set.metadata.generation,
            "currentNumberScheduled": current, "numberMisscheduled": misplaced,
            "desiredNumberScheduled": desired, "numberReady": ready,
            "updatedNumberScheduled": updated, "numberAvailable": available,
            "numberUnavailable": (desired - available).max(0)});
        for kept in ["collisionCount", "conditions"] {
            if let Some(value) = set.at(&format!("/status/{kept}")) {
                status[kept] = value.clone();
            }
        }
        if comparable(set.body.get("status")) != comparable(Some(&status)) {
            let mut changed = set.clone();
            changed.body.insert("status".to_owned(), status);
            self.0.replace_status(DAEMON_SET, &changed).await?;
        }
        Ok(again)
    }
}

fn surge(set: &Object, nodes: usize) -> i64 {
    let surge = set.at("/spec/updateStrategy/rollingUpdate/maxSurge");
    surge.map_or(0, |surge| scaled(surge, nodes as i64, true))
}

/// Tolerations every daemon has; on the host's network also for a network that is not there yet.
fn own_tolerations(spec: &Value) -> Vec<Value> {
    let mut all: Vec<(&str, &str)> = TOLERATED.to_vec();
    if spec["hostNetwork"] == true {
        all.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let toleration =
        |(key, effect): (&str, &str)| json!({"key": key, "operator": "Exists", "effect": effect});
    all.into_iter().map(toleration).collect()
}
