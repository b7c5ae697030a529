//! Ending containers and pods.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::agent::Agent;
use crate::engine::kube::{Container, Pod};
use crate::engine::observed::{Observed, Run, RunState};
use crate::engine::time;
use crate::remote::probe_call::{self, Target};

/// Seconds a container has after its preStop hook used up the rest.
const MIN_GRACE: i64 = 2;

/// Ends one container: preStop hook, stop signal, SIGKILL, all within `grace` seconds.
///
/// # Errors
/// What the runtime says.
pub async fn container(
    agent: &Agent,
    pod: &Pod,
    run: &Run,
    message: &str,
    grace: i64,
    ip: &str,
) -> Result<(), tonic::Status> {
    if !message.is_empty() {
        agent.recorder.pod(pod, Some(&run.name), false, "Killing", message);
    }
    let spec = pod.container(&run.name);
    let hook = spec.as_ref().and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    let mut left = grace;
    if let (Some(hook), Some(spec), true) =
        (hook, &spec, grace > 0 && run.state == RunState::Running)
    {
        let started = time::now();
        let target =
            Target { container: Arc::new(spec.clone()), id: run.id.clone(), ip: ip.to_owned() };
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let result =
            tokio::time::timeout(limit, probe_call::call(&agent.cri, &target, hook, limit)).await;
        if let Ok(Err(reason)) = result {
            agent.recorder.pod(
                pod,
                Some(&run.name),
                true,
                "FailedPreStopHook",
                "PreStopHook failed",
            );
            tracing::info!(pod = pod.full_name(), container = run.name, reason, "preStop failed");
        }
        left = (grace - (time::now() - started) / 1_000_000_000).max(MIN_GRACE);
    }
    agent.cri.stop(&run.id, left).await
}

/// Ends everything of a pod: its containers together, then its sidecars in reverse order, then its sandboxes.
///
/// # Errors
/// The first thing the runtime could not do; the rest was tried all the same.
pub async fn pod(
    agent: &Agent,
    pod: &Pod,
    seen: &Observed,
    grace: i64,
    quiet: bool,
) -> Result<(), tonic::Status> {
    let started = time::now();
    let ip = seen
        .sandbox()
        .and_then(|s| s.ips.first().cloned())
        .unwrap_or_else(|| agent.node_ip.clone());
    let alive =
        |run: &&Run| matches!(run.state, RunState::Running | RunState::Unknown | RunState::Created);
    let is_sidecar = |run: &&Run| {
        pod.spec.init_containers.iter().any(|c: &Container| c.name == run.name && c.is_sidecar())
    };
    let (sidecars, others): (Vec<&Run>, Vec<&Run>) =
        seen.runs.iter().filter(alive).partition(is_sidecar);
    let message = |run: &Run| {
        if quiet || run.state == RunState::Created {
            String::new()
        } else {
            format!("Stopping container {}", run.name)
        }
    };
    let mut results = join_all(others.iter().map(|run| {
        let text = message(run);
        let ip = &ip;
        async move { container(agent, pod, run, &text, grace, ip).await }
    }))
    .await;
    for spec in pod.spec.init_containers.iter().rev() {
        for run in sidecars.iter().filter(|run| run.name == spec.name) {
            let left = (grace - (time::now() - started) / 1_000_000_000).max(if grace > 0 {
                MIN_GRACE
            } else {
                0
            });
            results.push(container(agent, pod, run, &message(run), left, &ip).await);
        }
    }
    for sandbox in seen.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        results.push(agent.cri.stop_sandbox(&sandbox.id).await);
    }
    results.into_iter().collect()
}
