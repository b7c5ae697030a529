//! Black-box tests over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod cluster;
mod fake_api;
mod reload;
mod server;
mod transport;
mod wrappers;
mod zones;
