//! HTTP connection managers of the API to those in use.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;

use super::cluster_config::{ads_only, http2_options};
use super::hcm::{Accepts, Hcm};
use crate::access_log::{AccessLog, LogFormat};
use crate::bootstrap::{ConfigError, data_source, duration, pb, unpack};
use crate::engine::route_compile::compile;
use crate::state::State;

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const FILE_LOG: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
const STDOUT_LOG: &str = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
const STDERR_LOG: &str = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog";

type Result<T> = std::result::Result<T, ConfigError>;

/// A connection manager, and the name of the route configuration it waits for, if any.
pub type Read = (Arc<Hcm>, Option<String>);

/// Reads the API's form.
///
/// # Errors
/// Names what is not implemented or cannot work.
pub fn read(state: &Arc<State>, config: &pb::hcm::HttpConnectionManager) -> Result<Read> {
    use pb::hcm::http_connection_manager::{CodecType, RouteSpecifier};
    let router = router(config)?;
    let (routes, waits_for) = match &config.route_specifier {
        Some(RouteSpecifier::RouteConfig(routes)) => {
            let table = compile(routes).map_err(|error| error.within("route_config"))?;
            check_clusters(state, routes)?;
            (Arc::new(arc_swap::ArcSwapOption::from_pointee(table)), None)
        }
        Some(RouteSpecifier::Rds(rds)) => {
            ads_only(rds.config_source.as_ref(), "rds.config_source")?;
            let name = rds.route_config_name.clone();
            (state.route_slot(&name), Some(name))
        }
        _ => {
            return Err(ConfigError::invalid(
                "http_connection_manager",
                "route_config or rds is needed",
            ));
        }
    };
    let optional = |value: &Option<prost_types::Duration>, path: &str| {
        value.as_ref().map(|v| duration(v, path)).transpose().map(|v| v.filter(|v| !v.is_zero()))
    };
    let common = config.common_http_protocol_options.as_ref();
    let http2 = config.http2_protocol_options.as_ref();
    let hcm = Hcm {
        state: state.clone(),
        stats: state.stats.http(&config.stat_prefix),
        routes,
        accepts: match CodecType::try_from(config.codec_type) {
            Ok(CodecType::Auto) => Accepts::Auto,
            Ok(CodecType::Http1) => Accepts::Http1,
            Ok(CodecType::Http2) => Accepts::Http2,
            _ => return Err(ConfigError::unsupported("codec_type HTTP3")),
        },
        server_name: value(
            if config.server_name.is_empty() { "envoy" } else { &config.server_name },
            "server_name",
        )?,
        server_transformation: config.server_header_transformation,
        access_logs: access_logs(state, &config.access_log)?,
        use_remote_address: config.use_remote_address.unwrap_or(false),
        xff_trusted_hops: config.xff_num_trusted_hops,
        generate_request_id: config.generate_request_id.unwrap_or(true),
        preserve_request_id: config.preserve_external_request_id,
        request_id_in_response: config.always_set_request_id_in_response,
        normalize_path: config.normalize_path.unwrap_or(false),
        merge_slashes: config.merge_slashes,
        strip_port: matches!(
            config.strip_port_mode,
            Some(pb::hcm::http_connection_manager::StripPortMode::StripAnyHostPort(true))
        ),
        suppress_envoy_headers: router.suppress_envoy_headers,
        via: (!config.via.is_empty()).then(|| value(&config.via, "via")).transpose()?,
        upgrades: config
            .upgrade_configs
            .iter()
            .map(|upgrade| {
                (upgrade.upgrade_type.to_ascii_lowercase(), upgrade.enabled.unwrap_or(true))
            })
            .collect(),
        stream_idle: match &config.stream_idle_timeout {
            None => Some(Duration::from_secs(300)),
            some => optional(some, "stream_idle_timeout")?,
        },
        connection_idle: common
            .map(|c| optional(&c.idle_timeout, "idle_timeout"))
            .transpose()?
            .flatten()
            .unwrap_or(Duration::from_secs(3600)),
        request_headers_timeout: optional(
            &config.request_headers_timeout,
            "request_headers_timeout",
        )?,
        max_headers_bytes: config.max_request_headers_kb.unwrap_or(60) as usize * 1024,
        max_headers: common.and_then(|c| c.max_headers_count).unwrap_or(100) as usize,
        accept_http_10: config.http_protocol_options.as_ref().is_some_and(|o| o.accept_http_10),
        max_streams: http2.and_then(|o| o.max_concurrent_streams).unwrap_or(1024),
        http2: http2_options(http2)?,
    };
    Ok((Arc::new(hcm), waits_for))
}

fn value(text: &str, path: &str) -> Result<HeaderValue> {
    text.parse().map_err(|_| ConfigError::invalid(path, "this is no header value"))
}

/// The router must be the last filter, and is the only one there is.
fn router(config: &pb::hcm::HttpConnectionManager) -> Result<RouterOptions> {
    let [filter] = config.http_filters.as_slice() else {
        let reason = "exactly one filter is needed, the terminal envoy.filters.http.router";
        return Err(ConfigError::invalid("http_filters", reason));
    };
    let Some(pb::hcm::http_filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(ConfigError::invalid("http_filters[0].typed_config", "it is missing"));
    };
    let router: RouterOptions = unpack(any, ROUTER, "http_filters[0].typed_config")?;
    Ok(router)
}

type RouterOptions = flotilla_proto::envoy::envoy::extensions::filters::http::router::v3::Router;

/// Static routes must name clusters that exist, unless `validate_clusters` is false.
fn check_clusters(state: &State, config: &pb::route::RouteConfiguration) -> Result<()> {
    use pb::route::route_action::ClusterSpecifier;
    if config.validate_clusters == Some(false) {
        return Ok(());
    }
    for route in config.virtual_hosts.iter().flat_map(|host| &host.routes) {
        let Some(pb::route::route::Action::Route(action)) = &route.action else { continue };
        let names: Vec<&str> = match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => vec![name],
            Some(ClusterSpecifier::WeightedClusters(list)) => {
                list.clusters.iter().map(|c| c.name.as_str()).collect()
            }
            _ => Vec::new(),
        };
        if let Some(missing) = names.iter().find(|name| state.clusters.get(name).is_none()) {
            return Err(ConfigError::invalid(
                "route_config",
                format!("unknown cluster '{missing}'"),
            ));
        }
    }
    Ok(())
}

/// The logs of a connection manager or TCP proxy.
///
/// # Errors
/// When the format is not implemented or the file cannot be opened.
pub fn access_logs(state: &State, list: &[pb::accesslog::AccessLog]) -> Result<Vec<AccessLog>> {
    list.iter()
        .map(|config| access_log(state, config).map_err(|e| e.within("access_log")))
        .collect()
}

fn access_log(state: &State, config: &pb::accesslog::AccessLog) -> Result<AccessLog> {
    use pb::file_log::file_access_log::AccessLogFormat as File;
    use pb::stream_log::{
        stderr_access_log::AccessLogFormat as Stderr, stdout_access_log::AccessLogFormat as Stdout,
    };
    let Some(pb::accesslog::access_log::ConfigType::TypedConfig(any)) = &config.config_type else {
        return Err(ConfigError::invalid("typed_config", "it is missing"));
    };
    let (path, format) = match any.type_url.rsplit('/').next().unwrap_or_default() {
        STDOUT_LOG => {
            let log: pb::stream_log::StdoutAccessLog = unpack(any, STDOUT_LOG, "typed_config")?;
            let format = log
                .access_log_format
                .map(|Stdout::LogFormat(format)| substitution(&format))
                .transpose()?;
            ("/dev/stdout".to_owned(), format)
        }
        STDERR_LOG => {
            let log: pb::stream_log::StderrAccessLog = unpack(any, STDERR_LOG, "typed_config")?;
            let format = log
                .access_log_format
                .map(|Stderr::LogFormat(format)| substitution(&format))
                .transpose()?;
            ("/dev/stderr".to_owned(), format)
        }
        _ => {
            let log: pb::file_log::FileAccessLog = unpack(any, FILE_LOG, "typed_config")?;
            let format = match &log.access_log_format {
                None => None,
                Some(File::Format(text)) => Some(LogFormat::text(text)?),
                Some(File::LogFormat(format)) => Some(substitution(format)?),
                Some(File::JsonFormat(fields)) => Some(json(fields, false)?),
                Some(_) => return Err(ConfigError::unsupported("typed_config.typed_json_format")),
            };
            (log.path, format)
        }
    };
    state.sinks.log(&path, format.unwrap_or_default()).map_err(|error| {
        ConfigError::invalid("typed_config.path", format!("cannot open {path}: {error}"))
    })
}

fn substitution(config: &pb::core::SubstitutionFormatString) -> Result<LogFormat> {
    use pb::core::substitution_format_string::Format;
    match &config.format {
        Some(Format::TextFormat(text)) => LogFormat::text(text),
        Some(Format::TextFormatSource(source)) => {
            LogFormat::text(&String::from_utf8_lossy(&data_source(source, "text_format_source")?))
        }
        Some(Format::JsonFormat(fields)) => json(fields, config.omit_empty_values),
        None => Ok(LogFormat::default()),
    }
}

fn json(fields: &prost_types::Struct, omit: bool) -> Result<LogFormat> {
    LogFormat::json(&fields.fields.iter().map(|(k, v)| (k.clone(), v.clone())).collect(), omit)
}
