//! The status of a pod, from what the runtime and the probes say.

use std::collections::BTreeMap;

use super::kube::{
    Container, ContainerState, ContainerStatus, Ip, Pod, PodCondition, PodStatus, Running,
    Terminated, Waiting,
};
use super::observed::{Observed, Run, RunState};
use super::phase::phase;
use super::plan::{Verdict, restarts};
use super::resources;
use super::time::rfc3339;

/// Conditions a node sets; others belong to somebody else and are left alone.
pub const OWN_CONDITIONS: &[&str] =
    &["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What a status is made of besides the pod and the runtime's view.
pub struct StatusInput<'a> {
    /// The pod, with the status reported last.
    pub pod: &'a Pod,
    /// The runtime's view.
    pub seen: &'a Observed,
    /// Prefix of container ids, such as `containerd`.
    pub runtime: &'a str,
    /// Why containers wait: reason and message by name.
    pub waiting: &'a BTreeMap<String, (String, String)>,
    /// Probe results of running containers.
    pub verdict: &'a dyn Fn(&Run) -> Verdict,
    /// The node's address.
    pub host_ip: &'a str,
    /// Nothing of the pod will run again.
    pub ended: bool,
    /// A reason that replaces the computed phase by `Failed`.
    pub failure: Option<&'a (String, String)>,
    /// Nanoseconds since the epoch.
    pub now: i64,
}

/// Makes the status.
pub fn status(input: &StatusInput<'_>) -> PodStatus {
    let spec = &input.pod.spec;
    let initialising = !spec.init_containers.is_empty();
    let regular: Vec<_> =
        spec.containers.iter().map(|c| container(input, c, initialising)).collect();
    let init: Vec<_> = spec.init_containers.iter().map(|c| init_container(input, c)).collect();
    let ephemeral =
        spec.ephemeral_containers.iter().map(|c| container(input, &c.container, false)).collect();
    let old = &input.pod.status;
    let mut phase = phase(spec, &init, &regular, input.ended);
    if input.failure.is_some() {
        phase = "Failed";
    } else if old.is_terminal() && phase != old.phase {
        // An end is final, whatever the runtime has forgotten since.
        phase = if old.phase == "Failed" { "Failed" } else { "Succeeded" };
    }
    let ips = pod_ips(input);
    let (reason, message) = input.failure.cloned().unwrap_or_else(|| match phase {
        "Failed" => (old.reason.clone(), old.message.clone()),
        _ => Default::default(),
    });
    let mut status = PodStatus {
        observed_generation: Some(input.pod.metadata.generation).filter(|g| *g > 0),
        phase: phase.to_owned(),
        reason,
        message,
        host_ip: input.host_ip.to_owned(),
        host_ips: vec![Ip { ip: input.host_ip.to_owned() }],
        pod_ip: ips.first().cloned().unwrap_or_default(),
        pod_ips: ips.into_iter().map(|ip| Ip { ip }).collect(),
        start_time: old.start_time.clone().or_else(|| rfc3339(input.now)),
        init_container_statuses: init,
        container_statuses: regular,
        ephemeral_container_statuses: ephemeral,
        qos_class: resources::qos(input.pod).name().to_owned(),
        conditions: Vec::new(),
    };
    status.conditions = conditions(input, &status);
    status
}

fn pod_ips(input: &StatusInput<'_>) -> Vec<String> {
    if input.pod.spec.host_network {
        return if input.seen.sandboxes.is_empty() {
            Vec::new()
        } else {
            vec![input.host_ip.to_owned()]
        };
    }
    let ready =
        input.seen.sandbox().filter(|sandbox| sandbox.ready).map(|sandbox| sandbox.ips.clone());
    let kept = || input.pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
    ready.unwrap_or_else(|| {
        if input.ended || input.pod.status.is_terminal() { kept() } else { Vec::new() }
    })
}

fn container(
    input: &StatusInput<'_>,
    container: &Container,
    initialising: bool,
) -> ContainerStatus {
    let runs: Vec<&Run> = input.seen.runs.iter().filter(|run| run.name == container.name).collect();
    let Some(latest) = runs.first() else { return missing(input, container, initialising) };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: if latest.image.is_empty() { container.image.clone() } else { latest.image.clone() },
        image_id: latest.image_id.clone(),
        container_id: format!("{}://{}", input.runtime, latest.id),
        restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
        started: Some(false),
        state: state(input, latest),
        ..ContainerStatus::default()
    };
    if latest.state == RunState::Running {
        let verdict = (input.verdict)(latest);
        status.started = Some(verdict.started);
        status.ready = verdict.started && verdict.ready;
    }
    let previous = runs.iter().skip(1).find(|run| run.state == RunState::Exited);
    if let Some(previous) = previous {
        status.last_state = state(input, previous);
    }
    let waits = input.waiting.get(&container.name);
    if let (Some((reason, message)), true) =
        (waits, latest.state != RunState::Running && !input.ended)
    {
        if latest.state == RunState::Exited {
            status.last_state = std::mem::take(&mut status.state);
        }
        status.state = waiting(reason, message);
    }
    status
}

fn init_container(input: &StatusInput<'_>, spec: &Container) -> ContainerStatus {
    let mut status = container(input, spec, true);
    if !spec.is_sidecar() {
        // An init container is ready once it is done.
        status.ready = status.state.terminated.as_ref().is_some_and(|done| done.exit_code == 0);
    }
    status
}

/// A container without any run: not started yet, or forgotten by the runtime.
fn missing(input: &StatusInput<'_>, container: &Container, initialising: bool) -> ContainerStatus {
    let old =
        input.pod.status.container(&container.name).filter(|old| !old.container_id.is_empty());
    // Behind an init container everything waits for the pod to be initialised.
    let first = input.pod.spec.init_containers.first().is_some_and(|c| c.name == container.name);
    let default = if initialising && !first { "PodInitializing" } else { "ContainerCreating" };
    let default = (default.to_owned(), String::new());
    let (reason, message) = input.waiting.get(&container.name).unwrap_or(&default);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        started: Some(false),
        state: waiting(reason, message),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    status.restart_count = old.restart_count;
    let stays = old.state.terminated.as_ref().is_some_and(|done| {
        let run = Run { exit_code: done.exit_code, ..Run::default() };
        input.ended || input.pod.status.is_terminal() || !restarts(input.pod, container, &run)
    });
    let init_done = old.state.terminated.as_ref().is_some_and(|done| done.exit_code == 0)
        && input
            .pod
            .spec
            .init_containers
            .iter()
            .any(|c| c.name == container.name && !c.is_sidecar());
    if stays || init_done {
        return ContainerStatus { ready: init_done, ..old.clone() };
    }
    if old.state.running.is_some() || old.state.terminated.is_some() {
        let lost = Terminated {
            exit_code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The container could not be located when the pod was terminated".to_owned(),
            ..Terminated::default()
        };
        let last = old.state.terminated.clone().unwrap_or(lost);
        let last = ContainerState { terminated: Some(last), ..ContainerState::default() };
        if input.ended {
            status.state = last;
        } else {
            status.last_state = last;
        }
    } else {
        status.last_state = old.last_state.clone();
    }
    status
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let waiting = Waiting { reason: reason.to_owned(), message: message.to_owned() };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn state(input: &StatusInput<'_>, run: &Run) -> ContainerState {
    match run.state {
        RunState::Running => ContainerState {
            running: Some(Running { started_at: rfc3339(run.started_at) }),
            ..ContainerState::default()
        },
        RunState::Created => waiting("ContainerCreating", ""),
        RunState::Exited | RunState::Unknown => {
            let lost = run.state == RunState::Unknown;
            let default = match (lost, run.exit_code) {
                (true, _) => "ContainerStatusUnknown",
                (false, 0) => "Completed",
                (false, _) => "Error",
            };
            let terminated = Terminated {
                exit_code: if lost { 137 } else { run.exit_code },
                reason: if run.reason.is_empty() || lost {
                    default.to_owned()
                } else {
                    run.reason.clone()
                },
                message: run.message.clone(),
                started_at: rfc3339(run.started_at),
                finished_at: rfc3339(run.finished_at),
                container_id: format!("{}://{}", input.runtime, run.id),
            };
            ContainerState { terminated: Some(terminated), ..ContainerState::default() }
        }
    }
}

fn conditions(input: &StatusInput<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let spec = &input.pod.spec;
    let done = match status.phase.as_str() {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let incomplete: Vec<&str> = spec
        .init_containers
        .iter()
        .zip(&status.init_container_statuses)
        .filter(|(c, s)| if c.is_sidecar() { s.started != Some(true) } else { !s.ready })
        .map(|(c, _)| c.name.as_str())
        .collect();
    let begun = status.container_statuses.iter().any(|s| {
        s.state.running.is_some()
            || s.state.terminated.is_some()
            || s.last_state.terminated.is_some()
    });
    let initialized = match done {
        Some("PodCompleted") => ("True", "PodCompleted", String::new()),
        _ if incomplete.is_empty() || begun => ("True", "", String::new()),
        _ => (
            "False",
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", incomplete.join(" ")),
        ),
    };
    let sidecars = spec
        .init_containers
        .iter()
        .zip(&status.init_container_statuses)
        .filter(|(c, _)| c.is_sidecar())
        .map(|(_, s)| s);
    let unready: Vec<&str> = sidecars
        .chain(&status.container_statuses)
        .filter(|s| !s.ready)
        .map(|s| s.name.as_str())
        .collect();
    let containers_ready = match done {
        Some(reason) => ("False", reason, String::new()),
        None if unready.is_empty() => ("True", "", String::new()),
        None => (
            "False",
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ),
    };
    let condition_true = |kind: &str| {
        input.pod.status.conditions.iter().any(|c| c.kind == kind && c.status == "True")
    };
    let missing: Vec<String> = spec
        .readiness_gates
        .iter()
        .filter(|gate| !condition_true(&gate.condition_type))
        .map(|gate| {
            format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )
        })
        .collect();
    let ready = if containers_ready.0 == "True" && !missing.is_empty() {
        ("False", "ReadinessGatesNotReady", missing.join(", "))
    } else {
        containers_ready.clone()
    };
    let sandbox =
        input.seen.sandbox().is_some_and(|s| s.ready && (spec.host_network || !s.ips.is_empty()));
    let sandbox = (if sandbox { "True" } else { "False" }, "", String::new());
    let all = [sandbox, initialized, ready, containers_ready, ("True", "", String::new())];
    OWN_CONDITIONS
        .iter()
        .zip(all)
        .map(|(kind, (value, reason, message))| condition(input, kind, value, reason, message))
        .collect()
}

fn condition(
    input: &StatusInput<'_>,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
) -> PodCondition {
    let old = input.pod.status.conditions.iter().find(|c| c.kind == kind);
    let kept =
        old.filter(|old| old.status == value).and_then(|old| old.last_transition_time.clone());
    PodCondition {
        kind: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: kept.or_else(|| rfc3339(input.now)),
        observed_generation: Some(input.pod.metadata.generation).filter(|g| *g > 0),
        last_probe_time: None,
    }
}

#[cfg(test)]
mod tests;
