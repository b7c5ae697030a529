//! Kinds and their paths.

use super::Key;

/// One kind of the API.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KindInfo {
    /// `v1`, `apps/v1`
    pub api_version: &'static str,
    /// `Pod`
    pub kind: &'static str,
    /// `pods`
    pub plural: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

/// A kind; the same one is always the same reference.
pub type Kind = &'static KindInfo;

impl KindInfo {
    /// Path of the collection in `namespace`; of all namespaces when it is empty.
    pub fn collection(&self, namespace: &str) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let (version, plural) = (self.api_version, self.plural);
        if namespace.is_empty() {
            format!("{root}/{version}/{plural}")
        } else {
            format!("{root}/{version}/namespaces/{namespace}/{plural}")
        }
    }

    /// Path of one object.
    pub fn path(&self, key: &Key) -> String {
        format!("{}/{}", self.collection(&key.namespace), key.name)
    }
}

macro_rules! kinds {
    ($($name:ident = $version:literal $kind:literal $plural:literal $namespaced:literal;)*) => {
        $(
            #[doc = $kind]
            pub const $name: Kind = &KindInfo {
                api_version: $version, kind: $kind, plural: $plural, namespaced: $namespaced,
            };
        )*
        /// Every kind named here.
        pub fn known() -> &'static [Kind] {
            &[$($name),*]
        }
    };
}

kinds! {
    CONFIG_MAP = "v1" "ConfigMap" "configmaps" true;
    ENDPOINTS = "v1" "Endpoints" "endpoints" true;
    NAMESPACE = "v1" "Namespace" "namespaces" false;
    NODE = "v1" "Node" "nodes" false;
    POD = "v1" "Pod" "pods" true;
    SERVICE = "v1" "Service" "services" true;
    SERVICE_ACCOUNT = "v1" "ServiceAccount" "serviceaccounts" true;
    PERSISTENT_VOLUME_CLAIM = "v1" "PersistentVolumeClaim" "persistentvolumeclaims" true;
    CONTROLLER_REVISION = "apps/v1" "ControllerRevision" "controllerrevisions" true;
    DAEMON_SET = "apps/v1" "DaemonSet" "daemonsets" true;
    DEPLOYMENT = "apps/v1" "Deployment" "deployments" true;
    REPLICA_SET = "apps/v1" "ReplicaSet" "replicasets" true;
    STATEFUL_SET = "apps/v1" "StatefulSet" "statefulsets" true;
    CRON_JOB = "batch/v1" "CronJob" "cronjobs" true;
    JOB = "batch/v1" "Job" "jobs" true;
    LEASE = "coordination.k8s.io/v1" "Lease" "leases" true;
    ENDPOINT_SLICE = "discovery.k8s.io/v1" "EndpointSlice" "endpointslices" true;
}
