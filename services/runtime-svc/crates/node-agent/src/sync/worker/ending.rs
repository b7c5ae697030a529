//! The end of a pod's worker: ending what runs, keeping what must be kept, leaving nothing behind.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Desired, Next, RETRY, RETRY_START, Worker, stop};
use crate::engine::kube::Pod;
use crate::engine::observed::{Observed, RunState};
use crate::engine::resources::{self, CgroupDriver};

impl Worker {
    /// The pod has ended for good but still exists: its logs and runs are kept, its volumes are not.
    pub(super) async fn keep_ended(
        &mut self,
        desired: &Desired,
        pod: &Pod,
        seen: &Observed,
    ) -> Next {
        self.ended = true;
        self.prober.follow(&desired.pod, &[], "", |_| None);
        if seen.is_alive() {
            if let Err(error) = stop::pod(&self.agent, pod, seen, pod.grace_period(), false).await {
                tracing::warn!(pod = pod.full_name(), %error, "cannot end the pod");
                return Next::Wait(RETRY);
            }
            return Next::Again;
        }
        self.report(desired, pod, seen);
        if let Err(error) = self.agent.paths.remove_volumes(pod.uid()) {
            tracing::warn!(pod = pod.full_name(), %error, "cannot remove the volumes");
            return Next::Wait(RETRY_START);
        }
        Next::Wait(Duration::from_secs(3600))
    }

    /// Removes runs and sandboxes that neither run nor tell the last state.
    pub(super) async fn collect(&self, pod: &Pod, seen: &Observed) {
        let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
        let mut used = vec![seen.sandbox().map(|s| s.id.as_str()).unwrap_or_default()];
        for run in &seen.runs {
            let count = kept.entry(&run.name).or_default();
            *count += 1;
            if *count <= 2 || run.state != RunState::Exited {
                used.push(&run.sandbox);
                continue;
            }
            let removed = self.agent.cri.remove(&run.id).await;
            if let Err(error) = removed {
                tracing::debug!(pod = pod.full_name(), %error, "an old container stays");
            }
            let _ = std::fs::remove_file(&run.log_path);
            let _ = std::fs::remove_file(&run.last_words);
        }
        for sandbox in seen.sandboxes.iter().filter(|s| !s.ready && !used.contains(&s.id.as_str()))
        {
            if let Err(error) = self.agent.cri.remove_sandbox(&sandbox.id).await {
                tracing::debug!(pod = pod.full_name(), %error, "an old sandbox stays");
            }
        }
    }

    pub(super) async fn end(&mut self, desired: &Desired) -> Next {
        let pod = self.pod(desired);
        let Some(seen) = self.look(&pod).await else { return Next::Wait(RETRY) };
        let grace = pod.grace_period();
        if seen.is_alive() {
            let mut watcher = self.desired.clone();
            let quiet = desired.gone && pod.spec.containers.is_empty();
            // Liveness of a pod that ends concerns nobody.
            self.prober.follow(&desired.pod, &[], "", |_| None);
            tokio::select! {
                result = stop::pod(&self.agent, &pod, &seen, grace, quiet) => {
                    if let Err(error) = result {
                        tracing::warn!(pod = pod.full_name(), %error, "cannot end the pod");
                        return Next::Wait(RETRY);
                    }
                }
                _ = watcher.wait_for(|d| d.pod.grace_period() < grace) => {}
            }
            return Next::Again;
        }
        self.ended = true;
        self.report(desired, &pod, &seen);
        if !desired.gone {
            let mut watcher = self.desired.clone();
            tokio::select! {
                () = self.writer.flush() => {}
                _ = watcher.wait_for(|d| d.gone) => {}
            }
        }
        if let Err(error) = self.clean_up(&pod, &seen).await {
            tracing::warn!(pod = pod.full_name(), error, "cannot clean up after the pod");
            return Next::Wait(RETRY);
        }
        if !desired.gone && !desired.api_uid.is_empty() {
            if let Err(error) = self.agent.api.delete_pod(&desired.pod, &desired.api_uid).await {
                tracing::warn!(pod = pod.full_name(), %error, "the API server does not let go of the pod");
                return Next::Wait(RETRY);
            }
            let mut watcher = self.desired.clone();
            let _ =
                tokio::time::timeout(Duration::from_secs(30), watcher.wait_for(|d| d.gone)).await;
        }
        if let Err(error) = self.agent.paths.remove_logs(&pod) {
            tracing::warn!(pod = pod.full_name(), %error, "the logs stay");
        }
        Next::Finished
    }

    async fn clean_up(&self, pod: &Pod, seen: &Observed) -> Result<(), String> {
        for run in &seen.runs {
            self.agent.cri.remove(&run.id).await.map_err(|e| e.message().to_owned())?;
        }
        for sandbox in &seen.sandboxes {
            self.agent.cri.remove_sandbox(&sandbox.id).await.map_err(|e| e.message().to_owned())?;
        }
        self.agent.paths.remove_pod(pod.uid()).map_err(|e| e.to_string())?;
        let facts = self.agent.sandbox_facts();
        if facts.cgroup_driver == CgroupDriver::Cgroupfs && !pod.spec.containers.is_empty() {
            let parent = resources::cgroup_parent(&facts.cgroup_root, pod, facts.cgroup_driver);
            self.agent.cgroups.remove(&parent).map_err(|e| format!("cgroup {parent}: {e}"))?;
        }
        Ok(())
    }
}
