//! Everything that touches sockets: listeners, HTTP connections, upstream pools, TLS, TCP proxying, DNS, health checks.

pub mod address;
pub mod body;
pub mod cluster;
pub mod cluster_config;
pub mod codec;
pub mod connect;
pub mod dns;
pub mod forward;
pub mod hcm;
pub mod hcm_config;
pub mod health;
pub mod host;
pub mod host_set;
pub mod listener;
pub mod listener_config;
pub mod local_reply;
pub mod pool;
pub mod request;
pub mod response;
pub mod serve;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod upgrade;
