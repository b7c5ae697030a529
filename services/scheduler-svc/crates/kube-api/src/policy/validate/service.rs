//! Services.

use std::collections::HashSet;

use serde_json::Value;

use super::{Errors, metadata, names, pod};
use crate::error::FieldError;
use crate::object::{self, list, text};

pub(super) fn check(service: &Value, errors: &mut Errors) {
    let spec = &service["spec"];
    let kind = text(spec, "/type");
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", &kind.into(), &kinds));
    }
    let headless = text(spec, "/clusterIP") == "None";
    let ports = list(spec, "/ports");
    if ports.is_empty() && kind != "ExternalName" && !headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" {
        let name = text(spec, "/externalName");
        if name.is_empty() {
            errors.push(FieldError::required("spec.externalName", ""));
        }
    }
    if headless && kind == "NodePort" {
        errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            &"None".into(),
            "may not be set to 'None' for NodePort services",
        ));
    }
    check_ports(ports, errors);
    metadata::check_labels(spec.get("selector"), "spec.selector", errors);
    let affinity = text(spec, "/sessionAffinity");
    if !matches!(affinity, "ClientIP" | "None") {
        errors.push(FieldError::not_supported(
            "spec.sessionAffinity",
            &affinity.into(),
            &["ClientIP", "None"],
        ));
    }
    for (key, allowed) in [
        ("internalTrafficPolicy", ["Cluster", "Local"]),
        ("externalTrafficPolicy", ["Cluster", "Local"]),
    ] {
        let value = text(spec, &format!("/{key}"));
        if !value.is_empty() && !allowed.contains(&value) {
            errors.push(FieldError::not_supported(format!("spec.{key}"), &value.into(), &allowed));
        }
    }
}

fn check_ports(ports: &[Value], errors: &mut Errors) {
    let (mut seen_names, mut seen) = (HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let name = text(port, "/name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !name.is_empty() {
            if let Some(why) = names::label(name) {
                errors.push(FieldError::invalid(format!("{path}.name"), &name.into(), &why));
            } else if !seen_names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
            }
        }
        let number = object::int(port, "/port").unwrap_or(0);
        pod::check_port(number, &format!("{path}.port"), errors);
        let protocol = text(port, "/protocol");
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            errors.push(FieldError::not_supported(
                format!("{path}.protocol"),
                &protocol.into(),
                &["SCTP", "TCP", "UDP"],
            ));
        }
        if let Some(target) = object::int(port, "/targetPort") {
            pod::check_port(target, &format!("{path}.targetPort"), errors);
        }
        if !seen.insert((number, protocol)) {
            let shown = serde_json::json!({"port": number, "protocol": protocol});
            errors.push(FieldError::duplicate(path, &shown));
        }
    }
}

pub(super) fn check_update(current: &Value, next: &Value, errors: &mut Errors) {
    let external = |s: &Value| text(s, "/spec/type") == "ExternalName";
    if external(current) || external(next) {
        return;
    }
    let (old, new) = (text(current, "/spec/clusterIP"), text(next, "/spec/clusterIP"));
    if !old.is_empty() && old != new {
        let shown = next["spec"]["clusterIPs"].clone();
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &shown, "may not change once set"));
    }
}
