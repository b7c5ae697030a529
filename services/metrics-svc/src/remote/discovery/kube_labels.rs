//! `__meta_kubernetes_*` labels of objects.

use std::collections::BTreeMap;

use serde_json::Value;

/// A target's or group's labels.
pub(super) type LabelMap = BTreeMap<String, String>;

/// Reads a text field; numbers and booleans are written out.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => String::new(),
    }
}

/// The elements of a list; none when it is absent.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Label names may hold letters, digits and underscores only.
pub(super) fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Adds a label unless it is empty.
pub(super) fn put(labels: &mut LabelMap, name: &str, value: impl Into<String>) {
    let value = value.into();
    if !value.is_empty() {
        labels.insert(format!("__meta_kubernetes_{name}"), value);
    }
}

/// Labels and annotations of an object: `label_x`, `labelpresent_x`, `annotation_x`, `annotationpresent_x`.
pub(super) fn metadata(labels: &mut LabelMap, role: &str, object: &Value) {
    for (field, word) in [("labels", "label"), ("annotations", "annotation")] {
        let Some(pairs) = object["metadata"][field].as_object() else { continue };
        for (name, value) in pairs {
            let name = clean(name);
            put(labels, &format!("{role}_{word}_{name}"), text(value));
            put(labels, &format!("{role}_{word}present_{name}"), "true");
        }
    }
}

/// Labels a pod gives its targets.
pub(super) fn pod(labels: &mut LabelMap, pod: &Value) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    put(labels, "pod_name", text(&pod["metadata"]["name"]));
    put(labels, "pod_ip", text(&status["podIP"]));
    put(labels, "pod_ready", ready(pod));
    put(labels, "pod_phase", text(&status["phase"]));
    put(labels, "pod_node_name", text(&spec["nodeName"]));
    put(labels, "pod_host_ip", text(&status["hostIP"]));
    put(labels, "pod_uid", text(&pod["metadata"]["uid"]));
    let owner = list(&pod["metadata"]["ownerReferences"]).iter().find(|o| o["controller"] == true);
    if let Some(owner) = owner {
        put(labels, "pod_controller_kind", text(&owner["kind"]));
        put(labels, "pod_controller_name", text(&owner["name"]));
    }
    metadata(labels, "pod", pod);
}

fn ready(pod: &Value) -> String {
    let condition = list(&pod["status"]["conditions"]).iter().find(|c| c["type"] == "Ready");
    condition.map_or("unknown".to_owned(), |c| text(&c["status"]).to_lowercase())
}

/// Labels a container gives its targets.
pub(super) fn container(labels: &mut LabelMap, pod: &Value, container: &Value, init: bool) {
    put(labels, "pod_container_name", text(&container["name"]));
    put(labels, "pod_container_image", text(&container["image"]));
    put(labels, "pod_container_init", init.to_string());
    let field = if init { "initContainerStatuses" } else { "containerStatuses" };
    let status = list(&pod["status"][field]).iter().find(|s| s["name"] == container["name"]);
    if let Some(status) = status {
        put(labels, "pod_container_id", text(&status["containerID"]));
    }
}

/// Labels a container port gives its targets.
pub(super) fn container_port(labels: &mut LabelMap, port: &Value) {
    put(labels, "pod_container_port_name", text(&port["name"]));
    put(labels, "pod_container_port_number", text(&port["containerPort"]));
    let protocol = text(&port["protocol"]);
    put(
        labels,
        "pod_container_port_protocol",
        if protocol.is_empty() { "TCP".to_owned() } else { protocol },
    );
}

/// Labels a service gives to endpoints.
pub(super) fn service(labels: &mut LabelMap, service: &Value) {
    put(labels, "service_name", text(&service["metadata"]["name"]));
    metadata(labels, "service", service);
}

/// Labels of a node that are attached to other targets.
pub(super) fn attached_node(labels: &mut LabelMap, node: Option<&Value>) {
    if let Some(node) = node {
        put(labels, "node_name", text(&node["metadata"]["name"]));
        metadata(labels, "node", node);
    }
}

/// `HOST:PORT`, with brackets around IPv6.
pub(super) fn address(host: &str, port: &str) -> String {
    match (host.contains(':'), port.is_empty()) {
        (_, true) => host.to_owned(),
        (true, false) => format!("[{host}]:{port}"),
        (false, false) => format!("{host}:{port}"),
    }
}
