//! Revisions: which replica set is which version of the template, and how long old ones are kept.

use std::sync::Arc;

use serde_json::json;

use super::{Work, size, total};
use crate::Error;
use crate::cache::kind::{DEPLOYMENT, REPLICA_SET};
use crate::cache::{Key, Object};
use crate::cluster::Propagation;
use crate::{conditions, hash};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const OWN: &[&str] = &[REVISION, HISTORY, DESIRED, MAX, LAST_APPLIED];
const HASH: &str = "pod-template-hash";

/// Revision a replica set carries; 0 for none.
fn revision(set: &Object) -> i64 {
    set.metadata.annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

impl Work<'_> {
    /// Gives the current template the highest revision; with `create`, also a replica set.
    pub(super) async fn sync_revision(&mut self, create: bool) -> Result<(), Error> {
        let next = self.older().iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
        if let Some(set) = self.newest() {
            let mut changed = (*set).clone();
            self.annotate(&mut changed, next);
            let seconds = self.deployment.int("/spec/minReadySeconds").unwrap_or(0);
            if seconds != changed.int("/spec/minReadySeconds").unwrap_or(0) {
                changed.set("spec", "minReadySeconds", json!(seconds));
            }
            let changed = if changed == *set {
                changed
            } else {
                self.cluster.replace(REPLICA_SET, &changed).await?
            };
            let revision = revision(&changed);
            let name = changed.metadata.name.clone();
            self.take(changed);
            self.note_revision(revision).await?;
            let list = self.deployment.list("/status/conditions");
            if self.has_deadline() && conditions::find(list, "Progressing").is_none() {
                let message = format!("Found new replica set {name:?}");
                self.note_progress("True", "FoundNewReplicaSet", &message).await?;
            }
            return Ok(());
        }
        if create { self.create_newest(next).await } else { Ok(()) }
    }

    /// Carries the deployment's annotations and the revision over.
    fn annotate(&self, set: &mut Object, next: i64) {
        for (name, value) in &self.deployment.metadata.annotations {
            if !OWN.contains(&name.as_str()) {
                set.metadata.annotations.insert(name.clone(), value.clone());
            }
        }
        let current = revision(set);
        if current >= next {
            return;
        }
        if let Some(old) = set.metadata.annotations.insert(REVISION.to_owned(), next.to_string()) {
            let history = set.metadata.annotations.entry(HISTORY.to_owned()).or_default();
            *history = if history.is_empty() { old } else { format!("{history},{old}") };
            // Annotations have a size limit; the oldest revisions go first.
            while history.len() > 2000 {
                match history.split_once(',') {
                    Some((_, rest)) => *history = rest.to_owned(),
                    None => break,
                }
            }
        }
    }

    async fn note_revision(&mut self, revision: i64) -> Result<(), Error> {
        let text = revision.to_string();
        if self.deployment.metadata.annotations.get(REVISION) == Some(&text) {
            return Ok(());
        }
        self.deployment.metadata.annotations.insert(REVISION.to_owned(), text);
        self.deployment = self.cluster.replace(DEPLOYMENT, &self.deployment).await?;
        Ok(())
    }

    pub(super) async fn note_progress(
        &mut self,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let mut list = self.deployment.list("/status/conditions").to_vec();
        conditions::set(&mut list, "Progressing", status, reason, message);
        self.deployment.set("status", "conditions", json!(list));
        self.deployment = self.cluster.replace_status(DEPLOYMENT, &self.deployment).await?;
        Ok(())
    }

    async fn create_newest(&mut self, next: i64) -> Result<(), Error> {
        let set = self.new_set(next);
        let name = set.metadata.name.clone();
        match self.cluster.create(REPLICA_SET, &set).await {
            Ok(made) => {
                if size(&made) > 0 {
                    self.cluster.events.normal(
                        self.deployment.regarding(DEPLOYMENT),
                        "ScalingReplicaSet",
                        format!("Scaled up replica set {name} from 0 to {}", size(&made)),
                    );
                }
                self.take(made);
            }
            Err(error) if error.is_conflict() => self.collide(&set).await?,
            Err(error) => {
                if self.has_deadline() {
                    let message = error.to_string();
                    self.note_progress("False", "ReplicaSetCreateError", &message).await?;
                }
                return Err(error.into());
            }
        }
        self.note_revision(next).await?;
        if self.has_deadline() {
            let message = format!("Created new replica set {name:?}");
            self.note_progress("True", "NewReplicaSetCreated", &message).await?;
        }
        Ok(())
    }

    fn new_set(&self, next: i64) -> Object {
        let meta = &self.deployment.metadata;
        let mut template = self.deployment.at("/spec/template").cloned().unwrap_or_default();
        let hash = hash::template_hash(&template, self.deployment.int("/status/collisionCount"));
        template["metadata"]["labels"][HASH] = json!(hash);
        let mut selector = self.deployment.at("/spec/selector").cloned().unwrap_or_default();
        selector["matchLabels"][HASH] = json!(hash);
        let room = (self.replicas() + self.budget.surge - total(&self.sets)).max(0);
        let replicas = if self.deployment.text("/spec/strategy/type") == "Recreate" {
            self.replicas()
        } else {
            room.min(self.replicas())
        };
        let mut set = Object::new(REPLICA_SET, &meta.namespace, &format!("{}-{hash}", meta.name));
        let labels = template["metadata"]["labels"].clone();
        set.metadata.labels = serde_json::from_value(labels).unwrap_or_default();
        set.metadata.owner_references = vec![self.deployment.owner_reference(DEPLOYMENT)];
        self.annotate(&mut set, next);
        let desired = [(DESIRED, self.replicas()), (MAX, self.replicas() + self.budget.surge)];
        for (name, count) in desired {
            set.metadata.annotations.insert(name.to_owned(), count.to_string());
        }
        let seconds = self.deployment.int("/spec/minReadySeconds").unwrap_or(0);
        let spec = json!({"replicas": replicas, "selector": selector, "template": template,
            "minReadySeconds": seconds});
        set.body.insert("spec".to_owned(), spec);
        set
    }

    /// The name is taken: by this very replica set, made in a life before, or by one of the same hash.
    async fn collide(&mut self, wanted: &Object) -> Result<(), Error> {
        let meta = &self.deployment.metadata;
        let key = Key::new(&meta.namespace, &wanted.metadata.name);
        if let Some(found) = self.cluster.live(REPLICA_SET, &key).await? {
            let own = found.controlled_by(&meta.uid);
            let (a, b) = (found.at("/spec/template"), wanted.at("/spec/template"));
            if own && a.zip(b).is_some_and(|(a, b)| hash::same_template(a, b)) {
                self.take(found);
                return Ok(());
            }
        }
        let count = self.deployment.int("/status/collisionCount").unwrap_or(0) + 1;
        self.deployment.set("status", "collisionCount", json!(count));
        self.deployment = self.cluster.replace_status(DEPLOYMENT, &self.deployment).await?;
        // The next sync takes the next name.
        let name = &wanted.metadata.name;
        Err(flotilla_kube_client::Error::Api(flotilla_kube_client::Status {
            code: 409,
            message: format!("replica set {name} exists with another template"),
            reason: "AlreadyExists".to_owned(),
        })
        .into())
    }

    /// Deletes the oldest replica sets above the history limit.
    pub(super) async fn clean_up(&mut self) -> Result<(), Error> {
        let limit = self.deployment.int("/spec/revisionHistoryLimit").unwrap_or(10);
        let mut old: Vec<Arc<Object>> =
            self.older().into_iter().filter(|set| !set.deleting()).collect();
        let surplus = i64::try_from(old.len()).unwrap_or(0) - limit;
        old.sort_by_key(|set| (revision(set), set.created()));
        for set in old.iter().take(usize::try_from(surplus).unwrap_or(0)) {
            let seen = set.int("/status/observedGeneration").unwrap_or(0);
            let empty = size(set) == 0 && set.int("/status/replicas").unwrap_or(0) == 0;
            if empty && seen >= set.metadata.generation {
                self.cluster.delete(REPLICA_SET, set, Propagation::Background, None).await?;
                self.sets.retain(|s| s.metadata.uid != set.metadata.uid);
            }
        }
        Ok(())
    }
}
