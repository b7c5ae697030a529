//! Changing the size of replica sets, and of the whole deployment in the middle of an update.

use std::sync::Arc;

use serde_json::json;

use super::proportion::{Share, split};
use super::revision::{DESIRED, MAX};
use super::{Work, size, total};
use crate::Error;
use crate::cache::Object;
use crate::cache::kind::{DEPLOYMENT, REPLICA_SET};
use crate::runner::Again;

impl Work<'_> {
    /// Whether the asked size changed since the replica sets got theirs.
    pub(super) fn is_scaling(&self) -> bool {
        let wanted = self.replicas().to_string();
        let differs = |set: &&Arc<Object>| {
            size(set) > 0 && set.metadata.annotations.get(DESIRED).is_some_and(|d| *d != wanted)
        };
        self.sets.iter().any(|set| differs(&set))
    }

    /// A paused deployment, or one that only changed its size: no new template is rolled out.
    pub(super) async fn only_scale(&mut self) -> Result<Again, Error> {
        self.sync_revision(false).await?;
        self.spread().await?;
        if self.deployment.flag("/spec/paused") && self.newest().is_none() {
            self.clean_up().await?;
        }
        self.report(false).await
    }

    /// Sets the size of one replica set, and notes the size it is part of.
    pub(super) async fn resize(&mut self, set: &Arc<Object>, wanted: i64) -> Result<bool, Error> {
        let limit = self.replicas() + self.budget.surge;
        let (desired, max) = (self.replicas().to_string(), limit.to_string());
        let annotations = &set.metadata.annotations;
        let noted =
            annotations.get(DESIRED) == Some(&desired) && annotations.get(MAX) == Some(&max);
        let before = size(set);
        if before == wanted && noted {
            return Ok(false);
        }
        let mut changed = (**set).clone();
        changed.set("spec", "replicas", json!(wanted));
        changed.metadata.annotations.insert(DESIRED.to_owned(), desired);
        changed.metadata.annotations.insert(MAX.to_owned(), max);
        let changed = self.cluster.replace(REPLICA_SET, &changed).await?;
        self.take(changed);
        if before != wanted {
            let word = if wanted > before { "up" } else { "down" };
            let name = &set.metadata.name;
            self.cluster.events.normal(
                self.deployment.regarding(DEPLOYMENT),
                "ScalingReplicaSet",
                format!("Scaled {word} replica set {name} from {before} to {wanted}"),
            );
        }
        Ok(before != wanted)
    }

    /// Brings the total to the asked size; in the middle of an update all replica sets share the change.
    async fn spread(&mut self) -> Result<(), Error> {
        if let Some(set) = self.only_active() {
            if size(&set) != self.replicas() {
                self.resize(&set, self.replicas()).await?;
            }
            return Ok(());
        }
        if self.newest().is_some_and(|set| self.saturated(&set)) {
            for set in self.older().iter().filter(|set| size(set) > 0) {
                self.resize(set, 0).await?;
            }
            return Ok(());
        }
        if self.deployment.text("/spec/strategy/type") == "Recreate" {
            return Ok(());
        }
        let limit = if self.replicas() > 0 { self.replicas() + self.budget.surge } else { 0 };
        let mut active: Vec<Arc<Object>> =
            self.sets.iter().filter(|set| size(set) > 0).cloned().collect();
        let change = limit - total(&active);
        // The biggest first; among equals the newest grow and the oldest shrink first.
        active.sort_by(|a, b| {
            let age = a.created().cmp(&b.created());
            size(b).cmp(&size(a)).then(if change > 0 { age.reverse() } else { age })
        });
        let fallback = self.deployment.int("/status/replicas").unwrap_or(0);
        let share = |set: &Arc<Object>| {
            let noted = set.metadata.annotations.get(MAX).and_then(|m| m.parse().ok());
            Share { size: size(set), annotated: noted.unwrap_or(fallback) }
        };
        let shares: Vec<Share> = active.iter().map(share).collect();
        let full = self.replicas() + self.budget.surge;
        let sizes = split(&shares, change, self.replicas(), full);
        for (set, wanted) in active.iter().zip(sizes) {
            self.resize(set, wanted).await?;
        }
        Ok(())
    }

    /// The only replica set with pods, or the newest when none has any.
    fn only_active(&self) -> Option<Arc<Object>> {
        let active: Vec<&Arc<Object>> = self.sets.iter().filter(|set| size(set) > 0).collect();
        match active.as_slice() {
            [] => self.newest().or_else(|| self.older().last().cloned()),
            [one] => Some((*one).clone()),
            _ => None,
        }
    }

    /// Whether a replica set alone is the whole deployment.
    fn saturated(&self, set: &Object) -> bool {
        let wanted = self.replicas();
        let noted = set.metadata.annotations.get(DESIRED).and_then(|d| d.parse::<i64>().ok());
        size(set) == wanted
            && noted == Some(wanted)
            && set.int("/status/availableReplicas").unwrap_or(0) == wanted
    }
}
