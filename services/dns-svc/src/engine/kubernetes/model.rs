//! The few fields of the API's objects that names are made of.

use std::net::IpAddr;

use serde::Deserialize;

use flotilla_kube_client::ObjectMeta;

/// A Service as the API sends it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// Desired state.
    pub spec: ServiceSpec,
}

/// `v1 ServiceSpec`, in part.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ExternalName` is the one that matters.
    #[serde(rename = "type")]
    pub kind: String,
    /// First virtual address, `None` for headless Services.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// All virtual addresses.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Alias target.
    pub external_name: String,
    /// Ports.
    pub ports: Vec<NamedPort>,
    /// Whether endpoints that are not ready are published.
    pub publish_not_ready_addresses: bool,
}

/// A port of a Service or an EndpointSlice.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct NamedPort {
    /// Name; empty for a single unnamed port.
    pub name: Option<String>,
    /// TCP, UDP or SCTP.
    pub protocol: Option<String>,
    /// Number.
    pub port: Option<u16>,
}

impl Service {
    /// Whether names lead to endpoints rather than to a virtual address.
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip.eq_ignore_ascii_case("none")
    }

    /// Whether the name is an alias.
    pub fn is_external(&self) -> bool {
        self.spec.kind == "ExternalName"
    }

    /// The virtual addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let all = self
            .spec
            .cluster_ips
            .iter()
            .chain(self.spec.cluster_ips.is_empty().then_some(&self.spec.cluster_ip));
        all.filter_map(|text| text.parse().ok()).collect()
    }
}

/// An EndpointSlice as the API sends it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Slice {
    /// Name, namespace, and the Service in label `kubernetes.io/service-name`.
    pub metadata: ObjectMeta,
    /// The endpoints.
    #[serde(deserialize_with = "null_as_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Ports all endpoints have.
    #[serde(deserialize_with = "null_as_empty")]
    pub ports: Vec<NamedPort>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses; consumers use the first.
    pub addresses: Vec<IpAddr>,
    /// Readiness; unset means ready.
    pub conditions: Conditions,
    /// Own name, if the pod has a hostname.
    pub hostname: Option<String>,
    /// The pod behind it.
    pub target_ref: Option<TargetRef>,
}

/// `discovery/v1 EndpointConditions`, in part.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Unset means ready.
    pub ready: Option<bool>,
}

/// What an endpoint stands for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Name of the pod.
    pub name: String,
}

impl Slice {
    /// Name of the Service it belongs to.
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.get("kubernetes.io/service-name").map(String::as_str)
    }
}

/// A pod, for `pods verified`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// Observed state.
    pub status: PodStatus,
}

/// `v1 PodStatus`, in part.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// Address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<IpAddr>,
}

/// A namespace: only its name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Name.
    pub metadata: ObjectMeta,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
