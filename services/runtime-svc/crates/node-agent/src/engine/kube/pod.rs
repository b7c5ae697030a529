//! `core/v1 Pod`.

use std::collections::BTreeMap;

use flotilla_kube_client::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Container, EphemeralContainer, PodStatus, Volume};

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Name, uid, deletion marks.
    pub metadata: ObjectMeta,
    /// What should run.
    pub spec: PodSpec,
    /// What the API server knows to run.
    pub status: PodStatus,
}

/// What should run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: String,
    pub init_containers: Vec<Container>,
    pub containers: Vec<Container>,
    pub ephemeral_containers: Vec<EphemeralContainer>,
    pub volumes: Vec<Volume>,
    pub restart_policy: RestartPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    pub dns_policy: String,
    pub dns_config: Option<PodDnsConfig>,
    pub service_account_name: String,
    pub host_network: bool,
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    #[serde(rename = "hostIPC")]
    pub host_ipc: bool,
    pub share_process_namespace: Option<bool>,
    pub security_context: Option<PodSecurityContext>,
    pub image_pull_secrets: Vec<LocalObjectReference>,
    pub hostname: String,
    pub subdomain: String,
    pub set_hostname_as_fqdn: Option<bool>,
    pub host_aliases: Vec<HostAlias>,
    pub runtime_class_name: Option<String>,
    pub enable_service_links: Option<bool>,
    pub readiness_gates: Vec<ReadinessGate>,
    pub priority_class_name: String,
    pub priority: Option<i32>,
    pub host_users: Option<bool>,
    pub resources: Option<super::Resources>,
}

/// What happens to a container that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// It is started again.
    #[default]
    Always,
    /// It is started again unless it exited with 0.
    OnFailure,
    /// It stays ended.
    Never,
}

/// Name of an object in the pod's namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalObjectReference {
    pub name: String,
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostAlias {
    pub ip: String,
    pub hostnames: Vec<String>,
}

/// A condition somebody else sets that the pod's readiness waits for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessGate {
    pub condition_type: String,
}

/// Additions to resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodDnsConfig {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<DnsOption>,
}

/// `name` or `name:value` of a resolver option.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    pub name: String,
    pub value: Option<String>,
}

/// Identity and limits of all containers of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurityContext {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: Option<bool>,
    pub supplemental_groups: Vec<i64>,
    pub supplemental_groups_policy: Option<String>,
    pub fs_group: Option<i64>,
    pub sysctls: Vec<Sysctl>,
    pub seccomp_profile: Option<Profile>,
    pub app_armor_profile: Option<Profile>,
    pub se_linux_options: Option<SeLinuxOptions>,
}

/// A kernel setting of the pod's namespaces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sysctl {
    pub name: String,
    pub value: String,
}

/// A seccomp or AppArmor profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    #[serde(rename = "type")]
    pub kind: String,
    pub localhost_profile: Option<String>,
}

/// SELinux label parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeLinuxOptions {
    pub user: String,
    pub role: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub level: String,
}

/// Quantities by resource name: `cpu`, `memory`, `ephemeral-storage`, ...
pub type ResourceList = BTreeMap<String, super::Quantity>;

impl Pod {
    /// Reads a pod. What JSON calls null is what is not there; a spec that cannot be read is empty, and why is
    /// said beside it: one bad object must not hide the others.
    pub fn read(mut object: Value) -> (Self, Option<String>) {
        drop_nulls(&mut object);
        match Self::deserialize(&object) {
            Ok(pod) => (pod, None),
            Err(error) => {
                let metadata = ObjectMeta::deserialize(&object["metadata"]).unwrap_or_default();
                (Self { metadata, ..Self::default() }, Some(error.to_string()))
            }
        }
    }

    /// Unique over time.
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// `namespace/name`, for messages.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Seconds between the request to end and the kill.
    pub fn grace_period(&self) -> i64 {
        let asked = self.metadata.deletion_grace_period_seconds;
        asked.or(self.spec.termination_grace_period_seconds).unwrap_or(30)
    }

    /// Init containers, then containers.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().chain(&self.spec.containers)
    }

    /// The init container, container or ephemeral container with this name.
    pub fn container(&self, name: &str) -> Option<Container> {
        let ephemeral = || {
            let all = &self.spec.ephemeral_containers;
            all.iter().find(|c| c.container.name == name).map(|c| c.container.clone())
        };
        self.all_containers().find(|c| c.name == name).cloned().or_else(ephemeral)
    }

    /// The name processes in the pod see: `spec.hostname`, else the pod's name cut to 63 characters.
    pub fn hostname(&self) -> String {
        let name =
            if self.spec.hostname.is_empty() { &self.metadata.name } else { &self.spec.hostname };
        let cut: String = name.chars().take(63).collect();
        cut.trim_end_matches(['-', '.']).to_owned()
    }

    /// Whether the pod came from a manifest on the node.
    pub fn is_static(&self) -> bool {
        let source = self.metadata.annotations.get("kubernetes.io/config.source");
        source.is_some_and(|source| source != "api")
    }

    /// Whether this API object only mirrors a static pod.
    pub fn is_mirror(&self) -> bool {
        self.metadata.annotations.contains_key("kubernetes.io/config.mirror")
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_and_bad_specs_are_survived() {
        let (pod, error) = Pod::read(
            json!({"metadata": {"name": "a", "uid": null}, "spec": {"initContainers": null, "containers": [{"name": "c", "env": null}]}}),
        );
        assert_eq!((pod.spec.containers.len(), error), (1, None));
        let (pod, error) =
            Pod::read(json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"containers": 7}}));
        assert_eq!((pod.uid(), pod.spec.containers.len()), ("u", 0));
        assert!(error.is_some());
    }
}
