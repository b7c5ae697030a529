//! The parts of pods and nodes that matter to scheduling, as the API writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::labels::Labels;
use crate::taints::{Taint, Toleration};

/// Amounts by name of the resource, as text or number.
pub type Amounts = BTreeMap<String, Value>;

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

macro_rules! spec {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(deserialize_with = "nullable")] pub $field: $kind,)*
        }
    };
}

spec! {
    /// `v1 Pod`.
    Pod {
        /// Metadata.
        metadata: Meta,
        /// Spec.
        spec: PodSpec,
        /// Status.
        status: PodStatus,
    }
}

spec! {
    /// Metadata.
    Meta {
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// Uid.
        uid: String,
        /// Version.
        resource_version: String,
        /// Labels.
        labels: Labels,
        /// RFC 3339.
        creation_timestamp: Option<String>,
        /// RFC 3339.
        deletion_timestamp: Option<String>,
    }
}

spec! {
    /// Pod spec.
    PodSpec {
        /// Node the pod is bound to.
        node_name: String,
        /// Scheduler that is to place it.
        scheduler_name: String,
        /// Labels the node must have.
        node_selector: Labels,
        /// Affinities.
        affinity: Affinity,
        /// Tolerations.
        tolerations: Vec<Toleration>,
        /// Containers.
        containers: Vec<Container>,
        /// Init containers; those that restart always are sidecars.
        init_containers: Vec<Container>,
        /// What the runtime needs besides.
        overhead: Amounts,
        /// Requests of the whole pod.
        resources: Resources,
        /// Priority.
        priority: Option<i64>,
        /// `Never` or `PreemptLowerPriority`.
        preemption_policy: String,
        /// Spread.
        topology_spread_constraints: Vec<SpreadSpec>,
        /// Volumes.
        volumes: Vec<BTreeMap<String, Value>>,
        /// Gates that hold the pod back.
        scheduling_gates: Vec<Value>,
        /// Dynamic resources.
        resource_claims: Vec<Value>,
        /// Whether ports are ports of the node.
        host_network: bool,
    }
}

spec! {
    /// Pod status.
    PodStatus {
        /// Phase.
        phase: String,
        /// Node a preemption made room on.
        nominated_node_name: String,
    }
}

spec! {
    /// A container.
    Container {
        /// Image.
        image: String,
        /// `Always` makes an init container a sidecar.
        restart_policy: String,
        /// Requests.
        resources: Resources,
        /// Ports.
        ports: Vec<PortSpec>,
    }
}

spec! {
    /// Requests and limits; the API fills requests from limits.
    Resources {
        /// Requests.
        requests: Amounts,
    }
}

spec! {
    /// A container port.
    PortSpec {
        /// Port of the node.
        host_port: i64,
        /// Port of the pod.
        container_port: i64,
        /// Address of the node.
        host_ip: String,
        /// `TCP`, `UDP` or `SCTP`.
        protocol: String,
    }
}

spec! {
    /// Affinities of a pod.
    Affinity {
        /// To nodes.
        node_affinity: NodeAffinitySpec,
        /// To pods.
        pod_affinity: PodAffinitySpec,
        /// Away from pods.
        pod_anti_affinity: PodAffinitySpec,
    }
}

spec! {
    /// Affinity to nodes.
    NodeAffinitySpec {
        /// `{nodeSelectorTerms: [...]}`
        required_during_scheduling_ignored_during_execution: Option<Value>,
        /// `[{weight, preference}]`
        preferred_during_scheduling_ignored_during_execution: Vec<Value>,
    }
}

spec! {
    /// Affinity to pods.
    PodAffinitySpec {
        /// Terms.
        required_during_scheduling_ignored_during_execution: Vec<PodTermSpec>,
        /// `[{weight, podAffinityTerm}]`
        preferred_during_scheduling_ignored_during_execution: Vec<WeightedPodTermSpec>,
    }
}

spec! {
    /// A term of pod affinity.
    PodTermSpec {
        /// Which pods.
        label_selector: Value,
        /// Which namespaces.
        namespace_selector: Value,
        /// Which namespaces, by name.
        namespaces: Vec<String>,
        /// Label that names the domain.
        topology_key: String,
        /// Labels of the incoming pod that must be equal.
        match_label_keys: Vec<String>,
        /// Labels of the incoming pod that must differ.
        mismatch_label_keys: Vec<String>,
    }
}

spec! {
    /// A term that is only preferred.
    WeightedPodTermSpec {
        /// 1 to 100.
        weight: i64,
        /// The term.
        pod_affinity_term: PodTermSpec,
    }
}

spec! {
    /// A topology spread constraint.
    SpreadSpec {
        /// Greatest difference.
        max_skew: i64,
        /// Label that names the domain.
        topology_key: String,
        /// `DoNotSchedule` or `ScheduleAnyway`.
        when_unsatisfiable: String,
        /// Which pods.
        label_selector: Value,
        /// Domains there must be.
        min_domains: Option<i64>,
        /// `Honor` or `Ignore`.
        node_affinity_policy: String,
        /// `Honor` or `Ignore`.
        node_taints_policy: String,
        /// Labels of the incoming pod that must be equal.
        match_label_keys: Vec<String>,
    }
}

spec! {
    /// `v1 Node`.
    Node {
        /// Metadata.
        metadata: Meta,
        /// Spec.
        spec: NodeSpec,
        /// Status.
        status: NodeStatus,
    }
}

spec! {
    /// Node spec.
    NodeSpec {
        /// Taints.
        taints: Vec<Taint>,
        /// Cordoned.
        unschedulable: bool,
    }
}

spec! {
    /// Node status.
    NodeStatus {
        /// What pods may use.
        allocatable: Amounts,
        /// What the machine has; used where allocatable is empty.
        capacity: Amounts,
        /// Images that are on the node.
        images: Vec<ImageSpec>,
    }
}

spec! {
    /// An image on a node.
    ImageSpec {
        /// Its names.
        names: Vec<String>,
        /// Bytes.
        size_bytes: i64,
    }
}
