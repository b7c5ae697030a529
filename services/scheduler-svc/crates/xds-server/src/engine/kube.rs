//! The parts of Kubernetes objects that matter here; everything else is left unread.

use std::collections::BTreeMap;

use flotilla_kube_client::ObjectMeta;
use serde::Deserialize;

/// `v1 Service`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Specification.
    pub spec: ServiceSpec,
}

/// Specification of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `ExternalName` services have no endpoints.
    #[serde(rename = "type")]
    pub kind: String,
    /// DNS name of an `ExternalName` service.
    pub external_name: String,
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Empty when there is only one.
    pub name: String,
    /// Number.
    pub port: u16,
    /// `kubernetes.io/h2c` and `grpc` are spoken to with HTTP/2.
    pub app_protocol: Option<String>,
}

/// `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Metadata; the label `kubernetes.io/service-name` names the Service.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Endpoints.
    pub endpoints: Option<Vec<Endpoint>>,
    /// Ports all endpoints have.
    pub ports: Option<Vec<EndpointPort>>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// The first counts; consumers must treat the others as the same.
    pub addresses: Vec<String>,
    /// Conditions.
    pub conditions: Conditions,
}

/// Conditions of an endpoint; a missing one has the documented default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Missing means ready.
    pub ready: Option<bool>,
    /// Missing means as `ready`.
    pub serving: Option<bool>,
    /// Missing means no.
    pub terminating: Option<bool>,
}

/// A port of a slice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// Name of the Service's port.
    pub name: Option<String>,
    /// Number; missing means all ports, which cannot be routed to.
    pub port: Option<u16>,
}

/// `networking.k8s.io/v1 Ingress`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Specification.
    pub spec: IngressSpec,
    /// Status as last written.
    pub status: serde_json::Value,
}

/// Specification of an Ingress.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressSpec {
    /// Name of the class.
    pub ingress_class_name: Option<String>,
    /// For what no rule matches.
    pub default_backend: Option<Backend>,
    /// Rules.
    pub rules: Option<Vec<Rule>>,
    /// Hosts with certificates.
    pub tls: Option<Vec<serde_json::Value>>,
}

/// A rule: paths of a host.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Empty means every host; `*.example.com` one label more.
    pub host: String,
    /// Paths.
    pub http: Option<HttpRule>,
}

/// Paths of a rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpRule {
    /// Paths.
    pub paths: Vec<HttpPath>,
}

/// A path and where it leads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpPath {
    /// Empty means `/`.
    pub path: String,
    /// `Exact`, `Prefix` or `ImplementationSpecific`.
    pub path_type: String,
    /// Where it leads.
    pub backend: Backend,
}

/// Where a path leads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// A Service of the same namespace; other resources are not served.
    pub service: Option<ServiceBackend>,
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceBackend {
    /// Name of the Service.
    pub name: String,
    /// Which port.
    pub port: BackendPort,
}

/// A port by name or by number.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BackendPort {
    /// Name.
    pub name: String,
    /// Number.
    pub number: u16,
}

/// Namespace and name.
pub type Key = (String, String);

/// The key of an object.
pub fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone(), metadata.name.clone())
}

/// Objects by key.
pub type Objects<T> = BTreeMap<Key, T>;
