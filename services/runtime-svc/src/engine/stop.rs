//! Stopping containers and sandboxes.

use std::sync::Arc;
use std::time::Duration;

use rt_shim::wire::{FailureKind, Request};

use super::error::{Error, Result};
use super::node::{Container, Node, Sandbox};
use super::records::{ContainerPhase, SandboxPhase, SandboxRecord};
use super::sandbox::shim_cgroup;

/// How long a killed container may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(60);
/// How long a shim may take to end its pod.
const SHIM_PATIENCE: Duration = Duration::from_secs(15);

impl Node {
    /// Asks a container to end and kills it after `timeout`. Unknown and ended containers are fine.
    ///
    /// # Errors
    /// When it outlives the kill.
    pub async fn stop_container(&self, part: &str, timeout: Duration) -> Result<()> {
        let container = match self.container(part) {
            Err(Error::NotFound(_)) => return Ok(()),
            other => other?,
        };
        self.stop(&container, timeout).await
    }

    pub(super) async fn stop(&self, container: &Container, timeout: Duration) -> Result<()> {
        if !matches!(container.phase(), ContainerPhase::Running | ContainerPhase::Starting) {
            return Ok(());
        }
        if !timeout.is_zero() {
            let signal = container.record().stop_signal;
            self.signal(container, signal, false).await?;
            if tokio::time::timeout(timeout, container.ended()).await.is_ok() {
                return Ok(());
            }
        }
        self.signal(container, libc::SIGKILL, true).await?;
        tokio::time::timeout(KILL_PATIENCE, container.ended()).await.map_err(|_| {
            Error::Deadline(format!("container {:?} was killed but has not ended", container.id))
        })
    }

    /// Signals a container's first process, or all.
    ///
    /// # Errors
    /// When the shim does not answer.
    pub async fn signal(&self, container: &Container, signal: i32, all: bool) -> Result<()> {
        let sandbox = container.record().sandbox_id;
        let request = Request::Signal { id: container.id.clone(), signal, all };
        let answer = self.shims.ask(&self.machine.socket(&sandbox), &request).await?;
        match answer {
            rt_shim::wire::Answer::Failed(failure) if failure.kind != FailureKind::NotFound => {
                Err(Error::Failed(failure.message))
            }
            _ => Ok(()),
        }
    }

    /// Stops a sandbox and all its containers. Unknown and stopped sandboxes are fine.
    ///
    /// # Errors
    /// When something cannot be taken away; the call can be repeated.
    pub async fn stop_sandbox(self: &Arc<Self>, part: &str) -> Result<()> {
        let sandbox = match self.sandbox(part) {
            Err(Error::NotFound(_)) => return Ok(()),
            other => other?,
        };
        let _operation = sandbox.operation.lock().await;
        stop_locked(self, &sandbox).await
    }

    /// Marks a sandbox as stopped and its containers as ended.
    pub(super) fn mark_stopped(&self, sandbox: &Sandbox) -> Result<()> {
        for container in self.containers_of(&sandbox.id) {
            self.settle_lost(&container)?;
        }
        let ip = sandbox.record().ip;
        self.update_sandbox(sandbox, |record| {
            record.set_phase(SandboxPhase::Stopped);
            record.ip.clear();
            record.shim_pid = 0;
        })?;
        self.release_address(&ip);
        Ok(())
    }
}

/// Stops a sandbox whose operation lock is held.
pub(super) async fn stop_locked(node: &Arc<Node>, sandbox: &Sandbox) -> Result<()> {
    let record = sandbox.record();
    if record.phase() == SandboxPhase::Stopped {
        return Ok(());
    }
    end_shim(node, &record).await;
    node.network.detach(&sandbox.id).await?;
    node.machine.destroy_cgroup(&shim_cgroup(&record))?;
    for container in node.containers_of(&sandbox.id) {
        node.machine.destroy_cgroup(&container.record().cgroup)?;
    }
    node.mark_stopped(sandbox)
}

/// Ends a sandbox's shim with everything in the pod, gently first.
pub(super) async fn end_shim(node: &Node, record: &SandboxRecord) {
    let socket = node.machine.socket(&record.id);
    let asked =
        tokio::time::timeout(SHIM_PATIENCE, node.shims.ask(&socket, &Request::Shutdown)).await;
    if !matches!(asked, Ok(Ok(_))) && record.shim_pid > 0 {
        node.shims.kill(record.shim_pid, &socket);
    }
    for container in node.containers_of(&record.id) {
        let cgroup = container.record().cgroup;
        if !cgroup.is_empty()
            && let Err(error) = node.machine.destroy_cgroup(&cgroup)
        {
            tracing::warn!(container = container.id, %error, "cannot remove the container's cgroup");
        }
    }
    // Its address and devices are free once the process is gone.
    let gone = async {
        while record.shim_pid > 0 && node.machine.is_alive(record.shim_pid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), gone).await;
}
