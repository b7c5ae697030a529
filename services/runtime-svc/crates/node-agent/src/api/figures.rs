//! `/metrics`, `/metrics/resource`, `/metrics/cadvisor` and `/stats/summary`, from the runtime's statistics.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use flotilla_proto::cri::runtime::v1 as cri;
use flotilla_telemetry::TEXT_FORMAT;
use serde_json::{Value, json};

use super::Failure;
use crate::engine::{names, time};
use crate::host::machine;
use crate::sync::agent::Agent;

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], body).into_response()
}

/// `/metrics`.
pub async fn own(State(agent): State<Arc<Agent>>) -> Response {
    let mut body = flotilla_telemetry::encode_text(&agent.metrics.registry);
    let pods = agent.pods.read();
    let running = pods.values().filter(|pod| pod.status.phase == "Running").count();
    let containers = pods
        .values()
        .flat_map(|pod| &pod.status.container_statuses)
        .filter(|s| s.state.running.is_some())
        .count();
    // Writing to a String cannot fail.
    let _ = write!(
        body,
        "# HELP kubelet_running_pods Number of pods that have a running pod sandbox\n# TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {running}\n# HELP kubelet_running_containers Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\nkubelet_running_containers{{container_state=\"running\"}} {containers}\n"
    );
    text(body)
}

/// One container's figures.
struct Usage {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    id: String,
    cpu_nanos: u64,
    cpu_nano_cores: u64,
    working_set: u64,
    usage: u64,
    rss: u64,
    faults: u64,
    major_faults: u64,
    fs_bytes: u64,
    fs_inodes: u64,
    started: i64,
    at: i64,
}

async fn usages(agent: &Agent) -> Result<Vec<Usage>, Failure> {
    let stats = agent.cri.container_stats().await.map_err(|status| Failure::of_runtime(&status))?;
    let mut all: Vec<Usage> = stats.into_iter().filter_map(|stats| usage(agent, stats)).collect();
    all.sort_by(|a, b| {
        (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container))
    });
    Ok(all)
}

fn usage(agent: &Agent, stats: cri::ContainerStats) -> Option<Usage> {
    let attributes = stats.attributes?;
    let label = |name: &str| attributes.labels.get(name).cloned();
    let (uid, container) = (label(names::POD_UID)?, label(names::CONTAINER_NAME)?);
    let (cpu, memory, fs) = (
        stats.cpu.unwrap_or_default(),
        stats.memory.unwrap_or_default(),
        stats.writable_layer.unwrap_or_default(),
    );
    let number = |value: Option<cri::UInt64Value>| value.map_or(0, |v| v.value);
    let pods = agent.pods.read();
    let started = pods.get(&uid).and_then(|pod| {
        pod.status
            .container(&container)?
            .state
            .running
            .as_ref()?
            .started_at
            .as_deref()
            .and_then(time::parse)
    });
    // Figures of runs that ended are left out.
    let started = started?;
    Some(Usage {
        namespace: label(names::POD_NAMESPACE)?,
        pod: label(names::POD_NAME)?,
        uid,
        container,
        id: attributes.id,
        cpu_nanos: number(cpu.usage_core_nano_seconds),
        cpu_nano_cores: number(cpu.usage_nano_cores),
        working_set: number(memory.working_set_bytes),
        usage: number(memory.usage_bytes),
        rss: number(memory.rss_bytes),
        faults: number(memory.page_faults),
        major_faults: number(memory.major_page_faults),
        fs_bytes: number(fs.used_bytes),
        fs_inodes: number(fs.inodes_used),
        started,
        at: if cpu.timestamp > 0 { cpu.timestamp } else { time::now() },
    })
}

struct Text(String);

impl Text {
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        rows: impl Iterator<Item = (String, f64, i64)>,
    ) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value, at) in rows {
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "{name}{braces} {value} {}", at / 1_000_000);
        }
    }
}

fn sums(all: &[Usage], value: impl Fn(&Usage) -> u64) -> Vec<(String, f64, i64)> {
    let mut rows: Vec<(String, f64, i64)> = Vec::new();
    for usage in all {
        let labels = format!("namespace=\"{}\",pod=\"{}\"", usage.namespace, usage.pod);
        match rows.last_mut().filter(|(last, ..)| *last == labels) {
            Some((_, sum, _)) => *sum += value(usage) as f64,
            None => rows.push((labels, value(usage) as f64, usage.at)),
        }
    }
    rows
}

/// `/metrics/resource`: what `kubectl top` and autoscalers read.
pub async fn resource(State(agent): State<Arc<Agent>>) -> Response {
    let (all, error) = match usages(&agent).await {
        Ok(all) => (all, 0.0),
        Err(_) => (Vec::new(), 1.0),
    };
    let node = machine::usage(agent.paths.root());
    let now = time::now();
    let row = |u: &Usage, value: f64| {
        (
            format!(
                "container=\"{}\",namespace=\"{}\",pod=\"{}\"",
                u.container, u.namespace, u.pod
            ),
            value,
            u.at,
        )
    };
    let mut out = Text(String::new());
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    out.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        all.iter().map(|u| row(u, seconds(u.cpu_nanos))),
    );
    out.family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
        all.iter().map(|u| row(u, u.working_set as f64)),
    );
    out.family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        all.iter().map(|u| row(u, u.started as f64 / 1e9)),
    );
    out.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        std::iter::once((String::new(), seconds(node.cpu_nanos), now)),
    );
    out.family(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        std::iter::once((String::new(), node.memory_working_set as f64, now)),
    );
    let cpu = sums(&all, |u| u.cpu_nanos)
        .into_iter()
        .map(|(labels, nanos, at)| (labels, nanos / 1e9, at));
    out.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
        cpu,
    );
    out.family(
        "pod_memory_working_set_bytes",
        "gauge",
        "Current working set of the pod in bytes",
        sums(&all, |u| u.working_set).into_iter(),
    );
    let _ = writeln!(
        out.0,
        "# HELP resource_scrape_error 1 if there was an error while getting container metrics, 0 otherwise\n# TYPE resource_scrape_error gauge\nresource_scrape_error {error}"
    );
    text(out.0)
}

/// `/metrics/cadvisor`: the container figures dashboards read.
pub async fn cadvisor(State(agent): State<Arc<Agent>>) -> Result<Response, Failure> {
    let all = usages(&agent).await?;
    let row = |u: &Usage, value: f64| {
        let labels = format!(
            "container=\"{}\",id=\"/{}\",image=\"\",name=\"{}\",namespace=\"{}\",pod=\"{}\"",
            u.container, u.id, u.id, u.namespace, u.pod
        );
        (labels, value, u.at)
    };
    type Figure = (&'static str, &'static str, &'static str, fn(&Usage) -> f64);
    let figures: [Figure; 8] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            |u| u.cpu_nanos as f64 / 1e9,
        ),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |u| {
            u.working_set as f64
        }),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |u| u.usage as f64,
        ),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |u| u.rss as f64),
        (
            "container_memory_failures_total",
            "counter",
            "Cumulative count of memory allocation failures.",
            |u| u.faults as f64,
        ),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
            |u| u.fs_bytes as f64,
        ),
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds.",
            |u| u.started as f64 / 1e9,
        ),
        ("container_last_seen", "gauge", "Last time a container was seen by the exporter", |u| {
            (u.at / 1_000_000_000) as f64
        }),
    ];
    let mut out = Text(String::new());
    for (name, kind, help, value) in figures {
        out.family(name, kind, help, all.iter().map(|u| row(u, value(u))));
    }
    let now = time::now();
    out.family(
        "machine_cpu_cores",
        "gauge",
        "Number of logical CPU cores.",
        std::iter::once((String::new(), agent.machine.cpus as f64, now)),
    );
    out.family(
        "machine_memory_bytes",
        "gauge",
        "Amount of memory installed on the machine.",
        std::iter::once((String::new(), agent.machine.memory as f64, now)),
    );
    Ok(text(out.0))
}

/// `/stats/summary`.
pub async fn summary(State(agent): State<Arc<Agent>>) -> Result<Json<Value>, Failure> {
    let all = usages(&agent).await?;
    let node = machine::usage(agent.paths.root());
    let now = time::rfc3339(time::now());
    let mut pods: Vec<Value> = Vec::new();
    for group in all.chunk_by(|a, b| a.uid == b.uid) {
        let sum = |value: fn(&Usage) -> u64| group.iter().map(value).sum::<u64>();
        let containers: Vec<Value> = group
            .iter()
            .map(|u| {
                json!({
                    "name": u.container,
                    "startTime": time::rfc3339(u.started),
                    "cpu": {"time": time::rfc3339(u.at), "usageNanoCores": u.cpu_nano_cores, "usageCoreNanoSeconds": u.cpu_nanos},
                    "memory": {"time": time::rfc3339(u.at), "usageBytes": u.usage, "workingSetBytes": u.working_set, "rssBytes": u.rss,
                        "pageFaults": u.faults, "majorPageFaults": u.major_faults},
                    "rootfs": {"time": time::rfc3339(u.at), "usedBytes": u.fs_bytes, "inodesUsed": u.fs_inodes},
                })
            })
            .collect();
        pods.push(json!({
            "podRef": {"name": group[0].pod, "namespace": group[0].namespace, "uid": group[0].uid},
            "startTime": group.iter().map(|u| u.started).min().and_then(time::rfc3339),
            "containers": containers,
            "cpu": {"time": now, "usageNanoCores": sum(|u| u.cpu_nano_cores), "usageCoreNanoSeconds": sum(|u| u.cpu_nanos)},
            "memory": {"time": now, "usageBytes": sum(|u| u.usage), "workingSetBytes": sum(|u| u.working_set), "rssBytes": sum(|u| u.rss)},
        }));
    }
    Ok(Json(json!({
        "node": {
            "nodeName": agent.node,
            "cpu": {"time": now, "usageCoreNanoSeconds": node.cpu_nanos},
            "memory": {"time": now, "availableBytes": node.memory_available, "workingSetBytes": node.memory_working_set},
            "fs": {"time": now, "availableBytes": node.disk_available, "capacityBytes": node.disk_total, "inodesFree": node.inodes_free, "inodes": node.inodes},
            "rlimit": {"time": now, "maxpid": node.max_tasks, "curproc": node.tasks},
        },
        "pods": pods,
    })))
}
