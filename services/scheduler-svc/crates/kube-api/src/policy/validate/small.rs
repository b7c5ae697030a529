//! Kinds with few rules.

use kube_codec::Quantity;
use kube_spec::Resource;
use serde_json::Value;

use super::{Errors, names};
use crate::error::FieldError;
use crate::object::{self, is_set, list, text};

const MAX_DATA: usize = 1 << 20;

fn check_keys(object: &Value, key: &str, errors: &mut Errors) -> usize {
    let mut size = 0;
    for (name, value) in object::map(object, &format!("/{key}")).into_iter().flatten() {
        if let Some(why) = names::config_key(name) {
            errors.push(FieldError::invalid(format!("{key}[{name}]"), &name.as_str().into(), &why));
        }
        size += value.as_str().map_or(0, str::len);
    }
    size
}

fn too_long(field: &str, errors: &mut Errors) {
    errors.push(FieldError {
        reason: "FieldValueTooLong",
        field: field.to_owned(),
        message: format!("Too long: may not be more than {MAX_DATA} bytes"),
    });
}

pub(super) fn check_config_map(object: &Value, errors: &mut Errors) {
    let size = check_keys(object, "data", errors) + check_keys(object, "binaryData", errors);
    for key in object::map(object, "/binaryData").into_iter().flatten().map(|(k, _)| k) {
        if object::map(object, "/data").is_some_and(|d| d.contains_key(key)) {
            errors.push(FieldError::invalid(
                format!("data[{key}]"),
                &key.as_str().into(),
                "duplicate of key present in binaryData",
            ));
        }
    }
    if size > MAX_DATA {
        too_long("", errors);
    }
}

pub(super) fn check_secret(object: &Value, errors: &mut Errors) {
    let size = check_keys(object, "data", errors);
    if size / 4 * 3 > MAX_DATA {
        too_long("data", errors);
    }
    let needed: &[&str] = match text(object, "/type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed {
        if !object::map(object, "/data").is_some_and(|d| d.contains_key(*key)) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
}

pub(super) fn check_immutable_data(
    resource: &Resource,
    current: &Value,
    next: &Value,
    errors: &mut Errors,
) {
    if resource.plural == "secrets" && current["type"] != next["type"] {
        errors.push(FieldError::invalid("type", &next["type"], "field is immutable"));
    }
    if current["immutable"] == true {
        if next["immutable"] != true {
            errors.push(FieldError::forbidden(
                "immutable",
                "field is immutable when `immutable` is set",
            ));
        }
        for key in ["data", "binaryData"] {
            if current.get(key) != next.get(key) {
                errors
                    .push(FieldError::forbidden(key, "field is immutable when `immutable` is set"));
            }
        }
    }
}

pub(super) fn check_node(object: &Value, errors: &mut Errors) {
    for (i, taint) in list(object, "/spec/taints").iter().enumerate() {
        let path = format!("spec.taints[{i}]");
        if let Some(why) = names::qualified(text(taint, "/key")) {
            errors.push(FieldError::invalid(format!("{path}.key"), &taint["key"], &why));
        }
        let effect = text(taint, "/effect");
        let allowed = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        if !allowed.contains(&effect) {
            errors.push(FieldError::not_supported(
                format!("{path}.effect"),
                &effect.into(),
                &allowed,
            ));
        }
    }
}

pub(super) fn check_claim(object: &Value, errors: &mut Errors) {
    if list(object, "/spec/accessModes").is_empty() {
        errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    }
    let size = text(object, "/spec/resources/requests/storage");
    if size.is_empty() {
        errors.push(FieldError::required("spec.resources[storage]", ""));
    } else if size.parse::<Quantity>().is_ok_and(|q| q.signum() <= 0) {
        errors.push(FieldError::invalid(
            "spec.resources[storage]",
            &size.into(),
            "must be greater than zero",
        ));
    }
}

pub(super) fn check_claim_update(current: &Value, next: &Value, errors: &mut Errors) {
    let neutral = |object: &Value| {
        let mut spec = object["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("resources");
            fields.remove("volumeAttributesClassName");
            if text(current, "/spec/volumeName").is_empty() {
                fields.remove("volumeName");
            }
        }
        spec
    };
    if neutral(current) != neutral(next) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden("spec", why));
    }
}

pub(super) fn check_ingress(object: &Value, errors: &mut Errors) {
    let rules = list(object, "/spec/rules");
    if rules.is_empty() && !is_set(object, "/spec/defaultBackend") {
        errors.push(FieldError::invalid(
            "spec",
            &object["spec"],
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{i}].http.paths");
        if is_set(rule, "/http") && list(rule, "/http/paths").is_empty() {
            errors.push(FieldError::required(path.clone(), ""));
        }
        for (j, entry) in list(rule, "/http/paths").iter().enumerate() {
            check_path(entry, &format!("{path}[{j}]"), errors);
        }
    }
}

fn check_path(entry: &Value, path: &str, errors: &mut Errors) {
    let allowed = ["Exact", "ImplementationSpecific", "Prefix"];
    let kind = text(entry, "/pathType");
    if kind.is_empty() {
        errors.push(FieldError::required(format!("{path}.pathType"), "pathType must be specified"));
    } else if !allowed.contains(&kind) {
        errors.push(FieldError::not_supported(format!("{path}.pathType"), &kind.into(), &allowed));
    }
    let route = text(entry, "/path");
    if kind != "ImplementationSpecific" && !route.starts_with('/') {
        errors.push(FieldError::invalid(
            format!("{path}.path"),
            &route.into(),
            "must be an absolute path",
        ));
    }
    if is_set(entry, "/backend/service") {
        if text(entry, "/backend/service/name").is_empty() {
            errors.push(FieldError::required(format!("{path}.backend.service.name"), ""));
        }
        let port = &entry["backend"]["service"]["port"];
        if object::int(port, "/number").unwrap_or(0) == 0 && text(port, "/name").is_empty() {
            errors.push(FieldError::required(
                format!("{path}.backend.service.port"),
                "port name or number is required",
            ));
        }
    } else if !is_set(entry, "/backend/resource") {
        errors.push(FieldError::required(
            format!("{path}.backend"),
            "resource or service backend is required",
        ));
    }
}

pub(super) fn check_rbac(resource: &Resource, object: &Value, errors: &mut Errors) {
    if resource.plural.ends_with("bindings") {
        if text(object, "/roleRef/name").is_empty() {
            errors.push(FieldError::required("roleRef.name", ""));
        }
        let allowed: &[&str] =
            if resource.namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
        let kind = text(object, "/roleRef/kind");
        if !allowed.contains(&kind) {
            errors.push(FieldError::not_supported("roleRef.kind", &kind.into(), allowed));
        }
        for (i, subject) in list(object, "/subjects").iter().enumerate() {
            let kind = text(subject, "/kind");
            if !matches!(kind, "ServiceAccount" | "User" | "Group") {
                let allowed = ["Group", "ServiceAccount", "User"];
                errors.push(FieldError::not_supported(
                    format!("subjects[{i}].kind"),
                    &kind.into(),
                    &allowed,
                ));
            }
            if text(subject, "/name").is_empty() {
                errors.push(FieldError::required(format!("subjects[{i}].name"), ""));
            }
        }
        return;
    }
    for (i, rule) in list(object, "/rules").iter().enumerate() {
        if list(rule, "/verbs").is_empty() {
            errors.push(FieldError::required(
                format!("rules[{i}].verbs"),
                "verbs must contain at least one value",
            ));
        }
        if list(rule, "/nonResourceURLs").is_empty() {
            if list(rule, "/apiGroups").is_empty() {
                errors.push(FieldError::required(
                    format!("rules[{i}].apiGroups"),
                    "resource rules must supply at least one api group",
                ));
            }
            if list(rule, "/resources").is_empty() {
                errors.push(FieldError::required(
                    format!("rules[{i}].resources"),
                    "resource rules must supply at least one resource",
                ));
            }
        }
    }
}

pub(super) fn check_role_ref(current: &Value, next: &Value, errors: &mut Errors) {
    if current.get("roleRef") != next.get("roleRef") {
        errors.push(FieldError::invalid("roleRef", &next["roleRef"], "cannot change roleRef"));
    }
}

pub(super) fn check_priority_update(current: &Value, next: &Value, errors: &mut Errors) {
    if current.get("value") != next.get("value") {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
}

pub(super) fn check_endpoint_slice(object: &Value, errors: &mut Errors) {
    let allowed = ["FQDN", "IPv4", "IPv6"];
    let kind = text(object, "/addressType");
    if kind.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else if !allowed.contains(&kind) {
        errors.push(FieldError::not_supported("addressType", &kind.into(), &allowed));
    }
    for (i, endpoint) in list(object, "/endpoints").iter().enumerate() {
        if list(endpoint, "/addresses").is_empty() {
            errors.push(FieldError::required(
                format!("endpoints[{i}].addresses"),
                "must contain at least 1 address",
            ));
        }
    }
}

pub(super) fn check_lease(object: &Value, errors: &mut Errors) {
    if object::int(object, "/spec/leaseDurationSeconds").is_some_and(|n| n <= 0) {
        let field = "spec.leaseDurationSeconds";
        errors.push(FieldError::invalid(
            field,
            &object["spec"]["leaseDurationSeconds"],
            "must be greater than 0",
        ));
    }
}
