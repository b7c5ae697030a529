//! Start-up: what the records and the shims know becomes the node's state again; what was half done is undone.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rt_shim::wire::Request;

use super::error::Result;
use super::node::{Container, Node, Sandbox};
use super::ports::{PodNetwork, Reports};
use super::records::{ContainerPhase, SandboxPhase};
use super::sandbox::pod_network;
use super::stop;

impl Node {
    /// Fills the node from its records. Call once, before any request is served.
    ///
    /// # Errors
    /// When the records cannot be read. What cannot be cleaned up is logged and tried again at the next start.
    pub async fn recover(self: &Arc<Self>) -> Result<()> {
        let (sandboxes, containers) = self.records.load()?;
        {
            let mut index = self.index.lock();
            for record in sandboxes {
                if let Ok(ip) = record.ip.parse::<Ipv4Addr>() {
                    index.addresses.reserve(ip);
                }
                index.names.insert(record.reserved_name(), record.id.clone());
                index.sandboxes.insert(record.id.clone(), Sandbox::new(record));
            }
            for record in containers {
                index.names.insert(record.reserved_name(), record.id.clone());
                index.containers.insert(record.id.clone(), Container::new(record));
            }
        }
        let all: Vec<Arc<Sandbox>> = self.index.lock().sandboxes.values().cloned().collect();
        let recovered = all.iter().map(|sandbox| self.recover_sandbox(sandbox));
        futures::future::join_all(recovered).await;
        self.recover_containers().await;
        self.end_strays().await;
        let known: Vec<PodNetwork> = self
            .sandboxes()
            .iter()
            .filter(|sandbox| sandbox.phase() == SandboxPhase::Ready)
            .filter_map(|sandbox| pod_network(&sandbox.record()).ok().flatten())
            .collect();
        self.network.sweep(&known).await
    }

    async fn recover_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let done = match sandbox.phase() {
            SandboxPhase::Ready => {
                match self.shims.watch(&self.machine.socket(&sandbox.id)).await {
                    Ok(reports) => {
                        self.adopt(sandbox, reports).await;
                        Ok(())
                    }
                    Err(error) => {
                        tracing::warn!(sandbox = sandbox.id, %error, "the pod's shim is gone");
                        stop::stop_locked(self, sandbox).await
                    }
                }
            }
            SandboxPhase::Stopped => Ok(()),
            SandboxPhase::Starting | SandboxPhase::Removing => {
                self.erase_with_containers(sandbox).await
            }
        };
        if let Err(error) = done {
            tracing::warn!(sandbox = sandbox.id, %error, "cannot clean up after the last run");
        }
    }

    async fn erase_with_containers(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        stop::end_shim(self, &sandbox.record()).await;
        for container in self.containers_of(&sandbox.id) {
            self.erase_container(&container).await?;
        }
        self.erase_sandbox(sandbox).await
    }

    /// Takes over a live shim: its list first, then its reports.
    async fn adopt(self: &Arc<Self>, sandbox: &Arc<Sandbox>, mut reports: Reports) {
        let known = reports.recv().await.unwrap_or_default();
        for container in self.containers_of(&sandbox.id) {
            let report = known.iter().find(|report| report.id == container.id);
            let settled = match report {
                Some(report) => self.apply(&container, report),
                None => self.settle_lost(&container),
            };
            if let Err(error) = settled {
                tracing::warn!(container = container.id, %error, "cannot save the container's state");
            }
        }
        self.follow(sandbox.clone(), reports);
    }

    async fn recover_containers(self: &Arc<Self>) {
        let all: Vec<Arc<Container>> = self.index.lock().containers.values().cloned().collect();
        for container in all {
            let orphan = self.sandbox(&container.record().sandbox_id).is_err();
            let half_done =
                matches!(container.phase(), ContainerPhase::Creating | ContainerPhase::Removing);
            if (orphan || half_done)
                && let Err(error) = self.erase_container(&container).await
            {
                tracing::warn!(container = container.id, %error, "cannot clean up after the last run");
            }
        }
    }

    /// Ends shims that no record knows.
    async fn end_strays(&self) {
        for id in self.machine.pods_with_state() {
            if self.index.lock().sandboxes.contains_key(&id) {
                continue;
            }
            tracing::warn!(sandbox = id, "removing a pod that no record knows");
            // A shim that does not answer is gone.
            let _ = self.shims.ask(&self.machine.socket(&id), &Request::Shutdown).await;
            if let Err(error) = self.machine.remove_pod(&id) {
                tracing::warn!(sandbox = id, %error, "cannot remove a stray pod");
            }
        }
    }

    /// Applies a shim's reports until it ends; then the sandbox is no longer ready.
    pub(super) fn follow(self: &Arc<Self>, sandbox: Arc<Sandbox>, mut reports: Reports) {
        let node = self.clone();
        tokio::spawn(async move {
            while let Some(batch) = reports.recv().await {
                for report in &batch {
                    let Ok(container) = node.container(&report.id) else { continue };
                    if let Err(error) = node.apply(&container, report) {
                        tracing::error!(container = report.id, %error, "cannot save the container's state");
                    }
                }
            }
            // Ended by a stop, which holds the lock and marks the sandbox itself; otherwise it died.
            let _operation = sandbox.operation.lock().await;
            if sandbox.phase() == SandboxPhase::Ready {
                tracing::warn!(sandbox = sandbox.id, "the pod's shim ended by itself");
                if let Err(error) = stop::stop_locked(&node, &sandbox).await {
                    tracing::error!(sandbox = sandbox.id, %error, "cannot clean up after a dead shim");
                }
            }
        });
    }
}
