//! Clusters and their endpoints.

use flotilla_proto::envoy::envoy::config::cluster::v3::{self as cluster, Cluster};
use flotilla_proto::envoy::envoy::config::core::v3 as core;
use flotilla_proto::envoy::envoy::config::endpoint::v3::{self as endpoint, ClusterLoadAssignment};
use flotilla_proto::envoy::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions, http_protocol_options as options,
};
use flotilla_proto::envoy::envoy::r#type::v3::Percent;

use super::ingress::ResolvedBackend;
use super::kube::{Endpoint, EndpointSlice};
use super::snapshot::pack;
use super::world::World;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// An EDS cluster over ADS.
pub(super) fn cluster(name: &str, backend: &ResolvedBackend) -> Cluster {
    use cluster::cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig};
    let mut config = Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: String::new(),
        }),
        connect_timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        common_lb_config: Some(CommonLbConfig {
            // Readiness decides alone; an endpoint that is not ready is never better than none.
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..CommonLbConfig::default()
        }),
        ..Cluster::default()
    };
    if backend.http2 {
        let explicit = options::ExplicitHttpConfig {
            protocol_config: Some(
                options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(
                    core::Http2ProtocolOptions::default(),
                ),
            ),
        };
        let protocol = HttpProtocolOptions {
            upstream_protocol_options: Some(options::UpstreamProtocolOptions::ExplicitHttpConfig(
                explicit,
            )),
            ..HttpProtocolOptions::default()
        };
        config
            .typed_extension_protocol_options
            .insert(HTTP_OPTIONS.to_owned(), pack(HTTP_OPTIONS, &protocol));
    }
    config
}

/// "Over the stream you are on."
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        resource_api_version: core::ApiVersion::V3.into(),
        ..core::ConfigSource::default()
    }
}

/// The endpoints of a backend: ready ones, and terminating ones that still serve as DRAINING.
pub(super) fn assignment(
    name: &str,
    backend: &ResolvedBackend,
    world: &World,
) -> ClusterLoadAssignment {
    let mut list: Vec<(String, u16, core::HealthStatus)> = Vec::new();
    let slices = world.slices.iter().filter(|((namespace, _), slice)| {
        *namespace == backend.namespace
            && slice
                .metadata
                .labels
                .get("kubernetes.io/service-name")
                .is_some_and(|service| *service == backend.service)
    });
    for (_, slice) in slices {
        let Some(port) = port(slice, &backend.port_name) else { continue };
        for entry in slice.endpoints.iter().flatten() {
            if let (Some(status), Some(address)) = (status(entry), entry.addresses.first()) {
                list.push((address.clone(), port, status));
            }
        }
    }
    // An endpoint may be in two slices for a moment; ready wins over draining.
    list.sort_by_key(|(address, port, status)| (address.clone(), *port, *status as i32));
    list.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
    let endpoints = list
        .into_iter()
        .map(|(address, port, status)| lb_endpoint(address, port, status))
        .collect();
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: endpoints,
            ..Default::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

fn port(slice: &EndpointSlice, name: &str) -> Option<u16> {
    if slice.address_type == "FQDN" {
        return None;
    }
    slice.ports.iter().flatten().find(|port| port.name.as_deref().unwrap_or_default() == name)?.port
}

fn status(entry: &Endpoint) -> Option<core::HealthStatus> {
    let conditions = &entry.conditions;
    let ready = conditions.ready.unwrap_or(true);
    match (ready, conditions.terminating.unwrap_or(false)) {
        (true, false) => Some(core::HealthStatus::Healthy),
        (_, true) if conditions.serving.unwrap_or(ready) => Some(core::HealthStatus::Draining),
        _ => None,
    }
}

fn lb_endpoint(address: String, port: u16, status: core::HealthStatus) -> endpoint::LbEndpoint {
    let socket = core::SocketAddress {
        address,
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        ..core::SocketAddress::default()
    };
    let address = core::Address { address: Some(core::address::Address::SocketAddress(socket)) };
    endpoint::LbEndpoint {
        health_status: status.into(),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
            endpoint::Endpoint { address: Some(address), ..endpoint::Endpoint::default() },
        )),
        ..endpoint::LbEndpoint::default()
    }
}
