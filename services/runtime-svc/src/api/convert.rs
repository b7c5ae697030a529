//! Records to CRI messages.

use std::collections::HashMap;

use flotilla_proto::cri::runtime::v1 as cri;

use crate::engine::filter::matches;
use crate::engine::node::{Container, Node, Sandbox};
use crate::engine::records::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord};

/// CRI state of a sandbox.
pub(super) fn sandbox_state(record: &SandboxRecord) -> cri::PodSandboxState {
    match record.phase() {
        SandboxPhase::Ready => cri::PodSandboxState::SandboxReady,
        _ => cri::PodSandboxState::SandboxNotready,
    }
}

/// CRI state of a container.
pub(super) fn container_state(record: &ContainerRecord) -> cri::ContainerState {
    match record.phase() {
        // Until its program runs a container counts as created.
        ContainerPhase::Creating | ContainerPhase::Created | ContainerPhase::Starting => {
            cri::ContainerState::ContainerCreated
        }
        ContainerPhase::Running => cri::ContainerState::ContainerRunning,
        ContainerPhase::Exited => cri::ContainerState::ContainerExited,
        ContainerPhase::Removing => cri::ContainerState::ContainerUnknown,
    }
}

/// A sandbox in lists.
pub(super) fn sandbox_item(record: &SandboxRecord) -> cri::PodSandbox {
    cri::PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox_state(record) as i32,
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// A sandbox's status.
pub(super) fn sandbox_status(record: &SandboxRecord) -> cri::PodSandboxStatus {
    let namespaces = cri::Namespace { options: Some(record.namespaces()) };
    cri::PodSandboxStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox_state(record) as i32,
        created_at: record.created_at,
        network: Some(cri::PodSandboxNetworkStatus {
            ip: record.ip.clone(),
            additional_ips: Vec::new(),
        }),
        linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(namespaces) }),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// The image as the container asked for it, with the id it got.
fn image_spec(record: &ContainerRecord) -> cri::ImageSpec {
    let mut image = record.config.image.clone().unwrap_or_default();
    if !image.user_specified_image.is_empty() {
        image.image.clone_from(&image.user_specified_image);
    }
    image
}

/// A container in lists.
pub(super) fn container_item(record: &ContainerRecord) -> cri::Container {
    cri::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox_id.clone(),
        metadata: record.config.metadata.clone(),
        image: Some(record.config.image.clone().unwrap_or_default()),
        image_ref: record.image_id.clone(),
        state: container_state(record) as i32,
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_id.clone(),
    }
}

/// A container's status.
pub(super) fn container_status(record: &ContainerRecord) -> cri::ContainerStatus {
    let resources = record.config.linux.as_ref().and_then(|linux| linux.resources.clone());
    let mut status = cri::ContainerStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: container_state(record) as i32,
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        exit_code: record.exit_code,
        image: Some(image_spec(record)),
        image_ref: record.image_ref.clone(),
        reason: record.reason.clone(),
        message: record.message.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: record.config.mounts.clone(),
        log_path: record.log_path.clone(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources.unwrap_or_default()),
            windows: None,
        }),
        image_id: record.image_id.clone(),
        user: record.user.clone().map(|user| cri::ContainerUser { linux: Some(user) }),
        stop_signal: 0,
    };
    status.set_stop_signal(wire_signal(record.stop_signal));
    status
}

/// CRI's number of a kernel signal.
fn wire_signal(number: i32) -> cri::Signal {
    let name = match number {
        34 => "SIGRTMIN".to_owned(),
        35..=49 => format!("SIGRTMINPLUS{}", number - 34),
        50..=63 => format!("SIGRTMAXMINUS{}", 64 - number),
        64 => "SIGRTMAX".to_owned(),
        _ => nix::sys::signal::Signal::try_from(number)
            .map(|signal| signal.as_str().to_owned())
            .unwrap_or_default(),
    };
    cri::Signal::from_str_name(&name).unwrap_or(cri::Signal::RuntimeDefault)
}

/// Sandboxes a filter lets through. Those of the engine API are not shown.
pub(super) fn list_sandboxes(
    node: &Node,
    filter: Option<cri::PodSandboxFilter>,
) -> Vec<cri::PodSandbox> {
    let filter = filter.unwrap_or_default();
    let passes = |record: &SandboxRecord| {
        let state =
            filter.state.as_ref().is_none_or(|wanted| wanted.state == sandbox_state(record) as i32);
        let id = filter.id.is_empty() || record.id.starts_with(&filter.id);
        !record.engine_owned
            && state
            && id
            && matches(&record.config.labels, &filter.label_selector)
    };
    let records = node.sandboxes().into_iter().map(|sandbox| sandbox.record());
    records.filter(passes).map(|record| sandbox_item(&record)).collect()
}

/// Containers of sandboxes that CRI clients see.
pub(super) fn visible_containers(node: &Node) -> Vec<ContainerRecord> {
    let hidden: Vec<String> = node
        .sandboxes()
        .iter()
        .map(|s| s.record())
        .filter(|r| r.engine_owned)
        .map(|r| r.id)
        .collect();
    let records = node.containers().into_iter().map(|container| container.record());
    records.filter(|record| !hidden.contains(&record.sandbox_id)).collect()
}

/// Containers a filter lets through.
pub(super) fn list_containers(
    node: &Node,
    filter: Option<cri::ContainerFilter>,
) -> Vec<cri::Container> {
    let filter = filter.unwrap_or_default();
    let passes = |record: &ContainerRecord| {
        let state = filter
            .state
            .as_ref()
            .is_none_or(|wanted| wanted.state == container_state(record) as i32);
        let id = filter.id.is_empty() || record.id.starts_with(&filter.id);
        let sandbox = filter.pod_sandbox_id.is_empty()
            || record.sandbox_id.starts_with(&filter.pod_sandbox_id);
        state && id && sandbox && matches(&record.config.labels, &filter.label_selector)
    };
    visible_containers(node).iter().filter(|record| passes(record)).map(container_item).collect()
}

/// Statuses of a sandbox's containers.
pub(super) fn statuses_of(node: &Node, sandbox: &str) -> Vec<cri::ContainerStatus> {
    node.containers_of(sandbox)
        .iter()
        .map(|container| container_status(&container.record()))
        .collect()
}

/// What `inspectp` shows besides the status.
pub(super) fn sandbox_info(sandbox: &Sandbox) -> HashMap<String, String> {
    let record = sandbox.record();
    let info = serde_json::json!({
        "pid": record.shim_pid,
        "cgroupParent": record.cgroup_parent,
        "runtimeHandler": record.runtime_handler,
        "netNamespaceClosed": sandbox_state(&record) != cri::PodSandboxState::SandboxReady,
        "runtimeSpec": { "hostname": record.config.hostname },
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

/// What `inspect` shows besides the status.
pub(super) fn container_info(container: &Container) -> HashMap<String, String> {
    let record = container.record();
    let spec: serde_json::Value = serde_json::from_slice(&record.spec).unwrap_or_default();
    let args = spec.pointer("/process/args").cloned().unwrap_or_default();
    let env = spec.pointer("/process/env").cloned().unwrap_or_default();
    let info = serde_json::json!({
        "sandboxID": record.sandbox_id,
        "pid": record.pid,
        "snapshotKey": record.snapshots.first(),
        "runtimeSpec": {
            "process": { "args": args, "env": env, "cwd": spec.pointer("/process/cwd"), "noNewPrivileges": spec.pointer("/process/no_new_privs") },
            "linux": { "cgroupsPath": record.cgroup, "maskedPaths": spec.get("masked_paths"), "readonlyPaths": spec.get("readonly_paths") },
            "root": { "readonly": spec.get("readonly_rootfs") },
        },
        "launch": spec,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
