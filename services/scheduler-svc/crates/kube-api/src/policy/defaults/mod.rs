//! Default values, as the original's versioned defaults set them.

mod apps;
mod core;
mod pod;
mod service;

use kube_spec::Resource;
use serde_json::{Value, json};

pub(super) use self::core::merge_string_data;
use crate::object::{default_to, items_mut, list, map_mut};

/// Sets what the client left out.
pub fn apply_defaults(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.plural) {
        ("", "pods") => {
            pod::pod(object);
        }
        ("", "podtemplates") => pod::template(&mut object["template"]),
        ("", "services") => service::service(object),
        ("", "endpoints") => {
            for subset in items_mut(object, "subsets") {
                items_mut(subset, "ports").for_each(|port| default_to(port, "protocol", "TCP"));
            }
        }
        ("", "replicationcontrollers") => apps::replication_controller(object),
        ("", "secrets") => self::core::secret(object),
        ("", "persistentvolumes") => {
            default_to(map(object, "spec"), "volumeMode", "Filesystem");
            default_to(map(object, "spec"), "persistentVolumeReclaimPolicy", "Retain");
        }
        ("", "persistentvolumeclaims") => self::core::claim(object),
        ("apps", _) => apps::apps(resource.plural, object),
        ("batch", "jobs") => apps::job(object),
        ("batch", "cronjobs") => apps::cron_job(object),
        ("autoscaling", _) => {
            let spec = map(object, "spec");
            default_to(spec, "minReplicas", 1);
            if list(spec, "/metrics").is_empty() {
                spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}}]);
            }
        }
        ("discovery.k8s.io", _) => {
            for port in items_mut(object, "ports") {
                default_to(port, "name", "");
                default_to(port, "protocol", "TCP");
            }
        }
        ("networking.k8s.io", "networkpolicies") => self::core::network_policy(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            self::core::binding(object)
        }
        ("scheduling.k8s.io", _) => default_to(object, "preemptionPolicy", "PreemptLowerPriority"),
        ("storage.k8s.io", "storageclasses") => {
            default_to(object, "reclaimPolicy", "Delete");
            default_to(object, "volumeBindingMode", "Immediate");
        }
        _ => {}
    }
}

/// The map at `key` as a value, made when it is absent.
fn map<'v>(object: &'v mut Value, key: &str) -> &'v mut Value {
    map_mut(object, key);
    &mut object[key]
}
