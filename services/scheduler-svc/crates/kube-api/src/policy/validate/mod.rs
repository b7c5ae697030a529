//! What is refused, with the original's texts.

mod metadata;
mod names;
mod pod;
mod service;
mod small;
mod workload;

use kube_spec::Resource;
use serde_json::Value;

use super::Phase;
use crate::error::FieldError;

type Errors = Vec<FieldError>;

/// Findings about a new object.
pub fn validate_create(resource: &Resource, object: &Value) -> Errors {
    let mut errors = Vec::new();
    metadata::check(resource, object, &mut errors);
    by_kind(resource, object, &mut errors);
    errors
}

/// Findings about the next state of an object.
pub fn validate_update(resource: &Resource, phase: Phase, current: &Value, next: &Value) -> Errors {
    let mut errors = Vec::new();
    metadata::check(resource, next, &mut errors);
    if phase == Phase::Status {
        return errors;
    }
    by_kind(resource, next, &mut errors);
    match (resource.group, resource.plural) {
        ("", "pods") => pod::check_update(current, next, &mut errors),
        ("", "services") => service::check_update(current, next, &mut errors),
        ("", "configmaps" | "secrets") => {
            small::check_immutable_data(resource, current, next, &mut errors)
        }
        ("", "persistentvolumeclaims") => small::check_claim_update(current, next, &mut errors),
        ("apps" | "batch", _) => workload::check_update(resource, current, next, &mut errors),
        ("rbac.authorization.k8s.io", _) => small::check_role_ref(current, next, &mut errors),
        ("scheduling.k8s.io", _) => small::check_priority_update(current, next, &mut errors),
        _ => {}
    }
    errors
}

fn by_kind(resource: &Resource, object: &Value, errors: &mut Errors) {
    match (resource.group, resource.plural) {
        ("", "pods") => pod::check_pod(object, errors),
        ("", "services") => service::check(object, errors),
        ("", "configmaps") => small::check_config_map(object, errors),
        ("", "secrets") => small::check_secret(object, errors),
        ("", "nodes") => small::check_node(object, errors),
        ("", "persistentvolumeclaims") => small::check_claim(object, errors),
        ("", "replicationcontrollers") => workload::check_replication_controller(object, errors),
        ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets") => {
            workload::check_apps(resource, object, errors);
        }
        ("batch", "jobs") => workload::check_job(object, errors),
        ("batch", "cronjobs") => workload::check_cron_job(object, errors),
        ("networking.k8s.io", "ingresses") => small::check_ingress(object, errors),
        ("rbac.authorization.k8s.io", _) => small::check_rbac(resource, object, errors),
        ("discovery.k8s.io", _) => small::check_endpoint_slice(object, errors),
        ("coordination.k8s.io", _) => small::check_lease(object, errors),
        _ => {}
    }
}
