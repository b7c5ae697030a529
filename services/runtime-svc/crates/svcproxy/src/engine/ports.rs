//! Services joined with their endpoints, port by port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::objects::{EndpointSlice, Service};

const DEFAULT_AFFINITY: u32 = 10_800;

/// One port of a Service with everything it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// `namespace/name` of the Service.
    pub service: String,
    /// Name of the port; may be empty.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The Service's port.
    pub port: u16,
    /// 0 when there is none.
    pub node_port: u16,
    /// Cluster addresses.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses from outside: external IPs and load balancers.
    pub external_ips: Vec<IpAddr>,
    /// Seconds a client stays with its endpoint.
    pub affinity: Option<u32>,
    /// Only local endpoints count for traffic from inside.
    pub internal_local: bool,
    /// Only local endpoints count for traffic from outside, whose address is then kept.
    pub external_local: bool,
    /// Endpoints that may be used.
    pub endpoints: BTreeSet<SocketAddr>,
    /// Those of them on this node.
    pub local: BTreeSet<SocketAddr>,
}

/// Joins all Services with all slices; `node` decides what is local.
pub fn resolve<'a>(
    services: impl Iterator<Item = &'a Service>,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    node: &str,
) -> Vec<Port> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(name) = slice.metadata.labels.get("kubernetes.io/service-name") {
            by_service.entry((&slice.metadata.namespace, name)).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in services {
        let known =
            by_service.get(&(service.metadata.namespace.as_str(), service.metadata.name.as_str()));
        ports.extend(service_ports(service, known.map_or(&[][..], Vec::as_slice), node));
    }
    ports
}

fn service_ports(service: &Service, slices: &[&EndpointSlice], node: &str) -> Vec<Port> {
    let spec = &service.spec;
    let listed = if spec.cluster_ips.is_empty() {
        std::slice::from_ref(&spec.cluster_ip)
    } else {
        &spec.cluster_ips[..]
    };
    let cluster_ips: Vec<IpAddr> = listed.iter().filter_map(|ip| ip.parse().ok()).collect();
    let other_proxy =
        service.metadata.labels.contains_key("service.kubernetes.io/service-proxy-name");
    if cluster_ips.is_empty() || spec.kind == "ExternalName" || other_proxy {
        return Vec::new();
    }
    let balancers = service
        .status
        .load_balancer
        .ingress
        .iter()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let external = spec.external_ips.iter().chain(balancers.map(|ingress| &ingress.ip));
    let external_ips: Vec<IpAddr> = external.filter_map(|ip| ip.parse().ok()).collect();
    let affinity = (spec.session_affinity == "ClientIP").then(|| {
        let configured = spec
            .session_affinity_config
            .as_ref()
            .and_then(|c| c.client_ip.as_ref())
            .and_then(|c| c.timeout_seconds);
        configured.unwrap_or(DEFAULT_AFFINITY)
    });
    let all = spec.ports.iter().filter_map(|port| {
        let protocol = protocol(&port.protocol)?;
        let (endpoints, local) = endpoints(slices, &port.name, protocol, node);
        Some(Port {
            service: format!("{}/{}", service.metadata.namespace, service.metadata.name),
            name: port.name.clone(),
            protocol,
            port: port.port,
            node_port: port.node_port,
            cluster_ips: cluster_ips.clone(),
            external_ips: external_ips.clone(),
            affinity,
            internal_local: spec.internal_traffic_policy == "Local",
            external_local: spec.external_traffic_policy == "Local",
            endpoints,
            local,
        })
    });
    all.collect()
}

fn protocol(name: &str) -> Option<&'static str> {
    match name {
        "" | "TCP" => Some("tcp"),
        "UDP" => Some("udp"),
        "SCTP" => Some("sctp"),
        _ => None,
    }
}

/// The endpoints of a port and the local ones: ready ones, or while there are none those that still serve.
fn endpoints(
    slices: &[&EndpointSlice],
    name: &str,
    wanted: &str,
    node: &str,
) -> (BTreeSet<SocketAddr>, BTreeSet<SocketAddr>) {
    let (mut ready, mut ending) = (Vec::new(), Vec::new());
    for slice in slices {
        let port = slice.ports.iter().flatten().find(|port| {
            port.name.as_deref().unwrap_or_default() == name
                && protocol(port.protocol.as_deref().unwrap_or_default()) == Some(wanted)
        });
        let Some(number) = port.and_then(|port| port.port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse::<IpAddr>().ok())
            else {
                continue;
            };
            let entry = (SocketAddr::new(ip, number), endpoint.node_name.as_deref() == Some(node));
            let conditions = &endpoint.conditions;
            if conditions.ready != Some(false) {
                ready.push(entry);
            } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
                ending.push(entry);
            }
        }
    }
    let pick = |local: bool| -> BTreeSet<SocketAddr> {
        let filter = |list: &[(SocketAddr, bool)]| {
            list.iter().filter(|(_, here)| *here || !local).map(|(address, _)| *address).collect()
        };
        let first: BTreeSet<SocketAddr> = filter(&ready);
        if first.is_empty() { filter(&ending) } else { first }
    };
    (pick(false), pick(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}))
            .unwrap()
    }

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]
        }))
        .unwrap()
    }

    #[test]
    fn only_endpoints_that_serve_are_used() {
        let service = service(
            json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP"}, {"name": "x", "port": 81}]}),
        );
        let ready = slice(json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "here"},
            {"addresses": ["10.0.0.2"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
            {"addresses": ["bad"]}
        ]));
        let got = resolve([&service].into_iter(), [&ready].into_iter(), "here");
        let text =
            |set: &BTreeSet<SocketAddr>| set.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&got[0].endpoints), ["10.0.0.1:8080", "10.0.0.2:8080"]);
        assert_eq!(text(&got[0].local), ["10.0.0.1:8080"]);
        assert!(got[1].endpoints.is_empty(), "the port named x is not in the slice");
        let ending = slice(
            json!([{"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}]),
        );
        let got = resolve([&service].into_iter(), [&ending].into_iter(), "here");
        assert_eq!(text(&got[0].endpoints), ["10.0.0.3:8080"]);
    }

    #[test]
    fn services_without_an_address_are_left_out() {
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 1}]}),
            json!({"clusterIP": "", "type": "ExternalName", "ports": [{"port": 1}]}),
        ] {
            assert!(resolve([&service(spec)].into_iter(), std::iter::empty(), "").is_empty());
        }
    }
}
