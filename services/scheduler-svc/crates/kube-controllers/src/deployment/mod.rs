//! Deployments: replaces the pods of one template by those of the next, at a bounded cost.

mod budget;
mod proportion;
mod revision;
mod rollout;
mod scale;
mod status;

use std::sync::Arc;

use crate::cache::kind::{DEPLOYMENT, POD, REPLICA_SET};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::Cluster;
use crate::runner::{Again, Controller};
use crate::{Error, claim};

use budget::Budget;
pub(crate) use budget::scaled;

/// The controller.
#[derive(Debug)]
pub struct Deployments(pub Cluster);

/// One deployment and its replica sets in one sync.
struct Work<'a> {
    cluster: &'a Cluster,
    deployment: Object,
    /// Every replica set it manages, oldest first.
    sets: Vec<Arc<Object>>,
    budget: Budget,
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![DEPLOYMENT, REPLICA_SET, POD]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        if event.kind == DEPLOYMENT {
            return vec![event.object().key()];
        }
        if event.kind == REPLICA_SET {
            return crate::replicaset::owners(&self.0, event, DEPLOYMENT);
        }
        // Recreate waits for the last old pod.
        let Some(pod) = event.old.as_ref().filter(|_| event.new.is_none()) else {
            return Vec::new();
        };
        let set = pod
            .controller()
            .filter(|o| o.kind == "ReplicaSet")
            .and_then(|o| self.0.cached(REPLICA_SET, &Key::new(&pod.metadata.namespace, &o.name)));
        let owner = set.as_ref().and_then(|s| s.controller()).filter(|o| o.kind == "Deployment");
        owner.map(|o| Key::new(&pod.metadata.namespace, &o.name)).into_iter().collect()
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let Some(deployment) = self.0.cached(DEPLOYMENT, key) else { return Ok(None) };
        let selector = claim::selector(&deployment)?;
        let candidates = self.0.store(REPLICA_SET).namespace(&key.namespace);
        let owner = (DEPLOYMENT, &*deployment);
        let sets = claim::claim(&self.0, owner, &selector, REPLICA_SET, candidates).await?;
        let budget = Budget::of(&deployment);
        let deployment = (*deployment).clone();
        let mut work = Work { cluster: &self.0, deployment, sets, budget };
        work.sort();
        work.run().await
    }
}

impl Work<'_> {
    async fn run(&mut self) -> Result<Again, Error> {
        if self.deployment.deleting() {
            return self.report(false).await;
        }
        self.note_pause().await?;
        if self.deployment.flag("/spec/paused") || self.is_scaling() {
            return self.only_scale().await;
        }
        if self.deployment.text("/spec/strategy/type") == "Recreate" {
            self.recreate().await
        } else {
            self.roll().await
        }
    }

    fn sort(&mut self) {
        self.sets.sort_by_key(|set| (set.created(), set.metadata.name.clone()));
    }

    fn replicas(&self) -> i64 {
        self.deployment.int("/spec/replicas").unwrap_or(1)
    }

    /// The replica set of the current template; the oldest if there are several.
    fn newest(&self) -> Option<Arc<Object>> {
        let template = self.deployment.at("/spec/template")?;
        let same = |set: &&Arc<Object>| {
            set.at("/spec/template").is_some_and(|t| crate::hash::same_template(t, template))
        };
        self.sets.iter().find(same).cloned()
    }

    /// Every other replica set, oldest first.
    fn older(&self) -> Vec<Arc<Object>> {
        let newest = self.newest().map(|set| set.metadata.uid.clone());
        let other = |set: &&Arc<Object>| Some(&set.metadata.uid) != newest.as_ref();
        self.sets.iter().filter(other).cloned().collect()
    }

    /// Puts the new state of a replica set in the place of the old one.
    fn take(&mut self, set: Object) {
        let uid = set.metadata.uid.clone();
        match self.sets.iter_mut().find(|s| s.metadata.uid == uid) {
            Some(old) => *old = Arc::new(set),
            None => {
                self.sets.push(Arc::new(set));
                self.sort();
            }
        }
    }
}

/// Replicas a replica set is asked to have.
fn size(set: &Object) -> i64 {
    set.int("/spec/replicas").unwrap_or(1)
}

fn total<'a>(sets: impl IntoIterator<Item = &'a Arc<Object>>) -> i64 {
    sets.into_iter().map(|set| size(set)).sum()
}

fn sum<'a>(sets: impl IntoIterator<Item = &'a Arc<Object>>, pointer: &str) -> i64 {
    sets.into_iter().map(|set| set.int(pointer).unwrap_or(0)).sum()
}
