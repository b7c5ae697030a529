//! From the old template to the new one: rolling or all at once.

use std::sync::Arc;

use super::{Work, size, sum, total};
use crate::Error;
use crate::cache::Object;
use crate::cache::kind::POD;
use crate::pods;
use crate::runner::Again;

impl Work<'_> {
    /// Adds new pods up to the surge, then removes old ones down to what must stay available.
    pub(super) async fn roll(&mut self) -> Result<Again, Error> {
        self.sync_revision(true).await?;
        if self.grow_newest().await? || self.shrink_older().await? {
            return self.report(true).await;
        }
        if self.complete() {
            self.clean_up().await?;
        }
        self.report(true).await
    }

    async fn grow_newest(&mut self) -> Result<bool, Error> {
        let Some(newest) = self.newest() else { return Ok(false) };
        let wanted = self.replicas();
        if size(&newest) >= wanted {
            return self.resize(&newest, wanted).await;
        }
        let room = wanted + self.budget.surge - total(&self.sets);
        if room <= 0 {
            return Ok(false);
        }
        let target = size(&newest) + room.min(wanted - size(&newest));
        self.resize(&newest, target).await
    }

    async fn shrink_older(&mut self) -> Result<bool, Error> {
        let older = self.older();
        if total(&older) == 0 {
            return Ok(false);
        }
        let least = self.replicas() - self.budget.unavailable;
        let new_unavailable = self.newest().map_or(0, |set| size(&set) - available(&set));
        let spare = total(&self.sets) - least - new_unavailable;
        if spare <= 0 {
            return Ok(false);
        }
        let cleaned = self.drop_unhealthy(&older, spare).await?;
        let scaled = self.drop_surplus(least).await?;
        Ok(cleaned || scaled)
    }

    /// Old pods that are not available do no work: they go first.
    async fn drop_unhealthy(&mut self, older: &[Arc<Object>], spare: i64) -> Result<bool, Error> {
        let mut left = spare;
        let mut changed = false;
        for set in older {
            let unhealthy = size(set) - available(set);
            if left <= 0 || unhealthy <= 0 {
                continue;
            }
            let part = left.min(unhealthy);
            changed |= self.resize(set, size(set) - part).await?;
            left -= part;
        }
        Ok(changed)
    }

    async fn drop_surplus(&mut self, least: i64) -> Result<bool, Error> {
        let mut left = sum(&self.sets, "/status/availableReplicas") - least;
        let mut changed = false;
        for set in self.older() {
            if left <= 0 {
                break;
            }
            let part = left.min(size(&set));
            if part > 0 {
                changed |= self.resize(&set, size(&set) - part).await?;
                left -= part;
            }
        }
        Ok(changed)
    }

    /// Ends every old pod before the first new one begins.
    pub(super) async fn recreate(&mut self) -> Result<Again, Error> {
        self.sync_revision(false).await?;
        let mut changed = false;
        for set in self.older().iter().filter(|set| size(set) > 0) {
            changed |= self.resize(set, 0).await?;
        }
        if changed || self.old_pods_run() {
            return self.report(true).await;
        }
        if self.newest().is_none() {
            self.sync_revision(true).await?;
        }
        if let Some(newest) = self.newest() {
            self.resize(&newest, self.replicas()).await?;
        }
        if self.complete() {
            self.clean_up().await?;
        }
        self.report(true).await
    }

    fn old_pods_run(&self) -> bool {
        let store = self.cluster.store(POD);
        let owned = |set: &Arc<Object>| store.owned_by(&set.metadata.uid);
        self.older().iter().flat_map(owned).any(|pod| !pods::finished(&pod))
    }
}

fn available(set: &Object) -> i64 {
    set.int("/status/availableReplicas").unwrap_or(0)
}
