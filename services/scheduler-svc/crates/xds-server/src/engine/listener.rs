//! The listener for Ingress hosts.

use flotilla_proto::envoy::envoy::config::accesslog::v3 as accesslog;
use flotilla_proto::envoy::envoy::config::core::v3 as core;
use flotilla_proto::envoy::envoy::config::listener::v3::{self as listener, Listener};
use flotilla_proto::envoy::envoy::extensions::access_loggers::stream::v3::StdoutAccessLog;
use flotilla_proto::envoy::envoy::extensions::filters::http::router::v3::Router;
use flotilla_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    self as hcm, HttpConnectionManager, http_connection_manager as manager,
};

use super::endpoints::ads;
use super::ingress::ROUTES;
use super::snapshot::pack;
use crate::Config;

/// Name of the listener.
pub(super) const NAME: &str = "ingress";
const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const STDOUT_LOG: &str = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";

pub(super) fn build(config: &Config) -> Listener {
    let socket = core::SocketAddress {
        address: config.ingress_address.to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
            config.ingress_port.into(),
        )),
        ..core::SocketAddress::default()
    };
    let filter = listener::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(pack(HCM, &http()))),
    };
    Listener {
        name: NAME.to_owned(),
        address: Some(core::Address {
            address: Some(core::address::Address::SocketAddress(socket)),
        }),
        filter_chains: vec![listener::FilterChain {
            filters: vec![filter],
            ..listener::FilterChain::default()
        }],
        ..Listener::default()
    }
}

fn http() -> HttpConnectionManager {
    let upgrade =
        |kind: &str| manager::UpgradeConfig { upgrade_type: kind.to_owned(), ..Default::default() };
    HttpConnectionManager {
        stat_prefix: NAME.to_owned(),
        use_remote_address: Some(true),
        normalize_path: Some(true),
        route_specifier: Some(manager::RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(ads()),
            route_config_name: ROUTES.to_owned(),
        })),
        upgrade_configs: vec![upgrade("websocket")],
        access_log: vec![accesslog::AccessLog {
            name: "envoy.access_loggers.stdout".to_owned(),
            config_type: Some(accesslog::access_log::ConfigType::TypedConfig(pack(
                STDOUT_LOG,
                &StdoutAccessLog::default(),
            ))),
            ..accesslog::AccessLog::default()
        }],
        http_filters: vec![hcm::HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack(
                ROUTER,
                &Router::default(),
            ))),
            ..hcm::HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    }
}
