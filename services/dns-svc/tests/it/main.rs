//! Black-box tests over real sockets.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cluster;
mod fake_api;
mod reload;
mod server;
mod transport;
mod wrappers;
mod zones;
