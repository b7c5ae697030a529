//! The resources of the API.

use crate::types::{StructId, types};

/// Every verb of a stored resource.
pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A part of a resource with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// Last segment of the path.
    pub name: &'static str,
    /// Group and version of the object at that path, when it differs from the resource's.
    pub group: &'static str,
    /// Version of the object at that path.
    pub version: &'static str,
    /// Kind of the object at that path.
    pub kind: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// One resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Name for people.
    pub singular: &'static str,
    /// Kind of the objects.
    pub kind: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Abbreviations kubectl knows.
    pub short: &'static [&'static str],
    /// Groups of resources such as `all`.
    pub categories: &'static [&'static str],
    /// Folder below the store's prefix; empty when objects are not stored.
    pub storage: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Subresources.
    pub subresources: &'static [Subresource],
    /// Package of the type in the table of messages.
    pub package: &'static str,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`, as messages name the resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The message of one object.
    pub fn type_id(&self) -> StructId {
        let name = format!("{}.{}", self.package, self.kind);
        types().find(&name).expect("every resource's kind is in the table: checked by a test")
    }

    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether it has `/status`.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}

/// A resource by group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// A resource by group, version and kind.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// Every resource, grouped by group and version.
pub fn resources() -> &'static [Resource] {
    RESOURCES
}

const GPU: &[&str] = &["get", "patch", "update"];
const CREATE: &[&str] = &["create"];

const fn sub(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, group: "", version: "", kind, verbs }
}

const fn sub_of(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, group, version, kind, verbs }
}

macro_rules! status {
    ($kind:literal $(, $more:expr)*) => { &[sub("status", $kind, GPU) $(, $more)*] };
}

macro_rules! resource {
    ($group:literal, $version:literal, $package:literal, $plural:literal, $singular:literal, $kind:literal,
     $namespaced:literal, [$($short:literal),*], [$($category:literal),*], $storage:literal, $subs:expr) => {
        Resource {
            group: $group, version: $version, plural: $plural, singular: $singular, kind: $kind,
            namespaced: $namespaced, short: &[$($short),*], categories: &[$($category),*], storage: $storage,
            verbs: ALL_VERBS, subresources: $subs, package: $package,
        }
    };
}

macro_rules! review {
    ($group:literal, $plural:literal, $singular:literal, $kind:literal, $namespaced:literal, $package:literal) => {
        Resource {
            group: $group,
            version: "v1",
            plural: $plural,
            singular: $singular,
            kind: $kind,
            namespaced: $namespaced,
            short: &[],
            categories: &[],
            storage: "",
            verbs: CREATE,
            subresources: &[],
            package: $package,
        }
    };
}

const SCALE: Subresource = sub_of("scale", "autoscaling", "v1", "Scale", GPU);
const EXEC_VERBS: &[&str] = &["create", "get"];

#[rustfmt::skip]
static RESOURCES: &[Resource] = &[
    review_binding(),
    resource!("", "v1", "core/v1", "configmaps", "configmap", "ConfigMap", true, ["cm"], [], "configmaps", &[]),
    resource!("", "v1", "core/v1", "endpoints", "endpoints", "Endpoints", true, ["ep"], [], "services/endpoints", &[]),
    resource!("", "v1", "core/v1", "events", "event", "Event", true, ["ev"], [], "events", &[]),
    resource!("", "v1", "core/v1", "limitranges", "limitrange", "LimitRange", true, ["limits"], [], "limitranges", &[]),
    resource!("", "v1", "core/v1", "namespaces", "namespace", "Namespace", false, ["ns"], [], "namespaces",
        status!("Namespace", sub("finalize", "Namespace", &["update"]))),
    resource!("", "v1", "core/v1", "nodes", "node", "Node", false, ["no"], [], "minions", status!("Node", sub("proxy", "NodeProxyOptions", EXEC_VERBS))),
    resource!("", "v1", "core/v1", "persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim", true, ["pvc"], [], "persistentvolumeclaims", status!("PersistentVolumeClaim")),
    resource!("", "v1", "core/v1", "persistentvolumes", "persistentvolume", "PersistentVolume", false, ["pv"], [], "persistentvolumes", status!("PersistentVolume")),
    resource!("", "v1", "core/v1", "pods", "pod", "Pod", true, ["po"], ["all"], "pods", status!("Pod",
        sub("attach", "PodAttachOptions", EXEC_VERBS), sub("binding", "Binding", CREATE),
        sub("ephemeralcontainers", "Pod", GPU), sub_of("eviction", "policy", "v1", "Eviction", CREATE),
        sub("exec", "PodExecOptions", EXEC_VERBS), sub("log", "Pod", &["get"]),
        sub("portforward", "PodPortForwardOptions", EXEC_VERBS), sub("resize", "Pod", GPU))),
    resource!("", "v1", "core/v1", "podtemplates", "podtemplate", "PodTemplate", true, [], [], "podtemplates", &[]),
    resource!("", "v1", "core/v1", "replicationcontrollers", "replicationcontroller", "ReplicationController", true, ["rc"], ["all"], "controllers", status!("ReplicationController", SCALE)),
    resource!("", "v1", "core/v1", "resourcequotas", "resourcequota", "ResourceQuota", true, ["quota"], [], "resourcequotas", status!("ResourceQuota")),
    resource!("", "v1", "core/v1", "secrets", "secret", "Secret", true, [], [], "secrets", &[]),
    resource!("", "v1", "core/v1", "serviceaccounts", "serviceaccount", "ServiceAccount", true, ["sa"], [], "serviceaccounts",
        &[sub_of("token", "authentication.k8s.io", "v1", "TokenRequest", CREATE)]),
    resource!("", "v1", "core/v1", "services", "service", "Service", true, ["svc"], ["all"], "services/specs", status!("Service")),
    resource!("apps", "v1", "apps/v1", "controllerrevisions", "controllerrevision", "ControllerRevision", true, [], [], "controllerrevisions", &[]),
    resource!("apps", "v1", "apps/v1", "daemonsets", "daemonset", "DaemonSet", true, ["ds"], ["all"], "daemonsets", status!("DaemonSet")),
    resource!("apps", "v1", "apps/v1", "deployments", "deployment", "Deployment", true, ["deploy"], ["all"], "deployments", status!("Deployment", SCALE)),
    resource!("apps", "v1", "apps/v1", "replicasets", "replicaset", "ReplicaSet", true, ["rs"], ["all"], "replicasets", status!("ReplicaSet", SCALE)),
    resource!("apps", "v1", "apps/v1", "statefulsets", "statefulset", "StatefulSet", true, ["sts"], ["all"], "statefulsets", status!("StatefulSet", SCALE)),
    resource!("events.k8s.io", "v1", "events/v1", "events", "event", "Event", true, ["ev"], [], "events", &[]),
    review!("authentication.k8s.io", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview", false, "authentication/v1"),
    review!("authentication.k8s.io", "tokenreviews", "tokenreview", "TokenReview", false, "authentication/v1"),
    review!("authorization.k8s.io", "localsubjectaccessreviews", "localsubjectaccessreview", "LocalSubjectAccessReview", true, "authorization/v1"),
    review!("authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview", false, "authorization/v1"),
    review!("authorization.k8s.io", "selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview", false, "authorization/v1"),
    review!("authorization.k8s.io", "subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview", false, "authorization/v1"),
    resource!("autoscaling", "v2", "autoscaling/v2", "horizontalpodautoscalers", "horizontalpodautoscaler", "HorizontalPodAutoscaler", true, ["hpa"], ["all"], "horizontalpodautoscalers", status!("HorizontalPodAutoscaler")),
    resource!("batch", "v1", "batch/v1", "cronjobs", "cronjob", "CronJob", true, ["cj"], ["all"], "cronjobs", status!("CronJob")),
    resource!("batch", "v1", "batch/v1", "jobs", "job", "Job", true, [], ["all"], "jobs", status!("Job")),
    resource!("coordination.k8s.io", "v1", "coordination/v1", "leases", "lease", "Lease", true, [], [], "leases", &[]),
    resource!("discovery.k8s.io", "v1", "discovery/v1", "endpointslices", "endpointslice", "EndpointSlice", true, [], [], "endpointslices", &[]),
    resource!("networking.k8s.io", "v1", "networking/v1", "ingressclasses", "ingressclass", "IngressClass", false, [], [], "ingressclasses", &[]),
    resource!("networking.k8s.io", "v1", "networking/v1", "ingresses", "ingress", "Ingress", true, ["ing"], [], "ingress", status!("Ingress")),
    resource!("networking.k8s.io", "v1", "networking/v1", "ipaddresses", "ipaddress", "IPAddress", false, ["ip"], [], "ipaddresses", &[]),
    resource!("networking.k8s.io", "v1", "networking/v1", "networkpolicies", "networkpolicy", "NetworkPolicy", true, ["netpol"], [], "networkpolicies", &[]),
    resource!("node.k8s.io", "v1", "node/v1", "runtimeclasses", "runtimeclass", "RuntimeClass", false, [], [], "runtimeclasses", &[]),
    resource!("policy", "v1", "policy/v1", "poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget", true, ["pdb"], [], "poddisruptionbudgets", status!("PodDisruptionBudget")),
    resource!("rbac.authorization.k8s.io", "v1", "rbac/v1", "clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding", false, [], [], "clusterrolebindings", &[]),
    resource!("rbac.authorization.k8s.io", "v1", "rbac/v1", "clusterroles", "clusterrole", "ClusterRole", false, [], [], "clusterroles", &[]),
    resource!("rbac.authorization.k8s.io", "v1", "rbac/v1", "rolebindings", "rolebinding", "RoleBinding", true, [], [], "rolebindings", &[]),
    resource!("rbac.authorization.k8s.io", "v1", "rbac/v1", "roles", "role", "Role", true, [], [], "roles", &[]),
    resource!("scheduling.k8s.io", "v1", "scheduling/v1", "priorityclasses", "priorityclass", "PriorityClass", false, ["pc"], [], "priorityclasses", &[]),
    resource!("storage.k8s.io", "v1", "storage/v1", "csidrivers", "csidriver", "CSIDriver", false, [], [], "csidrivers", &[]),
    resource!("storage.k8s.io", "v1", "storage/v1", "csinodes", "csinode", "CSINode", false, [], [], "csinodes", &[]),
    resource!("storage.k8s.io", "v1", "storage/v1", "storageclasses", "storageclass", "StorageClass", false, ["sc"], [], "storageclasses", &[]),
    resource!("storage.k8s.io", "v1", "storage/v1", "volumeattachments", "volumeattachment", "VolumeAttachment", false, [], [], "volumeattachments", status!("VolumeAttachment")),
];

const fn review_binding() -> Resource {
    Resource {
        group: "",
        version: "v1",
        plural: "bindings",
        singular: "binding",
        kind: "Binding",
        namespaced: true,
        short: &[],
        categories: &[],
        storage: "",
        verbs: CREATE,
        subresources: &[],
        package: "core/v1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_table_of_messages() {
        for resource in resources() {
            let name = format!("{}.{}", resource.package, resource.kind);
            assert!(types().find(&name).is_some(), "{name}");
            assert_eq!(resource.type_id().get().short_name(), resource.kind);
            if !resource.storage.is_empty() {
                assert!(types().find(&format!("{name}List")).is_some(), "{name}List");
            }
        }
    }
}
