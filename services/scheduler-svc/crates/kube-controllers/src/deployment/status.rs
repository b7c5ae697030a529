//! The status that `kubectl rollout status` reads.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Work, sum, total};
use crate::Error;
use crate::cache::kind::DEPLOYMENT;
use crate::cache::{Object, parse_time};
use crate::conditions;
use crate::replicaset::comparable;
use crate::runner::Again;

const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

impl Work<'_> {
    /// Whether a progress deadline is set; the largest value means none.
    pub(super) fn has_deadline(&self) -> bool {
        self.deadline().is_some()
    }

    fn deadline(&self) -> Option<i64> {
        let seconds = self.deployment.int("/spec/progressDeadlineSeconds").unwrap_or(600);
        Some(seconds).filter(|s| *s != i64::from(i32::MAX))
    }

    /// Notes that the deployment was paused or resumed, so that the deadline does not run meanwhile.
    pub(super) async fn note_pause(&mut self) -> Result<(), Error> {
        if !self.has_deadline() {
            return Ok(());
        }
        let reason = self.deployment.condition("Progressing").map(|c| c["reason"].clone());
        let reason = reason.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        if reason == TIMED_OUT {
            return Ok(());
        }
        let paused = self.deployment.flag("/spec/paused");
        if paused && reason != "DeploymentPaused" {
            return self.note_progress("Unknown", "DeploymentPaused", "Deployment is paused").await;
        }
        if !paused && reason == "DeploymentPaused" {
            let message = "Deployment is resumed";
            return self.note_progress("Unknown", "DeploymentResumed", message).await;
        }
        Ok(())
    }

    /// Whether every replica is of the current template and available, as far as the last status says.
    pub(super) fn complete(&self) -> bool {
        self.is_complete(&self.counts())
    }

    fn is_complete(&self, status: &Value) -> bool {
        let wanted = self.replicas();
        let at = |name: &str| status[name].as_i64().unwrap_or(0);
        ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|name| at(name) == wanted)
            && at("observedGeneration") >= self.deployment.metadata.generation
    }

    /// The numbers, as the replica sets report them.
    fn counts(&self) -> Value {
        let newest = self.newest();
        let available = sum(&self.sets, "/status/availableReplicas");
        let counts = [
            ("replicas", sum(&self.sets, "/status/replicas")),
            ("updatedReplicas", sum(&newest, "/status/replicas")),
            ("readyReplicas", sum(&self.sets, "/status/readyReplicas")),
            ("availableReplicas", available),
            ("unavailableReplicas", (total(&self.sets) - available).max(0)),
        ];
        let mut status = json!({"observedGeneration": self.deployment.metadata.generation});
        for (name, count) in counts {
            if count != 0 {
                status[name] = json!(count);
            }
        }
        if let Some(count) = self.deployment.at("/status/collisionCount") {
            status["collisionCount"] = count.clone();
        }
        status
    }

    /// Writes the status if it changed; with `progress`, judges the progress of the rollout too.
    pub(super) async fn report(&mut self, progress: bool) -> Result<Again, Error> {
        let mut status = self.counts();
        let mut list = self.deployment.list("/status/conditions").to_vec();
        let available = status["availableReplicas"].as_i64().unwrap_or(0);
        if available >= self.replicas() - self.budget.unavailable {
            let message = "Deployment has minimum availability.";
            conditions::set(&mut list, "Available", "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.";
            conditions::set(&mut list, "Available", "False", "MinimumReplicasUnavailable", message);
        }
        if progress {
            self.judge(&status, &mut list);
        }
        status["conditions"] = json!(list);
        if comparable(self.deployment.body.get("status")) == comparable(Some(&status)) {
            return Ok(self.look_again());
        }
        self.deployment.body.insert("status".to_owned(), status);
        self.deployment = self.cluster.replace_status(DEPLOYMENT, &self.deployment).await?;
        Ok(self.look_again())
    }

    fn judge(&self, status: &Value, list: &mut Vec<Value>) {
        if !self.has_deadline() {
            conditions::remove(list, "Progressing");
        }
        let settled = status["replicas"] == status["updatedReplicas"]
            && conditions::find(list, "Progressing").is_some_and(|c| c["reason"] == DONE);
        if self.has_deadline() && !settled {
            let newest = self.newest();
            let subject = newest.as_ref().map_or_else(
                || format!("Deployment {:?}", self.deployment.metadata.name),
                |set| format!("ReplicaSet {:?}", set.metadata.name),
            );
            if self.is_complete(status) {
                let message = format!("{subject} has successfully progressed.");
                conditions::set(list, "Progressing", "True", DONE, &message);
            } else if progressed(self.deployment.body.get("status"), status) {
                let message = format!("{subject} is progressing.");
                conditions::put(list, "Progressing", "True", "ReplicaSetUpdated", &message);
            } else if self.timed_out(list) {
                let message = format!("{subject} has timed out progressing.");
                conditions::set(list, "Progressing", "False", TIMED_OUT, &message);
            }
        }
        let failed = |set: &Object| set.condition("ReplicaFailure").cloned();
        let failure = self.newest().and_then(|set| failed(&set));
        match failure.or_else(|| self.sets.iter().find_map(|set| failed(set))) {
            Some(failure) => {
                let text = |name: &str| failure[name].as_str().unwrap_or_default();
                conditions::set(
                    list,
                    "ReplicaFailure",
                    text("status"),
                    text("reason"),
                    text("message"),
                );
            }
            None => conditions::remove(list, "ReplicaFailure"),
        }
    }

    fn timed_out(&self, list: &[Value]) -> bool {
        let Some(condition) = conditions::find(list, "Progressing") else { return false };
        match condition["reason"].as_str() {
            Some(DONE) => false,
            Some(TIMED_OUT) => true,
            _ => self.left(condition).is_some_and(|left| left <= 0),
        }
    }

    /// Milliseconds until the progress deadline.
    fn left(&self, condition: &Value) -> Option<i64> {
        let since = parse_time(condition["lastUpdateTime"].as_str()?)?;
        let end = since.as_millisecond().saturating_add(self.deadline()?.saturating_mul(1000));
        Some(end - Timestamp::now().as_millisecond())
    }

    /// When a rollout that stands still is to be judged again.
    fn look_again(&self) -> Again {
        let condition = self.deployment.condition("Progressing")?;
        if self.deployment.flag("/spec/paused") || self.complete() {
            return None;
        }
        if matches!(condition["reason"].as_str(), Some(DONE | TIMED_OUT)) {
            return None;
        }
        let left = self.left(condition)?;
        Some(Duration::from_millis(left.max(0).unsigned_abs() + 1000))
    }
}

/// Whether any number moved in the direction of the rollout.
fn progressed(old: Option<&Value>, new: &Value) -> bool {
    let at =
        |status: Option<&Value>, name: &str| status.and_then(|s| s[name].as_i64()).unwrap_or(0);
    let old_pods = |status| at(status, "replicas") - at(status, "updatedReplicas");
    let new = Some(new);
    at(new, "updatedReplicas") > at(old, "updatedReplicas")
        || old_pods(new) < old_pods(old)
        || at(new, "readyReplicas") > at(old, "readyReplicas")
        || at(new, "availableReplicas") > at(old, "availableReplicas")
}
