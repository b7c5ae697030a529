//! Which fields of the API are implemented, and the check that refuses the others.

use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, Value};

use super::ConfigError;

/// Message, then its implemented fields. A message that is not listed has none.
const SUPPORTED: &[(&str, &str)] = &[
    ("envoy.config.bootstrap.v3.Bootstrap", "node static_resources dynamic_resources admin"),
    ("envoy.config.bootstrap.v3.Bootstrap.StaticResources", "listeners clusters"),
    ("envoy.config.bootstrap.v3.Bootstrap.DynamicResources", "lds_config cds_config ads_config"),
    ("envoy.config.bootstrap.v3.Admin", "address"),
    ("envoy.config.core.v3.Node", "id cluster metadata locality"),
    ("envoy.config.core.v3.Locality", "region zone sub_zone"),
    ("envoy.config.core.v3.ConfigSource", "ads resource_api_version"),
    ("envoy.config.core.v3.AggregatedConfigSource", ""),
    (
        "envoy.config.core.v3.ApiConfigSource",
        "api_type transport_api_version grpc_services set_node_on_first_message_only",
    ),
    ("envoy.config.core.v3.GrpcService", "envoy_grpc"),
    ("envoy.config.core.v3.GrpcService.EnvoyGrpc", "cluster_name"),
    ("envoy.config.core.v3.Address", "socket_address pipe"),
    ("envoy.config.core.v3.SocketAddress", "protocol address port_value"),
    ("envoy.config.core.v3.Pipe", "path"),
    ("envoy.config.core.v3.DataSource", "filename inline_bytes inline_string"),
    ("envoy.config.core.v3.TransportSocket", "name typed_config"),
    ("envoy.config.core.v3.HeaderValueOption", "header append_action keep_empty_value"),
    ("envoy.config.core.v3.HeaderValue", "key value"),
    (
        "envoy.config.core.v3.SubstitutionFormatString",
        "text_format text_format_source json_format omit_empty_values",
    ),
    ("envoy.config.core.v3.HttpProtocolOptions", "idle_timeout max_headers_count"),
    ("envoy.config.core.v3.Http1ProtocolOptions", "accept_http_10"),
    (
        "envoy.config.core.v3.Http2ProtocolOptions",
        "max_concurrent_streams initial_stream_window_size initial_connection_window_size connection_keepalive",
    ),
    ("envoy.config.core.v3.KeepaliveSettings", "interval timeout"),
    (
        "envoy.config.core.v3.HealthCheck",
        "timeout interval unhealthy_threshold healthy_threshold http_health_check tcp_health_check",
    ),
    ("envoy.config.core.v3.HealthCheck.HttpHealthCheck", "host path expected_statuses"),
    ("envoy.config.core.v3.HealthCheck.TcpHealthCheck", ""),
    ("envoy.type.v3.Int64Range", "start end"),
    ("envoy.type.v3.Percent", "value"),
    ("envoy.config.listener.v3.Listener", "name address filter_chains traffic_direction"),
    ("envoy.config.listener.v3.FilterChain", "filters transport_socket name"),
    ("envoy.config.listener.v3.Filter", "name typed_config"),
    ("envoy.config.accesslog.v3.AccessLog", "name typed_config"),
    ("envoy.extensions.access_loggers.file.v3.FileAccessLog", "path format log_format json_format"),
    ("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", "log_format"),
    ("envoy.extensions.access_loggers.stream.v3.StderrAccessLog", "log_format"),
    ("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", ""),
    (
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context require_client_certificate",
    ),
    ("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context sni"),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        "tls_certificates alpn_protocols validation_context",
    ),
    ("envoy.extensions.transport_sockets.tls.v3.TlsCertificate", "certificate_chain private_key"),
    ("envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext", "trusted_ca"),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type stat_prefix rds route_config http_filters http_protocol_options http2_protocol_options \
         common_http_protocol_options server_name server_header_transformation max_request_headers_kb stream_idle_timeout \
         request_headers_timeout access_log use_remote_address xff_num_trusted_hops generate_request_id \
         preserve_external_request_id always_set_request_id_in_response upgrade_configs normalize_path merge_slashes \
         via strip_any_host_port",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig",
        "upgrade_type enabled",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        "config_source route_config_name",
    ),
    ("envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter", "name typed_config"),
    ("envoy.extensions.filters.http.router.v3.Router", "suppress_envoy_headers"),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts",
    ),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster", "clusters"),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        "name weight",
    ),
    (
        "envoy.config.route.v3.RouteConfiguration",
        "name virtual_hosts request_headers_to_add request_headers_to_remove response_headers_to_add \
         response_headers_to_remove validate_clusters ignore_port_in_host_matching",
    ),
    (
        "envoy.config.route.v3.VirtualHost",
        "name domains routes require_tls request_headers_to_add request_headers_to_remove response_headers_to_add \
         response_headers_to_remove retry_policy per_request_buffer_limit_bytes include_request_attempt_count",
    ),
    (
        "envoy.config.route.v3.Route",
        "name match route redirect direct_response request_headers_to_add request_headers_to_remove \
         response_headers_to_add response_headers_to_remove per_request_buffer_limit_bytes",
    ),
    (
        "envoy.config.route.v3.RouteMatch",
        "prefix path safe_regex path_separated_prefix case_sensitive headers query_parameters grpc",
    ),
    ("envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions", ""),
    (
        "envoy.config.route.v3.HeaderMatcher",
        "name string_match present_match range_match invert_match exact_match prefix_match suffix_match contains_match \
         safe_regex_match treat_missing_header_as_empty",
    ),
    ("envoy.config.route.v3.QueryParameterMatcher", "name string_match present_match"),
    ("envoy.type.matcher.v3.StringMatcher", "exact prefix suffix safe_regex contains ignore_case"),
    ("envoy.type.matcher.v3.RegexMatcher", "regex google_re2"),
    ("envoy.type.matcher.v3.RegexMatcher.GoogleRE2", ""),
    ("envoy.type.matcher.v3.RegexMatchAndSubstitute", "pattern substitution"),
    (
        "envoy.config.route.v3.RouteAction",
        "cluster cluster_header weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite \
         host_rewrite_literal auto_host_rewrite host_rewrite_header timeout idle_timeout retry_policy upgrade_configs",
    ),
    ("envoy.config.route.v3.RouteAction.UpgradeConfig", "upgrade_type enabled"),
    ("envoy.config.route.v3.WeightedCluster", "clusters total_weight"),
    ("envoy.config.route.v3.WeightedCluster.ClusterWeight", "name weight"),
    (
        "envoy.config.route.v3.RedirectAction",
        "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite response_code strip_query",
    ),
    ("envoy.config.route.v3.DirectResponseAction", "status body"),
    (
        "envoy.config.route.v3.RetryPolicy",
        "retry_on num_retries per_try_timeout retriable_status_codes retry_back_off",
    ),
    ("envoy.config.route.v3.RetryPolicy.RetryBackOff", "base_interval max_interval"),
    (
        "envoy.config.cluster.v3.Cluster",
        "name type eds_cluster_config connect_timeout lb_policy load_assignment health_checks \
         max_requests_per_connection circuit_breakers http2_protocol_options http_protocol_options \
         common_http_protocol_options typed_extension_protocol_options dns_refresh_rate dns_lookup_family \
         outlier_detection transport_socket common_lb_config least_request_lb_config round_robin_lb_config",
    ),
    ("envoy.config.cluster.v3.Cluster.EdsClusterConfig", "eds_config service_name"),
    ("envoy.config.cluster.v3.Cluster.CommonLbConfig", "healthy_panic_threshold"),
    ("envoy.config.cluster.v3.Cluster.LeastRequestLbConfig", "choice_count"),
    ("envoy.config.cluster.v3.Cluster.RoundRobinLbConfig", ""),
    ("envoy.config.cluster.v3.CircuitBreakers", "thresholds"),
    (
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
        "priority max_connections max_pending_requests max_requests max_retries retry_budget",
    ),
    (
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget",
        "budget_percent min_retry_concurrency",
    ),
    (
        "envoy.config.cluster.v3.OutlierDetection",
        "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx \
         consecutive_gateway_failure enforcing_consecutive_gateway_failure",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config use_downstream_protocol_config common_http_protocol_options",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        "http_protocol_options http2_protocol_options",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
        "http_protocol_options http2_protocol_options",
    ),
    ("envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name endpoints"),
    (
        "envoy.config.endpoint.v3.LocalityLbEndpoints",
        "locality lb_endpoints load_balancing_weight priority",
    ),
    ("envoy.config.endpoint.v3.LbEndpoint", "endpoint health_status load_balancing_weight"),
    ("envoy.config.endpoint.v3.Endpoint", "address hostname"),
];

/// Walks the populated fields of `message` and refuses the first that is not implemented.
pub(super) fn check(
    pool: &DescriptorPool,
    message: &DynamicMessage,
    path: &str,
) -> Result<(), ConfigError> {
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        return check_any(pool, message, path);
    }
    if descriptor.parent_file().package_name() == "google.protobuf" {
        return Ok(());
    }
    let allowed = SUPPORTED
        .iter()
        .find(|(name, _)| *name == descriptor.full_name())
        .map(|(_, fields)| *fields);
    let Some(allowed) = allowed else { return Err(ConfigError::unsupported(path)) };
    for (field, value) in message.fields() {
        let here = if path.is_empty() {
            field.name().to_owned()
        } else {
            format!("{path}.{}", field.name())
        };
        if !allowed.split_whitespace().any(|name| name == field.name()) {
            return Err(ConfigError::unsupported(here));
        }
        check_value(pool, value, &here)?;
    }
    Ok(())
}

fn check_value(pool: &DescriptorPool, value: &Value, path: &str) -> Result<(), ConfigError> {
    match value {
        Value::Message(message) => check(pool, message, path),
        Value::List(list) => list
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| check_value(pool, value, &format!("{path}[{index}]"))),
        Value::Map(map) => map.iter().try_for_each(|(key, value)| {
            let key = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
            check_value(pool, value, &format!("{path}[{key}]"))
        }),
        _ => Ok(()),
    }
}

fn check_any(pool: &DescriptorPool, any: &DynamicMessage, path: &str) -> Result<(), ConfigError> {
    let url = any.get_field_by_name("type_url");
    let bytes = any.get_field_by_name("value");
    let (Some(url), Some(bytes)) =
        (url.as_deref().and_then(Value::as_str), bytes.as_deref().and_then(Value::as_bytes))
    else {
        return Ok(());
    };
    let name = url.rsplit('/').next().unwrap_or_default();
    let Some(descriptor) = pool.get_message_by_name(name) else {
        return Err(ConfigError::unsupported(format!("{path} ({name})")));
    };
    let inner = DynamicMessage::decode(descriptor, bytes.clone())
        .map_err(|error| ConfigError::invalid(path, error.to_string()))?;
    check(pool, &inner, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_existing_messages_and_fields() {
        let pool = DescriptorPool::decode(flotilla_proto::envoy::FILE_DESCRIPTOR_SET).unwrap();
        for (name, fields) in SUPPORTED {
            let message = pool.get_message_by_name(name).unwrap_or_else(|| panic!("{name}"));
            for field in fields.split_whitespace() {
                assert!(message.get_field_by_name(field).is_some(), "{name}.{field}");
            }
        }
    }
}
