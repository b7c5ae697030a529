//! Pod specs.

use std::collections::HashSet;

use kube_codec::Quantity;
use serde_json::Value;

use super::{Errors, metadata, names};
use crate::error::FieldError;
use crate::object::{self, is_set, list, text};

pub(super) fn check_pod(pod: &Value, errors: &mut Errors) {
    check_spec(&pod["spec"], "spec", errors);
}

/// A template: labels and spec.
pub(super) fn check_template(template: &Value, path: &str, errors: &mut Errors) {
    metadata::check_labels(
        template.pointer("/metadata/labels"),
        &format!("{path}.metadata.labels"),
        errors,
    );
    check_spec(&template["spec"], &format!("{path}.spec"), errors);
}

fn check_spec(spec: &Value, path: &str, errors: &mut Errors) {
    let mut volumes = HashSet::new();
    for (i, volume) in list(spec, "/volumes").iter().enumerate() {
        check_volume(volume, &format!("{path}.volumes[{i}]"), &mut volumes, errors);
    }
    let mut seen = HashSet::new();
    let containers = list(spec, "/containers");
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    for (key, items) in
        [("containers", containers), ("initContainers", list(spec, "/initContainers"))]
    {
        for (i, container) in items.iter().enumerate() {
            check_container(container, &format!("{path}.{key}[{i}]"), &volumes, &mut seen, errors);
        }
    }
    one_of(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], errors);
    one_of(
        spec,
        path,
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        errors,
    );
    if text(spec, "/dnsPolicy") == "None" && list(spec, "/dnsConfig/nameservers").is_empty() {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{path}.dnsConfig.nameservers"), why));
    }
    if object::int(spec, "/terminationGracePeriodSeconds").is_some_and(|n| n < 0) {
        let field = format!("{path}.terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(
            field,
            &spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        ));
    }
    if object::int(spec, "/activeDeadlineSeconds").is_some_and(|n| n < 1) {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(
            format!("{path}.activeDeadlineSeconds"),
            &spec["activeDeadlineSeconds"],
            why,
        ));
    }
    for (key, rule) in [
        ("nodeName", names::subdomain as fn(&str) -> Option<String>),
        ("serviceAccountName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
    ] {
        let value = text(spec, &format!("/{key}"));
        if let Some(why) = Some(value).filter(|v| !v.is_empty()).and_then(rule) {
            errors.push(FieldError::invalid(format!("{path}.{key}"), &value.into(), &why));
        }
    }
    metadata::check_labels(spec.get("nodeSelector"), &format!("{path}.nodeSelector"), errors);
    for (i, toleration) in list(spec, "/tolerations").iter().enumerate() {
        check_toleration(toleration, &format!("{path}.tolerations[{i}]"), errors);
    }
}

fn one_of(object: &Value, path: &str, key: &str, allowed: &[&str], errors: &mut Errors) {
    let value = text(object, &format!("/{key}"));
    let field = format!("{path}.{key}");
    if value.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(field, &value.into(), allowed));
    }
}

fn check_volume(volume: &Value, path: &str, seen: &mut HashSet<String>, errors: &mut Errors) {
    let name = text(volume, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else if let Some(why) = names::label(name) {
        errors.push(FieldError::invalid(format!("{path}.name"), &name.into(), &why));
    } else if !seen.insert(name.to_owned()) {
        errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
    }
    let sources: Vec<&String> = volume
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, v)| *k != "name" && !v.is_null())
        .map(|(k, _)| k)
        .collect();
    for extra in sources.iter().skip(1) {
        let why = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(format!("{path}.{extra}"), why));
    }
    for (source, key) in [
        ("configMap", "name"),
        ("secret", "secretName"),
        ("hostPath", "path"),
        ("persistentVolumeClaim", "claimName"),
    ] {
        if is_set(volume, &format!("/{source}"))
            && text(volume, &format!("/{source}/{key}")).is_empty()
        {
            errors.push(FieldError::required(format!("{path}.{source}.{key}"), ""));
        }
    }
}

fn check_container(
    container: &Value,
    path: &str,
    volumes: &HashSet<String>,
    seen: &mut HashSet<String>,
    errors: &mut Errors,
) {
    let name = text(container, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else if let Some(why) = names::label(name) {
        errors.push(FieldError::invalid(format!("{path}.name"), &name.into(), &why));
    } else if !seen.insert(name.to_owned()) {
        errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
    }
    let image = text(container, "/image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        errors.push(FieldError::invalid(
            format!("{path}.image"),
            &image.into(),
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(container, path, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], errors);
    check_ports(container, path, errors);
    for (i, variable) in list(container, "/env").iter().enumerate() {
        check_variable(variable, &format!("{path}.env[{i}]"), errors);
    }
    let mut mounts = HashSet::new();
    for (i, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{i}]");
        let (name, target) = (text(mount, "/name"), text(mount, "/mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(format!("{path}.name"), &name.into()));
        }
        if target.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if !mounts.insert(target) {
            errors.push(FieldError::invalid(
                format!("{path}.mountPath"),
                &target.into(),
                "must be unique",
            ));
        }
    }
    check_resources(&container["resources"], &format!("{path}.resources"), errors);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if is_set(container, &format!("/{probe}")) {
            check_probe(&container[probe], &format!("{path}.{probe}"), probe, errors);
        }
    }
}

fn check_ports(container: &Value, path: &str, errors: &mut Errors) {
    let mut names_seen = HashSet::new();
    for (i, port) in list(container, "/ports").iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        match object::int(port, "/containerPort") {
            None | Some(0) => {
                errors.push(FieldError::required(format!("{path}.containerPort"), ""))
            }
            Some(n) => check_port(n, &format!("{path}.containerPort"), errors),
        }
        if let Some(n) = object::int(port, "/hostPort").filter(|n| *n != 0) {
            check_port(n, &format!("{path}.hostPort"), errors);
        }
        let name = text(port, "/name");
        if !name.is_empty() && !names_seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
        }
        if name.len() > 15 {
            errors.push(FieldError::invalid(
                format!("{path}.name"),
                &name.into(),
                "must be no more than 15 characters",
            ));
        }
        one_of(port, &path, "protocol", &["SCTP", "TCP", "UDP"], errors);
    }
}

/// A port from 1 to 65535.
pub(super) fn check_port(port: i64, field: &str, errors: &mut Errors) {
    if !(1..=65535).contains(&port) {
        errors.push(FieldError::invalid(
            field,
            &port.into(),
            "must be between 1 and 65535, inclusive",
        ));
    }
}

fn check_variable(variable: &Value, path: &str, errors: &mut Errors) {
    let name = text(variable, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else if let Some(why) = names::variable(name) {
        errors.push(FieldError::invalid(format!("{path}.name"), &name.into(), &why));
    }
    let from = object::map(variable, "/valueFrom");
    let sources = from.map_or(0, |f| f.values().filter(|v| !v.is_null()).count());
    match (from.is_some(), sources, text(variable, "/value").is_empty()) {
        (true, _, false) => errors.push(FieldError::invalid(
            format!("{path}.valueFrom"),
            &"".into(),
            "may not be specified when `value` is not empty",
        )),
        (true, 0, _) => errors.push(FieldError::invalid(
            format!("{path}.valueFrom"),
            &"".into(),
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef`",
        )),
        (true, 2.., _) => errors.push(FieldError::invalid(
            format!("{path}.valueFrom"),
            &"".into(),
            "may not have more than one field specified at a time",
        )),
        _ => {}
    }
}

fn check_resources(resources: &Value, path: &str, errors: &mut Errors) {
    let amount = |kind: &str, resource: &str| -> Option<Quantity> {
        resources.get(kind)?.get(resource)?.as_str()?.parse().ok()
    };
    for kind in ["limits", "requests"] {
        for (resource, value) in object::map(resources, &format!("/{kind}")).into_iter().flatten() {
            let field = format!("{path}.{kind}[{resource}]");
            if amount(kind, resource).is_some_and(|q| q.signum() < 0) {
                errors.push(FieldError::invalid(
                    field,
                    value,
                    "must be greater than or equal to 0",
                ));
            } else if !resource.contains('/') && !known_resource(resource) {
                errors.push(FieldError::invalid(
                    format!("{path}.{kind}[{resource}]"),
                    &resource.as_str().into(),
                    "must be a standard resource for containers",
                ));
            }
        }
    }
    for (resource, value) in object::map(resources, "/requests").into_iter().flatten() {
        if let (Some(request), Some(limit)) =
            (amount("requests", resource), amount("limits", resource))
            && request.nanos() > limit.nanos()
        {
            let why = format!("must be less than or equal to {resource} limit of {limit}");
            errors.push(FieldError::invalid(format!("{path}.requests"), value, &why));
        }
    }
}

fn known_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn check_probe(probe: &Value, path: &str, kind: &str, errors: &mut Errors) {
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"]
        .iter()
        .filter(|h| is_set(probe, &format!("/{h}")))
        .count();
    match handlers {
        0 => errors.push(FieldError::required(path, "must specify a handler type")),
        1 => {}
        _ => errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type")),
    }
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if object::int(probe, &format!("/{key}")).is_some_and(|n| n < 0) {
            errors.push(FieldError::invalid(
                format!("{path}.{key}"),
                &probe[key],
                "must be greater than or equal to 0",
            ));
        }
    }
    if kind != "readinessProbe" && object::int(probe, "/successThreshold").unwrap_or(1) != 1 {
        errors.push(FieldError::invalid(
            format!("{path}.successThreshold"),
            &probe["successThreshold"],
            "must be 1",
        ));
    }
    if is_set(probe, "/httpGet")
        && let Some(port) = object::int(probe, "/httpGet/port")
    {
        check_port(port, &format!("{path}.httpGet.port"), errors);
    }
}

fn check_toleration(toleration: &Value, path: &str, errors: &mut Errors) {
    let (key, operator) = (text(toleration, "/key"), text(toleration, "/operator"));
    if key.is_empty() && operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(format!("{path}.operator"), &operator.into(), why));
    }
    if operator == "Exists" && !text(toleration, "/value").is_empty() {
        let why = "value must be empty when `operator` is 'Exists'";
        errors.push(FieldError::invalid(format!("{path}.operator"), &toleration["value"], why));
    }
    if !matches!(operator, "" | "Equal" | "Exists") {
        errors.push(FieldError::not_supported(
            format!("{path}.operator"),
            &operator.into(),
            &["Equal", "Exists"],
        ));
    }
}

/// What of a pod may change once it exists.
pub(super) fn check_update(current: &Value, next: &Value, errors: &mut Errors) {
    let neutral = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for key in ["containers", "initContainers"] {
            for container in object::items_mut(&mut spec, key) {
                if let Some(fields) = container.as_object_mut() {
                    fields.remove("image");
                    fields.remove("imagePullPolicy");
                }
            }
        }
        if let Some(fields) = spec.as_object_mut() {
            for key in [
                "activeDeadlineSeconds",
                "terminationGracePeriodSeconds",
                "tolerations",
                "schedulingGates",
                "nodeSelector",
                "affinity",
            ] {
                // Gates and, while gated, selectors may only shrink or narrow; that is for the scheduler's user to keep.
                if matches!(key, "nodeSelector" | "affinity") && !is_gated(current) {
                    continue;
                }
                fields.remove(key);
            }
        }
        spec
    };
    if neutral(current) != neutral(next) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(FieldError::forbidden("spec", why));
    }
    let kept = list(current, "/spec/tolerations")
        .iter()
        .all(|t| list(next, "/spec/tolerations").iter().any(|n| n == t));
    if !kept {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

fn is_gated(pod: &Value) -> bool {
    !list(pod, "/spec/schedulingGates").is_empty()
}
