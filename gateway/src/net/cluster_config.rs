//! Clusters of the API to clusters as they are used.

use std::time::Duration;

use super::address::Address;
use super::cluster::Endpoint;
use super::tls::{self, UpstreamTls};
use crate::bootstrap::{ConfigError, duration, pb, unpack};
use crate::engine::balance::Policy;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

type Result<T> = std::result::Result<T, ConfigError>;

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// The configuration, as it is.
    Static(Vec<Endpoint>),
    /// The configuration's names, every address of each.
    StrictDns(Vec<Endpoint>),
    /// The configuration's one name, one address at a time.
    LogicalDns(Vec<Endpoint>),
    /// The control plane, under this name.
    Eds(String),
}

/// The protocol spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, or by ALPN over TLS.
    Http2,
    /// What the client spoke.
    Downstream,
}

/// HTTP/2 settings towards endpoints.
#[derive(Debug, Clone)]
pub struct Http2Options {
    /// Flow-control window of a stream.
    pub stream_window: u32,
    /// Flow-control window of a connection.
    pub connection_window: u32,
    /// Ping interval and how long the answer may take.
    pub keepalive: Option<(Duration, Duration)>,
}

/// Outlier detection settings.
#[derive(Debug, Clone)]
pub struct Outlier {
    /// Failures in a row that eject; 0 is off.
    pub consecutive_5xx: u32,
    /// Gateway failures in a row that eject; 0 is off.
    pub consecutive_gateway: u32,
    /// First ejection time; the n-th is n times as long.
    pub base: Duration,
    /// Longest ejection time.
    pub max: Duration,
    /// Share of endpoints that may be ejected.
    pub max_percent: u32,
}

/// An active health check.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// Between checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Failures in a row that make an endpoint ill.
    pub unhealthy: u32,
    /// Successes in a row that make it well.
    pub healthy: u32,
    /// Host and path of an HTTP check; `None` only connects.
    pub http: Option<(String, String)>,
    /// Statuses that count as success, as ranges without their end.
    pub expected: Vec<(i64, i64)>,
}

/// A cluster's settings.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the limits are named after the API's fields")]
pub struct ClusterConfig {
    pub name: String,
    pub discovery: Discovery,
    pub policy: Policy,
    pub protocol: Protocol,
    pub http2: Http2Options,
    pub tls: Option<UpstreamTls>,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_connections: u32,
    pub max_pending: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    pub retry_budget: Option<(f64, u32)>,
    pub max_requests_per_connection: u32,
    pub panic_percent: f64,
    pub outlier: Option<Outlier>,
    pub health_checks: Vec<HealthCheck>,
    pub dns_refresh: Duration,
    pub dns_family: i32,
    /// HTTP/2 connections per endpoint.
    pub connections: usize,
}

impl ClusterConfig {
    /// Reads the API's form. `connections` is how many HTTP/2 connections an endpoint gets.
    ///
    /// # Errors
    /// Names what is not implemented or cannot work.
    pub fn read(config: &pb::cluster::Cluster, connections: usize) -> Result<Self> {
        if config.name.is_empty() {
            return Err(ConfigError::invalid("cluster.name", "it is missing"));
        }
        read(config, connections)
            .map_err(|error| error.within(&format!("clusters[{}]", config.name)))
    }
}

fn read(config: &pb::cluster::Cluster, connections: usize) -> Result<ClusterConfig> {
    let (protocol, http2, idle_timeout) = protocol(config)?;
    let limits = thresholds(config)?;
    let or = |value: &Option<prost_types::Duration>, path: &str, default: Duration| {
        value.as_ref().map(|v| duration(v, path)).transpose().map(|v| v.unwrap_or(default))
    };
    let common = config.common_lb_config.as_ref();
    Ok(ClusterConfig {
        name: config.name.clone(),
        discovery: discovery(config)?,
        policy: policy(config)?,
        protocol,
        tls: tls::upstream(
            config.transport_socket.as_ref(),
            protocol == Protocol::Http2,
            "transport_socket",
        )?,
        http2,
        connect_timeout: or(&config.connect_timeout, "connect_timeout", Duration::from_secs(5))?,
        idle_timeout,
        max_connections: limits.max_connections.unwrap_or(1024),
        max_pending: limits.max_pending_requests.unwrap_or(1024),
        max_requests: limits.max_requests.unwrap_or(1024),
        max_retries: limits.max_retries.unwrap_or(3),
        retry_budget: limits.retry_budget.as_ref().map(|budget| {
            (
                budget.budget_percent.as_ref().map_or(20.0, |p| p.value),
                budget.min_retry_concurrency.unwrap_or(3),
            )
        }),
        max_requests_per_connection: config.max_requests_per_connection.unwrap_or(0),
        panic_percent: common
            .and_then(|c| c.healthy_panic_threshold.as_ref())
            .map_or(50.0, |p| p.value),
        outlier: config.outlier_detection.as_ref().map(outlier).transpose()?,
        health_checks: config.health_checks.iter().map(health_check).collect::<Result<_>>()?,
        dns_refresh: or(&config.dns_refresh_rate, "dns_refresh_rate", Duration::from_secs(5))?,
        dns_family: config.dns_lookup_family,
        connections,
    })
}

fn thresholds(config: &pb::cluster::Cluster) -> Result<pb::cluster::circuit_breakers::Thresholds> {
    let list =
        config.circuit_breakers.as_ref().map(|c| c.thresholds.as_slice()).unwrap_or_default();
    if list.iter().any(|t| t.priority != 0) {
        return Err(ConfigError::unsupported("circuit_breakers.thresholds: priority HIGH"));
    }
    Ok(list.first().cloned().unwrap_or_default())
}

fn policy(config: &pb::cluster::Cluster) -> Result<Policy> {
    use pb::cluster::cluster::{LbConfig, LbPolicy};
    match LbPolicy::try_from(config.lb_policy) {
        Ok(LbPolicy::RoundRobin) => Ok(Policy::RoundRobin),
        Ok(LbPolicy::Random) => Ok(Policy::Random),
        Ok(LbPolicy::LeastRequest) => {
            let choices = match &config.lb_config {
                Some(LbConfig::LeastRequestLbConfig(least)) => least.choice_count.unwrap_or(2),
                _ => 2,
            };
            Ok(Policy::LeastRequest(choices as usize))
        }
        Ok(other) => Err(ConfigError::unsupported(format!("lb_policy {}", other.as_str_name()))),
        Err(_) => Err(ConfigError::invalid("lb_policy", "unknown value")),
    }
}

fn discovery(config: &pb::cluster::Cluster) -> Result<Discovery> {
    use pb::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
    let kind = match &config.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind)
            .map_err(|_| ConfigError::invalid("type", "unknown value"))?,
        Some(ClusterDiscoveryType::ClusterType(_)) => {
            return Err(ConfigError::unsupported("cluster_type"));
        }
    };
    let named = |names| match &config.load_assignment {
        Some(assignment) => endpoints(assignment, names).map_err(|e| e.within("load_assignment")),
        None => Ok(Vec::new()),
    };
    match kind {
        DiscoveryType::Static => named(false).map(Discovery::Static),
        DiscoveryType::StrictDns => named(true).map(Discovery::StrictDns),
        DiscoveryType::LogicalDns => {
            let list = named(true)?;
            if list.len() != 1 {
                return Err(ConfigError::invalid(
                    "load_assignment",
                    "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
                ));
            }
            Ok(Discovery::LogicalDns(list))
        }
        DiscoveryType::Eds => {
            let eds = config.eds_cluster_config.as_ref();
            let source = eds.and_then(|eds| eds.eds_config.as_ref());
            ads_only(source, "eds_cluster_config.eds_config")?;
            let service = eds.map(|eds| eds.service_name.clone()).filter(|name| !name.is_empty());
            Ok(Discovery::Eds(service.unwrap_or_else(|| config.name.clone())))
        }
        DiscoveryType::OriginalDst => Err(ConfigError::unsupported("type ORIGINAL_DST")),
    }
}

/// Only the aggregated stream is a source of resources.
///
/// # Errors
/// When another source is named, or none.
pub fn ads_only(source: Option<&pb::core::ConfigSource>, path: &str) -> Result<()> {
    use pb::core::config_source::ConfigSourceSpecifier;
    match source.and_then(|source| source.config_source_specifier.as_ref()) {
        Some(ConfigSourceSpecifier::Ads(_)) => Ok(()),
        Some(_) => Err(ConfigError::unsupported(format!("{path}: sources other than ads"))),
        None => Err(ConfigError::invalid(path, "ads is needed")),
    }
}

/// The endpoints of a load assignment.
///
/// # Errors
/// Names the endpoint that cannot work.
pub fn endpoints(
    assignment: &pb::endpoint::ClusterLoadAssignment,
    names: bool,
) -> Result<Vec<Endpoint>> {
    use pb::core::HealthStatus;
    use pb::endpoint::lb_endpoint::HostIdentifier;
    let mut list = Vec::new();
    for (i, locality) in assignment.endpoints.iter().enumerate() {
        for (j, endpoint) in locality.lb_endpoints.iter().enumerate() {
            let path = format!("endpoints[{i}].lb_endpoints[{j}]");
            let Some(HostIdentifier::Endpoint(inner)) = &endpoint.host_identifier else {
                return Err(ConfigError::unsupported(format!("{path}.endpoint_name")));
            };
            let status =
                HealthStatus::try_from(endpoint.health_status).unwrap_or(HealthStatus::Unknown);
            let address =
                Address::read(inner.address.as_ref(), &format!("{path}.endpoint.address"), names)?;
            let hostname = match (&address, inner.hostname.is_empty()) {
                (Address::Name(name, _), true) => name.clone(),
                _ => inner.hostname.clone(),
            };
            list.push(Endpoint {
                address,
                hostname,
                weight: endpoint.load_balancing_weight.unwrap_or(1),
                priority: locality.priority,
                healthy: matches!(
                    status,
                    HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded
                ),
            });
        }
    }
    Ok(list)
}

fn protocol(config: &pb::cluster::Cluster) -> Result<(Protocol, Http2Options, Duration)> {
    use pb::upstream_http::http_protocol_options::{
        UpstreamProtocolOptions as Kind, explicit_http_config::ProtocolConfig,
    };
    let mut protocol =
        if config.http2_protocol_options.is_some() { Protocol::Http2 } else { Protocol::Http1 };
    let mut http2 = config.http2_protocol_options.clone();
    let mut common = config.common_http_protocol_options;
    for (name, any) in &config.typed_extension_protocol_options {
        let path = format!("typed_extension_protocol_options[{name}]");
        let options: pb::upstream_http::HttpProtocolOptions = unpack(any, HTTP_OPTIONS, &path)?;
        common = options.common_http_protocol_options.or(common);
        match options.upstream_protocol_options {
            Some(Kind::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                    protocol = Protocol::Http2;
                    http2 = Some(options);
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    return Err(ConfigError::unsupported(format!("{path}: HTTP/3")));
                }
                _ => protocol = Protocol::Http1,
            },
            Some(Kind::UseDownstreamProtocolConfig(options)) => {
                protocol = if options.http2_protocol_options.is_some() {
                    Protocol::Downstream
                } else {
                    Protocol::Http1
                };
                http2 = options.http2_protocol_options;
            }
            Some(Kind::AutoConfig(_)) => {
                return Err(ConfigError::unsupported(format!("{path}.auto_config")));
            }
            None => return Err(ConfigError::invalid(path, "a protocol is needed")),
        }
    }
    if common.as_ref().is_some_and(|c| c.max_headers_count.is_some()) {
        return Err(ConfigError::unsupported(
            "common_http_protocol_options.max_headers_count of a cluster",
        ));
    }
    if http2.as_ref().is_some_and(|options| options.max_concurrent_streams.is_some()) {
        return Err(ConfigError::unsupported(
            "http2_protocol_options.max_concurrent_streams of a cluster",
        ));
    }
    let idle = common
        .as_ref()
        .and_then(|c| c.idle_timeout.as_ref())
        .map(|t| duration(t, "idle_timeout"))
        .transpose()?;
    let idle = idle.filter(|t| !t.is_zero()).unwrap_or(Duration::from_secs(3600));
    Ok((protocol, http2_options(http2.as_ref())?, idle))
}

/// HTTP/2 settings with this gateway's defaults.
///
/// # Errors
/// When a duration is negative.
pub fn http2_options(config: Option<&pb::core::Http2ProtocolOptions>) -> Result<Http2Options> {
    let keepalive = config.and_then(|c| c.connection_keepalive.as_ref());
    let keepalive = match keepalive {
        Some(settings) => {
            let get = |value: &Option<prost_types::Duration>, path| {
                value.as_ref().map(|v| duration(v, path)).transpose()
            };
            let interval = get(&settings.interval, "connection_keepalive.interval")?;
            let timeout = get(&settings.timeout, "connection_keepalive.timeout")?;
            interval.zip(timeout)
        }
        None => None,
    };
    Ok(Http2Options {
        stream_window: config.and_then(|c| c.initial_stream_window_size).unwrap_or(1 << 20),
        connection_window: config.and_then(|c| c.initial_connection_window_size).unwrap_or(8 << 20),
        keepalive,
    })
}

fn outlier(config: &pb::cluster::OutlierDetection) -> Result<Outlier> {
    let enforced = |percent: Option<u32>, default: u32, path: &str| match percent.unwrap_or(default)
    {
        0 => Ok(false),
        100 => Ok(true),
        other => Err(ConfigError::unsupported(format!(
            "outlier_detection.{path}: {other}, only 0 and 100"
        ))),
    };
    let five = enforced(config.enforcing_consecutive_5xx, 100, "enforcing_consecutive_5xx")?;
    let gateway = enforced(
        config.enforcing_consecutive_gateway_failure,
        0,
        "enforcing_consecutive_gateway_failure",
    )?;
    let base = config
        .base_ejection_time
        .as_ref()
        .map(|t| duration(t, "base_ejection_time"))
        .transpose()?;
    let max =
        config.max_ejection_time.as_ref().map(|t| duration(t, "max_ejection_time")).transpose()?;
    let base = base.unwrap_or(Duration::from_secs(30));
    Ok(Outlier {
        consecutive_5xx: if five { config.consecutive_5xx.unwrap_or(5) } else { 0 },
        consecutive_gateway: if gateway {
            config.consecutive_gateway_failure.unwrap_or(5)
        } else {
            0
        },
        base,
        max: max.unwrap_or(Duration::from_secs(300)).max(base),
        max_percent: config.max_ejection_percent.unwrap_or(10),
    })
}

fn health_check(config: &pb::core::HealthCheck) -> Result<HealthCheck> {
    use pb::core::health_check::HealthChecker;
    let need = |value: &Option<prost_types::Duration>, path: &str| match value {
        Some(value) => duration(value, path),
        None => Err(ConfigError::invalid(path, "it is missing")),
    };
    let (http, expected) = match &config.health_checker {
        Some(HealthChecker::HttpHealthCheck(check)) => {
            let expected =
                check.expected_statuses.iter().map(|range| (range.start, range.end)).collect();
            (Some((check.host.clone(), check.path.clone())), expected)
        }
        Some(HealthChecker::TcpHealthCheck(_)) => (None, Vec::new()),
        _ => return Err(ConfigError::unsupported("health_checks: kinds other than HTTP and TCP")),
    };
    Ok(HealthCheck {
        interval: need(&config.interval, "health_checks.interval")?,
        timeout: need(&config.timeout, "health_checks.timeout")?,
        unhealthy: config.unhealthy_threshold.unwrap_or(1).max(1),
        healthy: config.healthy_threshold.unwrap_or(1).max(1),
        http,
        expected: if expected.is_empty() { vec![(200, 201)] } else { expected },
    })
}
