//! The server side every service shares: bind, accept, speak HTTP/1.1 and HTTP/2 on one port, drain.
//!
//! A service builds one [`axum::Router`] out of its HTTP pages and its gRPC services ([`Grpc`]), binds a
//! [`Listener`] and calls [`serve`]. When the [`Shutdown`] token fires, `serve` stops accepting, sends GOAWAY,
//! waits for streams to end up to the drain time and returns.
//!
//! The crate knows no service: routes, metrics and readiness are handed in.

mod admin;
mod grpc;
mod healthcheck;
mod listener;
mod serve;
mod shutdown;
mod tls;

pub use admin::{Admin, Readiness};
pub use grpc::{Grpc, HealthHandle};
pub use healthcheck::{HealthcheckError, http_healthcheck};
pub use listener::{BindError, Connection, Listener, PeerInfo};
pub use serve::{ServeOptions, serve};
pub use shutdown::{Shutdown, on_hangup};
pub use tls::{TlsError, TlsFiles, TlsServer};
