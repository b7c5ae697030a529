//! Pods.

use serde_json::Value;

use super::{Column, age, col, human, none, wide};
use crate::object::{int, is_set, list, text};

pub(super) fn columns() -> Vec<Column> {
    vec![
        col("Ready", |o| {
            let statuses = list(o, "/status/containerStatuses");
            let ready = statuses.iter().filter(|s| s["ready"] == true).count();
            format!("{ready}/{}", list(o, "/spec/containers").len()).into()
        }),
        col("Status", |o| status(o).into()),
        col("Restarts", |o| restarts(o).into()),
        col("Age", |o| age(text(o, "/metadata/creationTimestamp")).into()),
        wide("IP", |o| none(text(o, "/status/podIP").to_owned()).into()),
        wide("Node", |o| none(text(o, "/spec/nodeName").to_owned()).into()),
        wide("Nominated Node", |o| none(text(o, "/status/nominatedNodeName").to_owned()).into()),
        wide("Readiness Gates", |o| {
            let gates = list(o, "/spec/readinessGates");
            if gates.is_empty() {
                return "<none>".into();
            }
            let met = gates.iter().filter(|g| {
                list(o, "/status/conditions")
                    .iter()
                    .any(|c| c["type"] == g["conditionType"] && c["status"] == "True")
            });
            format!("{}/{}", met.count(), gates.len()).into()
        }),
    ]
}

/// The word kubectl shows as the pod's status.
fn status(pod: &Value) -> String {
    let phase = text(pod, "/status/phase");
    let own = text(pod, "/status/reason");
    let mut reason = if own.is_empty() { phase } else { own }.to_owned();
    let scheduled =
        list(pod, "/status/conditions").iter().find(|c| text(c, "/type") == "PodScheduled");
    if scheduled.is_some_and(|c| text(c, "/reason") == "SchedulingGated") {
        reason = "SchedulingGated".to_owned();
    }
    let initializing = init_status(pod, &mut reason);
    if !initializing {
        main_status(pod, &mut reason);
    }
    if is_set(pod, "/metadata/deletionTimestamp") {
        if own == "NodeLost" {
            return "Unknown".to_owned();
        }
        if !matches!(phase, "Succeeded" | "Failed") {
            return "Terminating".to_owned();
        }
    }
    reason
}

fn terminated(state: &Value) -> String {
    let reason = text(state, "/reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match int(state, "/signal").filter(|s| *s != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!("ExitCode:{}", int(state, "/exitCode").unwrap_or(0)),
    }
}

fn init_status(pod: &Value, reason: &mut String) -> bool {
    let total = list(pod, "/spec/initContainers").len();
    for (i, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        let state = &status["state"];
        let sidecar = list(pod, "/spec/initContainers")
            .iter()
            .any(|c| c["name"] == status["name"] && text(c, "/restartPolicy") == "Always");
        if state["terminated"].is_object() && int(state, "/terminated/exitCode") == Some(0) {
            continue;
        }
        if sidecar && status["started"] == true {
            continue;
        }
        let waiting = text(state, "/waiting/reason");
        *reason = if state["terminated"].is_object() {
            format!("Init:{}", terminated(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{total}")
        };
        return true;
    }
    false
}

fn main_status(pod: &Value, reason: &mut String) {
    let mut running = false;
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        let state = &status["state"];
        let waiting = text(state, "/waiting/reason");
        if !waiting.is_empty() {
            *reason = waiting.to_owned();
        } else if state["terminated"].is_object() {
            *reason = terminated(&state["terminated"]);
        } else if status["ready"] == true && state["running"].is_object() {
            running = true;
        }
    }
    if reason == "Completed" && running {
        let ready = list(pod, "/status/conditions")
            .iter()
            .any(|c| text(c, "/type") == "Ready" && c["status"] == "True");
        *reason = if ready { "Running".to_owned() } else { "NotReady".to_owned() };
    }
}

fn restarts(pod: &Value) -> String {
    let (mut total, mut last) = (0, String::new());
    for status in list(pod, "/status/containerStatuses") {
        total += int(status, "/restartCount").unwrap_or(0);
        let finished = text(status, "/lastState/terminated/finishedAt");
        if finished > last.as_str() {
            last = finished.to_owned();
        }
    }
    match kube_codec::parse_time(&last) {
        Some((at, _)) if total > 0 => format!("{total} ({} ago)", human(kube_codec::now() - at)),
        _ => total.to_string(),
    }
}
