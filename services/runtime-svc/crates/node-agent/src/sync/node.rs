//! The Node object and its lease.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Agent;
use crate::engine::eviction::Threshold;
use crate::engine::time;
use crate::host::machine;

/// Seconds a lease lasts; kubelet's default.
const LEASE: i64 = 40;
const RENEW: Duration = Duration::from_secs(10);
/// An unchanged status is repeated this often (kubelet's `nodeStatusReportFrequency`).
const REPORT: i64 = 300_000_000_000;
const RETRY: Duration = Duration::from_secs(2);

/// What the flags say about the Node object.
#[derive(Debug, Clone, Default)]
pub struct NodeFlags {
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// Port of the kubelet API.
    pub port: u16,
    /// How often the status is looked at.
    pub frequency: Duration,
}

/// Registers the node, then keeps lease and status fresh.
pub async fn follow(agent: Arc<Agent>, flags: NodeFlags) {
    if agent.api.client().is_none() {
        return std::future::pending().await;
    }
    let uid = register(&agent, &flags).await;
    agent.recorder.node(&agent.node, false, "Starting", "Starting kubelet.");
    tokio::join!(lease(&agent, uid), status(&agent, &flags));
}

async fn register(agent: &Agent, flags: &NodeFlags) -> String {
    loop {
        match try_register(agent, flags).await {
            Ok(uid) => return uid,
            Err(error) => {
                tracing::warn!(node = agent.node, %error, "the node is not registered yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn try_register(
    agent: &Agent,
    flags: &NodeFlags,
) -> Result<String, flotilla_kube_client::Error> {
    let fresh = agent.api.create_node(&object(agent, flags).await).await?;
    if fresh {
        tracing::info!(node = agent.node, "registered the node");
    } else {
        let labels = json!({"metadata": {"labels": labels(agent, flags)}});
        agent.api.patch_node(&agent.node, false, &labels).await?;
    }
    let node = agent.api.node(&agent.node).await?;
    Ok(node["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
}

fn labels(agent: &Agent, flags: &NodeFlags) -> Value {
    let architecture = agent.machine.architecture;
    let mut labels = json!({
        "kubernetes.io/hostname": agent.node,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
    });
    for (key, value) in &flags.labels {
        labels[key] = value.clone().into();
    }
    labels
}

async fn object(agent: &Agent, flags: &NodeFlags) -> Value {
    let taints: Vec<Value> = flags
        .taints
        .iter()
        .map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect}))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": agent.node,
            "labels": labels(agent, flags),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
        },
        "spec": {"taints": taints},
        "status": node_status(agent, flags, &json!({})).await
    })
}

async fn lease(agent: &Agent, uid: String) {
    loop {
        if let Err(error) = agent.api.renew_lease(&agent.node, &uid, LEASE, time::now()).await {
            tracing::warn!(%error, "the lease is not renewed");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        tokio::time::sleep(RENEW).await;
    }
}

async fn status(agent: &Agent, flags: &NodeFlags) {
    let (mut last, mut reported, mut cidr) = (Value::Null, 0, String::new());
    let mut up = agent.runtime_up.subscribe();
    loop {
        let pause = match report(agent, flags, &mut last, &mut reported, &mut cidr).await {
            Ok(()) => flags.frequency,
            Err(error) => {
                tracing::warn!(%error, "the node's status was not taken");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Readiness is news that must not wait; a closed channel only means no news.
            _ = up.changed() => {}
        }
    }
}

async fn report(
    agent: &Agent,
    flags: &NodeFlags,
    last: &mut Value,
    reported: &mut i64,
    cidr: &mut String,
) -> Result<(), flotilla_kube_client::Error> {
    let node = match agent.api.node(&agent.node).await {
        Err(error) if error.is_not_found() => {
            // Somebody deleted the object: it is registered anew.
            agent.api.create_node(&object(agent, flags).await).await?;
            agent.api.node(&agent.node).await?
        }
        other => other?,
    };
    let fresh = node_status(agent, flags, &node["status"]).await;
    let now = time::now();
    let same = |key: &str| without_heartbeats(&fresh[key]) == without_heartbeats(&last[key]);
    let unchanged =
        ["conditions", "addresses", "capacity", "allocatable", "nodeInfo", "daemonEndpoints"]
            .iter()
            .all(|key| same(key));
    if !unchanged || now - *reported >= REPORT || node["status"]["conditions"].is_null() {
        agent.api.patch_node(&agent.node, true, &json!({"status": fresh})).await?;
        (*last, *reported) = (fresh, now);
    }
    let wanted = node["spec"]["podCIDR"].as_str().unwrap_or_default();
    if !wanted.is_empty() && wanted != cidr && *agent.runtime_up.borrow() {
        match agent.cri.set_pod_cidr(wanted).await {
            Ok(()) => wanted.clone_into(cidr),
            Err(error) => tracing::warn!(%error, wanted, "the runtime does not take the pod CIDR"),
        }
    }
    Ok(())
}

fn without_heartbeats(value: &Value) -> Value {
    let mut value = value.clone();
    for condition in value.as_array_mut().into_iter().flatten() {
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastHeartbeatTime");
        }
    }
    value
}

async fn node_status(agent: &Agent, flags: &NodeFlags, old: &Value) -> Value {
    let machine = &agent.machine;
    let (runtime, version) = agent.cri.runtime_name();
    let runtime = if runtime.is_empty() {
        "unknown://unknown".to_owned()
    } else {
        format!("{runtime}://{version}")
    };
    let resources = |cpu: i64, memory: i64, storage: i64| {
        json!({
            "cpu": cpu.to_string(),
            "memory": format!("{}Ki", memory / 1024),
            "ephemeral-storage": storage.to_string(),
            "pods": agent.settings.max_pods.to_string(),
        })
    };
    // What kubelet keeps back before it would evict: 100Mi of memory, a tenth of the disk.
    let allocatable =
        resources(machine.cpus, (machine.memory - (100 << 20)).max(0), machine.storage / 10 * 9);
    json!({
        "capacity": resources(machine.cpus, machine.memory, machine.storage),
        "allocatable": allocatable,
        "addresses": [
            {"type": "InternalIP", "address": agent.node_ip},
            {"type": "Hostname", "address": agent.node},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": flags.port}},
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.machine_id,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": runtime,
            "kubeletVersion": "v1.35.0",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
        "conditions": conditions(agent, old).await,
    })
}

async fn conditions(agent: &Agent, old: &Value) -> Vec<Value> {
    let usage = machine::usage(agent.paths.root());
    let percent = |part: i64, all: i64| if all > 0 { part.saturating_mul(100) / all } else { 100 };
    let limits = agent.settings.eviction_hard;
    let crossed = |limit: Option<Threshold>, left, whole| {
        limit.is_some_and(|limit| limit.is_crossed(left, whole))
    };
    let memory = crossed(limits.memory, usage.memory_available, usage.memory_total);
    let disk = crossed(limits.disk, usage.disk_available, usage.disk_total)
        || (usage.inodes > 0 && crossed(limits.inodes, usage.inodes_free, usage.inodes));
    let pids = usage.max_tasks > 0 && percent(usage.max_tasks - usage.tasks, usage.max_tasks) < 10;
    let pressure = |yes: bool, kind: &str, good: (&str, &str), bad: (&str, &str)| {
        let (reason, message) = if yes { bad } else { good };
        condition(old, kind, yes, reason, message)
    };
    let ready = readiness(agent).await;
    let (reason, message) = match &ready {
        Ok(()) => ("KubeletReady", "kubelet is posting ready status"),
        Err(text) => ("KubeletNotReady", text.as_str()),
    };
    vec![
        pressure(
            memory,
            "MemoryPressure",
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ),
        pressure(
            disk,
            "DiskPressure",
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ),
        pressure(
            pids,
            "PIDPressure",
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ),
        condition(old, "Ready", ready.is_ok(), reason, message),
    ]
}

async fn readiness(agent: &Agent) -> Result<(), String> {
    if !*agent.runtime_up.borrow() {
        return Err("container runtime is down".to_owned());
    }
    let conditions = agent.cri.conditions().await.map_err(|status| {
        format!("container runtime status check may not have completed yet: {}", status.message())
    })?;
    let check = |kind: &str, title: &str| match conditions.get(kind) {
        Some(Ok(())) => Ok(()),
        Some(Err(text)) => {
            Err(format!("container runtime {title} not ready: {kind}=false reason:{text}"))
        }
        None => Err(format!("Missing node runtime {kind} condition")),
    };
    check("RuntimeReady", "status check").and(check("NetworkReady", "network"))
}

fn condition(old: &Value, kind: &str, yes: bool, reason: &str, message: &str) -> Value {
    let value = if yes { "True" } else { "False" };
    let now = time::rfc3339(time::now());
    let before = old["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
    let kept = before
        .filter(|c| c["status"] == value)
        .and_then(|c| c["lastTransitionTime"].as_str())
        .map(str::to_owned);
    json!({
        "type": kind, "status": value, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": kept.or(now),
    })
}
