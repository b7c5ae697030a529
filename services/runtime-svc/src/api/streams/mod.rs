//! The streams behind Exec, Attach and PortForward.
//!
//! A CRI call leaves its parameters under a single-use token and answers a URL; the client then opens the URL and
//! upgrades the connection. WebSocket subprotocols v5 and v4 are spoken here.

mod server;
mod sessions;
mod websocket;

pub use server::StreamServer;
