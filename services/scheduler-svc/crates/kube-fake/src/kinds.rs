//! The kinds the server knows, and how a path names an object.

/// One kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) prefix: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
}

const fn namespaced(prefix: &'static str, plural: &'static str, kind: &'static str) -> Kind {
    Kind { prefix, plural, kind, namespaced: true }
}

const fn global(prefix: &'static str, plural: &'static str, kind: &'static str) -> Kind {
    Kind { prefix, plural, kind, namespaced: false }
}

pub(crate) const KINDS: &[Kind] = &[
    namespaced("/api/v1", "configmaps", "ConfigMap"),
    namespaced("/api/v1", "endpoints", "Endpoints"),
    namespaced("/api/v1", "events", "Event"),
    global("/api/v1", "namespaces", "Namespace"),
    global("/api/v1", "nodes", "Node"),
    namespaced("/api/v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    global("/api/v1", "persistentvolumes", "PersistentVolume"),
    namespaced("/api/v1", "pods", "Pod"),
    namespaced("/api/v1", "secrets", "Secret"),
    namespaced("/api/v1", "serviceaccounts", "ServiceAccount"),
    namespaced("/api/v1", "services", "Service"),
    namespaced("/apis/apps/v1", "controllerrevisions", "ControllerRevision"),
    namespaced("/apis/apps/v1", "daemonsets", "DaemonSet"),
    namespaced("/apis/apps/v1", "deployments", "Deployment"),
    namespaced("/apis/apps/v1", "replicasets", "ReplicaSet"),
    namespaced("/apis/apps/v1", "statefulsets", "StatefulSet"),
    namespaced("/apis/batch/v1", "cronjobs", "CronJob"),
    namespaced("/apis/batch/v1", "jobs", "Job"),
    namespaced("/apis/coordination.k8s.io/v1", "leases", "Lease"),
    namespaced("/apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
    namespaced("/apis/policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    global("/apis/scheduling.k8s.io/v1", "priorityclasses", "PriorityClass"),
];

/// What a path names.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Target {
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (prefix, rest) = match *parts.first()? {
            "api" => (format!("/api/{}", parts.get(1)?), &parts[2..]),
            "apis" => (format!("/apis/{}/{}", parts.get(1)?, parts.get(2)?), &parts[3..]),
            _ => return None,
        };
        let find = |plural: &str| KINDS.iter().find(|k| k.prefix == prefix && k.plural == plural);
        let text = |at: usize| rest.get(at).map(|s| (*s).to_owned());
        if rest.first() == Some(&"namespaces")
            && rest.len() >= 3
            && let Some(kind) = find(rest[2]).filter(|k| k.namespaced)
        {
            return Some(Self {
                kind: *kind,
                namespace: text(1),
                name: text(3),
                subresource: text(4),
            });
        }
        let kind = *find(rest.first()?)?;
        Some(Self { kind, namespace: None, name: text(1), subresource: text(2) })
    }

    pub(crate) fn collection(&self) -> (&'static str, &'static str) {
        (self.kind.prefix, self.kind.plural)
    }
}
