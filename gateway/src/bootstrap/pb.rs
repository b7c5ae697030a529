//! Short names for the generated Envoy messages.

pub use flotilla_proto::envoy::envoy::config::accesslog::v3 as accesslog;
pub use flotilla_proto::envoy::envoy::config::bootstrap::v3 as bootstrap;
pub use flotilla_proto::envoy::envoy::config::cluster::v3 as cluster;
pub use flotilla_proto::envoy::envoy::config::core::v3 as core;
pub use flotilla_proto::envoy::envoy::config::endpoint::v3 as endpoint;
pub use flotilla_proto::envoy::envoy::config::listener::v3 as listener;
pub use flotilla_proto::envoy::envoy::config::route::v3 as route;
pub use flotilla_proto::envoy::envoy::extensions::access_loggers::{
    file::v3 as file_log, stream::v3 as stream_log,
};
pub use flotilla_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub use flotilla_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub use flotilla_proto::envoy::envoy::extensions::transport_sockets::tls::v3 as tls;
pub use flotilla_proto::envoy::envoy::extensions::upstreams::http::v3 as upstream_http;
pub use flotilla_proto::envoy::envoy::service::discovery::v3 as discovery;
pub use flotilla_proto::envoy::envoy::r#type::matcher::v3 as matcher;
pub use flotilla_proto::envoy::google::rpc;
