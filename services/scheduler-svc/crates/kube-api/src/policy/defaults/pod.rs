//! Pods and pod templates.

use serde_json::{Value, json};

use super::map;
use crate::object::{default_to, is_set, items_mut, text};

/// A pod: its spec, and requests out of limits.
pub(super) fn pod(object: &mut Value) {
    spec(map(object, "spec"));
    for key in ["containers", "initContainers"] {
        for container in items_mut(&mut object["spec"], key) {
            let limits = container.pointer("/resources/limits").and_then(Value::as_object).cloned();
            for (resource, amount) in limits.into_iter().flatten() {
                default_to(map(map(container, "resources"), "requests"), &resource, amount);
            }
        }
    }
}

/// A pod template.
pub(super) fn template(object: &mut Value) {
    if object.is_object() {
        spec(map(object, "spec"));
    }
}

fn spec(spec: &mut Value) {
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "schedulerName", "default-scheduler");
    if spec.get("enableServiceLinks").is_none() {
        default_to(spec, "enableServiceLinks", true);
    }
    let (name, old) =
        (text(spec, "/serviceAccountName").to_owned(), text(spec, "/serviceAccount").to_owned());
    let account = if name.is_empty() { old } else { name };
    if !account.is_empty() {
        spec["serviceAccountName"] = account.as_str().into();
        spec["serviceAccount"] = account.into();
    }
    let host_network = spec["hostNetwork"] == true;
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        items_mut(spec, key).for_each(|c| container(c, host_network));
    }
    items_mut(spec, "volumes").for_each(volume);
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        if constraint.get("minDomains").is_some_and(Value::is_null) {
            constraint["minDomains"] = Value::Null;
        }
    }
}

fn container(container: &mut Value, host_network: bool) {
    let image = text(container, "/image");
    let name = image.rsplit('/').next().unwrap_or_default();
    let tag = name.split_once('@').map_or(name, |(n, _)| n).split_once(':').map_or("", |(_, t)| t);
    let latest = !image.contains('@') && (tag.is_empty() || tag == "latest");
    default_to(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    for port in items_mut(container, "ports") {
        default_to(port, "protocol", "TCP");
        if host_network && port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0 {
            port["hostPort"] = port["containerPort"].clone();
        }
    }
    for variable in items_mut(container, "env") {
        if let Some(reference) =
            variable.pointer_mut("/valueFrom/fieldRef").filter(|r| r.is_object())
        {
            default_to(reference, "apiVersion", "v1");
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(key).filter(|p| p.is_object()) {
            for (name, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                if probe.get(name).and_then(Value::as_i64).unwrap_or(0) == 0 {
                    probe[name] = value.into();
                }
            }
            http_get(probe);
            if let Some(grpc) = probe.get_mut("grpc").filter(|g| g.is_object()) {
                default_to(grpc, "service", "");
            }
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            http_get(hook);
        }
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet").filter(|g| g.is_object()) {
        default_to(get, "path", "/");
        default_to(get, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Value) {
    let sources = volume
        .as_object()
        .map_or(0, |v| v.iter().filter(|(k, v)| *k != "name" && !v.is_null()).count());
    if sources == 0 {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            default_to(source, "defaultMode", 420);
        }
    }
    let field_refs = |source: &mut Value| {
        for item in items_mut(source, "items") {
            if let Some(reference) = item.get_mut("fieldRef").filter(|r| r.is_object()) {
                default_to(reference, "apiVersion", "v1");
            }
        }
    };
    if let Some(source) = volume.get_mut("downwardAPI") {
        field_refs(source);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items_mut(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken").filter(|t| t.is_object()) {
                default_to(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                field_refs(downward);
            }
        }
    }
    if is_set(volume, "/hostPath")
        && let Some(path) = volume.get_mut("hostPath")
    {
        default_to(path, "type", "");
    }
    if let Some(template) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        default_to(template, "volumeMode", "Filesystem");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.25", "IfNotPresent"),
            ("127.0.0.1:5000/app", "Always"),
            ("127.0.0.1:5000/app:v1", "IfNotPresent"),
            ("app@sha256:ab", "IfNotPresent"),
        ] {
            let mut c = json!({"name": "a", "image": image});
            container(&mut c, false);
            assert_eq!(c["imagePullPolicy"], want, "{image}");
        }
    }

    #[test]
    fn a_small_pod_becomes_complete() {
        let mut object = json!({"spec": {"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1"}}, "readinessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}]}});
        pod(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["containers"][0]["resources"]["requests"]["cpu"], "1");
        assert_eq!(spec["containers"][0]["readinessProbe"]["periodSeconds"], 10);
        assert_eq!(spec["containers"][0]["readinessProbe"]["httpGet"]["path"], "/");
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
    }
}
