//! Starting a sandbox and the containers in it.

use flotilla_proto::cri::runtime::v1 as cri;

use super::agent::Agent;
use super::volumes::{self, Folders};
use super::{environment, images};
use crate::engine::backoff::Backoff;
use crate::engine::container_config::{ContainerFacts, container_config};
use crate::engine::kube::{Container, Pod};
use crate::engine::observed::{Observed, Sandbox};
use crate::engine::sandbox_config::sandbox_config;
use crate::engine::{plan, resources};
use crate::remote::probe_call::{self, Target};
use std::sync::Arc;
use std::time::Duration;

/// Why a container does not run: the waiting reason and its message.
pub type Failure = (&'static str, String);

/// Makes a sandbox.
///
/// # Errors
/// The message of the event `FailedCreatePodSandBox`.
pub async fn sandbox(agent: &Agent, pod: &Pod, attempt: u32) -> Result<(), String> {
    let facts = agent.sandbox_facts();
    let parent = resources::cgroup_parent(&facts.cgroup_root, pod, facts.cgroup_driver);
    if facts.cgroup_driver == resources::CgroupDriver::Cgroupfs {
        agent
            .cgroups
            .ensure(&parent, &resources::pod_resources(pod))
            .map_err(|e| format!("pod cgroup {parent}: {e}"))?;
    }
    let folder = agent.paths.pod_logs(pod);
    std::fs::create_dir_all(&folder)
        .map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    let handler = match &pod.spec.runtime_class_name {
        Some(class) if !class.is_empty() => runtime_handler(agent, class).await?,
        _ => String::new(),
    };
    agent
        .cri
        .run_sandbox(sandbox_config(pod, attempt, &facts), &handler)
        .await
        .map(drop)
        .map_err(|status| status.message().to_owned())
}

async fn runtime_handler(agent: &Agent, class: &str) -> Result<String, String> {
    let client = agent.api.client().ok_or("runtimeClassName needs an API server")?;
    let object: serde_json::Value = client
        .get(&format!("/apis/node.k8s.io/v1/runtimeclasses/{class}"))
        .await
        .map_err(|e| format!("RuntimeClass {class}: {e}"))?;
    Ok(object["handler"].as_str().unwrap_or_default().to_owned())
}

/// One container to start.
pub struct Start<'a> {
    /// The agent.
    pub agent: &'a Agent,
    /// The pod.
    pub pod: &'a Pod,
    /// What the runtime knows.
    pub seen: &'a Observed,
    /// The sandbox it goes into.
    pub sandbox: &'a Sandbox,
    /// Volumes.
    pub folders: &'a Folders,
    /// The pod's addresses.
    pub ips: &'a [String],
}

impl Start<'_> {
    /// Pulls, makes and starts the container, and runs its postStart hook.
    ///
    /// # Errors
    /// The container's waiting reason and message.
    pub async fn container(
        &self,
        container: &Container,
        pulls: &mut Backoff,
    ) -> Result<(), Failure> {
        let (agent, pod) = (self.agent, self.pod);
        let event = |warning: bool, reason: &'static str, text: String| {
            agent.recorder.pod(pod, Some(&container.name), warning, reason, text)
        };
        let attempt = plan::next_attempt(pod, self.seen, &container.name);
        let sandbox_config = sandbox_config(pod, self.sandbox.attempt, &agent.sandbox_facts());
        let image = images::ensure(agent, pod, container, &sandbox_config, pulls).await?;
        let config = self.config(container, attempt, image).await.map_err(|text| {
            event(true, "Failed", format!("Error: {text}"));
            ("CreateContainerConfigError", text)
        })?;
        let created = agent.cri.create(&self.sandbox.id, config, sandbox_config).await;
        let id = created.map_err(|status| {
            event(true, "Failed", format!("Error: {}", status.message()));
            ("CreateContainerError", status.message().to_owned())
        })?;
        event(false, "Created", format!("Created container: {}", container.name));
        if let Err(status) = agent.cri.start(&id).await {
            event(true, "Failed", format!("Error: {}", status.message()));
            return Err(("RunContainerError", status.message().to_owned()));
        }
        agent.metrics.started_containers.inc();
        event(false, "Started", format!("Started container {}", container.name));
        self.post_start(container, &id).await
    }

    async fn config(
        &self,
        container: &Container,
        attempt: u32,
        image: crate::remote::cri::LocalImage,
    ) -> Result<cri::ContainerConfig, String> {
        let (agent, pod) = (self.agent, self.pod);
        let env = environment::variables(agent, pod, container, self.ips).await?;
        let mounts = volumes::mounts(agent, pod, container, attempt, self.folders, &env, self.ips)?;
        let logs = agent.paths.pod_logs(pod).join(&container.name);
        std::fs::create_dir_all(&logs)
            .map_err(|e| format!("cannot make {}: {e}", logs.display()))?;
        let target =
            pod.spec.ephemeral_containers.iter().find(|c| c.container.name == container.name);
        let target =
            target.map(|c| c.target_container_name.as_str()).filter(|name| !name.is_empty());
        let target = match target {
            Some(name) => Some(
                self.seen
                    .latest(name)
                    .map(|run| run.id.clone())
                    .ok_or_else(|| format!("unable to find target container {name}"))?,
            ),
            None => None,
        };
        let facts = ContainerFacts {
            image_ref: image.id,
            image_user: image.user,
            env,
            mounts,
            attempt,
            memory_capacity: agent.machine.memory,
            seccomp_folder: agent.paths.root().join("seccomp").to_string_lossy().into_owned(),
            target,
        };
        container_config(pod, container, facts)
    }

    async fn post_start(&self, container: &Container, id: &str) -> Result<(), Failure> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let ip = self.ips.first().cloned().unwrap_or_default();
        let target = Target { container: Arc::new(container.clone()), id: id.to_owned(), ip };
        let Err(reason) =
            probe_call::call(&self.agent.cri, &target, hook, Duration::from_secs(120)).await
        else {
            return Ok(());
        };
        self.agent.recorder.pod(
            self.pod,
            Some(&container.name),
            true,
            "FailedPostStartHook",
            "PostStartHook failed",
        );
        tracing::info!(
            pod = self.pod.full_name(),
            container = container.name,
            reason,
            "postStart failed"
        );
        let grace = self.pod.spec.termination_grace_period_seconds.unwrap_or(30);
        // The status of the run tells the rest; a failure to stop shows at the next look.
        let _ = self.agent.cri.stop(id, grace).await;
        Err(("PostStartHookError", format!("PostStartHook failed: {reason}")))
    }
}
